use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_token_is_refreshed_ahead_of_its_expiry() {
    for seed in 0..100 {
        let start = Instant::now();
        let mut auth = logged_in(start, seed);
        let (at, timer) = auth.poll_timeout().unwrap();
        assert_eq!(timer, LoginTimer::Refresh);
        assert!(at >= start + HOUR * 3 / 4 && at <= start + HOUR * 9 / 10, "{:?}", at - start);
        auth.handle_timeout(at - Duration::from_millis(1));
        assert_eq!(auth.poll_attempt(), None, "no login before the deadline");
        auth.handle_timeout(at);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        assert_eq!(auth.generation(), Some(1), "the old token stays valid meanwhile");
    }
}

#[test]
fn a_token_that_lives_a_few_seconds_is_refreshed_ahead_of_its_expiry_too() {
    let (start, lifetime) = (Instant::now(), Duration::from_secs(4));
    let mut auth = Auth::new(1);
    auth.poll_attempt().unwrap();
    auth.handle_tokens(start, lifetime, true);
    let (at, timer) = auth.poll_timeout().unwrap();
    assert!(timer == LoginTimer::Refresh && at < start + lifetime, "{:?}", at - start);
}

#[test]
fn a_refused_refresh_falls_back_to_the_pincode_immediately() {
    let start = Instant::now();
    let mut auth = logged_in(start, 1);
    let now = fire(&mut auth);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    auth.handle_failure(now, LoginFailure::Rejected { retry_after: None });
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    assert_eq!(auth.state(), LoginState::LoggedIn, "the state does not change");
}

#[test]
fn without_a_refresh_token_the_pincode_is_used_ahead_of_expiry() {
    let mut auth = Auth::new(1);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    auth.handle_tokens(Instant::now(), HOUR, false);
    fire(&mut auth);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
}

#[test]
fn a_wrong_pincode_is_tried_once_a_minute_and_later_once_an_hour() {
    let start = Instant::now();
    let mut auth = Auth::new(1);
    let mut now = start;
    let mut waits = Vec::new();
    for _ in 0..9 {
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        assert_eq!(auth.poll_attempt(), None, "one at a time");
        auth.handle_failure(now, LoginFailure::Rejected { retry_after: None });
        assert_eq!(auth.state(), LoginState::Rejected);
        assert_eq!(auth.poll_attempt(), None, "not immediately");
        let next = fire(&mut auth);
        waits.push((next - now).as_secs() / 60);
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    auth.handle_tokens(now, HOUR, true);
    assert_eq!(auth.state(), LoginState::LoggedIn);
}

#[test]
fn a_rejected_pincode_backs_off_while_the_old_token_is_accepted() {
    let mut now = Instant::now();
    let mut auth = logged_in(now, 1);
    auth.handle_accepted(1);
    now = fire(&mut auth);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    auth.handle_failure(now, LoginFailure::Rejected { retry_after: None });
    let mut waits = Vec::new();
    for _ in 0..5 {
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        auth.handle_failure(now, LoginFailure::Rejected { retry_after: None });
        auth.handle_accepted(1);
        assert_eq!(auth.state(), LoginState::Rejected);
        let next = fire(&mut auth);
        waits.push((next - now).as_secs() / 60);
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16]);
}

#[test]
fn rejections_from_before_a_restart_delay_the_login_and_still_count() {
    let start = Instant::now();
    let mut auth = Auth::new(1);
    auth.delay_login(start, 3, 100 * SECOND);
    assert_eq!(auth.state(), LoginState::Rejected);
    assert_eq!(auth.poll_attempt(), None);
    let now = fire(&mut auth);
    assert_eq!(now - start, 100 * SECOND);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    auth.handle_failure(now, LoginFailure::Rejected { retry_after: None });
    assert_eq!(fire(&mut auth) - now, 8 * 60 * SECOND, "the fourth");
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    auth.handle_tokens(now, HOUR, true);
    assert_eq!((auth.state(), auth.rejections()), (LoginState::LoggedIn, 0));
}

#[test]
fn stored_tokens_are_tried_while_the_login_is_delayed() {
    let start = Instant::now();
    let stored = |remaining| StoredTokens { lifetime: HOUR, remaining, can_refresh: true };
    let mut auth = Auth::resume(1, start, stored(None));
    auth.delay_login(start, 1, 60 * SECOND);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    auth.handle_failure(start, LoginFailure::Rejected { retry_after: None });
    assert_eq!(auth.poll_attempt(), None);
    assert_eq!(fire(&mut auth) - start, 60 * SECOND);
    let mut auth = Auth::resume(1, start, stored(Some(HOUR)));
    auth.delay_login(start, 1, 60 * SECOND);
    assert_eq!(auth.generation(), Some(1));
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    auth.handle_tokens(start, HOUR, true);
    assert_eq!(auth.state(), LoginState::LoggedIn);
    auth.handle_unauthorized(start, 2);
    assert_eq!(auth.poll_attempt(), None, "the next login waits for its time");
}

