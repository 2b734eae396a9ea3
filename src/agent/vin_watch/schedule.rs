//! When to read the VIN: if something happens on the vehicle's buses and networks, and again after a reading
//! without a VIN. A pure state machine.

use std::time::{Duration, Instant};

use super::super::return_pauses::ReturnPauses;
use super::super::vehicle::Doubt;
use super::retry::VinRetry;
use crate::vehicle::wake_watch::WakeReason;

/// The least time between two readings that something on the bus caused. A reading on CAN takes up to 1.5 s,
/// so that an adapter that comes and goes keeps the buses busy for less than a third of the time.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// With the ignition off, ECUs are awake for a reason other than the connector if frames were heard for this long. A
/// single message, such as that of a door contact, ends earlier.
const AWAKE_AFTER: Duration = Duration::from_secs(3);
/// A longer silence ends the time for which frames were heard. ECUs that are awake send several times a second.
const SILENCE: Duration = Duration::from_secs(1);

/// How the agent started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WatchStart {
    /// It was started, or it was woken by ignition, voltage or button.
    Ordinary,
    /// Frames of a bus woke it while it spared the battery.
    WokenByBus,
}

impl WatchStart {
    /// Whether the VIN is read immediately.
    pub(crate) fn reads_immediately(self, ignition: Option<bool>) -> bool {
        ignition.unwrap_or(self == Self::Ordinary)
    }
}

/// The time for which frames were heard.
#[derive(Debug, Clone, Copy)]
struct Heard {
    since: Instant,
    last: Instant,
}

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
    ignition: Option<bool>,
    heard: Option<Heard>,
    only_listens: bool,
    /// Frames on a bus are no reason to read, because they have woken the agent.
    ignores_buses: bool,
    /// Nothing was read yet, and the first reading waits until the vehicle is awake.
    is_first_due: bool,
    last_reading: Option<Instant>,
    /// The reason to read the VIN again.
    wanted: Option<WakeReason>,
    /// The readings that a returning device caused.
    returns: ReturnPauses,
    /// The vehicle may have changed since the last reading.
    doubt: Option<Doubt>,
}

impl ReadingSchedule {
    /// The first reading is due, unless a bus has woken the agent.
    pub(super) fn new(ignition: Option<bool>, start: WatchStart) -> Self {
        let reads = start.reads_immediately(ignition);
        Self {
            retry: VinRetry::new(ignition),
            ignition,
            heard: None,
            only_listens: false,
            ignores_buses: start == WatchStart::WokenByBus && !reads,
            is_first_due: start == WatchStart::Ordinary || reads,
            last_reading: None,
            wanted: None,
            returns: ReturnPauses::default(),
            doubt: None,
        }
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
        self.ignition = ignition;
        if ignition == Some(true) && std::mem::take(&mut self.ignores_buses) {
            self.is_first_due = true;
        }
    }

    /// A frame from the vehicle was received.
    pub(super) fn handle_frame(&mut self, at: Instant) {
        self.retry.handle_frame(at);
        let since = self.heard.filter(|heard| at <= heard.last + SILENCE).map_or(at, |heard| heard.since);
        self.heard = Some(Heard { since, last: at });
    }

    /// The vehicle may have changed.
    pub(super) fn handle_wake(&mut self, reason: WakeReason) {
        self.doubt = self.doubt.max(Doubt::of(reason));
        let is_bus = reason == WakeReason::Bus;
        // the frames that a returning device brings do not shorten its pause
        if !(is_bus && (self.ignores_buses || self.wanted == Some(WakeReason::Device))) {
            self.wanted = Some(reason);
        }
    }

    /// The watch begins to listen. An earlier reason does not count any more.
    pub(super) fn handle_watch(&mut self) {
        self.wanted = None;
    }

    /// The agent wants a reading.
    pub(super) fn handle_request(&mut self) {
        self.retry.handle_reason();
        self.ignores_buses = false;
        self.is_first_due = false;
    }

    /// Whether the vehicle may have changed before the reading that ends now.
    pub(super) fn take_doubt(&mut self) -> Option<Doubt> {
        self.doubt.take()
    }

