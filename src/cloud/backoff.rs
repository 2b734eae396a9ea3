//! How long to wait before the next attempt.

use std::time::Duration;

use fastrand::Rng;

/// The upper bound of the first wait after a failure of the network or the cloud (relay protocol, section 1).
const FIRST_BOUND: Duration = Duration::from_secs(5);
/// The greatest upper bound of later waits (relay protocol, section 1).
const LAST_BOUND: Duration = Duration::from_secs(60);
/// The wait after a first rejected login (relay protocol, section 1): a cloud may lock a login after a few
/// wrong pincodes.
pub(crate) const FIRST_REJECTION: Duration = Duration::from_secs(60);
/// The longest wait after a rejected login (relay protocol, section 1), and the longest that `Retry-After`
/// can ask for: a device must not stay offline for days because of one answer.
pub(crate) const LAST_REJECTION: Duration = Duration::from_secs(3600);

/// At most this part of `Retry-After` is added at random.
const RETRY_AFTER_SPREAD: u32 = 5;

/// A random wait: up to 5 s after the first failure, with a bound that doubles to 60 s (exponential, full
/// jitter).
pub(crate) fn full_jitter(rng: &mut Rng, earlier_failures: u32) -> Duration {
    up_to(rng, doubled(FIRST_BOUND, earlier_failures).min(LAST_BOUND))
}

/// A random wait up to this bound.
pub(crate) fn up_to(rng: &mut Rng, bound: Duration) -> Duration {
    let bound = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rng.u64(0..=bound))
}

/// The wait after `count` rejected logins in a row: a minute, doubling up to an hour.
pub(crate) fn after_rejections(count: u32) -> Duration {
    doubled(FIRST_REJECTION, count.saturating_sub(1)).min(LAST_REJECTION)
}

/// The longer of `wait` and the wait that the cloud asked for, which counts up to an hour. Up to a fifth is
/// added to what the cloud asked for, because it may have asked many connectors for the same.
pub(crate) fn honouring(rng: &mut Rng, retry_after: Option<Duration>, wait: Duration) -> Duration {
    let Some(asked) = retry_after else { return wait };
    let asked = asked.min(LAST_REJECTION);
    (asked + up_to(rng, asked / RETRY_AFTER_SPREAD)).max(wait)
}

fn doubled(duration: Duration, times: u32) -> Duration {
    duration * (1 << times.min(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_below_a_bound_that_doubles_from_5_s_to_60_s() {
        let mut rng = Rng::with_seed(1);
        for (failures, bound) in [(0, 5), (1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (u32::MAX, 60)] {
            let bound = Duration::from_secs(bound);
            let waits: Vec<_> = (0..1000).map(|_| full_jitter(&mut rng, failures)).collect();
            assert!(waits.iter().all(|wait| *wait <= bound), "above {bound:?}");
            assert!(waits.iter().any(|wait| *wait > bound * 9 / 10), "never near {bound:?}");
            assert!(waits.iter().any(|wait| *wait < bound / 10), "never short");
        }
    }

    #[test]
    fn rejections_wait_from_a_minute_to_an_hour() {
        let minutes = |count| after_rejections(count).as_secs() / 60;
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 8, u32::MAX].map(minutes), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn retry_after_from_the_cloud_is_honoured_up_to_an_hour() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let mut rng = Rng::with_seed(1);
        let mut honouring = |retry_after, wait| honouring(&mut rng, retry_after, wait);
        for _ in 0..100 {
            assert!((minute..=minute * 6 / 5).contains(&honouring(Some(minute), second)));
            assert!(
                (LAST_REJECTION..=LAST_REJECTION * 6 / 5).contains(&honouring(Some(Duration::MAX), second))
            );
        }
        assert_eq!(honouring(Some(second), minute), minute);
        assert_eq!(honouring(None, second), second);
    }
}
