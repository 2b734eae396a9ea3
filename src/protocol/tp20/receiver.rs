//! The receiving side: what the peer sends is put together, and acknowledged where it asks for that.

use std::time::{Duration, Instant};

use super::{Event, MAX_PDU, ReceiveFailure, TimeByte};

/// How long the next data frame may take before the peer is told where we are, unless its T3 is longer.
const STALLED_AFTER: Duration = Duration::from_millis(200);
/// How often it is told.
const MAX_REMINDERS: u8 = 4;
/// The highest bit of a length, which some ECUs set for no reason.
const LENGTH_MASK: u16 = 0x7FFF;
const PREFIX: usize = 2;

#[derive(Debug)]
pub(super) struct Receiver {
    max_pdu: usize,
    stalled_after: Duration,
    /// The number that the next frame should have.
    expected: u8,
    /// The length, then the PDU as far as it came.
    bytes: Vec<u8>,
    /// A PDU is coming in, since its first frame; the next frame is due at the deadline.
    deadline: Option<Instant>,
    reminders: u8,
    /// The PDU is too long: its frames are acknowledged, so that it ends, but not kept.
    is_skipping: bool,
    /// Where a break goes back to: what was acknowledged.
    acked: (u8, usize),
    ack: Option<u8>,
}

impl Receiver {
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

    /// The peer leaves so much time between two frames.
    pub(super) fn set_t3(&mut self, t3: TimeByte) {
        let t3 = t3.to_duration().unwrap_or_default();
        self.stalled_after = STALLED_AFTER.max(t3 * 3);
    }

    /// The peer counts from 0 again.
    pub(super) fn restart(&mut self) -> Option<Event> {
        let failed = self.fail(ReceiveFailure::Closed);
        *self = Self { stalled_after: self.stalled_after, ..Self::new(self.max_pdu) };
        failed
    }

    pub(super) fn is_receiving(&self) -> bool {
        self.deadline.is_some()
    }

    /// Gives up what is coming in.
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
            // one that came before, or one behind a lost one: the acknowledgement tells the peer where to go on
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

    /// The length that the PDU announced, once it did.
    fn length(&self) -> Option<usize> {
        match *self.bytes {
            [high, low, ..] => Some(usize::from(u16::from_be_bytes([high, low]) & LENGTH_MASK)),
            _ => None,
        }
    }

    /// Takes data in, and no more of it than was announced.
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

    /// The PDU ends here.
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

    /// The peer sends again what we have not acknowledged.
    pub(super) fn handle_break(&mut self, now: Instant) {
        let (expected, length) = self.acked;
        if self.deadline.is_none() {
            return;
        }
        self.expected = expected;
        self.bytes.truncate(length);
        // with nothing acknowledged, the PDU begins anew
        let goes_on = length > 0 || self.is_skipping;
        self.deadline = goes_on.then(|| now + self.stalled_after);
    }

    /// The time for the next frame is over: true if it was for the last time.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        if self.deadline.is_none_or(|at| now < at) {
            return false;
        }
        if self.reminders >= MAX_REMINDERS {
            return true;
        }
        // ECUs that tested the channel in the middle of a block do not go on with it by themselves
        self.reminders += 1;
        self.ack = Some(self.expected);
        self.deadline = Some(now + self.stalled_after);
        false
    }

    /// The number to acknowledge with, if that is due.
    pub(super) fn take_ack(&mut self) -> Option<u8> {
        self.ack.take()
    }

    /// How much memory the PDU takes, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}