    /// A reading has ended. `is_known` is whether it gave a VIN.
    pub(super) fn handle_reading(&mut self, now: Instant, is_known: bool) {
        self.last_reading = Some(now);
        self.is_first_due = false;
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
        let (may_ask, is_time) = (self.may_ask(now), self.earliest(now) <= now);
        match self.wanted {
            Some(reason) if may_ask && is_time => {
                tracing::info!(?reason, "the vehicle may have changed; reading the VIN again");
                // a loose adapter does not start the attempts again each time
                if reason != WakeReason::Device || self.returns.handle_reading(now) {
                    self.retry.handle_reason();
                }
                Some(WatchStep::Read)
            }
            _ if self.is_first_due && may_ask => {
                self.is_first_due = false;
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
        // with the ignition off, a reading waits for a frame or for the ignition, not for a time
        let wanted = self.wanted.filter(|_| self.may_ask(now)).map(|_| self.earliest(now));
        wanted.into_iter().chain(self.retry.poll_timeout(now)).min()
    }

    /// Whether questions may be sent on a bus: they would wake the ECUs of a parked vehicle.
    fn may_ask(&self, now: Instant) -> bool {
        let is_awake = |heard: Heard| heard.last - heard.since >= AWAKE_AFTER && now <= heard.last + SILENCE;
        self.ignition != Some(false) || self.heard.is_some_and(is_awake)
    }

    /// The earliest time of a reading that something on the bus causes: an adapter that comes and goes, or a
    /// noisy line, must not cause one reading after the other.
    fn earliest(&self, now: Instant) -> Instant {
        let after_return = (self.wanted == Some(WakeReason::Device)).then(|| self.returns.earliest(now));
        let after_reading = self.last_reading.map_or(now, |last| last + LEAST_PAUSE);
        after_return.map_or(after_reading, |at| at.max(after_reading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn two_reasons_in_quick_succession_cause_readings_five_seconds_apart() {
        let start = Instant::now();
        let mut schedule = ReadingSchedule::new(Some(true), WatchStart::Ordinary);
        schedule.handle_reading(start, true);
        schedule.handle_watch();
        schedule.handle_wake(WakeReason::Device);
        assert_eq!(schedule.poll_step(start + SECOND), None);
        assert_eq!(schedule.poll_timeout(start + SECOND), Some(start + LEAST_PAUSE));
        assert_eq!(schedule.poll_step(start + LEAST_PAUSE), Some(WatchStep::Read));
    }

    #[test]
    fn readings_that_a_loose_adapter_causes_become_rare() {
        let start = Instant::now();
        let mut schedule = ReadingSchedule::new(Some(true), WatchStart::Ordinary);
        schedule.handle_reading(start, true);
        let (mut readings, mut now) = (Vec::new(), start);
        while now < start + 400 * SECOND {
            schedule.handle_wake(WakeReason::Device);
            schedule.handle_wake(WakeReason::Bus);
            if schedule.poll_step(now) == Some(WatchStep::Read) {
                readings.push((now - start).as_secs());
                schedule.handle_reading(now, true);
                schedule.handle_watch();
            }
            now += SECOND;
        }
        assert_eq!(readings, [5, 10, 20, 40, 80, 160, 320]);
        assert_eq!(schedule.take_doubt(), Some(Doubt::Likely));
        assert_eq!(schedule.take_doubt(), None);
        schedule.handle_reading(now, false);
        assert_eq!(schedule.retry.poll_timeout(now), Some(now + 5 * SECOND));
        schedule.handle_wake(WakeReason::Device);
        let mut tries = 0;
        for second in 1..1000 {
            let later = now + second * SECOND;
            if schedule.poll_step(later) == Some(WatchStep::Read) {
                tries += 1;
                schedule.handle_reading(later, false);
                schedule.handle_watch();
                schedule.handle_wake(WakeReason::Device);
            }
        }
        assert!(tries <= 16, "{tries}");
    }

    #[test]
    fn a_watch_that_only_listens_reports_each_reason_once_and_reads_nothing() {
        let start = Instant::now();
        let mut schedule = ReadingSchedule::new(Some(true), WatchStart::Ordinary);
        schedule.handle_reading(start, false);
        schedule.handle_listen();
        schedule.handle_wake(WakeReason::Bus);
        assert_eq!(schedule.poll_step(start), Some(WatchStep::ReportActivity));
        assert_eq!(schedule.poll_step(start + 3600 * SECOND), None);
        assert_eq!(schedule.poll_timeout(start), None);
    }

    #[test]
    fn a_schedule_woken_by_a_bus_waits_for_the_ignition_and_ignores_the_bus() {
        let start = Instant::now();
        for ignition in [None, Some(false)] {
            let mut schedule = ReadingSchedule::new(ignition, WatchStart::WokenByBus);
            for tenth in 0..100 {
                schedule.handle_frame(start + tenth * SECOND / 10);
                schedule.handle_wake(WakeReason::Bus);
                assert_eq!(schedule.poll_step(start + tenth * SECOND / 10), None);
            }
            schedule.handle_ignition(Some(true));
            assert_eq!(schedule.poll_step(start + 10 * SECOND), Some(WatchStep::Read));
        }
        let schedule = ReadingSchedule::new(Some(true), WatchStart::WokenByBus);
        assert!(!schedule.ignores_buses, "the ignition is on");
    }

    #[test]
    fn with_the_ignition_off_frames_must_be_heard_for_three_seconds_without_a_pause() {
        let start = Instant::now();
        let mut schedule = ReadingSchedule::new(Some(false), WatchStart::Ordinary);
        for second in [0, 1, 2, 4, 5, 6] {
            schedule.handle_frame(start + second * SECOND);
            assert_eq!(schedule.poll_step(start + second * SECOND), None);
            assert_eq!(schedule.poll_timeout(start + second * SECOND), None);
        }
        schedule.handle_frame(start + 7 * SECOND);
        assert_eq!(schedule.poll_step(start + 9 * SECOND), None, "the bus is silent again");
        assert_eq!(schedule.poll_step(start + 8 * SECOND), Some(WatchStep::Read));
        assert_eq!(schedule.poll_step(start + 8 * SECOND), None);
    }
}
