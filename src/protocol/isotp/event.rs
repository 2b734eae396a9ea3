//! Events, timers and errors of the endpoints.

use std::time::Duration;

use connector_hal::can::CanId;

/// The timers of ISO 15765-2, 9.8, that have a deadline in an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// N_As: the sender waits until a frame is acknowledged on the bus.
    NAs,
    /// N_Ar: the receiver waits until its flow control is acknowledged on the bus.
    NAr,
    /// N_Bs: the sender waits for a flow control.
    NBs,
    /// N_Cr: the receiver waits for a consecutive frame.
    NCr,
    /// N_Cs: the sender waits for the separation time before its next consecutive frame.
    NCs,
}

/// An event of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A single or first frame arrived; P2 ends here.
    ReceptionStarted {
        /// Identifier of the frame.
        address: CanId,
    },
    /// A whole PDU was received.
    Received {
        /// Identifier of the PDU's frames.
        address: CanId,
        /// The received PDU.
        pdu: Vec<u8>,
    },
    /// A reception failed.
    ReceiveFailed {
        /// Identifier of the PDU's frames.
        address: CanId,
        /// The reason.
        failure: ReceiveFailure,
    },
    /// The whole PDU was acknowledged on the bus.
    ///
    /// The answer of a fast peer may precede this event if the adapter is slow to confirm frames.
    Sent {
        /// Time from `send` to the acknowledgement of the last frame.
        elapsed: Duration,
    },
    /// The PDU was not sent completely; the peer may have received a part of it.
    SendFailed {
        /// The reason.
        failure: SendFailure,
    },
}

/// The reason why a PDU was not sent completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendFailure {
    /// N_Bs expired (N_TIMEOUT_Bs).
    #[error("no flow control came in time")]
    FlowControlTimeout,
    /// The receiver has no room for the PDU (N_BUFFER_OVFLW).
    #[error("the receiver has no room for it")]
    Overflow,
    /// The receiver asked to wait more often than allowed (N_WFT_OVRN).
    #[error("the receiver asked to wait too often")]
    WaitLimit,
    /// The bus went off.
    #[error("the bus is off")]
    BusOff,
    /// N_As expired, or the adapter abandoned the frame (N_TIMEOUT_A).
    #[error("a frame was not acknowledged on the bus")]
    NotAcknowledged,
    /// The flow control has a status that the standard reserves (N_INVALID_FS).
    #[error("the flow control has an invalid status")]
    InvalidFlowStatus,
}

/// The reason why a reception failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReceiveFailure {
    /// N_Cr expired (N_TIMEOUT_Cr).
    #[error("no consecutive frame came in time")]
    ConsecutiveFrameTimeout,
    /// A consecutive frame is missing or duplicated (N_WRONG_SN).
    #[error("a consecutive frame has the wrong sequence number")]
    WrongSequenceNumber,
    /// The first frame announced a PDU longer than the configured maximum, and was answered with overflow.
    #[error("the PDU is longer than allowed")]
    TooLong,
    /// The flow control was not acknowledged on the bus (N_Ar, N_TIMEOUT_A).
    #[error("the flow control was not acknowledged on the bus")]
    NotAcknowledged,
    /// A new single or first frame replaced the reception (N_UNEXP_PDU).
    #[error("a new PDU began before this one was complete")]
    Interrupted,
    /// No address is known for flow control to the ECU, and no other endpoint sends it.
    #[error("the ECU's request identifier is not known, so no flow control was sent")]
    NoFlowControlAddress,
}

/// The reason why an endpoint did not accept a PDU for sending.
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
}
