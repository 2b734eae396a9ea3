//! What the state machines report, and what they refuse.

use std::time::Duration;

use connector_hal::can::CanId;

/// The timers of ISO 15765-2, 9.8, as far as they have a deadline here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// N_As: a frame of the sender is to be acknowledged on the bus.
    NAs,
    /// N_Ar: a flow control of the receiver is to be acknowledged on the bus.
    NAr,
    /// N_Bs: the sender waits for a flow control.
    NBs,
    /// N_Cr: the receiver waits for a consecutive frame.
    NCr,
    /// N_Cs: the sender lets the separation time pass before its next consecutive frame.
    NCs,
}

/// What happened; `address` is the identifier of the frames that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A single or first frame came: this is where P2 ends.
    ReceptionStarted {
        /// Whose frame it was.
        address: CanId,
    },
    /// A whole PDU was received.
    Received {
        /// Whose PDU it is.
        address: CanId,
        /// The PDU.
        pdu: Vec<u8>,
    },
    /// A reception was given up.
    ReceiveFailed {
        /// Whose PDU it would have been.
        address: CanId,
        /// Why.
        failure: ReceiveFailure,
    },
    /// The whole PDU was acknowledged on the bus.
    ///
    /// A quick peer's answer may come before it, where the adapter is slow to confirm.
    Sent {
        /// From `send` to the acknowledgement of the last frame.
        elapsed: Duration,
    },
    /// The PDU was given up; the peer may have received a part of it.
    SendFailed {
        /// Why.
        failure: SendFailure,
    },
}

/// Why a PDU was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SendFailure {
    /// N_Bs ran out (N_TIMEOUT_Bs).
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
    /// N_As ran out, or the adapter gave the frame up (N_TIMEOUT_A).
    #[error("a frame was not acknowledged on the bus")]
    NotAcknowledged,
    /// The flow control's status is none the standard knows (N_INVALID_FS).
    #[error("the flow control has an invalid status")]
    InvalidFlowStatus,
}

/// Why a reception was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ReceiveFailure {
    /// N_Cr ran out (N_TIMEOUT_Cr).
    #[error("no consecutive frame came in time")]
    ConsecutiveFrameTimeout,
    /// A consecutive frame was missing or doubled (N_WRONG_SN).
    #[error("a consecutive frame has the wrong sequence number")]
    WrongSequenceNumber,
    /// The first frame announced more than the configured bound; it was answered with overflow.
    #[error("the PDU is longer than allowed")]
    TooLong,
    /// Our flow control never got onto the bus (N_Ar, N_TIMEOUT_A).
    #[error("the flow control was not acknowledged on the bus")]
    NotAcknowledged,
    /// A new single or first frame took its place (N_UNEXP_PDU).
    #[error("a new PDU began before this one was whole")]
    Interrupted,
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
    /// It is longer than may be sent.
    #[error("the PDU has {len} bytes, but {max} are allowed")]
    TooLong {
        /// Its length, in bytes.
        len: usize,
        /// The longest allowed, in bytes.
        max: usize,
    },
}
