//! The queue of PDUs on a channel, and the responses that chained PDUs wait for (relay protocol, section 4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::uds::{NEGATIVE_RESPONSE, P2_STAR, POSITIVE_OFFSET, RESPONSE_PENDING};
use crate::relay::wire::codec::PduFlags;

/// The number of PDUs that may wait on a channel.
const QUEUE_PDUS: usize = 64;
/// The number of bytes that may wait on a channel.
const QUEUE_BYTES: usize = 512 * 1024;

/// A PDU that waits for its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) data: Vec<u8>,
    pub(super) flags: PduFlags,
}

/// Chained PDUs that were discarded.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    pub(super) discarded: u32,
    /// The negative response code; 0 if no response was received.
    pub(super) code: u8,
}

/// Whether a PDU of the operator was queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Queued,
    /// The queue is full.
    Full,
    /// The PDU is chained to a PDU that failed.
    Broken(Broken),
}

/// The state of the last PDU that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// No PDU was sent yet, or the last one got its positive response.
    Answered,
    /// The PDU is being sent.
    Sending { service: u8 },
    /// The response is due. The deadline does not apply while a response is being received.
    Awaiting { service: u8, deadline: Instant, is_receiving: bool },
    /// The PDU failed: the PDUs chained to it must not be sent.
    Failed { code: u8 },
}

#[derive(Debug)]
pub(super) struct Chain {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    last: Last,
    /// Chained PDUs that arrive behind discarded ones are discarded too, with this code.
    tail_broken: Option<u8>,
    /// A chained PDU was refused because the queue is full. Chained PDUs behind it are refused too, until all
    /// PDUs before it are answered.
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
                return Accepted::Broken(Broken { discarded: 1, code });
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
                // otherwise the PDUs chained to it would be sent behind another PDU
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

    /// Whether a new PDU has to wait for a PDU before it.
    fn must_wait(&self, flags: PduFlags) -> bool {
        let is_behind = !self.queue.is_empty() || matches!(self.last, Last::Sending { .. });
        is_behind || flags.chained && self.last != Last::Answered
    }

    /// A PDU was refused before it reached the queue: the PDUs chained to it are discarded.
    pub(super) fn handle_refused(&mut self, flags: PduFlags) {
        if self.tail_broken.is_none() || !flags.chained {
            self.tail_broken = Some(0);
        }
    }

    /// The next PDU to send; call it when the transport is free.
    ///
    /// # Errors
    ///
    /// The next PDUs are chained to one that failed, and were discarded.
    pub(super) fn pop(&mut self) -> Result<Option<Queued>, Broken> {
        let Some(front) = self.queue.front() else { return Ok(None) };
        if front.flags.chained {
            match self.last {
                Last::Answered => {}
                Last::Sending { .. } | Last::Awaiting { .. } => return Ok(None),
                Last::Failed { code } => return Err(self.discard_chained(code)),
            }
        }
        let next = self.queue.pop_front();
        if let Some(next) = &next {
            self.queued_bytes -= next.data.len();
            self.last = Last::Sending { service: next.data.first().copied().unwrap_or(0) };
        }
        Ok(next)
    }

    /// Discards all PDUs that wait, because the bus is gone. Returns their number.
    pub(super) fn drain(&mut self) -> usize {
        let count = self.queue.len();
        if self.queue.back().is_some_and(|last| last.flags.chained) {
            self.tail_broken = Some(0);
        }
        self.queue.clear();
        self.queued_bytes = 0;
        count
    }

    /// Whether no PDU waits to be sent or for its response.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty() && matches!(self.last, Last::Answered | Last::Failed { .. })
    }

    /// The last PDU of [`Chain::pop`] was sent on the bus.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        if let Last::Sending { service } = self.last {
            self.last = Last::Awaiting { service, deadline: now + self.p2, is_receiving: false };
        }
    }

    /// The last PDU of [`Chain::pop`] could not be sent.
    pub(super) fn handle_send_failed(&mut self) -> Option<Broken> {
        matches!(self.last, Last::Sending { .. }).then(|| self.fail(0)).flatten()
    }

    /// The reception of a response began, which ends P2.
    pub(super) fn handle_reception_started(&mut self) {
        if let Last::Awaiting { is_receiving, .. } = &mut self.last {
            *is_receiving = true;
        }
    }

    /// The reception of a response failed: the deadline applies again.
    pub(super) fn handle_reception_failed(&mut self) {
        if let Last::Awaiting { is_receiving, .. } = &mut self.last {
            *is_receiving = false;
        }
    }

    pub(super) fn handle_response(&mut self, now: Instant, response: &[u8]) -> Option<Broken> {
        self.handle_reception_failed();
        let (Last::Sending { service } | Last::Awaiting { service, .. }) = self.last else { return None };
        match response {
            [first, ..] if *first == service.wrapping_add(POSITIVE_OFFSET) => self.last = Last::Answered,
            [NEGATIVE_RESPONSE, about, RESPONSE_PENDING, ..] if *about == service => {
                self.last = Last::Awaiting { service, deadline: now + P2_STAR, is_receiving: false };
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
            Last::Awaiting { deadline, is_receiving: false, .. } => Some(deadline),
            _ => None,
        }
    }

    fn fail(&mut self, code: u8) -> Option<Broken> {
        self.last = Last::Failed { code };
        let broken = self.discard_chained(code);
        (broken.discarded > 0).then_some(broken)
    }

    fn discard_chained(&mut self, code: u8) -> Broken {
        if self.queue.back().is_none_or(|last| last.flags.chained) {
            self.tail_broken = Some(code);
        }
        let before = self.queue.len();
        self.queue.retain(|queued| !queued.flags.chained);
        self.queued_bytes = self.queue.iter().map(|queued| queued.data.len()).sum();
        Broken { discarded: (before - self.queue.len()) as u32, code }
    }
}
