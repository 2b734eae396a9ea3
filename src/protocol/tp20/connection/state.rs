//! What a connection is about: its phase, the frames that have no outcome yet, and what is due besides data.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    /// Our parameters are to be sent; T1 runs once they are on the bus.
    Offering {
        sent: u8,
        deadline: Option<Instant>,
    },
    /// Those of the peer are to come.
    AwaitingOffer {
        deadline: Instant,
    },
    Open,
    /// We disconnect, the peer is to do so too.
    Closing {
        deadline: Option<Instant>,
    },
    Closed,
}

/// What a frame without outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentFrame {
    Data { serial: u32 },
    Offer,
    Test,
    Disconnect,
    Other,
}

/// What is to be sent besides data.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub(super) parameters: bool,
    pub(super) disconnect: bool,
}
