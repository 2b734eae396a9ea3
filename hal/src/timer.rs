//! Deadlines finer than the runtime's 1 ms timer wheel.
//!
//! A CAN frame takes a quarter of a millisecond and STmin can be 100 µs, but the runtime's timers round up to
//! whole milliseconds. A [`Deadline`] waits either by the runtime's clock, which tests can pause, or by a
//! timerfd.
//!
//! A deadline counts as missed only after everything that has arrived was read. [`has_read_all`] tells whether
//! that is so; a [`Deadline`] asks it by itself.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Sleep;

use crate::system::async_fd;

/// The clock that a [`Deadline`] waits by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimerKind {
    /// The runtime's clock: up to 1 ms late, and stopped by `tokio::time::pause`.
    #[default]
    Runtime,
    /// A timerfd: late only by the kernel's scheduling, and always in real time.
    Precise,
}

impl TimerKind {
    /// The present time of this clock.
    pub fn now(self) -> Instant {
        match self {
            Self::Runtime => tokio::time::Instant::now().into_std(),
            Self::Precise => Instant::now(),
        }
    }

    /// How late a timer of this kind may expire by design.
    #[cfg(feature = "sim")]
    pub(crate) fn granularity(self) -> Duration {
        match self {
            Self::Runtime => Duration::from_millis(1),
            Self::Precise => Duration::ZERO,
        }
    }
}

/// Whether everything that has arrived has been read, if the sockets and devices of this task are pending.
///
/// A task that has spent its budget of tokio's cooperative scheduling finds every socket pending, whatever
/// waits in it. Then this returns false and wakes the task, which gets a new budget. Ask before a deadline
/// counts as missed.
pub fn has_read_all(cx: &Context<'_>) -> bool {
    let has_budget = tokio::task::coop::has_budget_remaining();
    if !has_budget {
        cx.waker().wake_by_ref();
    }
    has_budget
}

/// A point in time to wait for, which can be moved or cleared at any time.
///
/// A deadline expires once. Afterwards no deadline is set until the next [`Deadline::set`].
#[derive(Debug)]
pub struct Deadline {
    at: Option<Instant>,
    timer: DeadlineTimer,
}

#[derive(Debug)]
enum DeadlineTimer {
    Runtime(Option<Pin<Box<Sleep>>>),
    Precise(Option<PreciseSleep>),
}

impl Deadline {
    /// Creates a deadline that is not set. If no timerfd is available, [`TimerKind::Precise`] waits by the
    /// runtime.
    pub fn new(kind: TimerKind) -> Self {
        let timer = match kind {
            TimerKind::Runtime => DeadlineTimer::Runtime(None),
            TimerKind::Precise => DeadlineTimer::Precise(None),
        };
        Self { at: None, timer }
    }

    /// Moves or clears the deadline. This is cheap: only the next poll sets the timer.
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// The deadline, unless it has expired or is not set.
    pub fn get(&self) -> Option<Instant> {
        self.at
    }

    /// Ready once after the deadline; pending while none is set, and while [`has_read_all`] is false.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if !has_read_all(cx) {
            return Poll::Pending;
        }
        ready!(self.timer.poll(cx, at));
        self.at = None;
        Poll::Ready(())
    }

    /// Waits until the deadline; never returns while none is set. Cancel-safe.
    pub async fn expired(&mut self) {
        poll_fn(|cx| self.poll_expired(cx)).await;
    }
}

impl DeadlineTimer {
    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        match self {
            Self::Runtime(slot) => {
                let at = tokio::time::Instant::from_std(at);
                let sleep = slot.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                }
                sleep.as_mut().poll(cx)
            }
            Self::Precise(slot) => {
                if Instant::now() >= at {
                    return Poll::Ready(());
                }
                let sleep = match slot {
                    Some(sleep) => Ok(sleep),
                    None => PreciseSleep::new().map(|sleep| slot.insert(sleep)),
                };
                if let Ok(polled) = sleep.map(|sleep| sleep.poll(cx, at)) {
                    return polled;
                }
                // no file descriptor is left: a millisecond late is better than never
                *self = Self::Runtime(None);
                self.poll(cx, at)
            }
        }
    }
}

