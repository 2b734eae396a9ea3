//! Settings, events, timers and errors of a connection.

use std::time::Duration;

use super::limits::{ACKNOWLEDGE_TIME, CONTROL_TIME, GENERAL_INACTIVITY, MAX_UNACKNOWLEDGED};
use crate::protocol::doip::codec::DecodeError;
use crate::protocol::doip::{
    ActivationCode, ActivationType, DiagnosticNackCode, HeaderNackCode, LogicalAddress, ProtocolVersion,
};

/// Settings of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Edition of the standard that we use.
    pub version: ProtocolVersion,
    /// Address of the tester.
    pub tester: LogicalAddress,
    /// Address that the gateway must have; `None` if any will do.
    pub entity: Option<LogicalAddress>,
    /// Kind of routing to request.
    pub activation_type: ActivationType,
    /// Manufacturer's field of the request.
    pub oem: Option<[u8; 4]>,
    /// Time for the confirmation in the vehicle that a gateway may require.
    pub confirmation_time: Duration,
    /// Longest diagnostic message in either direction, in bytes.
    pub max_data: usize,
}

impl ConnectionSettings {
    /// Creates the settings for a default activation by ISO 13400-2:2012, which gateways of 2019 also accept.
    pub fn new(tester: LogicalAddress) -> Self {
        Self {
            version: ProtocolVersion::V2012,
            tester,
            entity: None,
            activation_type: ActivationType::Default,
            oem: None,
            confirmation_time: Duration::from_secs(30),
            max_data: 1 << 20,
        }
    }
}

/// The reason why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The gateway did not answer the routing activation.
    #[error("the gateway did not answer the routing activation within {} s", CONTROL_TIME.as_secs())]
    ActivationTimeout,
    /// The gateway refused routing.
    #[error("the gateway refuses routing: {0}")]
    Denied(ActivationCode),
    /// The activation was not confirmed in the vehicle.
    #[error("the routing activation was not confirmed in the vehicle within {} s", .0.as_secs())]
    ConfirmationTimeout(Duration),
    /// The gateway activated another tester.
    #[error("the gateway answered the routing activation of {asked} with one for {answered}")]
    OtherTester {
        /// Address in our request.
        asked: LogicalAddress,
        /// Address in the response.
        answered: LogicalAddress,
    },
    /// Another gateway than the required one activated routing.
    #[error("the gateway is {answered}, not {asked}")]
    OtherEntity {
        /// Address of the required gateway.
        asked: LogicalAddress,
        /// Address in the response.
        answered: LogicalAddress,
    },
    /// The gateway refused the routing activation because of its header.
    #[error("the gateway refuses the routing activation: {0}")]
    ActivationRefused(HeaderNackCode),
    /// The gateway refused the routing activation because of its version, in another version.
    #[error("the gateway refuses protocol version {asked}, and uses {own}")]
    OtherVersion {
        /// The version of our request.
        asked: ProtocolVersion,
        /// The version of the refusal.
        own: ProtocolVersion,
    },
    /// The gateway sent bytes that are not DoIP.
    #[error("the gateway sent bytes that are not DoIP: {0}")]
    Malformed(#[from] DecodeError),
    /// The gateway sent a message that is too long.
    #[error("the gateway sent a message of {length} bytes, more than {max}")]
    TooLong {
        /// Length of the payload, in bytes.
        length: u32,
        /// Longest payload accepted, in bytes.
        max: u32,
    },
    /// The gateway closed the connection.
    #[error("the gateway closed the connection")]
    ClosedByGateway,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Stream(String),
    /// No byte was exchanged for T_TCP_General_Inactivity, 300 s.
    #[error("no byte was exchanged for {} s", GENERAL_INACTIVITY.as_secs())]
    Inactive,
}

impl ConnectionError {
    /// Returns whether the gateway requires TLS.
    pub(crate) fn needs_tls(&self) -> bool {
        matches!(self, Self::Denied(ActivationCode::TlsRequired))
    }

    /// Returns the gateway's version, if the gateway refused ours.
    pub(crate) fn needs_version(&self) -> Option<ProtocolVersion> {
        match self {
            Self::OtherVersion { own, .. } => Some(*own),
            _ => None,
        }
    }

    /// Returns whether another attempt with the same settings may succeed.
    ///
    /// A refusal of our address or of the requested routing is final.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Denied(code) => matches!(
                code,
                ActivationCode::NoSocketFree
                    | ActivationCode::AddressInUse
                    | ActivationCode::OtherAddressActivated
            ),
            Self::ActivationRefused(code) => *code == HeaderNackCode::OutOfMemory,
            Self::ConfirmationTimeout(_)
            | Self::OtherTester { .. }
            | Self::OtherEntity { .. }
            | Self::OtherVersion { .. } => false,
            _ => true,
        }
    }
}

/// Identifies a message that was passed to [`Connection::send`](super::Connection::send).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub(super) u64);

/// The reason why a message was not accepted for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Routing is not active.
    #[error("routing is not active")]
    NotActive,
    /// The message has no data, or more than [`ConnectionSettings::max_data`].
    #[error("a diagnostic message has 1 to {max} bytes")]
    Length {
        /// Longest message allowed, in bytes.
        max: usize,
    },
    /// Too many messages are waiting, or many events have not been read.
    #[error("{MAX_UNACKNOWLEDGED} messages are waiting already, or many events have not been read")]
    Full,
}

/// The reason why a message did not reach its ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// The gateway did not pass the message on.
    #[error("the gateway did not pass the message on: {0}")]
    Nack(DiagnosticNackCode),
    /// The gateway refused the message because of its header.
    #[error("the gateway refused the message: {0}")]
    HeaderNack(HeaderNackCode),
    /// The gateway did not acknowledge the message in time.
    #[error("the gateway did not acknowledge the message within {} s", ACKNOWLEDGE_TIME.as_secs())]
    NotAcknowledged,
    /// The connection was lost before the message was acknowledged.
    #[error("the connection to the gateway was lost")]
    ConnectionLost,
}

/// An event of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Routing is active.
    Activated {
        /// Address of the gateway.
        entity: LogicalAddress,
        /// Manufacturer's field of the response.
        oem: Option<[u8; 4]>,
    },
    /// The activation must be confirmed in the vehicle.
    ConfirmationRequired,
    /// The gateway passed the message on.
    Sent {
        /// The message.
        id: SendId,
        /// Time from the first byte of the message to the acknowledgement.
        elapsed: Duration,
    },
    /// The message did not reach its ECU.
    SendFailed {
        /// The message.
        id: SendId,
        /// The reason.
        failure: SendFailure,
    },
    /// A diagnostic message of an ECU arrived.
    Received {
        /// Address of the ECU.
        source: LogicalAddress,
        /// Data of the message.
        data: Vec<u8>,
    },
    /// The connection is over.
    Closed(ConnectionError),
}

/// The timers of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A_DoIP_Ctrl: the response to the routing activation is due.
    Activation,
    /// The confirmation in the vehicle is due.
    Confirmation,
    /// A_DoIP_Diagnostic_Message: the acknowledgement of a message is due.
    Acknowledgement,
    /// T_TCP_General_Inactivity: the connection ends without any traffic.
    GeneralInactivity,
}
