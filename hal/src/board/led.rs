//! The LED's patterns.

use std::time::Duration;

use tokio::sync::watch;

use super::pin::DigitalOutput;
use super::traits::Led;

/// Shows the LED's pattern until the board is dropped, which switches the LED off.
pub(super) async fn drive_led(mut led: DigitalOutput, mut pattern: watch::Receiver<Led>) {
    loop {
        let current = *pattern.borrow_and_update();
        let changed = match current {
            Led::Off => {
                led.set(false);
                pattern.changed().await
            }
            Led::On => {
                led.set(true);
                pattern.changed().await
            }
            Led::Blink { on, off } => blink(&mut led, &mut pattern, on, off).await,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn blink(
    led: &mut DigitalOutput,
    pattern: &mut watch::Receiver<Led>,
    on: Duration,
    off: Duration,
) -> Result<(), watch::error::RecvError> {
    // shorter flashes are invisible, and a pattern of zero duration must not spin
    const SHORTEST: Duration = Duration::from_millis(10);
    for (lit, duration) in [(true, on), (false, off)].into_iter().cycle() {
        led.set(lit);
        if let Ok(changed) = tokio::time::timeout(duration.max(SHORTEST), pattern.changed()).await {
            return changed;
        }
    }
    Ok(())
}
