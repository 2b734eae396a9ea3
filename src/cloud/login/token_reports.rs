//! Which tokens the cloud has accepted and refused.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// The highest token number accepted and the highest refused. Two numbers suffice, so there is no queue that
/// could fill.
#[derive(Debug, Default)]
pub(super) struct TokenReports {
    accepted: AtomicU64,
    unauthorized: AtomicU64,
    changed: Notify,
}

impl TokenReports {
    /// Notes that the cloud accepted the token of this number.
    pub(super) fn add_accepted(&self, generation: u64) {
        if self.accepted.fetch_max(generation, Ordering::AcqRel) < generation {
            self.changed.notify_one();
        }
    }

    /// Notes that a request with the token of this number was answered with 401.
    pub(super) fn add_unauthorized(&self, generation: u64) {
        self.unauthorized.fetch_max(generation, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// The number of the newest token that the cloud accepted; 0 if none.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Acquire)
    }

    /// The number of the newest token that the cloud refused; 0 if none.
    pub(super) fn unauthorized(&self) -> u64 {
        self.unauthorized.load(Ordering::Acquire)
    }

    /// Waits for the next report. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