#[test]
fn several_refusals_of_the_same_token_cause_one_login() {
    let start = Instant::now();
    let mut auth = logged_in(start, 1);
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.generation(), None);
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.poll_attempt(), None);
    assert_eq!(auth.handle_tokens(start, HOUR, true), 2);
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.poll_attempt(), None, "a late report about the old token changes nothing");
    assert_eq!(auth.generation(), Some(2));
}

#[test]
fn a_cloud_that_refuses_its_own_tokens_gets_few_logins() {
    let start = Instant::now();
    let mut now = start;
    let mut auth = logged_in(start, 1);
    let mut logins = 1;
    while now < start + 10 * HOUR {
        auth.handle_unauthorized(now, auth.generation);
        if auth.poll_attempt().is_none() {
            now = fire(&mut auth);
            assert_eq!(auth.state(), LoginState::Rejected);
            assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        }
        auth.handle_tokens(now, HOUR, true);
        logins += 1;
    }
    assert!(logins <= 18, "{logins} logins in ten hours");
    auth.handle_accepted(auth.generation);
    assert_eq!(auth.state(), LoginState::LoggedIn);
    auth.handle_unauthorized(now, auth.generation);
    assert_eq!(
        auth.poll_attempt(),
        Some(LoginAttempt::LogIn),
        "after the token worked, a 401 causes an immediate login again"
    );
}

#[test]
fn an_unavailable_cloud_is_tried_again_with_the_same_attempt() {
    let start = Instant::now();
    let mut auth = logged_in(start, 1);
    let mut now = fire(&mut auth);
    for _ in 0..20 {
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        auth.handle_failure(now, LoginFailure::Unavailable { retry_after: None });
        let next = fire(&mut auth);
        assert!(next - now <= Duration::from_secs(60));
        now = next;
    }
    assert_eq!(auth.state(), LoginState::LoggedIn, "the token may still be valid");
    auth.handle_unauthorized(now, 1);
    assert_eq!(auth.state(), LoginState::Unreachable);
}

#[test]
fn retry_after_is_honoured() {
    let start = Instant::now();
    let wait = Duration::from_secs(1234);
    for failure in [
        LoginFailure::TooMany { retry_after: Some(wait) },
        LoginFailure::Unavailable { retry_after: Some(wait) },
    ] {
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        auth.handle_failure(start, failure);
        let (at, _) = auth.poll_timeout().unwrap();
        assert!((start + wait..=start + wait * 6 / 5).contains(&at), "up to a fifth is added at random");
    }
    for seed in 0..100 {
        let mut auth = Auth::new(seed);
        auth.poll_attempt().unwrap();
        let soon = Duration::from_secs(4);
        auth.handle_failure(start, LoginFailure::TooMany { retry_after: Some(soon) });
        let wait = auth.poll_timeout().unwrap().0 - start;
        assert!(wait >= soon && wait <= Duration::from_secs(5), "the cloud asked for a short wait: {wait:?}");
    }
    let mut auth = Auth::new(1);
    auth.poll_attempt().unwrap();
    auth.handle_failure(start, LoginFailure::TooMany { retry_after: None });
    assert_eq!(auth.poll_timeout().unwrap().0, start + Duration::from_secs(60), "one minute by default");
}

#[test]
fn retry_after_of_a_rejection_is_honoured_and_never_shortens_the_wait() {
    let start = Instant::now();
    for (asked, least, most) in [(1234, 1234, 1481), (1, 60, 60), (u64::MAX, 3600, 4320)] {
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        let retry_after = Some(Duration::from_secs(asked));
        auth.handle_failure(start, LoginFailure::Rejected { retry_after });
        assert_eq!(auth.state(), LoginState::Rejected);
        let wait = auth.poll_timeout().unwrap().0 - start;
        assert!(wait >= least * SECOND && wait <= most * SECOND, "{asked}: {wait:?}");
    }
    // the login that follows a refused refresh waits, too
    let mut auth = logged_in(start, 1);
    let now = fire(&mut auth);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    auth.handle_failure(now, LoginFailure::Rejected { retry_after: Some(100 * SECOND) });
    assert_eq!(auth.poll_attempt(), None);
    let wait = auth.poll_timeout().unwrap().0 - now;
    assert!(wait >= 100 * SECOND && wait <= 120 * SECOND, "{wait:?}");
    fire(&mut auth);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
}

