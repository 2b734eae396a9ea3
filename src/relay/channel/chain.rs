//! The PDUs that wait on a channel, and what the chained ones among them wait for (relay protocol, section 4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::uds::{NEGATIVE_RESPONSE, P2_STAR, POSITIVE_OFFSET, RESPONSE_PENDING};
use crate::relay::wire::codec::PduFlags;

/// PDUs that may wait on a channel.
const QUEUE_PDUS: usize = 64;
/// Bytes that may wait on a channel.
const QUEUE_BYTES: usize = 512 * 1024;

/// A PDU that waits for its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) data: Vec<u8>,
    pub(super) flags: PduFlags,
}

/// Chained PDUs that were thrown away.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) thrown_away: u32,
    /// The negative response code; 0 where no response came.
    pub(super) code: u8,
}

/// What became of a PDU that came in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Queued,
    /// Too much waits already.
    Full,
    /// It is chained to what failed.
    Broken(Broken),
}

/// How the PDU sent last stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// None was sent yet, or its positive response came.
    Answered,
    /// It is being sent.
    Sending { service: u8 },
    /// Its response is due; while a response is coming in, no deadline runs.
    Awaiting { service: u8, deadline: Instant, is_coming_in: bool },
    /// It failed: what is chained to it must not be sent.
    Failed { code: u8 },
}

#[derive(Debug)]
pub(super) struct Chain {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    last: Last,
    /// The code with which chained PDUs are thrown away that arrive behind ones thrown away before.
    tail_broken: Option<u8>,
    /// A chained PDU was refused for lack of room: those behind it are refused too, until all before it is answered.
    tail_refused: bool,
    p2: Duration,
}

impl Chain {
    pub(super) fn new(p2: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            queued_bytes: 0,
            last: Last::Answered,
            tail_broken: None,
            tail_refused: false,
            p2,
        }
    }

    pub(super) fn push(&mut self, flags: PduFlags, data: &[u8]) -> Accepted {
        if flags.chained {
            if let Some(code) = self.tail_broken {
                return Accepted::Broken(Broken { thrown_away: 1, code });
            }
            if self.tail_refused && !(self.queue.is_empty() && self.last == Last::Answered) {
                return Accepted::Full;
            }
        }
        if self.queue.len() >= QUEUE_PDUS
            || self.must_wait(flags) && self.queued_bytes + data.len() > QUEUE_BYTES
        {
            if flags.chained {
                self.tail_refused = true;
            } else {
                // what is chained to it would else be sent behind another PDU
                self.tail_broken = Some(0);
            }
            return Accepted::Full;
        }
        self.tail_refused = false;
        self.tail_broken = None;
        self.queued_bytes += data.len();
        self.queue.push_back(Queued { data: data.to_vec(), flags });
        Accepted::Queued
    }

    /// Whether a PDU that comes now has to wait for one before it.
    fn must_wait(&self, flags: PduFlags) -> bool {
        let is_behind = !self.queue.is_empty() || matches!(self.last, Last::Sending { .. });
        is_behind || flags.chained && self.last != Last::Answered
    }

    /// A PDU never got here: what is chained to it is thrown away.
    pub(super) fn handle_refused(&mut self, flags: PduFlags) {
        if self.tail_broken.is_none() || !flags.chained {
            self.tail_broken = Some(0);
        }
    }

    /// The PDU whose turn it is, once the transport is free; PDUs chained to one that failed come back as broken.
    pub(super) fn pop(&mut self) -> Result<Option<Queued>, Broken> {
        let Some(front) = self.queue.front() else { return Ok(None) };
        if front.flags.chained {
            match self.last {
                Last::Answered => {}
                Last::Sending { .. } | Last::Awaiting { .. } => return Ok(None),
                Last::Failed { code } => return Err(self.throw_away(code)),
            }
        }
        let next = self.queue.pop_front();
        if let Some(next) = &next {
            self.queued_bytes -= next.data.len();
            self.last = Last::Sending { service: next.data.first().copied().unwrap_or(0) };
        }
        Ok(next)
    }

    /// All that waits, taken out: the bus is gone.
    pub(super) fn drain(&mut self) -> usize {
        let count = self.queue.len();
        if self.queue.back().is_some_and(|last| last.flags.chained) {
            self.tail_broken = Some(0);
        }
        self.queue.clear();
        self.queued_bytes = 0;
        count
    }

    /// Whether nothing waits, neither to be sent nor for a response.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && matches!(self.last, Last::Answered | Last::Failed { .. })
    }

    /// The PDU popped last is on the bus.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        if let Last::Sending { service } = self.last {
            self.last = Last::Awaiting { service, deadline: now + self.p2, is_coming_in: false };
        }
    }

    /// The PDU popped last could not be sent.
    pub(super) fn handle_send_failed(&mut self) -> Option<Broken> {
        matches!(self.last, Last::Sending { .. }).then(|| self.fail(0)).flatten()
    }

    /// A response began to come in: P2 counts to here.
    pub(super) fn handle_reception_started(&mut self) {
        if let Last::Awaiting { is_coming_in, .. } = &mut self.last {
            *is_coming_in = true;
        }
    }

    /// A response did not come in whole: the wait goes on as far as its deadline.
    pub(super) fn handle_reception_failed(&mut self) {
        if let Last::Awaiting { is_coming_in, .. } = &mut self.last {
            *is_coming_in = false;
        }
    }

    pub(super) fn handle_response(&mut self, now: Instant, response: &[u8]) -> Option<Broken> {
        self.handle_reception_failed();
        let (Last::Sending { service } | Last::Awaiting { service, .. }) = self.last else { return None };
        match response {
            [first, ..] if *first == service.wrapping_add(POSITIVE_OFFSET) => self.last = Last::Answered,
            [NEGATIVE_RESPONSE, about, RESPONSE_PENDING, ..] if *about == service => {
                self.last = Last::Awaiting { service, deadline: now + P2_STAR, is_coming_in: false };
            }
            [NEGATIVE_RESPONSE, about, code, ..] if *about == service => return self.fail(*code),
            _ => {}
        }
        None
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Broken> {
        match self.poll_timeout() {
            Some(deadline) if deadline <= now => self.fail(0),
            _ => None,
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.last {
            Last::Awaiting { deadline, is_coming_in: false, .. } => Some(deadline),
            _ => None,
        }
    }

    fn fail(&mut self, code: u8) -> Option<Broken> {
        self.last = Last::Failed { code };
        let broken = self.throw_away(code);
        (broken.thrown_away > 0).then_some(broken)
    }

    fn throw_away(&mut self, code: u8) -> Broken {
        if self.queue.back().is_none_or(|last| last.flags.chained) {
            self.tail_broken = Some(code);
        }
        let before = self.queue.len();
        self.queue.retain(|queued| !queued.flags.chained);
        self.queued_bytes = self.queue.iter().map(|queued| queued.data.len()).sum();
        Broken { thrown_away: (before - self.queue.len()) as u32, code }
    }
}
