//! A turn of an endpoint on the line: its purpose, its exchange and its phase.

use std::time::{Duration, Instant};

use crate::protocol::kline::key_bytes::KeyBytes;
use crate::protocol::kline::message::HeaderForm;
use crate::protocol::kline::timing::{LATENCY_ALLOWANCE, Timing};
use crate::protocol::kline::transmitter::Transmitter;

/// The message that is exchanged, and its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
    StartCommunication,
    Pdu {
        service: u8,
    },
    TesterPresent,
    StopCommunication,
    /// The complement of key byte 2, during a slow initialisation.
    Complement(KeyBytes),
}

/// The phase of a turn on the line, with its deadline.
#[derive(Debug)]
pub(super) enum TurnPhase {
    /// The endpoint does not have the line.
    Idle,
    /// The line must be quiet for `pause` after the last byte; the wait ends at `latest` in any case.
    Pausing {
        until: Instant,
        pause: Duration,
        latest: Instant,
        then: TurnPurpose,
    },
    /// A slow signal is on the line.
    Signal {
        until: Instant,
        is_address: bool,
    },
    /// The line is high after the pulse of a fast initialisation.
    WakingUp {
        until: Instant,
    },
    /// The synchronisation byte is due.
    Synchronising {
        until: Instant,
    },
    FirstKeyByte {
        until: Instant,
    },
    SecondKeyByte {
        until: Instant,
        first: u8,
    },
    /// The complement of key byte 2 is due.
    BeforeComplement {
        until: Instant,
        key_bytes: KeyBytes,
    },
    /// The complement of the address is due.
    AddressComplement {
        until: Instant,
        key_bytes: KeyBytes,
    },
    Sending {
        exchange: Exchange,
        transmitter: Transmitter,
    },
    /// The first answer, or another one, is due.
    Awaiting {
        exchange: Exchange,
        until: Instant,
        is_pending: bool,
        is_answered: bool,
    },
    /// An answer is being received; further answers are awaited until `window` at least.
    Receiving {
        exchange: Exchange,
        until: Instant,
        window: Instant,
        is_pending: bool,
        is_answered: bool,
    },
    /// The received bytes were not a message; the line must fall silent.
    Draining {
        exchange: Exchange,
        until: Instant,
    },
}

/// The purpose of a turn on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnPurpose {
    Initialise,
    Stop,
    Pdu,
    TesterPresent,
}

/// An initialised communication with the ECU.
#[derive(Debug, Clone, Copy)]
pub(super) struct EcuLink {
    pub(super) header: HeaderForm,
    pub(super) timing: Timing,
    /// End of the last exchange.
    pub(super) alive_at: Instant,
    /// Number of consecutive unanswered requests. After one, TesterPresent precedes any other request.
    pub(super) unanswered: u32,
}

impl EcuLink {
    /// Returns whether a request at that time is too late: the ECU ends the communication after P3max without
    /// a request.
    pub(super) fn has_ended(&self, request_at: Instant) -> bool {
        request_at + LATENCY_ALLOWANCE > self.alive_at + self.timing.p3_max
    }
}
