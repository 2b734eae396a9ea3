//! The medium behind its lock, and the task that drives it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::config::VirtualBusConfig;
use super::medium::Medium;
use crate::timer::Deadline;

/// The state that the bus, its nodes and its driver task share.
pub(super) struct SharedBus {
    pub(super) config: VirtualBusConfig,
    state: Mutex<LockedBus>,
    changed: Arc<Notify>,
    driver: Mutex<Option<AbortHandle>>,
}

pub(super) struct LockedBus {
    pub(super) medium: Medium,
    pub(super) next_key: u32,
}

impl SharedBus {
    /// Creates a bus without nodes and the task that drives it.
    pub(super) fn start(config: VirtualBusConfig) -> Arc<Self> {
        let medium = Medium::new(&config, config.timer.now());
        let changed = Arc::new(Notify::new());
        let shared = Arc::new(Self {
            state: Mutex::new(LockedBus { medium, next_key: 0 }),
            changed: Arc::clone(&changed),
            driver: Mutex::new(None),
            config,
        });
        let task = tokio::spawn(drive(Arc::downgrade(&shared), changed));
        *lock(&shared.driver) = Some(task.abort_handle());
        shared
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, LockedBus> {
        lock(&self.state)
    }

    /// Advances the bus to the present, changes it, and wakes the driver task if the next event moved.
    pub(super) fn act<T>(&self, action: impl FnOnce(&mut Medium, Instant) -> T) -> T {
        let now = self.config.timer.now();
        let mut state = self.lock();
        let before = state.medium.poll_timeout();
        state.medium.handle_timeout(now);
        let result = action(&mut state.medium, now);
        if state.medium.poll_timeout() != before {
            self.changed.notify_one();
        }
        result
    }
}

impl Drop for SharedBus {
    fn drop(&mut self) {
        if let Some(driver) = lock(&self.driver).take() {
            driver.abort();
        }
    }
}

/// Ignores poisoning: after a panic of another holder, at worst one frame is counted incompletely.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drives the bus until the bus is dropped.
async fn drive(shared: Weak<SharedBus>, changed: Arc<Notify>) {
    let Some(kind) = shared.upgrade().map(|shared| shared.config.timer) else { return };
    let mut deadline = Deadline::new(kind);
    loop {
        {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            state.medium.handle_timeout(kind.now());
            deadline.set(state.medium.poll_timeout());
        }
        tokio::select! {
            () = deadline.expired() => {}
            () = changed.notified() => {}
        }
    }
}
