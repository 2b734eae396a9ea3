//! Transmission of one PDU at a time, as a single frame or segmented.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use super::frame::{Fill, FrameWriter};
use super::pci::PciHeader;
use super::{Event, FlowStatus, SendError, SendFailure, SeparationTime, Timeouts, Timer};

/// A buffer of up to this size, in bytes, is reused for the next PDU. It holds the 4095 bytes of a PDU with a
/// short length, so that usual transfers allocate nothing, while the buffer of a PDU of 1 MiB is released.
const KEPT_CAPACITY: usize = 8192;

/// Configuration of a sender.
#[derive(Debug, Clone, Copy)]
pub(super) struct SenderConfig {
    pub(super) writer: FrameWriter,
    pub(super) timeouts: Timeouts,
    pub(super) max_pdu: usize,
    pub(super) max_wait_frames: u8,
    pub(super) window: usize,
}

#[derive(Debug)]
pub(super) struct Sender {
    config: SenderConfig,
    /// Number of the transfer; outcomes of frames of earlier transfers are ignored.
    transfer: u32,
    phase: SendPhase,
    started: Option<Instant>,
    pdu: Vec<u8>,
    /// Number of bytes of the PDU that are in frames already.
    offset: usize,
    sequence_number: u8,
    /// Consecutive frames until the next flow control; `None` means that no more flow control follows.
    block: Option<u8>,
    st_min: Duration,
    waits: u8,
    /// For each frame of this transfer without an outcome, the time at which it was returned.
    handed_out: VecDeque<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendPhase {
    Idle,
    /// The next frame can be sent.
    Ready {
        since: Instant,
    },
    /// The separation time runs; `None` until the last frame is confirmed.
    Pacing {
        until: Option<Instant>,
    },
    /// A flow control is expected and N_Bs runs; `None` until the last frame is confirmed.
    FlowControl {
        deadline: Option<Instant>,
    },
    /// All frames were returned; some have no outcome yet.
    Confirming,
}

impl Sender {
    pub(super) fn new(config: SenderConfig) -> Self {
        Self {
            config,
            transfer: 0,
            phase: SendPhase::Idle,
            started: None,
            pdu: Vec::new(),
            offset: 0,
            sequence_number: 0,
            block: None,
            st_min: Duration::ZERO,
            waits: 0,
            handed_out: VecDeque::new(),
        }
    }

    pub(super) fn is_sending(&self) -> bool {
        self.phase != SendPhase::Idle
    }

    /// Returns the number of the current transfer.
    pub(super) fn transfer(&self) -> u32 {
        self.transfer
    }

