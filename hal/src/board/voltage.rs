//! The supply voltage of a board, read from a file.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::config::VoltageConfig;
use super::pin::read_number;

/// How often the voltage is read. Reading may be slow, so a separate thread reads it. The voltage only
/// decides when to sleep, after a minute by default, so that a second is exact enough.
const VOLTAGE_INTERVAL: Duration = Duration::from_secs(1);

/// The supply voltage, read periodically.
pub(super) struct Voltage {
    config: VoltageConfig,
    interval: Interval,
    reading: Option<JoinHandle<io::Result<f64>>>,
    last: Option<f32>,
    broken: bool,
}

impl Voltage {
    /// Reads the voltage for the first time.
    pub(super) fn new(config: VoltageConfig) -> Self {
        let mut interval = tokio::time::interval(VOLTAGE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = read_number(&config.file);
        let mut voltage = Self { config, interval, reading: None, last: None, broken: false };
        voltage.handle_reading(first);
        voltage
    }

    /// The last reading, in volts; `None` if it failed.
    pub(super) fn last(&self) -> Option<f32> {
        self.last
    }

    /// Reads the voltage again if a reading is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = reading.poll_unpin(cx) else { return };
                self.reading = None;
                self.handle_reading(read.unwrap_or_else(|error| Err(error.into())));
            }
            if self.interval.poll_tick(cx).is_pending() {
                return;
            }
            let file = self.config.file.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || read_number(&file)));
        }
    }

    fn handle_reading(&mut self, reading: io::Result<f64>) {
        match reading {
            Ok(number) => {
                self.broken = false;
                let volts = (number + self.config.offset.get()) * self.config.scale.get();
                self.last = Some(volts as f32);
            }
            Err(error) => {
                self.last = None;
                if !std::mem::replace(&mut self.broken, true) {
                    let file = self.config.file.display();
                    tracing::warn!(%file, %error, "the supply voltage cannot be read");
                }
            }
        }
    }
}
