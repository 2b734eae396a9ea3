//! One direction of a websocket link: an ordered stream of bytes with delay and stalls, which can end at any
//! byte.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// An item on the link.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Binary(Bytes),
    Hello { received: u32 },
    Interrupted,
    Resumed { received: u32 },
    Resume { received: u32 },
    Join { received: u32 },
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Binary(bytes) => bytes.len() + 8,
            _ => 100,
        }
    }
}

/// The bytes that a socket accepts before it stops being writable.
const SOCKET_BYTES: usize = 96 * 1024;

#[derive(Debug, Default)]
pub(super) struct Hop {
    queue: VecDeque<(Instant, Item)>,
    queued_bytes: usize,
    stalled_until: Option<Instant>,
}

impl Hop {
    pub(super) fn is_writable(&self) -> bool {
        self.queued_bytes < SOCKET_BYTES
    }

    pub(super) fn stall(&mut self, until: Instant) {
        self.stalled_until = Some(until);
        for (at, _) in &mut self.queue {
            *at = (*at).max(until);
        }
    }

    pub(super) fn send(&mut self, now: Instant, delay: Duration, item: Item) {
        let mut at = now + delay;
        if let Some((last, _)) = self.queue.back() {
            at = at.max(*last);
        }
        if let Some(until) = self.stalled_until.filter(|until| *until > now) {
            at = at.max(until);
        }
        self.queued_bytes += item.len();
        self.queue.push_back((at, item));
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    pub(super) fn receive(&mut self, now: Instant) -> Option<Item> {
        let (_, item) = self.queue.pop_front_if(|(at, _)| *at <= now)?;
        self.queued_bytes -= item.len();
        Some(item)
    }

    /// Cuts the stream after a random byte; returns the items that had arrived whole, and the number of lost
    /// ones.
    pub(super) fn cut(&mut self, rng: &mut fastrand::Rng) -> (Vec<Item>, u64) {
        let cut_after = rng.usize(0..=self.queued_bytes);
        let mut arrived = Vec::new();
        let mut bytes = 0;
        let total = self.queue.len();
        while let Some((_, item)) = self.queue.pop_front() {
            bytes += item.len();
            if bytes > cut_after {
                break;
            }
            arrived.push(item);
        }
        let lost = total - arrived.len();
        *self = Self::default();
        (arrived, lost as u64)
    }
}
