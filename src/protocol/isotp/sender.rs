//! The sending role: one PDU at a time, as single frame or segmented.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use super::frame::{Fill, FrameWriter};
use super::pci::Header;
use super::{Event, FlowStatus, SendError, SendFailure, SeparationTime, Timeouts, Timer};

/// A buffer up to this size is kept for the next PDU.
const KEPT_CAPACITY: usize = 8192;

/// What a sender is set up with.
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
    /// The number of the transfer; frames of another are not ours any more.
    transfer: u32,
    phase: Phase,
    started: Option<Instant>,
    pdu: Vec<u8>,
    /// How much of the PDU was given out.
    offset: usize,
    sequence_number: u8,
    /// Consecutive frames until the next flow control; `None`: no more flow control.
    block: Option<u8>,
    st_min: Duration,
    waits: u8,
    /// When each frame of this transfer without outcome was given out.
    handed_out: VecDeque<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// The next frame can go.
    Ready {
        since: Instant,
    },
    /// The separation time passes before the next consecutive frame; `None`: from when the last one is confirmed.
    Pacing {
        until: Option<Instant>,
    },
    /// Waiting for a flow control; `None`: N_Bs runs from when the last frame is confirmed.
    FlowControl {
        deadline: Option<Instant>,
    },
    /// All is given out.
    Confirming,
}

impl Sender {
    pub(super) fn new(config: SenderConfig) -> Self {
        Self {
            config,
            transfer: 0,
            phase: Phase::Idle,
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
        self.phase != Phase::Idle
    }

    /// The number of the transfer under way.
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
        // the length on the wire has 32 bits
        let max = self.config.max_pdu.min(usize::try_from(u32::MAX).unwrap_or(usize::MAX));
        if pdu.len() > max {
            return Err(SendError::TooLong { len: pdu.len(), max });
        }
        // so that outcomes of an earlier transfer's frames, still to come, are nobody's
        self.transfer = self.transfer.wrapping_add(1);
        self.pdu.extend_from_slice(pdu);
        self.offset = 0;
        self.sequence_number = 0;
        self.waits = 0;
        self.started = Some(now);
        self.phase = Phase::Ready { since: now };
        Ok(())
    }

    /// Forgets the transfer.
    pub(super) fn abort(&mut self) {
        self.phase = Phase::Idle;
        self.handed_out.clear();
        self.pdu.clear();
        self.pdu.shrink_to(KEPT_CAPACITY);
    }

    /// Gives the transfer up, if there is one.
    pub(super) fn fail(&mut self, failure: SendFailure) -> Option<Event> {
        if !self.is_sending() {
            return None;
        }
        self.abort();
        Some(Event::SendFailed { failure })
    }

    /// A flow control came; ignored unless one is waited for.
    pub(super) fn handle_flow_control(
        &mut self,
        now: Instant,
        status: FlowStatus,
        block_size: u8,
        st_min: SeparationTime,
    ) -> Option<Event> {
        if !matches!(self.phase, Phase::FlowControl { .. }) {
            return None;
        }
        match status {
            FlowStatus::ContinueToSend => {
                // a client takes both anew from every flow control (ISO 15765-2, 9.6.5.6)
                self.block = (block_size != 0).then_some(block_size);
                self.st_min = st_min.to_duration();
                self.waits = 0;
                self.phase = Phase::Ready { since: now };
                None
            }
            FlowStatus::Wait if self.waits >= self.config.max_wait_frames => {
                self.fail(SendFailure::WaitLimit)
            }
            FlowStatus::Wait => {
                self.waits = self.waits.saturating_add(1);
                self.phase = Phase::FlowControl { deadline: Some(now + self.config.timeouts.n_bs) };
                None
            }
            FlowStatus::Overflow => self.fail(SendFailure::Overflow),
            FlowStatus::Reserved(_) => self.fail(SendFailure::InvalidFlowStatus),
        }
    }

    /// The oldest frame of this transfer without outcome was acknowledged.
    pub(super) fn handle_transmitted(&mut self, now: Instant) -> Option<Event> {
        self.handed_out.pop_front();
        if let Phase::Ready { since } = &mut self.phase {
            *since = now;
        }
        if !self.handed_out.is_empty() {
            return None;
        }
        match &mut self.phase {
            Phase::Pacing { until: until @ None } => *until = Some(now + self.st_min),
            Phase::FlowControl { deadline: deadline @ None } => {
                *deadline = Some(now + self.config.timeouts.n_bs)
            }
            Phase::Confirming => {
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
                self.phase = Phase::Ready { since: now };
                None
            }
            Timer::NBs => self.fail(SendFailure::FlowControlTimeout),
            _ => self.fail(SendFailure::NotAcknowledged),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let waiting = match self.phase {
            Phase::Ready { since } if self.handed_out.is_empty() => {
                Some((since + self.config.timeouts.n_as, Timer::NAs))
            }
            Phase::Pacing { until: Some(until) } => Some((until, Timer::NCs)),
            Phase::FlowControl { deadline: Some(deadline) } => Some((deadline, Timer::NBs)),
            _ => None,
        };
        let oldest = self.handed_out.front().map(|&at| (at + self.config.timeouts.n_as, Timer::NAs));
        [waiting, oldest].into_iter().flatten().min_by_key(|&(deadline, _)| deadline)
    }

    pub(super) fn poll_transmit(&mut self, now: Instant, fill: Fill) -> Option<CanFrame> {
        match self.phase {
            Phase::Ready { .. } => {}
            Phase::Pacing { until: Some(until) } if until <= now => {}
            _ => return None,
        }
        if self.handed_out.len() >= self.config.window.max(1) {
            return None;
        }
        let frame = if self.offset == 0 { self.begin(fill)? } else { self.go_on(fill)? };
        self.handed_out.push_back(now);
        Some(frame)
    }

    /// A single or first frame.
    fn begin(&mut self, fill: Fill) -> Option<CanFrame> {
        let writer = self.config.writer;
        let len = self.pdu.len();
        if len <= writer.max_single_frame() {
            let header = Header::single_frame(len, writer.address_bytes());
            let frame = writer.write(&header, &self.pdu, fill)?;
            self.offset = len;
            self.phase = Phase::Confirming;
            return Some(frame);
        }
        let header = Header::first_frame(u32::try_from(len).ok()?);
        let data = self.pdu.get(..writer.room_after(&header))?;
        let frame = writer.write(&header, data, fill)?;
        self.offset = data.len();
        self.sequence_number = 1;
        self.phase = Phase::FlowControl { deadline: None };
        Some(frame)
    }

    /// A consecutive frame.
    fn go_on(&mut self, fill: Fill) -> Option<CanFrame> {
        let writer = self.config.writer;
        let header = Header::consecutive_frame(self.sequence_number);
        let rest = self.pdu.get(self.offset..)?;
        let data = rest.get(..writer.room_after(&header)).unwrap_or(rest);
        let frame = writer.write(&header, data, fill)?;
        self.offset += data.len();
        self.sequence_number = (self.sequence_number + 1) & 0x0F;
        if let Some(left) = &mut self.block {
            *left = left.saturating_sub(1);
        }
        self.phase = if self.offset == self.pdu.len() {
            Phase::Confirming
        } else if self.block == Some(0) {
            Phase::FlowControl { deadline: None }
        } else if self.st_min.is_zero() {
            self.phase
        } else {
            Phase::Pacing { until: None }
        };
        Some(frame)
    }
}
