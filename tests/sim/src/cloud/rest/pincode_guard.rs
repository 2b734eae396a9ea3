//! Limits the attempts with wrong pincodes.

use crate::cloud::store::PincodeGuard;

/// The number of wrong pincodes without consequences.
const FREE_FAILURES: u32 = 4;
/// The lock after the next wrong pincode; every further one doubles it.
const FIRST_LOCK_MS: i64 = 30_000;
/// The longest lock.
const LONGEST_LOCK_MS: i64 = 3_600_000;
/// Failures are forgotten after this time without one.
const FORGET_MS: i64 = 24 * 3_600_000;

impl PincodeGuard {
    /// A guard without failures.
    pub(crate) fn new(connector_id: i64) -> Self {
        Self { connector_id, ..Self::default() }
    }

    /// Seconds until the next attempt counts, if an attempt at `now` (Unix milliseconds) does not.
    pub(crate) fn locked_for(&self, now: i64) -> Option<u64> {
        let left = self.locked_until.saturating_sub(now);
        // a clock that was set back must not prolong the lock beyond its limit
        let left = left.min(LONGEST_LOCK_MS);
        u64::try_from(left).ok().filter(|left| *left > 0).map(|left| left.div_ceil(1000))
    }

    /// Records a wrong pincode at `now` (Unix milliseconds).
    pub(crate) fn note_failure(&mut self, now: i64) {
        if now.saturating_sub(self.last_failure) > FORGET_MS {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_failure = now;
        if let Some(doublings) = self.failures.checked_sub(FREE_FAILURES + 1) {
            let lock = FIRST_LOCK_MS.saturating_mul(1 << doublings.min(20)).min(LONGEST_LOCK_MS);
            self.locked_until = now.saturating_add(lock);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(times: u32, now: i64) -> PincodeGuard {
        let mut guard = PincodeGuard::new(1);
        for _ in 0..times {
            guard.note_failure(now);
        }
        guard
    }

    #[test]
    fn the_fifth_wrong_pincode_locks_the_login() {
        assert_eq!(failed(4, 1_000_000_000).locked_for(1_000_000_000), None);
        assert_eq!(failed(5, 1_000_000_000).locked_for(1_000_000_000), Some(30));
        assert_eq!(failed(5, 1_000_000_000).locked_for(1_000_029_001), Some(1));
        assert_eq!(failed(5, 1_000_000_000).locked_for(1_000_030_000), None);
    }

    #[test]
    fn each_further_wrong_pincode_doubles_the_lock_up_to_an_hour() {
        assert_eq!(failed(6, 1_000_000_000).locked_for(1_000_000_000), Some(60));
        assert_eq!(failed(8, 1_000_000_000).locked_for(1_000_000_000), Some(240));
        assert_eq!(failed(1000, 1_000_000_000).locked_for(1_000_000_000), Some(3600));
    }

    #[test]
    fn failures_are_forgotten_after_a_day_without_one() {
        let mut guard = failed(10, 1_000_000_000);
        guard.note_failure(1_000_000_000 + FORGET_MS + 1);
        assert_eq!(guard.failures, 1);
    }

    #[test]
    fn a_clock_set_back_locks_for_an_hour_at_most() {
        assert_eq!(failed(5, 1_000_000_000_000).locked_for(0), Some(3600));
    }
}
