//! Reception of one PDU at a time from one peer.

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId, FrameKind};

use super::frame::{Fill, FrameWriter};
use super::pci::{MAX_SHORT_LENGTH, PciHeader};
use super::{Event, FlowStatus, FrameSize, ReceiveFailure, SeparationTime, Timeouts, Timer};

/// Configuration of a receiver.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiverConfig {
    /// Writes the flow controls. If absent, no address for flow control is known.
    pub(super) writer: Option<FrameWriter>,
    pub(super) timeouts: Timeouts,
    pub(super) block_size: u8,
    pub(super) st_min: SeparationTime,
    pub(super) max_pdu: usize,
}

#[derive(Debug)]
pub(super) struct Receiver {
    config: ReceiverConfig,
    /// Identifier of the peer's frames.
    address: CanId,
    phase: ReceptionPhase,
    pdu: Vec<u8>,
    /// Length of the complete PDU, in bytes.
    length: usize,
    /// RX_DL, the size of the first frame and of all following frames except the last.
    frame_size: usize,
    /// The format of the flow controls: that of the first frame, which the peer understands.
    format: FrameSize,
    sequence_number: u8,
    /// Consecutive frames until the next flow control; `None` means that no more flow control follows.
    block: Option<u8>,
    /// Flow controls of this reception that have no outcome yet.
    unconfirmed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReceptionPhase {
    Idle,
    /// A flow control that refuses the PDU can be sent, which ends the reception.
    Refusing {
        since: Instant,
    },
    /// A flow control can be sent.
    Ready {
        since: Instant,
    },
    /// The flow control has no outcome yet; N_Ar runs.
    Confirming {
        deadline: Instant,
    },
    /// The next consecutive frame is expected; N_Cr runs.
    Collecting {
        deadline: Instant,
    },
}

impl Receiver {
    pub(super) fn new(config: ReceiverConfig, address: CanId) -> Self {
        Self {
            config,
            address,
            phase: ReceptionPhase::Idle,
            pdu: Vec::new(),
            length: 0,
            frame_size: 0,
            format: FrameSize::Classic,
            sequence_number: 0,
            block: None,
            unconfirmed: 0,
        }
    }

    /// Returns whether nothing remains to be received or sent.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == ReceptionPhase::Idle
    }

    pub(super) fn is_receiving(&self) -> bool {
        !matches!(self.phase, ReceptionPhase::Idle | ReceptionPhase::Refusing { .. })
    }

    /// Ends the reception because a new PDU began.
    pub(super) fn interrupt(&mut self) -> Option<Event> {
        self.fail(ReceiveFailure::Interrupted)
    }

    /// Ends the reception, if there is one.
    pub(super) fn fail(&mut self, failure: ReceiveFailure) -> Option<Event> {
        let was_receiving = self.is_receiving();
        self.reset();
        was_receiving.then_some(Event::ReceiveFailed { address: self.address, failure })
    }

    /// Starts a reception with this first frame, which has this content.
    pub(super) fn handle_first_frame(
        &mut self,
        now: Instant,
        frame: &CanFrame,
        length: u32,
        data: &[u8],
    ) -> Option<Event> {
        self.reset();
        self.format = match frame.kind() {
            FrameKind::Fd(flags) => FrameSize::fd_short(flags.bit_rate_switch),
            _ => FrameSize::Classic,
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.config.max_pdu {
            self.phase = ReceptionPhase::Refusing { since: now };
            let failure = ReceiveFailure::TooLong;
            return Some(Event::ReceiveFailed { address: self.address, failure });
        }
        self.length = length;
        self.frame_size = frame.len();
        self.sequence_number = 1;
        self.append(data);
        self.phase = ReceptionPhase::Ready { since: now };
        None
    }

    /// Takes a consecutive frame of `frame_size` bytes.
    pub(super) fn handle_consecutive_frame(
        &mut self,
        now: Instant,
        sequence_number: u8,
        data: &[u8],
        frame_size: usize,
    ) -> Option<Event> {
        // a consecutive frame may arrive before the outcome of the flow control
        if !matches!(self.phase, ReceptionPhase::Confirming { .. } | ReceptionPhase::Collecting { .. }) {
            return None;
        }
        let left = self.left();
        let is_last = data.len() >= left && frame_size <= self.frame_size;
        if !is_last && frame_size != self.frame_size {
            return None;
        }
        if sequence_number != self.sequence_number {
            return self.fail(ReceiveFailure::WrongSequenceNumber);
        }
        self.append(data.get(..left).unwrap_or(data));
        if is_last {
            let pdu = std::mem::take(&mut self.pdu);
            self.reset();
            return Some(Event::Received { address: self.address, pdu });
        }
        self.sequence_number = (self.sequence_number + 1) & 0x0F;
        if let Some(left) = &mut self.block {
            *left = left.saturating_sub(1);
        }
        self.phase = if self.block == Some(0) {
            ReceptionPhase::Ready { since: now }
        } else {
            ReceptionPhase::Collecting { deadline: now + self.config.timeouts.n_cr }
        };
        None
    }

    /// Returns the number of bytes that are still missing.
    pub(super) fn left(&self) -> usize {
        self.length.saturating_sub(self.pdu.len())
    }

    /// Returns the memory that the PDU uses, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.pdu.capacity()
    }

