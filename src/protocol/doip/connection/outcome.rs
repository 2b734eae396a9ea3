//! How a connection is made, and what it tells.

use std::time::Duration;

use super::{ACKNOWLEDGE_TIME, CONTROL_TIME, GENERAL_INACTIVITY, MAX_UNACKNOWLEDGED};
use crate::protocol::doip::codec::DecodeError;
use crate::protocol::doip::{
    ActivationCode, ActivationType, DiagnosticNackCode, HeaderNackCode, LogicalAddress, ProtocolVersion,
};

/// How a connection is activated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// The edition that we speak.
    pub version: ProtocolVersion,
    /// Our address.
    pub tester: LogicalAddress,
    /// What kind of routing we ask for.
    pub activation_type: ActivationType,
    /// The manufacturer's field of the request.
    pub oem: Option<[u8; 4]>,
    /// How long somebody in the vehicle has for the confirmation that a gateway may want.
    pub confirmation_time: Duration,
    /// The longest diagnostic message in either direction, in bytes.
    pub max_data: usize,
}

impl ConnectionSettings {
    /// The default activation for this tester, after ISO 13400-2:2012, which gateways of 2019 take as well.
    pub fn new(tester: LogicalAddress) -> Self {
        Self {
            version: ProtocolVersion::V2012,
            tester,
            activation_type: ActivationType::Default,
            oem: None,
            confirmation_time: Duration::from_secs(30),
            max_data: 1 << 20,
        }
    }
}

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// No answer to the routing activation.
    #[error("the gateway did not answer the routing activation within {} s", CONTROL_TIME.as_secs())]
    ActivationTimeout,
    /// Routing was refused.
    #[error("the gateway refuses routing: {0}")]
    Denied(ActivationCode),
    /// Nobody confirmed the activation in the vehicle.
    #[error("nobody confirmed the routing activation in the vehicle within {} s", .0.as_secs())]
    ConfirmationTimeout(Duration),
    /// The gateway activated somebody else.
    #[error("the gateway answered the routing activation of {asked} with one for {answered}")]
    OtherTester {
        /// Our address.
        asked: LogicalAddress,
        /// Whose the answer is.
        answered: LogicalAddress,
    },
    /// The gateway could not take the routing activation's header.
    #[error("the gateway refuses the routing activation: {0}")]
    ActivationRefused(HeaderNackCode),
    /// What the gateway sends is no DoIP.
    #[error("the gateway sends what is no DoIP: {0}")]
    Malformed(#[from] DecodeError),
    /// The gateway sends more than we take.
    #[error("the gateway sends a message of {length} bytes, more than {max}")]
    TooLong {
        /// The payload's length.
        length: u32,
        /// The longest that is taken.
        max: u32,
    },
    /// The gateway closed it.
    #[error("the gateway closed the connection")]
    ClosedByGateway,
    /// The stream failed.
    #[error("the connection failed: {0}")]
    Stream(String),
    /// Nothing came or went for [`GENERAL_INACTIVITY`].
    #[error("nothing was exchanged for {} s", GENERAL_INACTIVITY.as_secs())]
    Inactive,
}

impl ConnectionError {
    /// Whether the gateway wants TLS.
    pub fn needs_tls(&self) -> bool {
        matches!(self, Self::Denied(ActivationCode::TlsRequired))
    }

    /// Whether trying again the same way may help: not after a refusal that is about who we are or what we ask for.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Denied(code) => matches!(
                code,
                ActivationCode::NoSocketFree
                    | ActivationCode::AddressInUse
                    | ActivationCode::OtherAddressActivated
            ),
            Self::ActivationRefused(code) => *code == HeaderNackCode::OutOfMemory,
            Self::ConfirmationTimeout(_) | Self::OtherTester { .. } => false,
            _ => true,
        }
    }
}

/// A message that was given to [`super::Connection::send`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SendId(pub(super) u64);

/// A message that cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Routing is not active.
    #[error("routing is not active")]
    NotActive,
    /// It has no data, or more than [`ConnectionSettings::max_data`].
    #[error("a diagnostic message has 1 to {max} bytes")]
    Length {
        /// The most that is taken.
        max: usize,
    },
    /// Too much waits already.
    #[error("{MAX_UNACKNOWLEDGED} messages wait already")]
    Full,
}

/// Why a message did not get to its ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    /// The gateway did not pass it on.
    #[error("the gateway does not pass it on: {0}")]
    Nack(DiagnosticNackCode),
    /// The gateway did not take it at all.
    #[error("the gateway does not take it: {0}")]
    HeaderNack(HeaderNackCode),
    /// The gateway did not acknowledge it in time.
    #[error("the gateway did not acknowledge it within {} s", ACKNOWLEDGE_TIME.as_secs())]
    NotAcknowledged,
    /// The connection was lost before it was acknowledged.
    #[error("the connection to the gateway was lost")]
    ConnectionLost,
}

/// What a connection tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Routing is active.
    Activated {
        /// The gateway's address.
        entity: LogicalAddress,
        /// The manufacturer's field of the answer.
        oem: Option<[u8; 4]>,
    },
    /// Somebody has to confirm the activation in the vehicle.
    ConfirmationRequired,
    /// The gateway passed the message on.
    Sent {
        /// Which.
        id: SendId,
        /// From its first byte to the acknowledgement.
        elapsed: Duration,
    },
    /// The message did not get to its ECU.
    SendFailed {
        /// Which.
        id: SendId,
        /// Why.
        failure: SendFailure,
    },
    /// An ECU sent this.
    Received {
        /// The ECU.
        source: LogicalAddress,
        /// The response.
        data: Vec<u8>,
    },
    /// The connection is over.
    Closed(ConnectionError),
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The answer to the routing activation (A_DoIP_Ctrl).
    Activation,
    /// The confirmation in the vehicle.
    Confirmation,
    /// A message's acknowledgement (A_DoIP_Diagnostic_Message).
    Acknowledgement,
    /// Anything at all (T_TCP_General_Inactivity).
    GeneralInactivity,
}
