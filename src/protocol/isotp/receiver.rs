//! The receiving role: one PDU at a time from one peer.

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::frame::{Fill, FrameWriter};
use super::pci::{Header, MAX_SHORT_LENGTH};
use super::{Event, FlowStatus, ReceiveFailure, SeparationTime, Timeouts, Timer};

/// What a receiver is set up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReceiverConfig {
    /// Writes the flow controls.
    pub(super) writer: FrameWriter,
    pub(super) timeouts: Timeouts,
    pub(super) block_size: u8,
    pub(super) st_min: SeparationTime,
    pub(super) max_pdu: usize,
}

#[derive(Debug)]
pub(super) struct Receiver {
    config: ReceiverConfig,
    /// Whose frames they are.
    address: CanId,
    phase: Phase,
    pdu: Vec<u8>,
    /// How long the PDU will be.
    length: usize,
    /// RX_DL, the size of the first frame, which all but the last have.
    frame_size: usize,
    sequence_number: u8,
    /// Consecutive frames until the next flow control; `None`: no more flow control.
    block: Option<u8>,
    /// Flow controls of this reception given out, without outcome.
    unconfirmed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// A flow control that refuses the PDU can go; afterwards all is over.
    Refusing {
        since: Instant,
    },
    /// A flow control can go.
    Ready {
        since: Instant,
    },
    /// The flow control was given out, N_Ar runs.
    Confirming {
        deadline: Instant,
    },
    /// Consecutive frames are to come, N_Cr runs.
    Collecting {
        deadline: Instant,
    },
}

impl Receiver {
    pub(super) fn new(config: ReceiverConfig, address: CanId) -> Self {
        Self {
            config,
            address,
            phase: Phase::Idle,
            pdu: Vec::new(),
            length: 0,
            frame_size: 0,
            sequence_number: 0,
            block: None,
            unconfirmed: 0,
        }
    }

    /// Whether there is nothing left to receive or to send.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    pub(super) fn is_receiving(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Refusing { .. })
    }

    pub(super) fn address(&self) -> CanId {
        self.address
    }

    /// A PDU began; what was being received is lost.
    pub(super) fn interrupt(&mut self) -> Option<Event> {
        self.fail(ReceiveFailure::Interrupted)
    }

    /// Gives the reception up, if there is one.
    pub(super) fn fail(&mut self, failure: ReceiveFailure) -> Option<Event> {
        let was_receiving = self.is_receiving();
        self.reset();
        was_receiving.then_some(Event::ReceiveFailed { address: self.address, failure })
    }

    /// A first frame of `frame_size` bytes came, and nothing is being received.
    pub(super) fn handle_first_frame(
        &mut self,
        now: Instant,
        length: u32,
        data: &[u8],
        frame_size: usize,
    ) -> Option<Event> {
        self.reset();
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.config.max_pdu {
            self.phase = Phase::Refusing { since: now };
            let failure = ReceiveFailure::TooLong;
            return Some(Event::ReceiveFailed { address: self.address, failure });
        }
        self.length = length;
        self.frame_size = frame_size;
        self.sequence_number = 1;
        self.append(data);
        self.phase = Phase::Ready { since: now };
        None
    }

    /// A consecutive frame of `frame_size` bytes came; also gives how much of `data` ends the PDU, if this does.
    pub(super) fn handle_consecutive_frame(
        &mut self,
        now: Instant,
        sequence_number: u8,
        data: &[u8],
        frame_size: usize,
    ) -> Option<Event> {
        // what follows a flow control may overtake the word that the flow control was sent
        if !matches!(self.phase, Phase::Confirming { .. } | Phase::Collecting { .. }) {
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
            Phase::Ready { since: now }
        } else {
            Phase::Collecting { deadline: now + self.config.timeouts.n_cr }
        };
        None
    }

    /// How many bytes are still to come.
    pub(super) fn left(&self) -> usize {
        self.length.saturating_sub(self.pdu.len())
    }

    /// How much memory the PDU takes, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.pdu.capacity()
    }

    /// The oldest flow control of this reception without outcome was acknowledged.
    pub(super) fn handle_transmitted(&mut self, now: Instant) {
        self.unconfirmed = self.unconfirmed.saturating_sub(1);
        if self.unconfirmed == 0 && matches!(self.phase, Phase::Confirming { .. }) {
            self.phase = Phase::Collecting { deadline: now + self.config.timeouts.n_cr };
        }
    }

    /// Whether a flow control is still to get onto the bus.
    pub(super) fn owes_flow_control(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. } | Phase::Confirming { .. } | Phase::Refusing { .. })
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
            Phase::Idle => None,
            Phase::Refusing { since } | Phase::Ready { since } => {
                Some((since + self.config.timeouts.n_ar, Timer::NAr))
            }
            Phase::Confirming { deadline } => Some((deadline, Timer::NAr)),
            Phase::Collecting { deadline } => Some((deadline, Timer::NCr)),
        }
    }

    /// A flow control, if one is due.
    pub(super) fn poll_transmit(&mut self, now: Instant, fill: Fill) -> Option<CanFrame> {
        let (status, next) = match self.phase {
            Phase::Refusing { .. } => (FlowStatus::Overflow, Phase::Idle),
            Phase::Ready { .. } => {
                let deadline = now + self.config.timeouts.n_ar;
                (FlowStatus::ContinueToSend, Phase::Confirming { deadline })
            }
            _ => return None,
        };
        let header = Header::flow_control(status, self.config.block_size, self.config.st_min);
        let frame = self.config.writer.write(&header, &[], fill)?;
        self.phase = next;
        self.block = (self.config.block_size != 0).then_some(self.config.block_size);
        self.unconfirmed += 1;
        Some(frame)
    }

    fn reset(&mut self) {
        self.phase = Phase::Idle;
        self.pdu = Vec::new();
        self.unconfirmed = 0;
    }

    /// Takes data in; memory grows with what came, not with what was announced.
    fn append(&mut self, data: &[u8]) {
        let needed = self.pdu.len() + data.len();
        if needed > self.pdu.capacity() {
            let capacity = (self.pdu.capacity() * 2).max(MAX_SHORT_LENGTH).min(self.length).max(needed);
            self.pdu.reserve_exact(capacity - self.pdu.len());
        }
        self.pdu.extend_from_slice(data);
    }
}