    pub(super) fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        if self.is_sending() {
            return Err(SendError::Busy);
        }
        if pdu.is_empty() {
            return Err(SendError::Empty);
        }
        // FF_DL has 32 bits
        let max = self.config.max_pdu.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX));
        if pdu.len() > max {
            return Err(SendError::TooLong { len: pdu.len(), max });
        }
        // outcomes of an earlier transfer's frames may still arrive
        self.transfer = self.transfer.wrapping_add(1);
        self.pdu.extend_from_slice(pdu);
        self.offset = 0;
        self.sequence_number = 0;
        self.waits = 0;
        self.started = Some(now);
        self.phase = SendPhase::Ready { since: now };
        Ok(())
    }

    /// Abandons the transfer.
    pub(super) fn abort(&mut self) {
        self.phase = SendPhase::Idle;
        self.handed_out.clear();
        self.pdu.clear();
        self.pdu.shrink_to(KEPT_CAPACITY);
    }

    /// Ends the transfer with a failure, if there is one.
    pub(super) fn fail(&mut self, failure: SendFailure) -> Option<Event> {
        if !self.is_sending() {
            return None;
        }
        self.abort();
        Some(Event::SendFailed { failure })
    }

    /// Takes a flow control; ignores it unless one is expected.
    pub(super) fn handle_flow_control(
        &mut self,
        now: Instant,
        status: FlowStatus,
        block_size: u8,
        st_min: SeparationTime,
    ) -> Option<Event> {
        if !matches!(self.phase, SendPhase::FlowControl { .. }) {
            return None;
        }
        match status {
            FlowStatus::ContinueToSend => {
                // every flow control sets both again (ISO 15765-2, 9.6.5.6)
                self.block = (block_size != 0).then_some(block_size);
                self.st_min = st_min.to_duration();
                self.waits = 0;
                self.phase = SendPhase::Ready { since: now };
                None
            }
            FlowStatus::Wait if self.waits >= self.config.max_wait_frames => {
                self.fail(SendFailure::WaitLimit)
            }
            FlowStatus::Wait => {
                self.waits = self.waits.saturating_add(1);
                self.phase = SendPhase::FlowControl { deadline: Some(now + self.config.timeouts.n_bs) };
                None
            }
            FlowStatus::Overflow => self.fail(SendFailure::Overflow),
            FlowStatus::Reserved(_) => self.fail(SendFailure::InvalidFlowStatus),
        }
    }

    /// Takes note that the oldest frame of this transfer without an outcome was acknowledged.
    pub(super) fn handle_transmitted(&mut self, now: Instant) -> Option<Event> {
        self.handed_out.pop_front();
        if let SendPhase::Ready { since } = &mut self.phase {
            *since = now;
        }
        if !self.handed_out.is_empty() {
            return None;
        }
        match &mut self.phase {
            SendPhase::Pacing { until: until @ None } => *until = Some(now + self.st_min),
            SendPhase::FlowControl { deadline: deadline @ None } => {
                *deadline = Some(now + self.config.timeouts.n_bs)
            }
            SendPhase::Confirming => {
                let elapsed = self.started.map_or(Duration::ZERO, |started| now.duration_since(started));
                self.abort();
                return Some(Event::Sent { elapsed });
            }
            _ => {}
        }
        None
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Event> {
        let (_, timer) = self.poll_timeout().filter(|&(deadline, _)| deadline <= now)?;
        match timer {
            Timer::NCs => {
                self.phase = SendPhase::Ready { since: now };
                None
            }
            Timer::NBs => self.fail(SendFailure::FlowControlTimeout),
            _ => self.fail(SendFailure::NotAcknowledged),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let waiting = match self.phase {
            SendPhase::Ready { since } if self.handed_out.is_empty() => {
                Some((since + self.config.timeouts.n_as, Timer::NAs))
            }
            SendPhase::Pacing { until: Some(until) } => Some((until, Timer::NCs)),
            SendPhase::FlowControl { deadline: Some(deadline) } => Some((deadline, Timer::NBs)),
            _ => None,
        };
        let oldest = self.handed_out.front().map(|&at| (at + self.config.timeouts.n_as, Timer::NAs));
        [waiting, oldest].into_iter().flatten().min_by_key(|&(deadline, _)| deadline)
    }

    pub(super) fn poll_transmit(&mut self, now: Instant, fill: Fill) -> Option<CanFrame> {
        match self.phase {
            SendPhase::Ready { .. } => {}
            SendPhase::Pacing { until: Some(until) } if until <= now => {}
            _ => return None,
        }
        if self.handed_out.len() >= self.config.window.max(1) {
            return None;
        }
        let frame = if self.offset == 0 { self.first_frame(fill)? } else { self.consecutive_frame(fill)? };
        self.handed_out.push_back(now);
        Some(frame)
    }

    /// Returns the single or first frame of the PDU.
    fn first_frame(&mut self, fill: Fill) -> Option<CanFrame> {
        let writer = self.config.writer;
        let len = self.pdu.len();
        if len <= writer.max_single_frame() {
            let header = PciHeader::single_frame(len, writer.address_bytes());
            let frame = writer.write(&header, &self.pdu, fill)?;
            self.offset = len;
            self.phase = SendPhase::Confirming;
            return Some(frame);
        }
        let header = PciHeader::first_frame(u32::try_from(len).ok()?);
        let data = self.pdu.get(..writer.room_after(&header))?;
        let frame = writer.write(&header, data, fill)?;
        self.offset = data.len();
        self.sequence_number = 1;
        self.phase = SendPhase::FlowControl { deadline: None };
        Some(frame)
    }

    /// Returns the next consecutive frame.
    fn consecutive_frame(&mut self, fill: Fill) -> Option<CanFrame> {
        let writer = self.config.writer;
        let header = PciHeader::consecutive_frame(self.sequence_number);
        let rest = self.pdu.get(self.offset..)?;
        let data = rest.get(..writer.room_after(&header)).unwrap_or(rest);
        let frame = writer.write(&header, data, fill)?;
        self.offset += data.len();
        self.sequence_number = (self.sequence_number + 1) & 0x0F;
        if let Some(left) = &mut self.block {
            *left = left.saturating_sub(1);
        }
        self.phase = if self.offset == self.pdu.len() {
            SendPhase::Confirming
        } else if self.block == Some(0) {
            SendPhase::FlowControl { deadline: None }
        } else if self.st_min.is_zero() {
            self.phase
        } else {
            SendPhase::Pacing { until: None }
        };
        Some(frame)
    }
}
