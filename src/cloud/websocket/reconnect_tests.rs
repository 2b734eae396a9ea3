//! The reconnect policy, in virtual time.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LOST: ConnectFailure = ConnectFailure::Lost;

/// The waits of 500 connectors after the same history.
fn waits(wait: impl Fn(&mut Reconnect, Instant) -> Instant) -> Vec<Duration> {
    let now = Instant::now();
    (0..500).map(|seed| wait(&mut Reconnect::new(seed), now) - now).collect()
}

/// Checks that the waits are random between zero and this bound.
fn assert_spread_up_to(waits: &[Duration], bound: Duration) {
    assert!(waits.iter().all(|wait| *wait <= bound), "above {bound:?}");
    assert!(waits.iter().any(|wait| *wait > bound * 9 / 10), "never near {bound:?}");
    assert!(waits.iter().filter(|wait| **wait < bound / 2).count() > waits.len() / 3, "not uniform");
    let distinct: std::collections::BTreeSet<_> = waits.iter().collect();
    assert!(distinct.len() > waits.len() / 3, "in step");
}

/// How many links are made in this time, if each drops after `lasting`.
fn links(time: Duration, lasting: Duration, is_busy: bool) -> u32 {
    let start = Instant::now();
    let (mut now, mut links) = (start, 0);
    let mut policy = Reconnect::new(7);
    while now < start + time {
        policy.handle_connected(now);
        links += 1;
        now = policy.handle_failure(now + lasting, LOST, is_busy).at;
    }
    links
}

#[test]
fn with_a_connection_a_link_of_five_seconds_returns_without_a_wait() {
    for lasting in [5 * SECOND, 3600 * SECOND] {
        let waits = waits(|policy, now| {
            policy.handle_connected(now - lasting);
            policy.handle_failure(now, LOST, true).at
        });
        assert!(waits.iter().all(Duration::is_zero), "{lasting:?}");
    }
}

#[test]
fn with_a_connection_a_shorter_link_returns_within_a_second() {
    let waits = waits(|policy, now| {
        policy.handle_connected(now - 4 * SECOND);
        policy.handle_failure(now, LOST, true).at
    });
    assert_spread_up_to(&waits, SECOND);
}

#[test]
fn with_a_connection_failing_attempts_wait_up_to_1_2_4_and_5_seconds() {
    for (attempt, bound) in [1, 2, 4, 5, 5, 5].into_iter().enumerate() {
        let waits = waits(|policy, now| {
            policy.handle_connected(now - 10 * SECOND);
            policy.handle_failure(now, LOST, true);
            for _ in 0..attempt {
                policy.handle_failure(now, LOST, true);
            }
            policy.handle_failure(now, LOST, true).at
        });
        assert_spread_up_to(&waits, bound * SECOND);
    }
}

#[test]
fn without_a_connection_a_lost_link_returns_after_up_to_five_seconds() {
    let waits = waits(|policy, now| {
        policy.handle_connected(now - 30 * SECOND);
        policy.handle_failure(now, LOST, false).at
    });
    assert_spread_up_to(&waits, 5 * SECOND);
}

#[test]
fn without_a_connection_a_fleet_spreads_over_30_s_after_a_restart_of_the_cloud() {
    let waits = waits(|policy, now| {
        policy.handle_connected(now - 3600 * SECOND);
        policy.handle_failure(now, ConnectFailure::Restarting, false).at
    });
    assert!(waits.iter().all(|wait| *wait <= 30 * SECOND));
    for second in [0, 10, 20] {
        let part = waits.iter().filter(|wait| (second..second + 10).contains(&wait.as_secs())).count();
        assert!(part > waits.len() / 5, "{part} of {} within 10 s from second {second}", waits.len());
    }
}

#[test]
fn without_a_connection_failing_attempts_back_off_from_5_s_to_60_s() {
    for (failures, bound) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
        let waits = waits(|policy, now| {
            for _ in 0..failures {
                policy.handle_failure(now, LOST, false);
            }
            policy.handle_failure(now, LOST, false).at
        });
        assert_spread_up_to(&waits, bound * SECOND);
    }
}

#[test]
fn without_a_connection_a_link_below_thirty_seconds_counts_as_a_failed_attempt() {
    for (lasting, bound) in [(29, 20), (30, 5)] {
        let waits = waits(|policy, now| {
            policy.handle_failure(now, LOST, false);
            policy.handle_failure(now, LOST, false);
            policy.handle_connected(now);
            let lost = now + lasting * SECOND;
            policy.handle_failure(lost, LOST, false).at - lasting * SECOND
        });
        assert_spread_up_to(&waits, bound * SECOND);
    }
}

#[test]
fn a_link_that_drops_after_600_ms_again_and_again_is_made_rarely() {
    let (lasting, hour) = (Duration::from_millis(600), 3600 * SECOND);
    let in_25_seconds = links(25 * SECOND, lasting, false);
    assert!(in_25_seconds <= 8, "{in_25_seconds} links in 25 s");
    let in_an_hour = links(hour, lasting, false);
    assert!((90..180).contains(&in_an_hour), "{in_an_hour} links in an hour");
    // an operator waits half a second on average
    let with_operator = links(25 * SECOND, lasting, true);
    assert!((15..32).contains(&with_operator), "{with_operator} links in 25 s");
}

#[test]
fn a_process_that_starts_backs_off_from_its_first_failure_on() {
    let waits = waits(|policy, now| policy.handle_failure(now, LOST, false).at);
    assert_spread_up_to(&waits, 5 * SECOND);
}

#[test]
fn retry_after_is_a_lower_bound_with_up_to_a_fifth_more() {
    for is_busy in [false, true] {
        let retry_after = Some(100 * SECOND);
        for failure in [ConnectFailure::Busy { retry_after }, ConnectFailure::Unauthorized { retry_after }] {
            let waits = waits(|policy, now| {
                policy.handle_connected(now - 60 * SECOND);
                policy.handle_failure(now, failure, is_busy).at
            });
            assert!(waits.iter().all(|wait| *wait >= 100 * SECOND), "earlier than asked");
            let beyond: Vec<_> = waits.iter().map(|wait| *wait - 100 * SECOND).collect();
            assert_spread_up_to(&beyond, 20 * SECOND);
        }
    }
}

#[test]
fn a_refused_token_needs_a_login_immediately_and_then_after_growing_waits() {
    let mut now = Instant::now();
    let mut policy = Reconnect::new(1);
    let mut minutes = Vec::new();
    for _ in 0..9 {
        let next = policy.handle_failure(now, ConnectFailure::Unauthorized { retry_after: None }, true);
        assert!(next.needs_login);
        minutes.push((next.at - now).as_secs() / 60);
        now = next.at;
    }
    assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
    policy.handle_connected(now);
    assert_eq!(policy.handle_failure(now, ConnectFailure::Unauthorized { retry_after: None }, true).at, now);
}