#[test]
fn extreme_token_lifetimes_are_clamped() {
    let start = Instant::now();
    let mut auth = Auth::new(1);
    auth.poll_attempt().unwrap();
    auth.handle_tokens(start, Duration::MAX, true);
    assert!(auth.poll_timeout().unwrap().0 <= start + MAX_LIFETIME);
    auth.handle_tokens(start, Duration::ZERO, true);
    assert_eq!(auth.poll_timeout().unwrap().0, start + MIN_REFRESH);
}

#[test]
fn a_stored_token_is_used_without_a_login_and_refreshed_at_its_usual_time() {
    let start = Instant::now();
    for seed in 0..100 {
        let mut auth = Auth::resume(seed, start, stored(Some(HOUR / 2)));
        assert_eq!((auth.generation(), auth.state()), (Some(1), LoginState::LoggedIn));
        assert_eq!(auth.poll_attempt(), None);
        let (at, timer) = auth.poll_timeout().unwrap();
        let wait = at - start;
        assert!(timer == LoginTimer::Refresh && wait >= HOUR / 4 && wait <= HOUR * 2 / 5, "{wait:?}");
        auth.handle_timeout(at);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        assert_eq!(auth.handle_tokens(at, HOUR, true), 2);
    }
}

#[test]
fn a_stored_token_close_to_its_end_is_refreshed_soon_but_used_meanwhile() {
    let start = Instant::now();
    let auth = Auth::resume(1, start, stored(Some(Duration::from_secs(10))));
    assert_eq!(auth.poll_timeout(), Some((start + MIN_REFRESH, LoginTimer::Refresh)));
    assert_eq!(auth.generation(), Some(1));
}

#[test]
fn a_stored_refresh_token_is_used_before_the_pincode() {
    let start = Instant::now();
    let mut auth = Auth::resume(1, start, stored(None));
    assert_eq!((auth.generation(), auth.state()), (None, LoginState::LoggingIn));
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    auth.handle_failure(start, LoginFailure::Rejected { retry_after: None });
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    let mut auth = Auth::resume(1, start, StoredTokens { can_refresh: false, ..stored(None) });
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
}

#[test]
fn a_stored_token_that_is_refused_is_refreshed_before_the_pincode_is_used() {
    let start = Instant::now();
    let mut auth = Auth::resume(1, start, stored(Some(HOUR)));
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
    assert_eq!(auth.handle_tokens(start, HOUR, true), 2);
    auth.handle_unauthorized(start, 2);
    assert_eq!(
        auth.poll_attempt(),
        Some(LoginAttempt::LogIn),
        "a new token that is refused asks for a login"
    );
    assert_eq!(auth.handle_tokens(start, HOUR, true), 3);
    auth.handle_unauthorized(start, 3);
    assert_eq!(auth.poll_attempt(), None, "and then the login waits");
    assert_eq!(auth.state(), LoginState::Rejected);
}

#[test]
fn a_stored_token_that_was_accepted_is_like_any_other() {
    let start = Instant::now();
    let mut auth = Auth::resume(1, start, stored(Some(HOUR)));
    auth.handle_accepted(1);
    auth.handle_unauthorized(start, 1);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
}

#[test]
fn extreme_lifetimes_of_stored_tokens_are_clamped() {
    let start = Instant::now();
    for (lifetime, remaining) in
        [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::MAX), (Duration::MAX, HOUR)]
    {
        let auth =
            Auth::resume(1, start, StoredTokens { lifetime, remaining: Some(remaining), can_refresh: true });
        let (at, _) = auth.poll_timeout().unwrap();
        assert!(at >= start + MIN_REFRESH && at <= start + MAX_LIFETIME);
    }
}

fn stored(remaining: Option<Duration>) -> StoredTokens {
    StoredTokens { lifetime: HOUR, remaining, can_refresh: true }
}

fn logged_in(now: Instant, seed: u64) -> Auth {
    let mut auth = Auth::new(seed);
    assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    assert_eq!(auth.handle_tokens(now, HOUR, true), 1);
    auth
}

/// Advances to the pending timer and fires it.
fn fire(auth: &mut Auth) -> Instant {
    let (at, _) = auth.poll_timeout().unwrap();
    auth.handle_timeout(at);
    at
}
