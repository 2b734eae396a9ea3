//! Calls to the kernel about interfaces, away from the thread of the protocols. The kernel serves one such call at a
//! time, and may be busy for 100 ms and more while another interface goes down or up.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

/// The values of this process that are being dropped on other threads.
static DROPS: Mutex<usize> = Mutex::new(0);
/// A drop has ended.
static DROP_ENDED: Condvar = Condvar::new();

/// Makes the calls on a thread that may block. They end also if this future is dropped earlier.
pub(super) async fn off_thread<T: Send + 'static>(
    calls: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(calls).await?
}

/// Drops the value on a thread that may block, if there is a runtime; otherwise here. The runtime may end before the
/// value's turn comes: then the value is dropped as well.
pub(super) fn drop_off_thread<T: Send + 'static>(value: T) {
    *DROPS.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    let counted = Counted(Some(value));
    match Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(counted))),
        Err(_) => drop(counted),
    }
}

/// Waits until the addresses of networks that were left are gone, at most for this time. Blocks: for the end of the
/// process.
pub(crate) fn wait_for_removals(limit: Duration) {
    let drops = DROPS.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = DROP_ENDED.wait_timeout_while(drops, limit, |drops| *drops > 0);
    if waited.is_ok_and(|(_, waited)| waited.timed_out()) {
        tracing::warn!("an address on the vehicle's network could not be removed in time");
    }
}

/// A value that counts until it has been dropped.
struct Counted<T>(Option<T>);

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        drop(self.0.take());
        *DROPS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        DROP_ENDED.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Records that it has been dropped.
    struct Removal(Arc<AtomicBool>);

    impl Drop for Removal {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_process_that_ends_waits_until_its_addresses_are_gone() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let is_gone = Arc::<AtomicBool>::default();
        runtime.block_on(async { drop_off_thread(Removal(is_gone.clone())) });
        runtime.shutdown_background();
        wait_for_removals(Duration::from_secs(20));
        assert!(is_gone.load(Ordering::SeqCst));
    }
}
