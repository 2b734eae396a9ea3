//! Responses of ECUs, and how long to wait for them.

use std::time::Duration;

const NEGATIVE_RESPONSE: u8 = 0x7F;
const RESPONSE_PENDING: u8 = 0x78;
const POSITIVE_OFFSET: u8 = 0x40;

/// How long a request waits for an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// P2: the time to the first response, counted from the request on the bus.
    pub p2: Duration,
    /// P2*: the time to the response after a response pending.
    pub p2_star: Duration,
    /// The time that the network may add: the round trip, and a link that stalls without being lost.
    pub allowance: Duration,
    /// The pause before a request to a busy ECU is repeated.
    pub busy_pause: Duration,
    /// How many times a request to a busy ECU is repeated.
    pub busy_retries: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            p2: Duration::from_secs(1),
            p2_star: Duration::from_secs(5),
            // a link that is silent for 15 s counts as lost, and then this clock stops
            allowance: Duration::from_secs(16),
            busy_pause: Duration::from_secs(1),
            busy_retries: 5,
        }
    }
}

/// An ECU's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The sender: a CAN identifier with SocketCAN's EFF bit.
    pub address: u32,
    /// The PDU.
    pub data: Vec<u8>,
    /// When the response was complete, on the connector's clock, since the connection was opened.
    pub at: Duration,
}

/// The kind of response of a PDU to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    /// The positive response.
    Positive,
    /// Response pending: the ECU needs more time.
    Pending,
    /// A negative response with this code.
    Negative(u8),
    /// The PDU does not answer this request.
    Unrelated,
}

impl ResponseKind {
    /// Classifies a PDU that follows a request for this service.
    pub(crate) fn of(service: u8, response: &[u8]) -> Self {
        match response {
            [NEGATIVE_RESPONSE, about, RESPONSE_PENDING, ..] if *about == service => Self::Pending,
            [NEGATIVE_RESPONSE, about, code, ..] if *about == service => Self::Negative(*code),
            [first, ..] if *first == service.wrapping_add(POSITIVE_OFFSET) => Self::Positive,
            _ => Self::Unrelated,
        }
    }
}
