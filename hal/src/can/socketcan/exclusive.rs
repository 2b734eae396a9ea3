//! One action at a time on each network interface, in the order in which the actions were requested.
//!
//! A request to the kernel cannot be cancelled: after its future is dropped, the thread continues. Without an order,
//! it could take an interface down that the next owner has just set up.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Lock = Arc<tokio::sync::Mutex<()>>;

/// The lock of each interface that this process has used, by name.
static LOCKS: Mutex<BTreeMap<String, Lock>> = Mutex::new(BTreeMap::new());

/// The right to act on an interface, as long as this value exists.
#[derive(Debug)]
pub(super) struct InterfaceGuard(#[allow(dead_code, reason = "only its drop matters")] OwnedMutexGuard<()>);

/// The lock of an interface.
#[derive(Debug, Clone)]
pub(super) struct InterfaceLock(Lock);

impl InterfaceLock {
    /// The lock of the interface with this name.
    pub(super) fn of(name: &str) -> Self {
        let mut locks = LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        Self(locks.entry(name.to_owned()).or_default().clone())
    }

    /// Takes the lock, unless an action is under way.
    pub(super) fn try_lock(&self) -> Option<InterfaceGuard> {
        self.0.clone().try_lock_owned().ok().map(InterfaceGuard)
    }

    /// Waits for the actions that were requested earlier, and takes the lock.
    pub(super) async fn lock(&self) -> InterfaceGuard {
        InterfaceGuard(self.0.clone().lock_owned().await)
    }

    /// Runs an action on a thread that may block. The lock is free again when the action has ended, also if this
    /// future is dropped earlier. An action whose future is dropped before its turn never runs.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        action: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        run_with(self.lock().await, action).await
    }
}

/// Runs an action like [`InterfaceLock::run`], with the lock that is held already.
pub(super) async fn run_with<T: Send + 'static>(
    guard: InterfaceGuard,
    action: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let done = tokio::task::spawn_blocking(move || {
        let result = action();
        drop(guard);
        result
    });
    Ok(done.await?)
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use super::*;

    #[tokio::test]
    async fn an_action_that_was_cancelled_ends_before_the_next_one_begins() {
        let lock = InterfaceLock::of("exclusive0");
        let (go_on, gate) = mpsc::channel::<()>();
        let (log, logged) = mpsc::channel();
        let first = log.clone();
        {
            let mut cancelled = pin!(lock.run(move || {
                gate.recv().unwrap();
                first.send("first").unwrap();
            }));
            let _ = cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        assert!(lock.try_lock().is_none());
        let second = log.clone();
        let other_handle = InterfaceLock::of("exclusive0");
        let mut next = pin!(other_handle.run(move || second.send("second").unwrap()));
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        go_on.send(()).unwrap();
        next.await.unwrap();
        drop(log);
        assert_eq!(logged.iter().collect::<Vec<_>>(), ["first", "second"]);
    }

    #[tokio::test]
    async fn an_action_that_was_cancelled_before_its_turn_never_runs() {
        let lock = InterfaceLock::of("exclusive1");
        let guard = lock.try_lock().unwrap();
        {
            let mut cancelled = pin!(lock.run(|| panic!("cancelled")));
            assert!(cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(guard);
        assert_eq!(lock.run(|| 7).await.unwrap(), 7);
        // other interfaces do not wait
        let _guard = lock.lock().await;
        assert!(InterfaceLock::of("exclusive2").try_lock().is_some());
    }
}
