//! A turn of an endpoint on the line: its purpose, its exchange and its phase.

use std::time::Instant;

use crate::protocol::kline::event::Failure;
use crate::protocol::kline::heard::Heard;
use crate::protocol::kline::key_bytes::KeyBytes;
use crate::protocol::kline::message::HeaderForm;
use crate::protocol::kline::timing::{LATENCY_ALLOWANCE, Timing};
use crate::protocol::kline::transmitter::Transmitter;
use crate::protocol::uds::{START_COMMUNICATION, STOP_COMMUNICATION, TESTER_PRESENT};

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

impl Exchange {
    /// Returns the service of the request.
    pub(super) fn service(self) -> u8 {
        match self {
            Self::Pdu { service } => service,
            Self::TesterPresent => TESTER_PRESENT,
            Self::StopCommunication => STOP_COMMUNICATION,
            Self::StartCommunication | Self::Complement(_) => START_COMMUNICATION,
        }
    }
}

/// The wait for the answers to a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) exchange: Exchange,
    /// End of the time in which an answer may begin.
    pub(super) until: Instant,
    /// An ECU announced its answer by response pending.
    pub(super) is_pending: bool,
    pub(super) is_answered: bool,
    /// Number of messages that answer something else.
    pub(super) unrelated: u32,
    /// The bytes of a disturbed answer.
    pub(super) disturbed: Option<Heard>,
}

impl Wait {
    pub(super) fn new(exchange: Exchange, until: Instant) -> Self {
        Self { exchange, until, is_pending: false, is_answered: false, unrelated: 0, disturbed: None }
    }

    /// Returns whether the ECU sent any message to us.
    pub(super) fn is_heard(&self) -> bool {
        self.is_answered || self.unrelated > 0
    }

    /// Returns why there is no answer.
    pub(super) fn failure(&self) -> Failure {
        self.disturbed.map_or(Failure::NoAnswer, Failure::Disturbed)
    }
}

/// The phase of a turn on the line, with its deadline.
#[derive(Debug)]
pub(super) enum TurnPhase {
    /// The endpoint does not have the line.
    Idle,
    /// The line must be quiet until `quiet_at`; each byte postpones that. The wait ends at `latest` in any
    /// case.
    Pausing {
        quiet_at: Instant,
        pause: std::time::Duration,
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
        /// The first byte that is not the synchronisation byte.
        other: Option<u8>,
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
        /// The first byte that is not the complement.
        other: Option<u8>,
    },
    Sending {
        exchange: Exchange,
        transmitter: Transmitter,
    },
    /// The first answer, or another one, is due.
    Awaiting(Wait),
    /// An answer is being received. Further answers may begin until the wait's end.
    Receiving {
        wait: Wait,
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
    /// The timing of the key bytes, which AccessTimingParameters can restore.
    pub(super) default_timing: Timing,
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
