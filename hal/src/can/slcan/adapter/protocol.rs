//! The adapter's side of SLCAN: settings, frames in both directions, and the answers to the host. A pure
//! state machine.

use std::collections::VecDeque;
use std::time::Instant;

use crate::bus::BusState;
use crate::can::slcan::codec::{self, BusErrors, ControllerState, SlcanLine, StatusFlags};
use crate::can::slcan::reader::RawLine;
use crate::can::slcan::values;
use crate::can::{CanEvent, CanFrame, CanSettings, FrameKind};

/// How many frames of the host wait for the controller. Beyond this number the adapter stops reading, so that
/// the serial device slows down a host that writes faster than the bus. A host keeps far fewer frames without
/// an answer.
const WAITING_LIMIT: usize = 256;
/// How many bytes of output stay unread. Beyond this number received frames are lost, as in a real adapter,
/// and the overrun flag is set. The number is that of 0.7 s on a full bus at 500 kbit/s.
const OUTPUT_LIMIT: usize = 64 * 1024;

/// What a command of the host demands from the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ControllerAction {
    /// Join the bus with these settings, then call [`AdapterProtocol::handle_joined`].
    Join(CanSettings),
    /// Leave the bus.
    Leave,
}

/// The state of an adapter toward its host.
#[derive(Debug)]
pub(super) struct AdapterProtocol {
    out: Vec<u8>,
    start: Instant,
    bit_rate: Option<u32>,
    data_bit_rate: Option<u32>,
    /// The settings on the bus; `None` while off the bus.
    open: Option<CanSettings>,
    timestamps: bool,
    overrun: bool,
    had_errors: bool,
    waiting: VecDeque<CanFrame>,
    /// For each frame in the controller, whether its identifier has 29 bits.
    sent: VecDeque<bool>,
}

impl AdapterProtocol {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            out: Vec::new(),
            start,
            bit_rate: None,
            data_bit_rate: None,
            open: None,
            timestamps: false,
            overrun: false,
            had_errors: false,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    /// Whether the adapter may read more from the host.
    pub(super) fn has_room(&self) -> bool {
        self.out.len() < 2 * OUTPUT_LIMIT && self.waiting.len() < WAITING_LIMIT
    }

    /// The bytes for the host.
    pub(super) fn out(&self) -> &[u8] {
        &self.out
    }

    /// The host's line has taken the first bytes of the output.
    pub(super) fn handle_written(&mut self, written: usize) {
        self.out.drain(..written.min(self.out.len()));
    }

    /// The next frame for the controller.
    pub(super) fn next_frame(&self) -> Option<&CanFrame> {
        self.waiting.front()
    }

    /// The controller took the next frame, or refused it.
    pub(super) fn handle_taken(&mut self, is_accepted: bool) {
        let Some(frame) = self.waiting.pop_front() else { return };
        if is_accepted {
            self.sent.push_back(frame.id().is_extended());
        } else {
            SlcanLine::Refused.encode(&mut self.out);
        }
    }

    /// The host has closed the line: the adapter forgets everything.
    pub(super) fn reset(&mut self) {
        self.leave();
        self.out.clear();
        self.bit_rate = None;
        self.data_bit_rate = None;
        self.timestamps = false;
    }

    fn leave(&mut self) {
        self.open = None;
        self.overrun = false;
        self.had_errors = false;
        self.waiting.clear();
        self.sent.clear();
    }

    /// The host has sent a line while the controller is in this state. A frame is answered later, after it
    /// was sent.
    pub(super) fn handle_line(&mut self, line: &RawLine, state: BusState) -> Option<ControllerAction> {
        let decoded = match line {
            RawLine::Bytes(bytes) => codec::decode(bytes).ok(),
            RawLine::TooLong => None,
        };
        let is_open = self.open.is_some();
        let done = match decoded {
            Some(SlcanLine::Frame(frame, None)) => {
                if self.accepts(&frame) && state != BusState::Off {
                    self.waiting.push_back(frame);
                    return None;
                }
                false
            }
            Some(SlcanLine::Open) if !is_open => return self.join(false),
            Some(SlcanLine::Listen) if !is_open => return self.join(true),
            Some(SlcanLine::Close) => {
                self.leave();
                self.answer(is_open);
                return Some(ControllerAction::Leave);
            }
            Some(SlcanLine::ReadStatus) if is_open => {
                SlcanLine::Status(self.take_status(state)).encode(&mut self.out);
                return None;
            }
            Some(SlcanLine::ReadVersion) => {
                SlcanLine::Version("1013".into()).encode(&mut self.out);
                return None;
            }
            Some(SlcanLine::ReadSerialNumber) => {
                SlcanLine::SerialNumber("SIM1".into()).encode(&mut self.out);
                return None;
            }
            Some(SlcanLine::Done) => true,
            Some(setting) if !is_open => self.handle_setting(&setting),
            _ => false,
        };
        self.answer(done);
        None
    }

