//! The clock and the time limit of tests.

use std::time::{Duration, Instant};

/// A limit that no step of a test reaches, even on a busy machine, unless something hangs.
pub const HANG: Duration = Duration::from_secs(60);
pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// The runtime's time, which a test may have paused.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits for the future; panics with the description if there is no result within [`HANG`].
#[track_caller]
pub fn soon<T>(description: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(HANG, future).await;
        done.unwrap_or_else(|_| panic!("timeout while waiting for {description} ({caller})"))
    }
}
