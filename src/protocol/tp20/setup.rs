//! The messages by which a channel is set up, on 0x200 and the ECU's own identifier.

use connector_hal::can::{CanFrame, CanId};

use super::LogicalAddress;

/// Where a tester sends its set-up requests.
pub const SETUP_ID: CanId = CanId::standard_truncated(0x200);
/// The application type of diagnostics.
pub const APPLICATION_DIAGNOSTICS: u8 = 0x01;

/// The nibble that says that an identifier means nothing.
const INVALID: u8 = 0x10;
const REQUEST: u8 = 0xC0;
const POSITIVE: u8 = 0xD0;

/// Why an ECU refuses a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// D6: it has no such application.
    #[error("the ECU knows no such application type")]
    ApplicationType,
    /// D7: not now.
    #[error("the ECU does not serve this application type at the moment")]
    ApplicationTypeNow,
    /// D8: it has no channel left.
    #[error("the ECU has no channel left")]
    Resources,
    /// Another code between D1 and DF.
    #[error("the ECU refuses with 0x{0:02X}")]
    Other(u8),
}

/// What a set-up message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupOpcode {
    /// C0
    Request,
    /// D0
    Positive,
    /// D1…DF
    Negative(Refusal),
}

/// A set-up message. Identifiers are told from the view of whom the message is for: in a request, where the ECU is to
/// listen and to send; in an answer, where the tester is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupMessage {
    /// The logical address of whom it is for; ECUs write 0, the tester's.
    pub destination: u8,
    /// What it is.
    pub opcode: SetupOpcode,
    /// The identifier to receive on; `None` where the sender leaves that to the other.
    pub receive: Option<CanId>,
    /// The identifier to send with; `None` where the sender leaves that to the other.
    pub transmit: Option<CanId>,
    /// What the channel is for.
    pub application_type: u8,
}

impl SetupMessage {
    /// Reads a frame's data; `None` if it is no set-up message.
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

    /// The frame; `None` for an identifier that does not fit.
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

    /// The request for a channel on which the ECU sends with `transmit`.
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
