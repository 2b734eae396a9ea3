//! When to read the VIN: if something happens on the vehicle's buses and networks, and again after a reading
//! without a VIN. A pure state machine.

use std::time::{Duration, Instant};

use super::retry::VinRetry;
use crate::vehicle::wake_watch::WakeReason;

/// The least time between two readings that something on the bus caused. A reading on CAN takes up to 1.5 s,
/// so that an adapter that comes and goes keeps the buses busy for less than a third of the time.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

/// What the watch does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WatchStep {
    /// Read the VIN.
    Read,
    /// Report that the vehicle is active.
    ReportActivity,
}

/// Decides when to read the VIN.
#[derive(Debug)]
pub(super) struct ReadingSchedule {
    retry: VinRetry,
    only_listens: bool,
    last_reading: Option<Instant>,
    /// The reason to read the VIN again.
    wanted: Option<WakeReason>,
}

impl ReadingSchedule {
    /// Nothing is due before the first reading.
    pub(super) fn new(ignition: Option<bool>) -> Self {
        Self { retry: VinRetry::new(ignition), only_listens: false, last_reading: None, wanted: None }
    }

    /// Whether the watch never reads by itself, and only reports activity.
    pub(super) fn only_listens(&self) -> bool {
        self.only_listens
    }

    /// From now on, the watch only reports activity.
    pub(super) fn handle_listen(&mut self) {
        self.only_listens = true;
    }

    /// The ignition has changed; `None` if its state is unknown.
    pub(super) fn handle_ignition(&mut self, ignition: Option<bool>) {
        self.retry.handle_ignition(ignition);
    }

    /// A frame from the vehicle was received.
    pub(super) fn handle_frame(&mut self, at: Instant) {
        self.retry.handle_frame(at);
    }

    /// The vehicle may have changed.
    pub(super) fn handle_wake(&mut self, reason: WakeReason) {
        self.wanted = Some(reason);
    }

    /// The watch begins to listen. An earlier reason does not count any more.
    pub(super) fn handle_watch(&mut self) {
        self.wanted = None;
    }

    /// The agent wants a reading.
    pub(super) fn handle_request(&mut self) {
        self.retry.handle_reason();
    }

    /// A reading has ended. `is_known` is whether it gave a VIN.
    pub(super) fn handle_reading(&mut self, now: Instant, is_known: bool) {
        self.last_reading = Some(now);
        self.handle_known(now, is_known);
    }

    /// A connection has returned the devices. `is_known` is whether the VIN is known.
    pub(super) fn handle_known(&mut self, now: Instant, is_known: bool) {
        self.retry.handle_known(now, is_known);
    }

    /// The next step, returned once.
    pub(super) fn poll_step(&mut self, now: Instant) -> Option<WatchStep> {
        if self.only_listens {
            return self.wanted.take().map(|_| WatchStep::ReportActivity);
        }
        match self.wanted {
            Some(reason) if self.earliest(now) <= now => {
                tracing::info!(?reason, "the vehicle may have changed; reading the VIN again");
                self.retry.handle_reason();
                Some(WatchStep::Read)
            }
            None if self.retry.poll_retry(now) => {
                tracing::debug!("the last reading gave no VIN; reading again");
                Some(WatchStep::Read)
            }
            _ => None,
        }
    }

    /// When to call [`ReadingSchedule::poll_step`] again if nothing happens until then.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if self.only_listens {
            return None;
        }
        let wanted = self.wanted.map(|_| self.earliest(now));
        wanted.into_iter().chain(self.retry.poll_timeout(now)).min()
    }

    /// The earliest time of a reading that something on the bus causes: an adapter that comes and goes, or a
    /// noisy line, must not cause one reading after the other.
    fn earliest(&self, now: Instant) -> Instant {
        self.last_reading.map_or(now, |last| last + LEAST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_reasons_in_quick_succession_cause_readings_five_seconds_apart() {
        let start = Instant::now();
        let mut schedule = ReadingSchedule::new(Some(true));
        schedule.handle_reading(start, true);
        schedule.handle_watch();
        schedule.handle_wake(WakeReason::Device);
        assert_eq!(schedule.poll_step(start + SECOND), None);
        assert_eq!(schedule.poll_timeout(start + SECOND), Some(start + LEAST_PAUSE));
        assert_eq!(schedule.poll_step(start + LEAST_PAUSE), Some(WatchStep::Read));
    }

    #[test]
    fn a_watch_that_only_listens_reports_each_reason_once_and_reads_nothing() {
        let start = Instant::now();
        let mut schedule = ReadingSchedule::new(Some(true));
        schedule.handle_reading(start, false);
        schedule.handle_listen();
        schedule.handle_wake(WakeReason::Bus);
        assert_eq!(schedule.poll_step(start), Some(WatchStep::ReportActivity));
        assert_eq!(schedule.poll_step(start + 3600 * SECOND), None);
        assert_eq!(schedule.poll_timeout(start), None);
    }
}
