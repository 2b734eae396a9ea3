//! A turn of an endpoint on the line: its purpose, its exchange and its phase.

use std::time::{Duration, Instant};

use crate::protocol::kline::key_bytes::KeyBytes;
use crate::protocol::kline::message::HeaderForm;
use crate::protocol::kline::timing::{LATENCY_ALLOWANCE, Timing};
use crate::protocol::kline::transmitter::Transmitter;

/// What the bytes on the line are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exchange {
    StartCommunication,
    Pdu {
        service: u8,
    },
    TesterPresent,
    StopCommunication,
    /// The slow initialisation's complement of key byte 2.
    Complement(KeyBytes),
}

/// Where a turn on the line stands.
#[derive(Debug)]
pub(super) enum TurnPhase {
    /// Nothing is under way; the line is others'.
    Idle,
    /// The line has to be quiet for longer: for `pause` after the last byte, but not beyond `latest`.
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
    /// High after the pulse.
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
    /// An answer is due: the first one until then, or another.
    Awaiting {
        exchange: Exchange,
        until: Instant,
        is_pending: bool,
        is_answered: bool,
    },
    /// An answer is coming in; the other answers are awaited until `window` at least.
    Receiving {
        exchange: Exchange,
        until: Instant,
        window: Instant,
        is_pending: bool,
        is_answered: bool,
    },
    /// What came was no message; the line has to fall silent.
    Draining {
        exchange: Exchange,
        until: Instant,
    },
}

/// What a turn on the line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnPurpose {
    Initialise,
    Stop,
    Pdu,
    TesterPresent,
}

/// A link that is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct EcuLink {
    pub(super) header: HeaderForm,
    pub(super) timing: Timing,
    /// The end of the last exchange.
    pub(super) alive_at: Instant,
    /// Requests in a row that were not answered; the link is looked at before anything else is sent.
    pub(super) unanswered: u32,
}

impl EcuLink {
    /// Whether a request at that time is too late: an ECU that has heard nothing for P3max has ended the communication.
    pub(super) fn has_ended(&self, request_at: Instant) -> bool {
        request_at + LATENCY_ALLOWANCE > self.alive_at + self.timing.p3_max
    }
}
