//! RawTp20Channels of TP2.0 (SAE J2819) that are set up and used by raw frames.

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::tp20::{SetupMessage, SetupOpcode, Tpdu};

/// The identifier of set-up requests; responses have it with the ECU's address added.
const SETUP: u32 = 0x200;
/// The most channels on one bus.
const MAX_CHANNELS: usize = 16;
/// Bytes of the length in front of a PDU.
const LENGTH_BYTES: usize = 2;

/// What a frame of a channel means for its ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tp20Meaning<'a> {
    /// Begins a PDU with these first bytes; the rest comes in further frames if this is only the start.
    Request { data: &'a [u8], is_start: bool },
    /// Continues a PDU, repeats the last frame, or is no data.
    Harmless,
    /// Data that is out of sequence: the ECU may take it for the beginning of a PDU.
    OutOfSequence,
}

#[derive(Debug)]
struct Channel {
    bus: usize,
    ecu: u8,
    /// The identifier of the tester's frames; `None` until the ECU has accepted the channel.
    id: Option<CanId>,
    /// The sequence number of the next data frame; `None` after a break, which takes frames back.
    expected: Option<u8>,
    is_in_pdu: bool,
    last: Option<CanFrame>,
}

/// All channels that raw frames have set up.
#[derive(Debug, Default)]
pub(super) struct RawTp20Channels(Vec<Channel>);

impl RawTp20Channels {
    fn at(&self, bus: usize, id: CanId) -> Option<&Channel> {
        self.0.iter().find(|channel| channel.bus == bus && channel.id == Some(id))
    }

    /// What the frame means, if the identifier is that of a channel.
    pub(super) fn meaning<'a>(&self, bus: usize, frame: &'a CanFrame) -> Option<Tp20Meaning<'a>> {
        let channel = self.at(bus, frame.id())?;
        let Ok(Tpdu::Data { is_last, sequence, data, .. }) = Tpdu::decode(frame.data()) else {
            return Some(Tp20Meaning::Harmless);
        };
        if channel.last.as_ref() == Some(frame) {
            return Some(Tp20Meaning::Harmless);
        }
        Some(match channel.expected {
            Some(expected) if expected == sequence && channel.is_in_pdu => Tp20Meaning::Harmless,
            Some(expected) if expected == sequence => Tp20Meaning::Request {
                data: data.get(LENGTH_BYTES..).unwrap_or_default(),
                is_start: !is_last,
            },
            _ => Tp20Meaning::OutOfSequence,
        })
    }

    /// Handles a frame that was let through.
    pub(super) fn handle_sent(&mut self, bus: usize, frame: &CanFrame) {
        if !frame.id().is_extended() && frame.id().raw() == SETUP {
            self.handle_setup_request(bus, frame);
            return;
        }
        let Some(channel) = self.0.iter_mut().find(|c| c.bus == bus && c.id == Some(frame.id())) else {
            return;
        };
        match Tpdu::decode(frame.data()) {
            Ok(Tpdu::Data { is_last, sequence, .. }) if channel.last.as_ref() != Some(frame) => {
                channel.expected = Some((sequence + 1) & 0x0F);
                channel.is_in_pdu = !is_last;
                channel.last = Some(*frame);
            }
            Ok(Tpdu::Break) => {
                channel.expected = None;
                channel.last = None;
            }
            Ok(Tpdu::Disconnect) => {
                let ecu = channel.ecu;
                self.0.retain(|channel| (channel.bus, channel.ecu) != (bus, ecu));
            }
            _ => {}
        }
    }

    fn handle_setup_request(&mut self, bus: usize, frame: &CanFrame) {
        let Some(request) = SetupMessage::decode(frame.data()) else { return };
        if request.opcode != SetupOpcode::Request {
            return;
        }
        self.0.retain(|channel| (channel.bus, channel.ecu) != (bus, request.destination));
        if self.0.len() >= MAX_CHANNELS {
            self.0.remove(0);
        }
        let ecu = request.destination;
        self.0.push(Channel { bus, ecu, id: None, expected: Some(0), is_in_pdu: false, last: None });
    }

    /// Handles a frame that was heard: an ECU that accepts a channel names its identifier.
    pub(super) fn handle_heard(&mut self, bus: usize, frame: &CanFrame) {
        let raw = frame.id().raw();
        if self.0.is_empty() || frame.id().is_extended() {
            return;
        }
        let waiting =
            self.0.iter_mut().find(|c| c.bus == bus && c.id.is_none() && raw == SETUP + u32::from(c.ecu));
        if let Some(channel) = waiting
            && let Some(response) = SetupMessage::decode(frame.data())
            && response.opcode == SetupOpcode::Positive
        {
            channel.id = response.transmit;
        }
    }

    /// Handles a lost frame of a channel: its ECU expects another sequence number now.
    pub(super) fn handle_lost(&mut self, bus: usize, id: CanId) {
        if let Some(channel) = self.0.iter_mut().find(|c| c.bus == bus && c.id == Some(id)) {
            channel.expected = None;
            channel.last = None;
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
