//! The events of a bus that nobody has fetched yet.

use std::collections::VecDeque;

use super::CanEvent;

/// Events not fetched yet, bounded: received frames beyond the limit are lost and counted; outcomes and states are few
/// by nature, as whoever does not fetch his outcomes may not send on, and a state replaces the one right before it.
#[derive(Debug)]
pub(crate) struct EventQueue {
    events: VecDeque<CanEvent>,
    limit: usize,
    lost: u32,
}

impl EventQueue {
    /// A queue for this many received frames.
    pub(super) fn new(limit: usize) -> Self {
        Self { events: VecDeque::new(), limit, lost: 0 }
    }

    /// Adds an event at the end.
    pub(super) fn push(&mut self, event: CanEvent) {
        match event {
            CanEvent::Received { .. } if self.events.len() >= self.limit => self.lost += 1,
            CanEvent::State(state) => match self.events.back_mut() {
                Some(CanEvent::State(last)) => *last = state,
                _ => self.append(event),
            },
            _ => self.append(event),
        }
    }

    fn append(&mut self, event: CanEvent) {
        if self.lost > 0 {
            self.events.push_back(CanEvent::Lost(self.lost));
            self.lost = 0;
        }
        self.events.push_back(event);
    }

    /// The oldest event.
    pub(super) fn pop(&mut self) -> Option<CanEvent> {
        self.events.pop_front().or_else(|| {
            let lost = std::mem::take(&mut self.lost);
            (lost > 0).then_some(CanEvent::Lost(lost))
        })
    }

    /// Whether so many outcomes are unread that no frame should be sent.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= 2 * self.limit
    }
}
