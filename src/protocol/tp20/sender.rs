//! Transmission of one PDU at a time, in blocks that the peer acknowledges.

use std::time::{Duration, Instant};

use super::tpdu::DATA_BYTES;
use super::{CloseReason, Parameters, SendError, Timer, Tpdu};

/// Number of repetitions of a block's last frame after which the peer counts as gone: as many as channel
/// tests (MNCT). With the usual T1 of 100 ms, a peer that is gone is reported after 0.6 s.
const MAX_REPEATS: u8 = 5;
/// Time after which a peer that is not ready is sent the next frame regardless: 5 times T_Wait, which is 100
/// ms. The wait is long enough for ECUs that report by themselves that they are ready again, and ends for
/// those that do not.
const READY_WAIT: Duration = Duration::from_millis(500);
/// Number of consecutive acknowledgements with which a peer may report that it is not ready. With
/// [`READY_WAIT`] after each, the peer may be busy for 10 s: twice P2*, the time that an ECU may work without
/// an answer.
const MAX_NOT_READY: u8 = 20;
/// Bytes of the length in front of the PDU.
const PREFIX: usize = 2;

/// Block size and times of a transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    block_size: usize,
    t1: Duration,
    t3: Duration,
}

impl Pace {
    /// Returns a pace that keeps the peer's parameters, and gives the peer at least the time that we ask for
    /// ourselves.
    pub(super) fn new(own: &Parameters, peer: &Parameters) -> Self {
        Self {
            // the sequence number has four bits, so a block has at most 15 frames
            block_size: usize::from(peer.block_size.clamp(1, 15)),
            t1: peer.t1.longest().max(own.t1.longest()),
            t3: peer.t3.to_duration().unwrap_or_else(|| own.t3.longest()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransferState {
    /// The next frame can be sent once T3 has passed.
    Ready,
    /// A frame has no outcome on the bus yet.
    InFlight { serial: u32, wants_ack: bool },
    /// An acknowledgement is due; T1 runs.
    AwaitingAck { deadline: Instant },
}

#[derive(Debug)]
struct BlockTransfer {
    /// The length and the PDU.
    bytes: Vec<u8>,
    frames: usize,
    /// Sequence number of the first frame.
    first: u8,
    /// Number of frames that the peer has acknowledged.
    acked: usize,
    /// Index of the next frame.
    next: usize,
    state: TransferState,
    repeats: u8,
    not_ready: u8,
    started: Instant,
}

impl BlockTransfer {
    fn sequence(&self, frame: usize) -> u8 {
        // a sequence number has four bits
        ((usize::from(self.first) + frame) & 0x0F) as u8
    }

    fn is_last(&self, frame: usize) -> bool {
        frame + 1 >= self.frames
    }

    fn wants_ack(&self, frame: usize, pace: &Pace) -> bool {
        self.is_last(frame) || (frame + 1).saturating_sub(self.acked) >= pace.block_size
    }

    fn awaits_ack(&self) -> bool {
        matches!(
            self.state,
            TransferState::AwaitingAck { .. } | TransferState::InFlight { wants_ack: true, .. }
        )
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferEnd {
    Sent { elapsed: Duration },
    Failed(CloseReason),
}

#[derive(Debug)]
pub(super) struct BlockSender {
    pace: Pace,
    /// Sequence number of the next PDU's first frame.
    sequence: u8,
    serial: u32,
    transfer: Option<BlockTransfer>,
    /// End of T3.
    not_before: Option<Instant>,
    /// End of T_Wait, while the peer is not ready.
    not_ready_until: Option<Instant>,
}

impl BlockSender {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, sequence: 0, serial: 0, transfer: None, not_before: None, not_ready_until: None }
    }

    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// Starts again with sequence number 0, as the peer does.
    pub(super) fn restart(&mut self) {
        *self = Self { serial: self.serial, ..Self::new(self.pace) };
    }

    pub(super) fn is_sending(&self) -> bool {
        self.transfer.is_some()
    }

    pub(super) fn send(&mut self, now: Instant, pdu: &[u8], max: usize) -> Result<(), SendError> {
        if self.transfer.is_some() {
            return Err(SendError::Busy);
        }
        check(pdu, max)?;
        let mut bytes = Vec::with_capacity(PREFIX + pdu.len());
        // `check` bounds the length to 15 bits
        bytes.extend((pdu.len() as u16).to_be_bytes());
        bytes.extend(pdu);
        self.transfer = Some(BlockTransfer {
            frames: bytes.len().div_ceil(DATA_BYTES),
            bytes,
            first: self.sequence,
            acked: 0,
            next: 0,
            state: TransferState::Ready,
            repeats: 0,
            not_ready: 0,
            started: now,
        });
        Ok(())
    }

    /// Abandons the PDU. The peer's sequence number is unknown afterwards.
    pub(super) fn abort(&mut self) {
        self.transfer = None;
    }

    /// Takes an acknowledgement of all frames before this sequence number.
    pub(super) fn handle_ack(&mut self, now: Instant, ready: bool, sequence: u8) -> Option<TransferEnd> {
        self.not_ready_until = (!ready).then(|| now + READY_WAIT);
        let transfer = self.transfer.as_mut()?;
        let ahead = usize::from(sequence.wrapping_sub(transfer.sequence(transfer.acked)) & 0x0F);
        let acked = transfer.acked + ahead;
        if acked > transfer.next {
            return None;
        }
        transfer.not_ready = if ready { 0 } else { transfer.not_ready + 1 };
        if transfer.not_ready > MAX_NOT_READY {
            return Some(self.fail(CloseReason::NotReady));
        }
        // a late acknowledgement
        if acked == transfer.acked && !transfer.awaits_ack() {
            return None;
        }
        if acked > transfer.acked {
            transfer.repeats = 0;
        }
        transfer.acked = acked;
        if acked == transfer.frames {
            let elapsed = now.saturating_duration_since(transfer.started);
            self.sequence = transfer.sequence(acked);
            self.transfer = None;
            return Some(TransferEnd::Sent { elapsed });
        }
        let is_behind = acked < transfer.next;
        transfer.next = acked;
        transfer.state = TransferState::Ready;
        if is_behind { self.count_repeat() } else { None }
    }

    /// Takes note that the data frame with this serial number was acknowledged on the bus.
    pub(super) fn handle_transmitted(&mut self, now: Instant, serial: u32) {
        let Some(transfer) = &mut self.transfer else { return };
        if let TransferState::InFlight { serial: current, wants_ack } = transfer.state
            && current == serial
        {
            self.not_before = Some(now + self.pace.t3);
            transfer.state = if wants_ack {
                TransferState::AwaitingAck { deadline: now + self.pace.t1 }
            } else {
                TransferState::Ready
            };
        }
    }

    /// Returns whether the frame with this serial number belongs to the current transfer.
    pub(super) fn is_in_flight(&self, serial: u32) -> bool {
        let state = self.transfer.as_ref().map(|transfer| transfer.state);
        matches!(state, Some(TransferState::InFlight { serial: current, .. }) if current == serial)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<TransferEnd> {
        self.not_before.take_if(|at| *at <= now);
        self.not_ready_until.take_if(|at| *at <= now);
        let transfer = self.transfer.as_mut()?;
        match transfer.state {
            TransferState::AwaitingAck { deadline } if deadline <= now => {
                // repeat the frame that asked for the acknowledgement; the answer says which other frames are
                // missing
                transfer.next = transfer.next.saturating_sub(1).max(transfer.acked);
                transfer.state = TransferState::Ready;
                self.count_repeat()
            }
            _ => None,
        }
    }

    fn count_repeat(&mut self) -> Option<TransferEnd> {
        let transfer = self.transfer.as_mut()?;
        transfer.repeats += 1;
        if transfer.repeats > MAX_REPEATS { Some(self.fail(CloseReason::NoAck)) } else { None }
    }

    fn fail(&mut self, reason: CloseReason) -> TransferEnd {
        self.transfer = None;
        TransferEnd::Failed(reason)
    }

    /// Returns the next data frame, and the serial number by which its outcome is reported.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(Tpdu<'_>, u32)> {
        if self.not_before.is_some_and(|at| now < at) || self.not_ready_until.is_some_and(|at| now < at) {
            return None;
        }
        let pace = self.pace;
        let transfer = self.transfer.as_mut().filter(|transfer| transfer.state == TransferState::Ready)?;
        let frame = transfer.next;
        let (wants_ack, is_last) = (transfer.wants_ack(frame, &pace), transfer.is_last(frame));
        self.serial = self.serial.wrapping_add(1);
        transfer.next += 1;
        transfer.state = TransferState::InFlight { serial: self.serial, wants_ack };
        let sequence = transfer.sequence(frame);
        let data = transfer.bytes.chunks(DATA_BYTES).nth(frame)?;
        Some((Tpdu::Data { wants_ack, is_last, sequence, data }, self.serial))
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match self.transfer.as_ref()?.state {
            TransferState::InFlight { .. } => None,
            TransferState::AwaitingAck { deadline } => Some((deadline, Timer::T1)),
            TransferState::Ready => {
                let t3 = self.not_before.map(|at| (at, Timer::T3));
                let wait = self.not_ready_until.map(|at| (at, Timer::TWait));
                // both must have expired
                t3.into_iter().chain(wait).max_by_key(|&(at, _)| at)
            }
        }
    }
}

/// Checks the length of a PDU.
pub(super) fn check(pdu: &[u8], max: usize) -> Result<(), SendError> {
    if pdu.is_empty() {
        return Err(SendError::Empty);
    }
    let max = max.min(super::MAX_PDU);
    if pdu.len() > max {
        return Err(SendError::TooLong { len: pdu.len(), max });
    }
    Ok(())
}
