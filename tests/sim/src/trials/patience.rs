//! Waiting with a limit.

use std::time::Duration;

/// Limit for everything that a trial waits for: the longest pause between two attempts to come online is a
/// minute, and an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits for `waiting` for at most [`PATIENCE`]; `otherwise` is the error after that.
pub(super) async fn patiently<T>(
    otherwise: &str,
    waiting: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => anyhow::bail!("{otherwise} after {} s", PATIENCE.as_secs()),
    }
}
