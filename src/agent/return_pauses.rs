//! The pauses between readings of the VIN that a returning device causes. A pure state machine.

use std::time::{Duration, Instant};

/// The pause after the first such reading. A reading on CAN takes up to 1.5 s, so that an adapter with a loose contact
/// keeps the buses busy for less than a third of the time.
const FIRST: Duration = Duration::from_secs(5);
/// The longest pause: as long as the last one between attempts after a reading without a VIN.
const LONGEST: Duration = Duration::from_secs(160);
/// A device that has been in place for this long no longer counts as loose.
const IN_PLACE: Duration = Duration::from_secs(300);

/// Decides when to read the VIN after a device has returned. Each pause is twice the one before.
#[derive(Debug, Default)]
pub(super) struct ReturnPauses {
    /// The last reading that a returning device caused, and the pause after it.
    last: Option<(Instant, Duration)>,
    /// A device has returned, and the VIN was not read since.
    is_due: bool,
}

impl ReturnPauses {
    /// A device has returned.
    pub(super) fn handle_return(&mut self) {
        self.is_due = true;
    }

    /// The earliest time of a reading that a returning device causes.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        self.last.map_or(now, |(at, pause)| at + pause)
    }

    /// A reading that a returning device caused begins. Whether it is the first one for a while.
    pub(super) fn handle_reading(&mut self, now: Instant) -> bool {
        self.is_due = false;
        let before = self.last.filter(|(at, _)| now < *at + IN_PLACE);
        self.last = Some((now, before.map_or(FIRST, |(_, pause)| LONGEST.min(2 * pause))));
        before.is_none()
    }

    /// Whether to read the VIN now because a device has returned.
    pub(super) fn poll_reading(&mut self, now: Instant) -> bool {
        let is_time = self.is_due && self.earliest(now) <= now;
        if is_time {
            self.handle_reading(now);
        }
        is_time
    }

    /// When to call [`ReturnPauses::poll_reading`] again.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.is_due.then(|| self.earliest(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_pauses_between_readings_that_a_loose_device_causes_grow_and_start_again() {
        let start = Instant::now();
        let (mut pauses, mut now) = (ReturnPauses::default(), start);
        assert!(!pauses.poll_reading(now));
        assert_eq!(pauses.poll_timeout(now), None);
        pauses.handle_return();
        assert!(pauses.poll_reading(now), "the first return");
        for pause in [5, 10, 20, 40, 80, 160, 160] {
            pauses.handle_return();
            assert!(!pauses.poll_reading(now + SECOND));
            assert_eq!(pauses.poll_timeout(now), Some(now + pause * SECOND));
            now += pause * SECOND;
            assert!(pauses.poll_reading(now));
            assert!(!pauses.poll_reading(now), "one reading for each return");
        }
        now += IN_PLACE;
        pauses.handle_return();
        assert!(pauses.poll_reading(now));
        assert_eq!(pauses.earliest(now), now + FIRST);
    }
}
