//! When to report the connector's state (relay protocol, 1.4).

use std::time::{Duration, Instant};

/// The time between two reports, unless the cloud asks for another one.
const INTERVAL: Duration = Duration::from_secs(60);
/// The longest time between two reports while a connection is open.
const BUSY_INTERVAL: Duration = Duration::from_secs(5);
/// The time between two looks at the voltage, and between two reports of a changed voltage.
const VOLTAGE_INTERVAL: Duration = Duration::from_secs(5);
/// The change of the voltage that is reported, in volts. A little less than 0.2 V, which `f32` does not have exactly.
const VOLTAGE_CHANGE: f32 = 0.199;

/// Decides when `connectorStatusUpdate` is due, apart from the changes that are reported when they happen.
#[derive(Debug)]
pub(super) struct Reporting {
    /// The interval for which the cloud asked on this link.
    asked: Option<Duration>,
    is_busy: bool,
    /// The time of the last report, and the voltage in it.
    reported_at: Instant,
    voltage: Option<f32>,
    /// When to look at the voltage again.
    look_at: Instant,
    /// The last report could not be sent.
    is_owed: bool,
}

impl Reporting {
    /// The first report is due now.
    pub(super) fn new(now: Instant) -> Self {
        Self { asked: None, is_busy: false, reported_at: now, voltage: None, look_at: now, is_owed: true }
    }

    /// There is a new link: what the cloud asked for on the old one no longer counts.
    pub(super) fn handle_link(&mut self) {
        self.asked = None;
    }

    /// The cloud asks for this interval.
    pub(super) fn handle_interval(&mut self, interval: Duration) {
        self.asked = Some(interval);
    }

    /// A connection is open or held, or no longer.
    pub(super) fn set_busy(&mut self, is_busy: bool) {
        self.is_busy = is_busy;
    }

    /// A report with this voltage was sent.
    pub(super) fn handle_report(&mut self, now: Instant, voltage: Option<f32>) {
        self.is_owed = false;
        self.reported_at = now;
        self.voltage = voltage;
        self.look_at = now + VOLTAGE_INTERVAL;
    }

    /// A report could not be sent. The next attempt is made when the voltage is looked at.
    pub(super) fn handle_unsent(&mut self, now: Instant) {
        self.is_owed = true;
        self.look_at = now + VOLTAGE_INTERVAL;
    }

    /// Whether a report is due, with this voltage.
    pub(super) fn poll_report(&mut self, now: Instant, voltage: Option<f32>) -> bool {
        let mut is_due = now >= self.reported_at + self.interval() && now >= self.owed_at();
        if now >= self.look_at {
            self.look_at = now + VOLTAGE_INTERVAL;
            is_due |= self.is_owed || self.has_changed(voltage);
        }
        is_due
    }

    /// When to call [`Reporting::poll_report`] again.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.look_at.min((self.reported_at + self.interval()).max(self.owed_at()))
    }

    /// When an unsent report may be tried again.
    fn owed_at(&self) -> Instant {
        if self.is_owed { self.look_at } else { self.reported_at }
    }

    fn interval(&self) -> Duration {
        let interval = self.asked.unwrap_or(INTERVAL);
        if self.is_busy { interval.min(BUSY_INTERVAL) } else { interval }
    }

    /// Whether the voltage differs enough from the reported one, or became known or unknown.
    fn has_changed(&self, voltage: Option<f32>) -> bool {
        match (self.voltage, voltage) {
            (Some(before), Some(now)) => (before - now).abs() >= VOLTAGE_CHANGE,
            (before, now) => before.is_some() != now.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports in virtual time.
    struct Rig {
        reporting: Reporting,
        now: Instant,
        start: Instant,
        volts: Option<f32>,
    }

    impl Rig {
        fn new() -> Self {
            let start = Instant::now();
            let mut rig = Self { reporting: Reporting::new(start), now: start, start, volts: Some(12.6) };
            assert_eq!(rig.reports(0), [0]);
            rig
        }

        /// The times of the reports up to this second, in seconds.
        fn reports(&mut self, until: u64) -> Vec<u64> {
            let end = self.start + Duration::from_secs(until);
            let mut found = Vec::new();
            loop {
                if self.reporting.poll_report(self.now, self.volts) {
                    self.reporting.handle_report(self.now, self.volts);
                    found.push((self.now - self.start).as_secs());
                }
                let next = self.reporting.poll_timeout();
                assert!(next > self.now, "no progress");
                if next > end {
                    self.now = end;
                    return found;
                }
                self.now = next;
            }
        }
    }

    #[test]
    fn an_idle_connector_reports_every_sixty_seconds() {
        assert_eq!(Rig::new().reports(240), [60, 120, 180, 240]);
    }

    #[test]
    fn while_a_connection_is_open_a_report_is_due_every_five_seconds() {
        let mut rig = Rig::new();
        rig.reports(57);
        rig.reporting.set_busy(true);
        assert_eq!(rig.reports(70), [57, 62, 67]);
        rig.reporting.set_busy(false);
        assert_eq!(rig.reports(190), [127, 187]);
    }

    #[test]
    fn the_interval_that_the_cloud_asks_for_counts_for_its_link() {
        let mut rig = Rig::new();
        rig.reporting.handle_interval(Duration::from_secs(1));
        assert_eq!(rig.reports(3), [1, 2, 3]);
        rig.reporting.handle_interval(Duration::from_secs(3600));
        assert_eq!(rig.reports(3000), [0; 0]);
        rig.reporting.set_busy(true);
        assert_eq!(rig.reports(3006), [3000, 3005]);
        rig.reporting.set_busy(false);
        rig.reporting.handle_link();
        assert_eq!(rig.reports(3130), [3065, 3125]);
    }

    #[test]
    fn a_voltage_that_changes_is_reported_at_most_every_five_seconds() {
        let mut rig = Rig::new();
        rig.reports(20);
        rig.volts = Some(12.5);
        assert_eq!(rig.reports(30), [0; 0], "0.1 V");
        rig.volts = Some(12.4);
        assert_eq!(rig.reports(40), [35], "0.2 V");
        let mut falling = Vec::new();
        for second in 41..=60 {
            rig.volts = rig.volts.map(|volts| volts - 0.3);
            falling.extend(rig.reports(second));
        }
        assert_eq!(falling, [45, 50, 55, 60]);
        rig.volts = None;
        assert_eq!(rig.reports(70), [65], "a voltage that can no longer be measured");
        rig.volts = Some(3.2);
        assert_eq!(rig.reports(80), [75]);
    }

    #[test]
    fn a_report_that_could_not_be_sent_is_tried_again_every_five_seconds() {
        let mut rig = Rig::new();
        rig.reports(10);
        rig.reporting.handle_unsent(rig.now);
        let mut tries = Vec::new();
        for _ in 0..3 {
            rig.now = rig.reporting.poll_timeout();
            assert!(rig.reporting.poll_report(rig.now, rig.volts));
            rig.reporting.handle_unsent(rig.now);
            tries.push((rig.now - rig.start).as_secs());
        }
        assert_eq!(tries, [15, 20, 25]);
        assert_eq!(rig.reports(30), [30]);
        assert_eq!(rig.reports(95), [90]);
    }
}
