//! The runtime's clock, which tests can pause (`tokio::time::pause`).

use std::time::Instant;

/// The present time of the runtime's clock.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until this time; forever if there is none. Cancel-safe.
pub async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
