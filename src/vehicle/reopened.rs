//! A device that is opened, used, and opened again after it was lost.

use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::can::BoxFuture;

/// The future that opens or restarts a device.
pub type Reopening<D, E> = BoxFuture<'static, Result<D, E>>;

/// A device that is opened again, some time after it was lost or could not be opened.
///
/// The owner calls [`Reopened::poll`] while [`Reopened::get_mut`] returns `None`, and again at [`Reopened::retry_at`]. The
/// owner calls [`Reopened::lose`] when the device fails, or [`Reopened::restart_with`] when the device has to start over.
pub struct Reopened<D, E> {
    state: DeviceState<D, E>,
    retry_after: Duration,
}

enum DeviceState<D, E> {
    /// The device is being opened or restarted.
    Opening(Reopening<D, E>),
    /// The device can be used.
    Open(D),
    /// The device is opened again at this time.
    Lost { retry_at: Instant },
}

/// The end of an attempt to open a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<E> {
    /// The device can be used.
    Opened,
    /// The device could not be opened. The next attempt follows after the pause.
    FailedToOpen(E),
}

impl<D, E> Reopened<D, E> {
    /// A device whose first attempt to open has begun with this future. After a failure, the next attempt follows after
    /// `retry_after`.
    pub fn new(opening: Reopening<D, E>, retry_after: Duration) -> Self {
        Self { state: DeviceState::Opening(opening), retry_after }
    }

    /// A device that is not open yet. The first [`Reopened::poll`] from `now` on opens it.
    pub fn closed(now: Instant, retry_after: Duration) -> Self {
        Self { state: DeviceState::Lost { retry_at: now }, retry_after }
    }

    /// A device that is open already.
    pub fn open(device: D, retry_after: Duration) -> Self {
        Self { state: DeviceState::Open(device), retry_after }
    }

    /// The device, while it is open.
    pub fn get(&self) -> Option<&D> {
        match &self.state {
            DeviceState::Open(device) => Some(device),
            DeviceState::Opening(_) | DeviceState::Lost { .. } => None,
        }
    }

    /// The device, while it is open.
    pub fn get_mut(&mut self) -> Option<&mut D> {
        match &mut self.state {
            DeviceState::Open(device) => Some(device),
            DeviceState::Opening(_) | DeviceState::Lost { .. } => None,
        }
    }

    /// The time of the next attempt, while the device is lost.
    pub fn retry_at(&self) -> Option<Instant> {
        match &self.state {
            DeviceState::Lost { retry_at } => Some(*retry_at),
            DeviceState::Opening(_) | DeviceState::Open(_) => None,
        }
    }

    /// Closes the device, or abandons an attempt to open it. The next attempt follows after the pause.
    pub fn lose(&mut self, now: Instant) {
        self.state = DeviceState::Lost { retry_at: now + self.retry_after };
    }

    /// Replaces an open device by a future that restarts the device. Does nothing while the device is not open.
    pub fn restart_with(&mut self, now: Instant, restart: impl FnOnce(D) -> Reopening<D, E>) {
        // the placeholder lasts until the assignment below
        let placeholder = DeviceState::Lost { retry_at: now };
        self.state = match std::mem::replace(&mut self.state, placeholder) {
            DeviceState::Open(device) => DeviceState::Opening(restart(device)),
            other => other,
        };
    }

