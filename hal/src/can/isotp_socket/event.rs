//! What a socket reports: received PDUs, and the outcome of sent PDUs.

/// An event of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsotpEvent {
    /// A PDU was received.
    Received(Vec<u8>),
    /// The reception of a PDU failed: a frame was late or missing, or the PDU was too long.
    ReceiveFailed(IsotpReceiveError),
    /// The PDU was sent: its last frame was on the bus.
    Sent,
    /// The PDU was not sent, or not completely.
    SendFailed(IsotpSendError),
}

/// Why a PDU was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IsotpReceiveError {
    /// No consecutive frame arrived in time (N_Cr).
    #[error("no consecutive frame arrived in time")]
    Timeout,
    /// A consecutive frame has the wrong sequence number.
    #[error("a consecutive frame is missing")]
    WrongSequenceNumber,
    /// The PDU is longer than this socket accepts.
    #[error("the PDU is longer than allowed")]
    TooLong,
}

/// Why a PDU was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IsotpSendError {
    /// No flow control arrived in time (N_Bs), or a frame was not acknowledged (N_As): the kernel does not
    /// distinguish the two.
    #[error("no flow control or acknowledgement arrived in time")]
    Timeout,
    /// The receiver has no room for the PDU.
    #[error("the receiver has no room for the PDU")]
    Overflow,
    /// The flow control has an invalid status.
    #[error("the flow control has an invalid status")]
    InvalidFlowStatus,
    /// The PDU is empty or longer than the kernel accepts.
    #[error("the kernel does not accept a PDU of this length")]
    Length,
    /// The interface is down.
    #[error("the interface is down")]
    InterfaceDown,
}
