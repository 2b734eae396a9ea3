//! Reception of one PDU at a time: reassembly, and acknowledgements that the peer asks for.

use std::time::{Duration, Instant};

use super::{Event, MAX_PDU, ReceiveFailure, TimeByte};

/// Time without a data frame after which the last acknowledgement is repeated; longer if the peer's T3 is.
/// Twice our T1 of 100 ms: a peer that waits for the acknowledgement has repeated its frame by then, and
/// needs no reminder.
const STALLED_AFTER: Duration = Duration::from_millis(200);
/// Number of such repetitions. A reception that stalls ends after five times [`STALLED_AFTER`]: 1 s, as by
/// N_Cr of ISO-TP.
const MAX_REMINDERS: u8 = 4;
/// Bits of the length. Some ECUs set the highest bit without meaning.
const LENGTH_MASK: u16 = 0x7FFF;
const PREFIX: usize = 2;

#[derive(Debug)]
pub(super) struct BlockReceiver {
    max_pdu: usize,
    stalled_after: Duration,
    /// Sequence number of the next frame.
    expected: u8,
    /// The length and the received part of the PDU.
    bytes: Vec<u8>,
    /// Deadline of the next frame, while a PDU is being received.
    deadline: Option<Instant>,
    reminders: u8,
    /// The PDU is too long: its frames are acknowledged, so that the PDU ends, but discarded.
    is_skipping: bool,
    /// The acknowledged part, to which a break returns: the next sequence number and the number of bytes.
    acked: (u8, usize),
    ack: Option<u8>,
}

impl BlockReceiver {
    pub(super) fn new(max_pdu: usize) -> Self {
        Self {
            max_pdu: max_pdu.min(MAX_PDU),
            stalled_after: STALLED_AFTER,
            expected: 0,
            bytes: Vec::new(),
            deadline: None,
            reminders: 0,
            is_skipping: false,
            acked: (0, 0),
            ack: None,
        }
    }

    /// Sets T3, the time that the peer leaves between two frames.
    pub(super) fn set_t3(&mut self, t3: TimeByte) {
        let t3 = t3.to_duration().unwrap_or_default();
        self.stalled_after = STALLED_AFTER.max(t3 * 3);
    }

    /// Starts again with sequence number 0, as the peer does.
    pub(super) fn restart(&mut self) -> Option<Event> {
        let failed = self.fail(ReceiveFailure::Closed);
        *self = Self { stalled_after: self.stalled_after, ..Self::new(self.max_pdu) };
        failed
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.deadline.is_some()
    }

    /// Ends the reception with a failure, if there is one.
    pub(super) fn fail(&mut self, failure: ReceiveFailure) -> Option<Event> {
        self.bytes = Vec::new();
        let was_wanted = self.deadline.take().is_some() && !self.is_skipping;
        was_wanted.then_some(Event::ReceiveFailed { failure })
    }

    pub(super) fn handle_data(
        &mut self,
        now: Instant,
        wants_ack: bool,
        is_last: bool,
        sequence: u8,
        data: &[u8],
    ) -> [Option<Event>; 2] {
        if sequence != self.expected {
            // a repeated frame, or one after a lost one: the acknowledgement says where the peer has to
            // continue
            if wants_ack {
                self.ack = Some(self.expected);
            }
            return [None, None];
        }
        self.expected = (sequence + 1) & 0x0F;
        let started = self.deadline.is_none().then(|| {
            self.bytes.clear();
            self.is_skipping = false;
            Event::ReceptionStarted
        });
        self.deadline = Some(now + self.stalled_after);
        self.reminders = 0;
        let mut ended = self.append(data);
        if wants_ack {
            self.ack = Some(self.expected);
        }
        if is_last {
            self.deadline = None;
            if ended.is_none() && !self.is_skipping {
                ended = self.finish();
            }
        }
        if wants_ack || is_last {
            self.acked = (self.expected, self.bytes.len());
        }
        [started, ended]
    }

    /// Returns the announced length of the PDU, once it was received.
    fn length(&self) -> Option<usize> {
        match *self.bytes {
            [high, low, ..] => Some(usize::from(u16::from_be_bytes([high, low]) & LENGTH_MASK)),
            _ => None,
        }
    }

    /// Appends data, up to the announced length.
    fn append(&mut self, data: &[u8]) -> Option<Event> {
        if self.is_skipping {
            return None;
        }
        self.bytes.extend(data);
        let length = self.length()?;
        if length > self.max_pdu {
            self.is_skipping = true;
            self.bytes = Vec::new();
            return Some(Event::ReceiveFailed { failure: ReceiveFailure::TooLong });
        }
        self.bytes.truncate(PREFIX + length);
        None
    }

    /// Ends the PDU.
    fn finish(&mut self) -> Option<Event> {
        let mut pdu = std::mem::take(&mut self.bytes);
        match pdu.get(..PREFIX) {
            Some(&[high, low]) => {
                let length = usize::from(u16::from_be_bytes([high, low]) & LENGTH_MASK);
                pdu.drain(..PREFIX);
                if pdu.len() != length {
                    return Some(Event::ReceiveFailed { failure: ReceiveFailure::WrongLength });
                }
                (length > 0).then_some(Event::Received { pdu })
            }
            _ => Some(Event::ReceiveFailed { failure: ReceiveFailure::WrongLength }),
        }
    }

    /// Returns to the acknowledged part, from which the peer sends again.
    pub(super) fn handle_break(&mut self, now: Instant) {
        let (expected, length) = self.acked;
        if self.deadline.is_none() {
            return;
        }
        self.expected = expected;
        self.bytes.truncate(length);
        // without an acknowledged part, the PDU starts again
        let continues = length > 0 || self.is_skipping;
        self.deadline = continues.then(|| now + self.stalled_after);
    }

    /// Repeats the acknowledgement if the next frame is overdue; returns true if it was repeated too often.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.deadline.is_none_or(|at| now < at) {
            return false;
        }
        if self.reminders >= MAX_REMINDERS {
            return true;
        }
        // an ECU that tested the channel in the middle of a block does not continue without an
        // acknowledgement
        self.reminders += 1;
        self.ack = Some(self.expected);
        self.deadline = Some(now + self.stalled_after);
        false
    }

    /// Returns the sequence number of the acknowledgement, if one is due.
    pub(super) fn take_ack(&mut self) -> Option<u8> {
        self.ack.take()
    }

    /// Returns the memory that the PDU uses, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}
