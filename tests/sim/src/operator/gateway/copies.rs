//! Answers that come twice: an ECU that answers a request to all is heard by its own channel too.

use std::collections::VecDeque;

/// Answers that are remembered, an ECU.
const MAX: usize = 16;

/// Which of the connector's channels an answer came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// The ECU's own.
    Physical,
    /// The one by which all were asked.
    Functional,
}

/// What one ECU said since it was asked last, of which each of its channels has a copy.
#[derive(Debug, Default)]
pub(super) struct Copies {
    heard: VecDeque<(Path, Vec<u8>)>,
}

impl Copies {
    /// The ECU is asked something new.
    pub(super) fn clear(&mut self) {
        self.heard.clear();
    }

    /// Whether the same has come by the other channel, and so is not shown to the tool again.
    pub(super) fn is_copy(&mut self, path: Path, pdu: &[u8]) -> bool {
        let before = self.heard.iter().position(|(other, known)| *other != path && known == pdu);
        if let Some(index) = before {
            self.heard.remove(index);
            return true;
        }
        if self.heard.len() == MAX {
            self.heard.pop_front();
        }
        self.heard.push_back((path, pdu.to_vec()));
        false
    }
}
