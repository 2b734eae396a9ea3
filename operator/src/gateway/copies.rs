//! Answers that come twice: an ECU that answers a request to all is heard by its own channel too.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Answers that are remembered, an ECU.
const MAX: usize = 16;
/// How far apart the copies of one answer may come; a tool that asks on meanwhile is to get no second one either.
const APART: Duration = Duration::from_millis(500);

/// Which of the connector's channels an answer came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// The ECU's own.
    Physical,
    /// The one by which all were asked.
    Functional,
}

/// What one ECU has just said, of which each of its channels has a copy.
#[derive(Debug, Default)]
pub(super) struct Copies {
    heard: VecDeque<(Instant, Path, Vec<u8>)>,
}

impl Copies {
    /// Whether the same has come by the other channel, and so is not shown to the tool again.
    pub(super) fn is_copy(&mut self, now: Instant, path: Path, pdu: &[u8]) -> bool {
        self.heard.retain(|(at, ..)| now.saturating_duration_since(*at) <= APART);
        let before = self.heard.iter().position(|(_, other, known)| *other != path && known == pdu);
        if let Some(index) = before {
            self.heard.remove(index);
            return true;
        }
        if self.heard.len() == MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((now, path, pdu.to_vec()));
        false
    }
}
