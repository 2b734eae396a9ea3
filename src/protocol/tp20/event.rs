//! What the state machines report, and what they refuse.

use std::time::Duration;

use super::Refusal;

/// What runs out at a deadline. T1 and T3 are the parameters' names, T_CT and T_Wait those that implementations use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The answer to a set-up request is due.
    Setup,
    /// An acknowledgement, or the answer to parameters, is due.
    T1,
    /// The time between two data frames passes.
    T3,
    /// The ECU is not ready for more data, and may be by now.
    TWait,
    /// The channel is to be tested, or the answer to a test is due.
    TCt,
    /// The next data frame is due.
    Reception,
    /// The peer was not heard for too long.
    Silence,
    /// The answer to our disconnecting is due.
    Disconnect,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The channel is open: identifiers and parameters are agreed upon.
    Opened,
    /// The first frame of a PDU came: this is where P2 ends.
    ReceptionStarted,
    /// A whole PDU was received.
    Received {
        /// The PDU.
        pdu: Vec<u8>,
    },
    /// A reception was given up.
    ReceiveFailed {
        /// Why.
        failure: ReceiveFailure,
    },
    /// The peer acknowledged the whole PDU.
    Sent {
        /// From `send`, or from when the channel was open, to the acknowledgement.
        elapsed: Duration,
    },
    /// The PDU was given up; the peer may have received a part of it.
    SendFailed {
        /// Why.
        reason: CloseReason,
    },
    /// The channel is not open any more, or could not be opened.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.describe())]
pub enum CloseReason {
    /// It was asked for on this side.
    Requested,
    /// The peer disconnected.
    ByPeer,
    /// The peer began anew, with sequence numbers from 0.
    Restarted,
    /// Nobody answered the set-up requests.
    SetupTimeout,
    /// The ECU does not open the channel.
    Refused(Refusal),
    /// The parameters were not answered.
    NoParameters,
    /// A data frame was not acknowledged, however often it was repeated (T1).
    NoAck,
    /// The peer was never ready for more.
    NotReady,
    /// The channel test was not answered.
    NoTestAnswer,
    /// The peer stopped in the middle of a PDU.
    ReceptionStopped,
    /// Nothing was heard for too long.
    Silence,
    /// A frame was not acknowledged on the bus.
    NotAcknowledged,
    /// The bus went off.
    BusOff,
}

impl CloseReason {
    /// The reason in words, for whoever keeps them.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Requested => "the channel was closed",
            Self::ByPeer => "the ECU closed the channel",
            Self::Restarted => "the ECU began the channel anew",
            Self::SetupTimeout => "no ECU answered the set-up of the channel",
            Self::Refused(Refusal::ApplicationType) => "the ECU knows no such application type",
            Self::Refused(Refusal::ApplicationTypeNow) => {
                "the ECU does not serve this application type at the moment"
            }
            Self::Refused(Refusal::Resources) => "the ECU has no channel left",
            Self::Refused(Refusal::Other(_)) => "the ECU refuses the channel",
            Self::NoParameters => "the ECU did not answer the channel's parameters",
            Self::NoAck => "the ECU acknowledged no data in time",
            Self::NotReady => "the ECU was not ready for more data for too long",
            Self::NoTestAnswer => "the ECU answers no channel test any more",
            Self::ReceptionStopped => "the ECU stopped in the middle of a PDU",
            Self::Silence => "nothing was heard for too long",
            Self::NotAcknowledged => "a frame was not acknowledged on the bus",
            Self::BusOff => "the bus is off",
        }
    }
}

/// Why a reception was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReceiveFailure {
    /// The next data frame did not come.
    #[error("the next data frame did not come")]
    Timeout,
    /// The PDU ended before it had the length that it began with.
    #[error("the PDU is shorter than announced")]
    WrongLength,
    /// It is longer than allowed.
    #[error("the PDU is longer than allowed")]
    TooLong,
    /// The channel closed.
    #[error("the channel closed before the PDU was whole")]
    Closed,
}

/// Why a PDU was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Another one is under way.
    #[error("another PDU is being sent")]
    Busy,
    /// There is no PDU without data.
    #[error("the PDU is empty")]
    Empty,
    /// It is longer than a length of TP2.0 says.
    #[error("the PDU has {len} bytes, but {max} are allowed")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
    /// The connection is over.
    #[error("the connection is closed")]
    Closed,
}
