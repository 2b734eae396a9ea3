//! A simulated K-line and its nodes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::wire::{Wire, WireEvent};
use crate::kline::{KLine, KLineError, KLineEvent, Signal};
use crate::timer::{Deadline, TimerKind};

/// A simulated K-line. Clones share the line.
#[derive(Clone)]
pub struct SimLine {
    shared: Arc<Mutex<SharedLine>>,
    timer: TimerKind,
}

struct SharedLine {
    wire: Wire,
    wakers: Vec<Option<Waker>>,
}

impl SimLine {
    /// Creates a silent line that uses the clock `timer`.
    pub fn new(timer: TimerKind) -> Self {
        Self { shared: Arc::new(Mutex::new(SharedLine { wire: Wire::default(), wakers: Vec::new() })), timer }
    }

    /// Attaches a node that sends and receives at `bit_rate` bit/s.
    pub fn attach(&self, name: &str, bit_rate: u32) -> LineNode {
        let mut shared = lock(&self.shared);
        let node = shared.wire.attach(bit_rate);
        shared.wakers.push(None);
        drop(shared);
        LineNode { name: name.to_owned(), node, line: self.clone(), deadline: Deadline::new(self.timer) }
    }

    /// The present time of the line's clock.
    pub fn now(&self) -> Instant {
        self.timer.now()
    }
}

impl SharedLine {
    fn wake_all(&mut self) {
        self.wakers.iter_mut().filter_map(Option::take).for_each(Waker::wake);
    }
}

fn lock(shared: &Mutex<SharedLine>) -> MutexGuard<'_, SharedLine> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A node of a simulated line. As a [`KLine`], it is the interface of a tester.
pub struct LineNode {
    name: String,
    node: usize,
    line: SimLine,
    deadline: Deadline,
}

impl LineNode {
    /// The present time of the line's clock.
    pub fn now(&self) -> Instant {
        self.line.now()
    }

    /// Transmits a signal from `start` on, which may lie in the future.
    pub fn transmit_at(&mut self, start: Instant, signal: Signal) {
        let mut shared = lock(&self.line.shared);
        shared.wire.transmit(start, self.node, signal);
        shared.wake_all();
    }

    /// Sends and receives at another bit rate, in bit/s.
    pub(super) fn listen_at(&mut self, bit_rate: u32) {
        lock(&self.line.shared).wire.set_bit_rate(self.node, bit_rate);
    }

    /// Receives bytes at any bit rate until a bit rate is set.
    pub(super) fn listen_at_any(&mut self) {
        lock(&self.line.shared).wire.listen_at_any(self.node);
    }

    /// The next event that the node sees on the wire.
    pub fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent> {
        loop {
            let mut shared = lock(&self.line.shared);
            if let Some(event) = shared.wire.poll_event(self.line.now(), self.node) {
                return Poll::Ready(event);
            }
            self.deadline.set(shared.wire.poll_timeout(self.node));
            if let Some(waker) = shared.wakers.get_mut(self.node) {
                *waker = Some(cx.waker().clone());
            }
            drop(shared);
            if self.deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl KLine for LineNode {
    fn device(&self) -> &str {
        &self.name
    }

    fn set_bit_rate(&mut self, bit_rate: u32) -> Result<(), KLineError> {
        self.listen_at(bit_rate);
        Ok(())
    }

    fn transmit(&mut self, signal: Signal) -> Result<(), KLineError> {
        self.transmit_at(self.now(), signal);
        Ok(())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<KLineEvent, KLineError>> {
        loop {
            match self.poll_wire(cx) {
                Poll::Ready(WireEvent::Byte { byte, at }) => {
                    return Poll::Ready(Ok(KLineEvent::Received { byte, at }));
                }
                Poll::Ready(WireEvent::Sent { at }) => return Poll::Ready(Ok(KLineEvent::Sent { at })),
                Poll::Ready(WireEvent::Level { .. }) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
