//! Duplicate answers: the answer to a functional request also arrives on the channel of the ECU that sent it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many answers are remembered per ECU. An ECU gives few answers within [`MAX_DISTANCE`].
const MAX_ANSWERS: usize = 16;
/// The longest time between the copies of one answer, even if the tool sends another request meanwhile. The
/// connector sends both copies in the same message or in consecutive ones, so that only a stalled network
/// separates them.
const MAX_DISTANCE: Duration = Duration::from_millis(500);

/// Which of the connector's channels delivered an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerPath {
    /// The channel of the ECU.
    Physical,
    /// The functional channel.
    Functional,
}

/// The recent answers of one ECU, to detect the copies from the other channel.
#[derive(Debug, Default)]
pub(super) struct Copies {
    heard: VecDeque<(Instant, AnswerPath, Vec<u8>)>,
}

impl Copies {
    /// Whether the other channel delivered the same answer already, so that the tool must not receive it
    /// again.
    pub(super) fn is_copy(&mut self, now: Instant, path: AnswerPath, pdu: &[u8]) -> bool {
        self.heard.retain(|(at, ..)| now.saturating_duration_since(*at) <= MAX_DISTANCE);
        let before = self.heard.iter().position(|(_, other, known)| *other != path && known == pdu);
        if let Some(index) = before {
            self.heard.remove(index);
            return true;
        }
        if self.heard.len() == MAX_ANSWERS {
            self.heard.pop_front();
        }
        self.heard.push_back((now, path, pdu.to_vec()));
        false
    }
}