    /// Takes note that another endpoint sends the flow control that is due.
    pub(super) fn skip_flow_control(&mut self, now: Instant) {
        match self.phase {
            ReceptionPhase::Ready { .. } => {
                // the other endpoint knows its block size
                self.block = None;
                self.phase = ReceptionPhase::Collecting { deadline: now + self.config.timeouts.n_cr };
            }
            ReceptionPhase::Refusing { .. } => self.reset(),
            _ => {}
        }
    }

    /// Takes note that the oldest flow control without an outcome was acknowledged.
    pub(super) fn handle_transmitted(&mut self, now: Instant) {
        self.unconfirmed = self.unconfirmed.saturating_sub(1);
        if self.unconfirmed == 0 && matches!(self.phase, ReceptionPhase::Confirming { .. }) {
            self.phase = ReceptionPhase::Collecting { deadline: now + self.config.timeouts.n_cr };
        }
    }

    /// Returns whether a flow control has not reached the bus yet.
    pub(super) fn owes_flow_control(&self) -> bool {
        matches!(
            self.phase,
            ReceptionPhase::Ready { .. }
                | ReceptionPhase::Confirming { .. }
                | ReceptionPhase::Refusing { .. }
        )
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        let (_, timer) = self.poll_timeout().filter(|&(deadline, _)| deadline <= now)?;
        self.fail(match timer {
            Timer::NCr => ReceiveFailure::ConsecutiveFrameTimeout,
            _ => ReceiveFailure::NotAcknowledged,
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match self.phase {
            ReceptionPhase::Idle => None,
            ReceptionPhase::Refusing { since } | ReceptionPhase::Ready { since } => {
                Some((since + self.config.timeouts.n_ar, Timer::NAr))
            }
            ReceptionPhase::Confirming { deadline } => Some((deadline, Timer::NAr)),
            ReceptionPhase::Collecting { deadline } => Some((deadline, Timer::NCr)),
        }
    }

    /// Returns a flow control, if one is due.
    pub(super) fn poll_transmit(&mut self, now: Instant, fill: Fill) -> Option<CanFrame> {
        let (status, next) = match self.phase {
            ReceptionPhase::Refusing { .. } => (FlowStatus::Overflow, ReceptionPhase::Idle),
            ReceptionPhase::Ready { .. } => {
                let deadline = now + self.config.timeouts.n_ar;
                (FlowStatus::ContinueToSend, ReceptionPhase::Confirming { deadline })
            }
            _ => return None,
        };
        let header = PciHeader::flow_control(status, self.config.block_size, self.config.st_min);
        let writer = FrameWriter { frame_size: self.format, ..self.config.writer? };
        let frame = writer.write(&header, &[], fill)?;
        self.phase = next;
        self.block = (self.config.block_size != 0).then_some(self.config.block_size);
        self.unconfirmed += 1;
        Some(frame)
    }

    fn reset(&mut self) {
        self.phase = ReceptionPhase::Idle;
        self.pdu = Vec::new();
        self.unconfirmed = 0;
    }

    /// Appends data. The memory grows with the received data, not with the announced length.
    fn append(&mut self, data: &[u8]) {
        let needed = self.pdu.len() + data.len();
        if needed > self.pdu.capacity() {
            let capacity = (self.pdu.capacity() * 2).max(MAX_SHORT_LENGTH).min(self.length).max(needed);
            self.pdu.reserve_exact(capacity - self.pdu.len());
        }
        self.pdu.extend_from_slice(data);
    }
}