/// A timerfd: one system call sets it, one reads it.
#[derive(Debug)]
struct PreciseSleep {
    fd: AsyncFd<OwnedFd>,
    /// When the timer expires. A later deadline does not touch the timer but sets it again after the early
    /// wake-up, so that a timeout which every frame postpones costs no system call.
    armed: Option<Instant>,
}

impl PreciseSleep {
    fn new() -> std::io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd: async_fd(fd, Interest::READABLE)?, armed: None })
    }

    fn poll(&mut self, cx: &mut Context<'_>, at: Instant) -> Poll<()> {
        loop {
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            if self.armed.is_none_or(|armed| armed > at) && self.arm(at).is_err() {
                return Poll::Ready(());
            }
            let Ok(mut guard) = ready!(self.fd.poll_read_ready(cx)) else { return Poll::Ready(()) };
            let mut ticks = [0; 8];
            match rustix::io::read(self.fd.get_ref(), &mut ticks) {
                Ok(_) => self.armed = None,
                Err(_) => guard.clear_ready(),
            }
        }
    }

    fn arm(&mut self, at: Instant) -> rustix::io::Result<()> {
        // zero would stop the timer
        let wait = at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let value = Timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Itimerspec { it_interval, it_value: value };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::empty(), &times)?;
        self.armed = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test(start_paused = true)]
    async fn a_runtime_deadline_obeys_the_paused_clock() {
        let mut deadline = Deadline::new(TimerKind::Runtime);
        let start = TimerKind::Runtime.now();
        deadline.set(Some(start + Duration::from_secs(3600)));
        deadline.expired().await;
        assert_eq!(TimerKind::Runtime.now() - start, Duration::from_secs(3600));
    }

    #[tokio::test]
    async fn a_deadline_does_not_expire_while_the_task_may_have_unread_input() {
        for kind in [TimerKind::Runtime, TimerKind::Precise] {
            let mut deadline = Deadline::new(kind);
            deadline.set(Some(kind.now()));
            // what many frames in a row do
            poll_fn(|cx| {
                while has_read_all(cx) {
                    let _ = std::pin::pin!(tokio::task::coop::consume_budget()).poll(cx);
                }
                assert!(deadline.poll_expired(cx).is_pending(), "{kind:?}");
                Poll::Ready(())
            })
            .await;
            // the next turn of the task has a new budget
            tokio::task::yield_now().await;
            deadline.expired().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_expires_once_and_never_while_none_is_set() {
        let mut deadline = Deadline::new(TimerKind::Runtime);
        assert!(timeout(SHORT, deadline.expired()).await.is_err());
        deadline.set(Some(TimerKind::Runtime.now()));
        deadline.expired().await;
        assert!(timeout(SHORT, deadline.expired()).await.is_err());
    }

    #[tokio::test]
    async fn a_precise_deadline_is_never_early_and_finer_than_the_runtimes() {
        let mut deadline = Deadline::new(TimerKind::Precise);
        let mut lateness = Vec::new();
        for _ in 0..50 {
            let at = Instant::now() + Duration::from_micros(200);
            deadline.set(Some(at));
            deadline.expired().await;
            lateness.push(Instant::now().checked_duration_since(at).expect("never early"));
        }
        // the minimum shows the timer's accuracy even on a busy machine
        let best = lateness.iter().min().copied().unwrap_or_default();
        assert!(best < Duration::from_micros(600), "{best:?}");
    }

    #[tokio::test]
    async fn a_precise_deadline_expires_at_its_last_setting() {
        let mut deadline = Deadline::new(TimerKind::Precise);
        let start = Instant::now();
        for offset in [1, 50, 5] {
            deadline.set(Some(start + Duration::from_millis(offset)));
            // registers the deadline with the runtime without waiting
            let _ = poll_fn(|cx| Poll::Ready(deadline.poll_expired(cx))).await;
        }
        deadline.set(Some(start + Duration::from_millis(5)));
        deadline.expired().await;
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(5) && elapsed < Duration::from_millis(50), "{elapsed:?}");
    }
}
