//! The sending side: one PDU at a time, in blocks that the peer acknowledges.

use std::time::{Duration, Instant};

use super::tpdu::DATA_BYTES;
use super::{CloseReason, Parameters, SendError, Timer, Tpdu};

/// How often the last frame of a block is sent again before the peer is taken for gone.
const MAX_REPEATS: u8 = 5;
/// How long a peer that is not ready may take to say that it is, before it is asked by the next frame (5 times T_Wait).
const READY_WAIT: Duration = Duration::from_millis(500);
/// How often in a row a peer may say that it is not ready.
const MAX_NOT_READY: u8 = 20;
/// Bytes that say how long the PDU is.
const PREFIX: usize = 2;

/// What the peer's parameters come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    block_size: usize,
    t1: Duration,
    t3: Duration,
}

impl Pace {
    /// What keeps to the peer's parameters, and gives it no less time than we ask for ourselves.
    pub(super) fn new(own: &Parameters, peer: &Parameters) -> Self {
        Self {
            // the counter has four bits, so that 15 is the most that can be told apart
            block_size: usize::from(peer.block_size.clamp(1, 15)),
            t1: peer.t1.longest().max(own.t1.longest()),
            t3: peer.t3.to_duration().unwrap_or_else(|| own.t3.longest()),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The next frame can go, once T3 has passed.
    Ready,
    /// A frame waits for its outcome on the bus.
    InFlight { serial: u32, wants_ack: bool },
    /// T1 runs.
    AwaitingAck { deadline: Instant },
}

#[derive(Debug)]
struct Transfer {
    /// The length, then the PDU.
    bytes: Vec<u8>,
    frames: usize,
    /// The sequence number of the first frame.
    first: u8,
    /// Frames that the peer has.
    acked: usize,
    /// The frame that goes next.
    next: usize,
    state: State,
    repeats: u8,
    not_ready: u8,
    started: Instant,
}

impl Transfer {
    fn sequence(&self, frame: usize) -> u8 {
        // the sum's low bits are what counts
        ((usize::from(self.first) + frame) & 0x0F) as u8
    }

    fn is_last(&self, frame: usize) -> bool {
        frame + 1 >= self.frames
    }

    fn wants_ack(&self, frame: usize, pace: &Pace) -> bool {
        self.is_last(frame) || (frame + 1).saturating_sub(self.acked) >= pace.block_size
    }

    fn awaits_ack(&self) -> bool {
        matches!(self.state, State::AwaitingAck { .. } | State::InFlight { wants_ack: true, .. })
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Sent { elapsed: Duration },
    Failed(CloseReason),
}

#[derive(Debug)]
pub(super) struct Sender {
    pace: Pace,
    /// The number of the next PDU's first frame.
    sequence: u8,
    serial: u32,
    transfer: Option<Transfer>,
    /// T3 runs.
    not_before: Option<Instant>,
    /// The peer is not ready, T_Wait runs.
    not_ready_until: Option<Instant>,
}

impl Sender {
    pub(super) fn new(pace: Pace) -> Self {
        Self { pace, sequence: 0, serial: 0, transfer: None, not_before: None, not_ready_until: None }
    }

    pub(super) fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// The peer counts from 0 again.
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
        // bounded by `max`, which is no more than the length can say
        bytes.extend((pdu.len() as u16).to_be_bytes());
        bytes.extend(pdu);
        self.transfer = Some(Transfer {
            frames: bytes.len().div_ceil(DATA_BYTES),
            bytes,
            first: self.sequence,
            acked: 0,
            next: 0,
            state: State::Ready,
            repeats: 0,
            not_ready: 0,
            started: now,
        });
        Ok(())
    }

    /// Gives up what is being sent, without an outcome; the peer's counter is not known any more.
    pub(super) fn abort(&mut self) {
        self.transfer = None;
    }

    /// The peer has everything before the frame with this number.
    pub(super) fn handle_ack(&mut self, now: Instant, ready: bool, sequence: u8) -> Option<Outcome> {
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
        // one that comes late says nothing new
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
            return Some(Outcome::Sent { elapsed });
        }
        let is_behind = acked < transfer.next;
        transfer.next = acked;
        transfer.state = State::Ready;
        if is_behind { self.count_repeat() } else { None }
    }

    /// The data frame of this number was acknowledged on the bus.
    pub(super) fn handle_transmitted(&mut self, now: Instant, serial: u32) {
        let Some(transfer) = &mut self.transfer else { return };
        if let State::InFlight { serial: current, wants_ack } = transfer.state
            && current == serial
        {
            self.not_before = Some(now + self.pace.t3);
            transfer.state =
                if wants_ack { State::AwaitingAck { deadline: now + self.pace.t1 } } else { State::Ready };
        }
    }

    /// Whether the frame of this number is of the transfer under way.
    pub(super) fn is_in_flight(&self, serial: u32) -> bool {
        let state = self.transfer.as_ref().map(|transfer| transfer.state);
        matches!(state, Some(State::InFlight { serial: current, .. }) if current == serial)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Outcome> {
        self.not_before.take_if(|at| *at <= now);
        self.not_ready_until.take_if(|at| *at <= now);
        let transfer = self.transfer.as_mut()?;
        match transfer.state {
            State::AwaitingAck { deadline } if deadline <= now => {
                // the frame that asked for the acknowledgement; the peer tells by it what it misses besides
                transfer.next = transfer.next.saturating_sub(1).max(transfer.acked);
                transfer.state = State::Ready;
                self.count_repeat()
            }
            _ => None,
        }
    }

    fn count_repeat(&mut self) -> Option<Outcome> {
        let transfer = self.transfer.as_mut()?;
        transfer.repeats += 1;
        if transfer.repeats > MAX_REPEATS { Some(self.fail(CloseReason::NoAck)) } else { None }
    }

    fn fail(&mut self, reason: CloseReason) -> Outcome {
        self.transfer = None;
        Outcome::Failed(reason)
    }

    /// The next data frame, and the number by which its outcome is told.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(Tpdu<'_>, u32)> {
        if self.not_before.is_some_and(|at| now < at) || self.not_ready_until.is_some_and(|at| now < at) {
            return None;
        }
        let pace = self.pace;
        let transfer = self.transfer.as_mut().filter(|transfer| transfer.state == State::Ready)?;
        let frame = transfer.next;
        let (wants_ack, is_last) = (transfer.wants_ack(frame, &pace), transfer.is_last(frame));
        self.serial = self.serial.wrapping_add(1);
        transfer.next += 1;
        transfer.state = State::InFlight { serial: self.serial, wants_ack };
        let sequence = transfer.sequence(frame);
        let data = transfer.bytes.chunks(DATA_BYTES).nth(frame)?;
        Some((Tpdu::Data { wants_ack, is_last, sequence, data }, self.serial))
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match self.transfer.as_ref()?.state {
            State::InFlight { .. } => None,
            State::AwaitingAck { deadline } => Some((deadline, Timer::T1)),
            State::Ready => {
                let t3 = self.not_before.map(|at| (at, Timer::T3));
                let wait = self.not_ready_until.map(|at| (at, Timer::TWait));
                // both must have passed
                t3.into_iter().chain(wait).max_by_key(|&(at, _)| at)
            }
        }
    }
}

/// Whether a PDU can be sent at all.
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
