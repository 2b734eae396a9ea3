//! When the connector stops TesterPresent by itself: a pure policy.
//!
//! TesterPresent keeps ECUs awake, and in sessions such as programming. It must not continue for hours because an
//! operator forgot a connection.

use std::time::Instant;

use crate::relay::channel::KeepAliveStop;
use crate::relay::limits::KeepAliveLimits;

/// TesterPresent that was stopped by a low voltage begins again at this much above the limit, in volts. A battery
/// recovers a little when its load is gone, which must not start TesterPresent; a charger or an engine must.
const HYSTERESIS: f64 = 0.5;

/// Decides by ignition, supply voltage and the operator's requests.
#[derive(Debug)]
pub(super) struct KeepAlivePolicy {
    limits: KeepAliveLimits,
    ignition: Option<bool>,
    off_since: Option<Instant>,
    low_since: Option<Instant>,
    /// When the operator last sent a PDU or a frame.
    last_request: Instant,
    stopped: Option<KeepAliveStop>,
}

impl KeepAlivePolicy {
    /// TesterPresent is allowed; the connection is opened now.
    pub(super) fn new(limits: KeepAliveLimits, now: Instant) -> Self {
        Self { limits, ignition: None, off_since: None, low_since: None, last_request: now, stopped: None }
    }

    /// The ignition was switched, or can no longer be read.
    pub(super) fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        self.ignition = ignition;
        self.off_since = (ignition == Some(false)).then(|| self.off_since.unwrap_or(now));
    }

    /// The supply voltage, in volts; `None` if it cannot be measured. It counts only while the ignition is unknown: with
    /// the ignition on, an ECU may be being programmed, and the mechanic sees the vehicle.
    pub(super) fn handle_voltage(&mut self, now: Instant, volts: Option<f32>) {
        if self.ignition.is_some() {
            self.low_since = None;
            return;
        }
        let limit = self.limits.above.get();
        let was_long = self.low_since.is_some_and(|since| since + self.limits.after_low_voltage <= now);
        match volts.map(f64::from) {
            Some(volts) if volts < limit => self.low_since = self.low_since.or(Some(now)),
            Some(volts) if was_long && volts < limit + HYSTERESIS => {}
            _ => self.low_since = None,
        }
    }

    /// The operator has sent a PDU or a frame.
    pub(super) fn handle_request(&mut self, now: Instant) {
        self.last_request = now;
    }

    /// Why TesterPresent is stopped, if it is.
    pub(super) fn stopped(&self) -> Option<KeepAliveStop> {
        self.stopped
    }

    /// Whether TesterPresent has been stopped or allowed since the last call. Nothing stops it until
    /// `transfer_until`, while an ECU may be in the middle of a download.
    pub(super) fn poll_change(&mut self, now: Instant, transfer_until: Option<Instant>) -> bool {
        let (at, stop) = self.stop_at(transfer_until);
        let stop = (at <= now).then_some(stop);
        let has_changed = stop.is_some() != self.stopped.is_some();
        if has_changed {
            self.stopped = stop;
        }
        has_changed
    }

    /// When to call [`KeepAlivePolicy::poll_change`] if nothing happens until then.
    pub(super) fn poll_timeout(&self, transfer_until: Option<Instant>) -> Option<Instant> {
        self.stopped.is_none().then(|| self.stop_at(transfer_until).0)
    }

    /// When and why TesterPresent stops.
    fn stop_at(&self, transfer_until: Option<Instant>) -> (Instant, KeepAliveStop) {
        let limits = &self.limits;
        let off = self.off_since.map(|since| (since + limits.after_ignition_off, KeepAliveStop::IgnitionOff));
        let low = self.low_since.filter(|_| self.ignition.is_none());
        let low = low.map(|since| (since + limits.after_low_voltage, KeepAliveStop::LowVoltage));
        let idle = (self.last_request + limits.after_last_request, KeepAliveStop::OperatorIdle);
        let (at, stop) = [off, low]
            .into_iter()
            .flatten()
            .fold(idle, |first, other| if other.0 < first.0 { other } else { first });
        (transfer_until.map_or(at, |until| at.max(until)), stop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> (KeepAlivePolicy, Instant) {
        let now = Instant::now();
        (KeepAlivePolicy::new(KeepAliveLimits::default(), now), now)
    }

    #[test]
    fn tester_present_stops_for_the_first_reason_and_begins_again_without_one() {
        let (mut policy, start) = policy();
        assert_eq!(policy.poll_timeout(None), Some(start + 600 * SECOND));
        policy.handle_ignition(start + 100 * SECOND, Some(false));
        policy.handle_ignition(start + 200 * SECOND, Some(false));
        assert_eq!(policy.poll_timeout(None), Some(start + 400 * SECOND));
        assert!(!policy.poll_change(start + 399 * SECOND, None));
        assert!(policy.poll_change(start + 400 * SECOND, None));
        assert_eq!(policy.stopped(), Some(KeepAliveStop::IgnitionOff));
        assert_eq!(policy.poll_timeout(None), None);
        policy.handle_ignition(start + 700 * SECOND, Some(true));
        assert!(!policy.poll_change(start + 700 * SECOND, None), "the operator is idle");
        policy.handle_request(start + 800 * SECOND);
        assert!(policy.poll_change(start + 800 * SECOND, None));
        assert_eq!(policy.stopped(), None);
    }

    #[test]
    fn the_voltage_counts_only_while_the_ignition_is_unknown() {
        let (mut policy, start) = policy();
        policy.handle_voltage(start, Some(12.1));
        policy.handle_ignition(start, Some(true));
        policy.handle_voltage(start + 30 * SECOND, Some(12.1));
        assert!(!policy.poll_change(start + 60 * SECOND, None));
        policy.handle_ignition(start + 60 * SECOND, None);
        assert!(
            !policy.poll_change(start + 60 * SECOND, None),
            "the time with the ignition on does not count"
        );
        policy.handle_voltage(start + 60 * SECOND, Some(12.1));
        assert!(policy.poll_change(start + 120 * SECOND, None));
        assert_eq!(policy.stopped(), Some(KeepAliveStop::LowVoltage));
        policy.handle_voltage(start + 121 * SECOND, Some(12.6));
        assert!(!policy.poll_change(start + 121 * SECOND, None), "the battery recovers without its load");
        policy.handle_voltage(start + 122 * SECOND, Some(12.8));
        assert!(policy.poll_change(start + 122 * SECOND, None));
    }

    #[test]
    fn a_voltage_that_is_low_for_a_short_time_or_unknown_stops_nothing() {
        let (mut policy, start) = policy();
        for (at, volts) in [(0, Some(9.0)), (59, Some(12.3)), (60, Some(12.1)), (119, None)] {
            policy.handle_voltage(start + at * SECOND, volts);
            assert!(!policy.poll_change(start + at * SECOND, None));
        }
        assert!(!policy.poll_change(start + 500 * SECOND, None));
    }

    #[test]
    fn nothing_stops_tester_present_in_the_middle_of_a_download() {
        let (mut policy, start) = policy();
        policy.handle_ignition(start, Some(false));
        let until = Some(start + 700 * SECOND);
        assert_eq!(policy.poll_timeout(until), until);
        assert!(!policy.poll_change(start + 699 * SECOND, until));
        assert!(policy.poll_change(start + 700 * SECOND, until));
    }
}
