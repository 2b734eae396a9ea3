//! Outputs that are set on a separate thread: a GPIO expander behind a stuck bus must stop nothing else.

use std::time::Duration;

use tokio::sync::watch;

use super::pin::DigitalOutput;
use super::traits::Led;

/// An output whose changes happen on threads that may block, one after the other.
struct PatientOutput(Option<DigitalOutput>);

impl PatientOutput {
    async fn set(&mut self, on: bool) {
        // only a panic on the thread could lose the output
        let Some(mut output) = self.0.take() else { return };
        let set = tokio::task::spawn_blocking(move || {
            output.set(on);
            output
        });
        self.0 = set.await.ok();
    }

    /// Drops the output, which switches it off.
    async fn end(self) {
        let _panicked = tokio::task::spawn_blocking(move || drop(self.0)).await;
    }
}

/// Switches the output as the sender says, until the sender is dropped. Then the output is switched off.
pub(super) async fn drive_switch(output: DigitalOutput, mut state: watch::Receiver<bool>) {
    let mut output = PatientOutput(Some(output));
    while state.changed().await.is_ok() {
        let on = *state.borrow_and_update();
        output.set(on).await;
    }
    output.end().await;
}

/// Shows the LED's pattern until the board is dropped, which switches the LED off.
pub(super) async fn drive_led(led: DigitalOutput, mut pattern: watch::Receiver<Led>) {
    let mut led = PatientOutput(Some(led));
    loop {
        let current = *pattern.borrow_and_update();
        let changed = match current {
            Led::Off => {
                led.set(false).await;
                pattern.changed().await
            }
            Led::On => {
                led.set(true).await;
                pattern.changed().await
            }
            Led::Blink { on, off } => repeat(&mut led, &mut pattern, 1, on, off, off).await,
            Led::Flashes { count, on, off, pause } => {
                repeat(&mut led, &mut pattern, count, on, off, pause).await
            }
        };
        if changed.is_err() {
            return led.end().await;
        }
    }
}

/// Repeats this number of flashes, with a pause after the last one, until the pattern changes.
async fn repeat(
    led: &mut PatientOutput,
    pattern: &mut watch::Receiver<Led>,
    count: u8,
    on: Duration,
    off: Duration,
    pause: Duration,
) -> Result<(), watch::error::RecvError> {
    // shorter flashes are invisible, and a pattern of zero duration must not spin
    const SHORTEST: Duration = Duration::from_millis(10);
    for flash in (1..=count.max(1)).cycle() {
        let dark = if flash < count { off } else { pause };
        for (lit, duration) in [(true, on), (false, dark)] {
            led.set(lit).await;
            if let Ok(changed) = tokio::time::timeout(duration.max(SHORTEST), pattern.changed()).await {
                return changed;
            }
        }
    }
    Ok(())
}
