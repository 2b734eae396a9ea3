//! Messages that set up a channel, on identifier 0x200 and that of the ECU.

use connector_hal::can::{CanFrame, CanId};

use super::config::{LogicalAddress, SETUP_ID};

/// High byte of an identifier that is not specified.
const INVALID: u8 = 0x10;
const REQUEST: u8 = 0xC0;
const POSITIVE: u8 = 0xD0;

/// Whether set-up messages have this identifier: 0x200 for requests, and 0x200 and the address of an ECU for its answer.
pub(super) fn is_setup_id(id: CanId) -> bool {
    !id.is_extended() && id.raw() >> 8 == SETUP_ID.raw() >> 8
}

/// The reason why an ECU refuses a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// D6: the ECU has no such application.
    #[error("the ECU knows no such application type")]
    ApplicationType,
    /// D7: the ECU does not serve the application at the moment.
    #[error("the ECU does not serve this application type at the moment")]
    ApplicationTypeNow,
    /// D8: the ECU has no channel left.
    #[error("the ECU has no channel left")]
    Resources,
    /// Another code between D1 and DF.
    #[error("the ECU refuses with 0x{0:02X}")]
    Other(u8),
}

/// The kind of a set-up message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupOpcode {
    /// C0: a tester requests a channel.
    Request,
    /// D0: the ECU accepts the channel.
    Positive,
    /// D1…DF: the ECU refuses the channel.
    Negative(Refusal),
}

/// A set-up message.
///
/// Identifiers are those of the message's receiver: a request contains the identifiers on which the ECU is to
/// listen and with which it is to send, an answer contains those of the tester.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupMessage {
    /// Logical address of the receiver; the tester has 0.
    pub destination: u8,
    /// The kind of the message.
    pub opcode: SetupOpcode,
    /// Identifier to listen on; `None` leaves the choice to the receiver.
    pub receive: Option<CanId>,
    /// Identifier to send with; `None` leaves the choice to the receiver.
    pub transmit: Option<CanId>,
    /// Application type of the channel.
    pub application_type: u8,
}

impl SetupMessage {
    /// Decodes the data of a frame; returns `None` if the frame is not a set-up message.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let [
            destination,
            opcode,
            receive_low,
            receive_high,
            transmit_low,
            transmit_high,
            application_type,
            ..,
        ] = *data
        else {
            return None;
        };
        let opcode = match opcode {
            REQUEST => SetupOpcode::Request,
            POSITIVE => SetupOpcode::Positive,
            0xD6 => SetupOpcode::Negative(Refusal::ApplicationType),
            0xD7 => SetupOpcode::Negative(Refusal::ApplicationTypeNow),
            0xD8 => SetupOpcode::Negative(Refusal::Resources),
            0xD1..=0xDF => SetupOpcode::Negative(Refusal::Other(opcode)),
            _ => return None,
        };
        let id = |low: u8, high: u8| {
            let is_valid = high >> 4 == 0;
            is_valid.then(|| CanId::standard_truncated(u32::from(high & 0x07) << 8 | u32::from(low)))
        };
        Some(Self {
            destination,
            opcode,
            receive: id(receive_low, receive_high),
            transmit: id(transmit_low, transmit_high),
            application_type,
        })
    }

    /// Encodes the message; returns `None` if an identifier does not fit.
    pub fn encode(&self, id: CanId) -> Option<CanFrame> {
        let opcode = match self.opcode {
            SetupOpcode::Request => REQUEST,
            SetupOpcode::Positive => POSITIVE,
            SetupOpcode::Negative(Refusal::ApplicationType) => 0xD6,
            SetupOpcode::Negative(Refusal::ApplicationTypeNow) => 0xD7,
            SetupOpcode::Negative(Refusal::Resources) => 0xD8,
            SetupOpcode::Negative(Refusal::Other(code)) => code,
        };
        let field = |id: Option<CanId>| match id {
            Some(id) => Some([(id.raw() & 0xFF) as u8, u8::try_from(id.raw() >> 8).ok()?]),
            None => Some([0, INVALID]),
        };
        let [receive_low, receive_high] = field(self.receive)?;
        let [transmit_low, transmit_high] = field(self.transmit)?;
        let data = [
            self.destination,
            opcode,
            receive_low,
            receive_high,
            transmit_low,
            transmit_high,
            self.application_type,
        ];
        CanFrame::new(id, &data).ok()
    }

    /// Creates a request for a channel on which the ECU sends with `transmit`.
    pub(super) fn request(
        ecu: LogicalAddress,
        receive: Option<CanId>,
        transmit: Option<CanId>,
        application_type: u8,
    ) -> Self {
        let opcode = SetupOpcode::Request;
        Self { destination: ecu.get(), opcode, receive, transmit, application_type }
    }
}
