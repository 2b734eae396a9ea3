//! The codes and details of `event` records.

/// The code of an `event` record. Unknown codes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventCode {
    /// A PDU sent with `confirm` is on the bus.
    Sent,
    /// A PDU or frame was not sent; the detail is a [`SendFailedDetail`].
    SendFailed,
    /// A reception was abandoned.
    ReceiveFailed,
    /// Frames of a raw channel were dropped; the value is their number.
    Gap,
    /// The state of the bus changed.
    BusState,
    /// TesterPresent could not be sent.
    KeepAliveFailed,
    /// Queued chained PDUs were discarded.
    ChainBroken,
    /// An event that this agent does not know.
    Unknown(u16),
}

impl EventCode {
    pub(super) fn to_wire(self) -> u16 {
        match self {
            Self::Sent => 1,
            Self::SendFailed => 2,
            Self::ReceiveFailed => 3,
            Self::Gap => 4,
            Self::BusState => 5,
            Self::KeepAliveFailed => 6,
            Self::ChainBroken => 7,
            Self::Unknown(code) => code,
        }
    }

    pub(super) fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::Sent,
            2 => Self::SendFailed,
            3 => Self::ReceiveFailed,
            4 => Self::Gap,
            5 => Self::BusState,
            6 => Self::KeepAliveFailed,
            7 => Self::ChainBroken,
            code => Self::Unknown(code),
        }
    }
}

/// The detail of `send-failed` and `keep-alive-failed`: why a PDU or frame was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum SendFailedDetail {
    /// The ECU sent no flow control in time.
    FlowControlTimeout = 1,
    /// The ECU sent flow control with the status "overflow".
    FlowControlOverflow = 2,
    /// The bus is off.
    BusOff = 3,
    /// No node acknowledged the frame in time.
    NotAcknowledged = 4,
    /// The channel's queue is full.
    QueueFull = 5,
    /// The channel may not send this record.
    RefusedByPolicy = 6,
    /// The channel is closed.
    ChannelClosed = 7,
    /// The record was older than the channel allows.
    TooOld = 8,
}

impl SendFailedDetail {
    /// The detail with this number, if it is known.
    pub fn from_wire(detail: u16) -> Option<Self> {
        Some(match detail {
            1 => Self::FlowControlTimeout,
            2 => Self::FlowControlOverflow,
            3 => Self::BusOff,
            4 => Self::NotAcknowledged,
            5 => Self::QueueFull,
            6 => Self::RefusedByPolicy,
            7 => Self::ChannelClosed,
            8 => Self::TooOld,
            _ => return None,
        })
    }
}
