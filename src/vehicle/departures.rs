//! Devices that are left in the background.
//!
//! Leaving a bus takes time: frames get a last chance, and an interface is set to listen only. The process must not end
//! before that, because its end would leave frames in the driver and the interface active.

use tokio::runtime::Handle;
use tokio::sync::watch;

/// The devices that are being left. Clones count together.
#[derive(Debug, Clone)]
pub struct Departures(watch::Sender<usize>);

impl Default for Departures {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

/// A device that is being left, until this value is dropped.
struct LeftDevice(watch::Sender<usize>);

impl Drop for LeftDevice {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Departures {
    /// Leaves a device in the background; outside of a runtime, not at all.
    pub(crate) fn spawn(&self, leave: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else { return };
        self.0.send_modify(|count| *count += 1);
        let departure = LeftDevice(self.0.clone());
        runtime.spawn(async move {
            leave.await;
            drop(departure);
        });
    }

    /// Waits until all devices have been left.
    pub(crate) async fn wait(&self) {
        let mut count = self.0.subscribe();
        // the sender exists for as long as `self`
        let _none_left = count.wait_for(|count| *count == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_departures_ends_with_the_last_of_them() {
        let departures = Departures::default();
        departures.wait().await;
        let start = tokio::time::Instant::now();
        for seconds in [3, 1] {
            departures.clone().spawn(tokio::time::sleep(Duration::from_secs(seconds)));
        }
        departures.wait().await;
        assert_eq!(start.elapsed(), Duration::from_secs(3));
    }

    #[test]
    fn without_a_runtime_nothing_is_waited_for() {
        let departures = Departures::default();
        departures.spawn(async {});
        assert_eq!(*departures.0.borrow(), 0);
    }
}
