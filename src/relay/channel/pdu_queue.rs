//! The PDUs of the operator that wait for their turn on a channel.

use std::collections::VecDeque;
use std::time::Instant;

use super::last_request::{LastRequest, NO_RESPONSE, Permission};
use super::output::PduToSend;
use crate::relay::wire::codec::PduFlags;

/// The number of PDUs that may wait on a channel (relay protocol, section 4.1).
const QUEUE_PDUS: usize = 64;
/// The number of bytes that may wait on a channel (relay protocol, section 4.1): room for most downloads, and less
/// than a hundredth of the smallest connector's memory.
const QUEUE_BYTES: usize = 512 * 1024;

/// A PDU that waits for its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueuedPdu {
    pub(super) data: Vec<u8>,
    pub(super) flags: PduFlags,
    pub(super) expires: Instant,
}

impl QueuedPdu {
    /// Whether the PDU has waited for too long. A chained PDU waits on purpose.
    pub(super) fn is_too_old(&self, now: Instant) -> bool {
        !self.flags.chained && self.expires < now
    }
}

/// Whether a PDU of the operator was queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Queued,
    /// The queue is full.
    Full,
    /// The PDU is chained to a PDU that failed with this code.
    Broken(u8),
}

/// The PDUs of the operator that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) pdus: VecDeque<QueuedPdu>,
    bytes: usize,
    /// Chained PDUs that arrive behind discarded ones are discarded too, with this code.
    tail_broken: Option<u8>,
    /// A chained PDU was refused because the queue is full. Chained PDUs behind it are refused too, until all
    /// PDUs before it are answered.
    tail_refused: bool,
}

impl Queue {
    pub(super) fn push(&mut self, last: &LastRequest, pdu: PduToSend<'_>) -> Accepted {
        let PduToSend { flags, expires, data } = pdu;
        let is_answered = last.permission() == Permission::Granted;
        if flags.chained {
            if let Some(code) = self.tail_broken {
                return Accepted::Broken(code);
            }
            if self.tail_refused && !(self.pdus.is_empty() && is_answered) {
                return Accepted::Full;
            }
        }
        let must_wait = !self.pdus.is_empty() || last.is_sending() || flags.chained && !is_answered;
        if self.pdus.len() >= QUEUE_PDUS || must_wait && self.bytes + data.len() > QUEUE_BYTES {
            if flags.chained {
                self.tail_refused = true;
            } else {
                // otherwise the PDUs chained to it would be sent behind another PDU
                self.tail_broken = Some(NO_RESPONSE);
            }
            return Accepted::Full;
        }
        self.tail_refused = false;
        self.tail_broken = None;
        self.bytes += data.len();
        self.pdus.push_back(QueuedPdu { data: data.to_vec(), flags, expires });
        Accepted::Queued
    }

    pub(super) fn pop(&mut self) -> Option<QueuedPdu> {
        let next = self.pdus.pop_front()?;
        self.bytes -= next.data.len();
        Some(next)
    }

    pub(super) fn is_next_chained(&self) -> bool {
        self.pdus.front().is_some_and(|next| next.flags.chained)
    }

    /// A PDU was refused before it reached the queue: the PDUs chained to it are discarded.
    pub(super) fn handle_refused(&mut self, flags: PduFlags) {
        if self.tail_broken.is_none() || !flags.chained {
            self.tail_broken = Some(NO_RESPONSE);
        }
    }

    /// Discards the chained PDUs, because the request before them failed with this code. Returns their number.
    pub(super) fn discard_chained(&mut self, code: u8) -> u32 {
        if self.pdus.back().is_none_or(|last| last.flags.chained) {
            self.tail_broken = Some(code);
        }
        let before = self.pdus.len();
        self.pdus.retain(|queued| !queued.flags.chained);
        self.bytes = self.pdus.iter().map(|queued| queued.data.len()).sum();
        (before - self.pdus.len()) as u32
    }

    /// Discards all PDUs. Returns their number.
    pub(super) fn discard_all(&mut self) -> usize {
        let count = self.pdus.len();
        if self.pdus.back().is_some_and(|last| last.flags.chained) {
            self.tail_broken = Some(NO_RESPONSE);
        }
        self.pdus.clear();
        self.bytes = 0;
        count
    }
}
