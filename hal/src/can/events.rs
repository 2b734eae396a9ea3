//! The events that a bus's owner has not read yet.

use std::collections::VecDeque;

use super::CanEvent;

/// A bounded queue of unread events. Received frames beyond the limit are lost and counted. Outcomes stay few
/// because sending blocks until they are read; a state replaces a state directly before it.
#[derive(Debug)]
pub(crate) struct EventQueue {
    events: VecDeque<CanEvent>,
    limit: usize,
    lost: u32,
}

impl EventQueue {
    /// Creates a queue for `limit` received frames.
    pub(super) fn new(limit: usize) -> Self {
        Self { events: VecDeque::new(), limit, lost: 0 }
    }

    /// Appends an event.
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

    /// Removes the oldest event.
    pub(super) fn pop(&mut self) -> Option<CanEvent> {
        self.events.pop_front().or_else(|| {
            let lost = std::mem::take(&mut self.lost);
            (lost > 0).then_some(CanEvent::Lost(lost))
        })
    }

    /// Whether too many outcomes are unread to send another frame.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= 2 * self.limit
    }
}