    /// Advances an attempt to open the device, and begins one with `open` when one is due. Pending while the device is
    /// open; the caller arms a timer for [`Reopened::retry_at`].
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        mut open: impl FnMut() -> Reopening<D, E>,
    ) -> Poll<Change<E>> {
        if self.retry_at().is_some_and(|at| at <= now) {
            self.state = DeviceState::Opening(open());
        }
        let DeviceState::Opening(opening) = &mut self.state else { return Poll::Pending };
        Poll::Ready(match ready!(opening.as_mut().poll(cx)) {
            Ok(device) => {
                self.state = DeviceState::Open(device);
                Change::Opened
            }
            Err(error) => {
                self.lose(now);
                Change::FailedToOpen(error)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    type Answer = Result<&'static str, &'static str>;

    fn at_once(answer: Answer) -> Reopening<&'static str, &'static str> {
        Box::pin(async move { answer })
    }

    fn never() -> Reopening<&'static str, &'static str> {
        panic!("the device must not be opened now")
    }

    fn poll(
        device: &mut Reopened<&'static str, &'static str>,
        now: Instant,
        open: impl FnMut() -> Reopening<&'static str, &'static str>,
    ) -> Poll<Change<&'static str>> {
        device.poll(&mut Context::from_waker(Waker::noop()), now, open)
    }

    #[test]
    fn a_device_is_open_once_its_future_ends() {
        let now = Instant::now();
        let (answer, opened) = oneshot::channel::<Answer>();
        let mut device = Reopened::new(Box::pin(async { opened.await.unwrap() }), PAUSE);
        assert_eq!(poll(&mut device, now, never), Poll::Pending);
        assert_eq!((device.get(), device.retry_at()), (None, None));
        answer.send(Ok("can0")).unwrap();
        assert_eq!(poll(&mut device, now, never), Poll::Ready(Change::Opened));
        assert_eq!(device.get_mut().copied(), Some("can0"));
        assert_eq!(poll(&mut device, now, never), Poll::Pending);
    }

    #[test]
    fn a_closed_device_is_opened_by_the_first_poll() {
        let now = Instant::now();
        let mut device = Reopened::closed(now, PAUSE);
        assert_eq!(device.retry_at(), Some(now));
        assert_eq!(poll(&mut device, now, || at_once(Ok("can0"))), Poll::Ready(Change::Opened));
    }

    #[test]
    fn a_failed_attempt_is_repeated_after_the_pause() {
        let now = Instant::now();
        let mut device = Reopened::new(at_once(Err("absent")), PAUSE);
        assert_eq!(poll(&mut device, now, never), Poll::Ready(Change::FailedToOpen("absent")));
        assert_eq!(device.retry_at(), Some(now + PAUSE));
        assert_eq!(poll(&mut device, now + PAUSE / 2, never), Poll::Pending);
        let opened = poll(&mut device, now + PAUSE, || at_once(Ok("can0")));
        assert_eq!((opened, device.get()), (Poll::Ready(Change::Opened), Some(&"can0")));
    }

    #[test]
    fn a_lost_device_is_opened_again_after_the_pause() {
        let now = Instant::now();
        let mut device = Reopened::open("can0", PAUSE);
        device.lose(now);
        assert_eq!((device.get(), device.retry_at()), (None, Some(now + PAUSE)));
        assert_eq!(poll(&mut device, now, never), Poll::Pending);
        let opened = poll(&mut device, now + PAUSE, || at_once(Ok("can1")));
        assert_eq!((opened, device.get()), (Poll::Ready(Change::Opened), Some(&"can1")));
    }

    #[test]
    fn an_attempt_that_is_abandoned_is_dropped() {
        let now = Instant::now();
        let (answer, opened) = oneshot::channel::<Answer>();
        let mut device = Reopened::new(Box::pin(async { opened.await.unwrap() }), PAUSE);
        device.lose(now);
        assert!(answer.is_closed());
        assert_eq!(device.retry_at(), Some(now + PAUSE));
    }

    #[test]
    fn a_restart_replaces_an_open_device_only() {
        let now = Instant::now();
        let restarted = RefCell::new(Vec::new());
        let restart = |name| {
            restarted.borrow_mut().push(name);
            at_once(Ok("restarted"))
        };
        let mut device = Reopened::open("can0", PAUSE);
        device.restart_with(now, restart);
        assert_eq!((device.get(), device.retry_at()), (None, None));
        assert_eq!(poll(&mut device, now, never), Poll::Ready(Change::Opened));
        assert_eq!(device.get(), Some(&"restarted"));
        device.lose(now);
        device.restart_with(now, restart);
        assert_eq!(device.retry_at(), Some(now + PAUSE));
        assert_eq!(*restarted.borrow(), ["can0"]);
    }
}
