//! Events, timers and errors of channels and connections.

use std::time::Duration;

use super::Refusal;

/// The timers of a channel.
///
/// T1 and T3 are the names of parameters; T_CT and T_Wait are the names that implementations use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The answer to a set-up request is due.
    Setup,
    /// T1: an acknowledgement, or the answer to parameters, is due.
    T1,
    /// T3: the next data frame can be sent.
    T3,
    /// T_Wait: the next data frame is sent to an ECU that was not ready for more data.
    TWait,
    /// T_CT: the next channel test, or the answer to one, is due.
    TCt,
    /// The peer's next data frame is due.
    Reception,
    /// The peer has sent no frame for too long.
    Silence,
    /// The answer to our disconnect is due.
    Disconnect,
}

/// An event of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The channel is open: identifiers and parameters are agreed.
    Opened,
    /// The first frame of a PDU arrived; P2 ends here.
    ReceptionStarted,
    /// A complete PDU was received.
    Received {
        /// The received PDU.
        pdu: Vec<u8>,
    },
    /// A reception failed.
    ReceiveFailed {
        /// The reason.
        failure: ReceiveFailure,
    },
    /// The peer acknowledged the complete PDU.
    Sent {
        /// Time from `send`, or from the opening of the channel, to the acknowledgement.
        elapsed: Duration,
    },
    /// The PDU was not sent completely; the peer may have received a part of it.
    SendFailed {
        /// The reason.
        reason: CloseReason,
    },
    /// The channel is closed, or could not be opened.
    Closed {
        /// The reason.
        reason: CloseReason,
    },
}

/// The reason why a channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.describe())]
pub enum CloseReason {
    /// This side closed the channel.
    Requested,
    /// The peer disconnected.
    ByPeer,
    /// The peer started the connection again, with sequence numbers from 0.
    Restarted,
    /// No ECU answered the set-up requests.
    SetupTimeout,
    /// The ECU refused the channel.
    Refused(Refusal),
    /// The peer did not answer the parameters.
    NoParameters,
    /// The peer did not acknowledge a data frame in spite of repetitions (T1).
    NoAck,
    /// The peer was not ready for more data for too long.
    NotReady,
    /// The channel test was not answered.
    NoTestAnswer,
    /// The peer stopped in the middle of a PDU.
    ReceptionStopped,
    /// The peer has sent no frame for too long.
    Silence,
    /// A frame was not acknowledged on the bus.
    NotAcknowledged,
    /// The bus went off.
    BusOff,
}

impl CloseReason {
    /// Returns the reason as a text.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Requested => "the channel was closed",
            Self::ByPeer => "the ECU closed the channel",
            Self::Restarted => "the ECU started the channel again",
            Self::SetupTimeout => "no ECU answered the set-up of the channel",
            Self::Refused(Refusal::ApplicationType) => "the ECU knows no such application type",
            Self::Refused(Refusal::ApplicationTypeNow) => {
                "the ECU does not serve this application type at the moment"
            }
            Self::Refused(Refusal::Resources) => "the ECU has no channel left",
            Self::Refused(Refusal::Other(_)) => "the ECU refuses the channel",
            Self::NoParameters => "the ECU did not answer the channel's parameters",
            Self::NoAck => "the ECU did not acknowledge data in time",
            Self::NotReady => "the ECU was not ready for more data for too long",
            Self::NoTestAnswer => "the ECU does not answer the channel test",
            Self::ReceptionStopped => "the ECU stopped in the middle of a PDU",
            Self::Silence => "the peer has sent nothing for too long",
            Self::NotAcknowledged => "a frame was not acknowledged on the bus",
            Self::BusOff => "the bus is off",
        }
    }
}

/// The reason why a reception failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReceiveFailure {
    /// The next data frame did not arrive.
    #[error("the next data frame did not arrive")]
    Timeout,
    /// The PDU ended before its announced length.
    #[error("the PDU is shorter than announced")]
    WrongLength,
    /// The PDU is longer than allowed.
    #[error("the PDU is longer than allowed")]
    TooLong,
    /// The channel closed before the PDU was complete.
    #[error("the channel closed before the PDU was complete")]
    Closed,
}

/// The reason why a PDU was not accepted for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Another PDU is being sent, or many events have not been read.
    #[error("another PDU is being sent, or many events have not been read")]
    Busy,
    /// The PDU has no data.
    #[error("the PDU is empty")]
    Empty,
    /// The PDU is longer than allowed.
    #[error("the PDU has {len} bytes, but {max} are allowed")]
    TooLong {
        /// Length of the PDU, in bytes.
        len: usize,
        /// Longest PDU allowed, in bytes.
        max: usize,
    },
    /// The connection is closed.
    #[error("the connection is closed")]
    Closed,
}
