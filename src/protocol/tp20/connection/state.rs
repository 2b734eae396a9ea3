//! The state of a connection: its phase, its frames without an outcome, and the frames that are due besides
//! data.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// Our parameters are to be sent, or to be answered by the deadline (T1).
    Offering {
        sent: u8,
        deadline: Option<Instant>,
    },
    /// The peer's parameters are due.
    AwaitingOffer {
        deadline: Instant,
    },
    Open,
    /// Our disconnect is to be sent, or to be answered by the deadline.
    Closing {
        deadline: Option<Instant>,
    },
    Closed,
}

/// The kind of a frame without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentFrame {
    Data { serial: u32 },
    Offer,
    Test,
    Disconnect,
    Other,
}

/// The frames that are to be sent before data.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) parameters: bool,
    pub(super) disconnect: bool,
}