    /// The controller has joined the bus with these settings, or could not.
    pub(super) fn handle_joined(&mut self, settings: CanSettings, is_joined: bool) {
        self.open = is_joined.then_some(settings);
        self.answer(is_joined);
    }

    /// The controller reports an event.
    pub(super) fn handle_event(&mut self, event: CanEvent) {
        let line = match event {
            CanEvent::Received { .. } if self.out.len() >= OUTPUT_LIMIT => {
                self.overrun = true;
                return;
            }
            CanEvent::Received { frame, at } => match frame.kind() {
                FrameKind::Error { classes } => {
                    self.had_errors = true;
                    let no_acknowledgement = classes & 0x20 != 0;
                    SlcanLine::Errors(BusErrors(if no_acknowledgement {
                        BusErrors::ACKNOWLEDGEMENT
                    } else {
                        BusErrors::STUFF
                    }))
                }
                _ => SlcanLine::Frame(frame, self.timestamp(at)),
            },
            // the controller of this adapter keeps the order
            CanEvent::Overtaking { .. } => return,
            CanEvent::Transmitted { .. } => match self.sent.pop_front() {
                Some(extended) => SlcanLine::Transmitted { extended },
                None => return,
            },
            CanEvent::TransmitFailed { .. } => {
                self.sent.pop_front();
                SlcanLine::Refused
            }
            CanEvent::State(state) => self.handle_state(state),
            CanEvent::Lost(_) => {
                self.overrun = true;
                return;
            }
        };
        line.encode(&mut self.out);
    }

    fn handle_state(&mut self, state: BusState) -> SlcanLine {
        if state == BusState::Off {
            self.sent.clear();
            self.waiting.clear();
        }
        let (state, errors) = match state {
            BusState::Active => (ControllerState::Active, 0),
            BusState::Passive => (ControllerState::Passive, 128),
            BusState::Off => (ControllerState::Off, 255),
        };
        SlcanLine::State { state, receive_errors: 0, transmit_errors: errors }
    }

    fn answer(&mut self, is_done: bool) {
        let answer = if is_done { SlcanLine::Done } else { SlcanLine::Refused };
        answer.encode(&mut self.out);
    }

    fn accepts(&self, frame: &CanFrame) -> bool {
        self.open.is_some_and(|settings| {
            !settings.listen_only && (settings.data_bit_rate.is_some() || !frame.is_fd())
        })
    }

    fn join(&mut self, listen_only: bool) -> Option<ControllerAction> {
        let Some(bit_rate) = self.bit_rate else {
            self.answer(false);
            return None;
        };
        let data_bit_rate = self.data_bit_rate;
        Some(ControllerAction::Join(CanSettings { bit_rate, data_bit_rate, listen_only }))
    }

    /// Changes a setting while the adapter is off the bus; returns whether the setting is valid.
    fn handle_setting(&mut self, setting: &SlcanLine) -> bool {
        match setting {
            SlcanLine::SetBitRate(number) => {
                self.bit_rate = values::bit_rate(*number);
                self.bit_rate.is_some()
            }
            SlcanLine::SetBitTiming(registers) => {
                self.bit_rate = u16::try_from(*registers).ok().map(values::bit_rate_of_timing);
                self.bit_rate.is_some()
            }
            SlcanLine::SetDataBitRate(number) => {
                self.data_bit_rate = values::data_bit_rate(*number);
                self.data_bit_rate.is_some()
            }
            SlcanLine::SetTimestamps(on) => {
                self.timestamps = *on;
                true
            }
            _ => false,
        }
    }

    /// Reads and clears the status flags.
    fn take_status(&mut self, state: BusState) -> StatusFlags {
        let overrun = std::mem::take(&mut self.overrun);
        let errors = std::mem::take(&mut self.had_errors);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        StatusFlags(
            flag(state != BusState::Active, StatusFlags::PASSIVE | StatusFlags::WARNING)
                | flag(overrun, StatusFlags::OVERRUN)
                | flag(errors, StatusFlags::BUS_ERROR),
        )
    }

    fn timestamp(&self, at: Instant) -> Option<u32> {
        let milliseconds = at.saturating_duration_since(self.start).as_millis() % 60_000;
        self.timestamps.then_some(milliseconds as u32)
    }
}
