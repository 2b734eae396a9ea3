//! A device that is opened again when it is lost.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::future::BoxFuture;

/// The pause before a lost device is opened again. An adapter that is plugged in again is ready within a
/// second.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A device of type `D` that is opened in the background, and opened again after a pause when it was lost. By
/// default, the pause is one second.
///
/// [`Reopened::poll`] opens the device, [`Reopened::lose`] closes it. The owner decides what counts as a
/// loss.
pub(crate) struct Reopened<D, E> {
    progress: OpeningProgress<D, E>,
    pause: Duration,
}

/// A future that opens a device or makes it start again.
pub(crate) type OpeningDevice<D, E> = BoxFuture<'static, Result<D, E>>;

enum OpeningProgress<D, E> {
    Opening(OpeningDevice<D, E>),
    Open(D),
    Lost { retry_at: Instant },
}

impl<D, E> Reopened<D, E> {
    /// A device that this future opens.
    pub(crate) fn new(opening: OpeningDevice<D, E>) -> Self {
        Self { progress: OpeningProgress::Opening(opening), pause: RETRY_AFTER }
    }

    /// A device that the first [`Reopened::poll`] opens.
    pub(crate) fn closed(now: Instant) -> Self {
        Self { progress: OpeningProgress::Lost { retry_at: now }, pause: RETRY_AFTER }
    }

    /// A device that is open already.
    pub(crate) fn open(device: D) -> Self {
        Self { progress: OpeningProgress::Open(device), pause: RETRY_AFTER }
    }

    /// Changes the pause before each new attempt.
    #[must_use]
    pub(crate) fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Opens the device; ready each time an attempt succeeds or fails.
    ///
    /// `open` begins a new attempt when the pause after a loss is over. Pending while the device is open;
    /// while it is lost, call again at [`Reopened::retry_at`].
    ///
    /// # Errors
    ///
    /// The attempt failed. The next attempt begins after the pause.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        open: impl FnOnce() -> OpeningDevice<D, E>,
    ) -> Poll<Result<(), E>> {
        if self.retry_at().is_some_and(|at| at <= now) {
            self.progress = OpeningProgress::Opening(open());
        }
        let OpeningProgress::Opening(opening) = &mut self.progress else { return Poll::Pending };
        opening.as_mut().poll(cx).map(|opened| {
            opened.map(|device| self.progress = OpeningProgress::Open(device)).inspect_err(|_| self.lose(now))
        })
    }

    /// The device, while it is open.
    pub(crate) fn get(&self) -> Option<&D> {
        match &self.progress {
            OpeningProgress::Open(device) => Some(device),
            OpeningProgress::Opening(_) | OpeningProgress::Lost { .. } => None,
        }
    }

    /// The device, while it is open, for use.
    pub(crate) fn get_mut(&mut self) -> Option<&mut D> {
        match &mut self.progress {
            OpeningProgress::Open(device) => Some(device),
            OpeningProgress::Opening(_) | OpeningProgress::Lost { .. } => None,
        }
    }

    /// Closes the device and begins the pause before the next attempt.
    pub(crate) fn lose(&mut self, now: Instant) {
        self.progress = OpeningProgress::Lost { retry_at: now + self.pause };
    }

    /// Takes the open device out; the pause before the next attempt begins.
    pub(crate) fn take(&mut self, now: Instant) -> Option<D> {
        let lost = OpeningProgress::Lost { retry_at: now + self.pause };
        match std::mem::replace(&mut self.progress, lost) {
            OpeningProgress::Open(device) => Some(device),
            other => {
                self.progress = other;
                None
            }
        }
    }

    /// Has an open device start again: the future that `restart` makes of it gives it back.
    pub(crate) fn restart(&mut self, now: Instant, restart: impl FnOnce(D) -> OpeningDevice<D, E>) {
        if let Some(device) = self.take(now) {
            self.progress = OpeningProgress::Opening(restart(device));
        }
    }

    /// When the next attempt begins, if the device is lost.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        match self.progress {
            OpeningProgress::Lost { retry_at } => Some(retry_at),
            OpeningProgress::Opening(_) | OpeningProgress::Open(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    type TestDevice = Reopened<u8, &'static str>;

    fn opening(result: Result<u8, &'static str>) -> OpeningDevice<u8, &'static str> {
        Box::pin(async move { result })
    }

    #[test]
    fn a_device_that_could_not_be_opened_is_tried_again_after_a_second() {
        let (mut cx, start) = (Context::from_waker(Waker::noop()), Instant::now());
        let mut device = TestDevice::new(opening(Err("unplugged")));
        let untouched = || -> OpeningDevice<u8, &'static str> { panic!("it is not yet time") };
        assert_eq!(device.poll(&mut cx, start, untouched), Poll::Ready(Err("unplugged")));
        assert_eq!((device.get(), device.retry_at()), (None, Some(start + RETRY_AFTER)));
        assert_eq!(device.poll(&mut cx, start, untouched), Poll::Pending);
        let later = start + RETRY_AFTER;
        assert_eq!(device.poll(&mut cx, later, || opening(Ok(7))), Poll::Ready(Ok(())));
        assert_eq!(device.get_mut(), Some(&mut 7));
        assert_eq!(device.retry_at(), None);
    }

    #[test]
    fn a_closed_device_is_opened_by_the_first_poll() {
        let (mut cx, start) = (Context::from_waker(Waker::noop()), Instant::now());
        let mut device = TestDevice::closed(start);
        assert_eq!(device.retry_at(), Some(start));
        assert_eq!(device.poll(&mut cx, start, || opening(Ok(7))), Poll::Ready(Ok(())));
        assert_eq!(device.get(), Some(&7));
    }

    #[test]
    fn the_pause_before_the_next_attempt_is_configurable() {
        let (mut cx, start) = (Context::from_waker(Waker::noop()), Instant::now());
        let mut device = TestDevice::open(7).with_pause(5 * RETRY_AFTER);
        device.lose(start);
        assert_eq!(device.retry_at(), Some(start + 5 * RETRY_AFTER));
        let later = start + 5 * RETRY_AFTER;
        assert_eq!(device.poll(&mut cx, later, || opening(Err("unplugged"))), Poll::Ready(Err("unplugged")));
        assert_eq!(device.retry_at(), Some(later + 5 * RETRY_AFTER));
    }

    #[test]
    fn an_abandoned_attempt_is_dropped() {
        let (answer, opened) = tokio::sync::oneshot::channel::<Result<u8, &'static str>>();
        let mut device = TestDevice::new(Box::pin(async { opened.await.unwrap() }));
        device.lose(Instant::now());
        assert!(answer.is_closed());
    }

    #[test]
    fn an_open_device_can_be_closed_or_restarted() {
        let (mut cx, start) = (Context::from_waker(Waker::noop()), Instant::now());
        let mut device = TestDevice::new(opening(Ok(7)));
        let again = || opening(Ok(9));
        assert_eq!(device.poll(&mut cx, start, again), Poll::Ready(Ok(())));
        device.restart(start, |old| opening(Ok(old + 1)));
        assert_eq!(device.get(), None);
        assert_eq!(device.poll(&mut cx, start, again), Poll::Ready(Ok(())));
        assert_eq!(device.get(), Some(&8));
        device.lose(start);
        assert_eq!((device.take(start), device.retry_at()), (None, Some(start + RETRY_AFTER)));
        device.restart(start, |_| panic!("there is no device"));
        assert_eq!(device.poll(&mut cx, start + RETRY_AFTER, again), Poll::Ready(Ok(())));
        assert_eq!(device.get(), Some(&9));
    }
}
