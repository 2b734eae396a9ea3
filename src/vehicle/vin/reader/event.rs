//! What a reader is told, what it waits for, and what it reports.

use std::time::Instant;

use crate::protocol::isotp;
use crate::vehicle::vin::Candidate;

/// What a [`Reader`](super::Reader) is told about its bus.
#[derive(Debug, Clone, Copy)]
pub struct ReaderSettings {
    /// When to end at the latest, with what was answered until then.
    pub until: Instant,
    /// Frames of others were heard, so the bit rate is right and somebody acknowledges.
    pub alive: bool,
    /// The adapter tells when a frame was acknowledged, and not only when it took it.
    pub confirms_transmission: bool,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The first frame is to be acknowledged by anybody.
    NAs,
    /// An ECU is to begin its answer.
    P2,
    /// An ECU is to begin its answer after response pending.
    P2Star,
    /// A busy ECU is to be asked again.
    Repeat,
    /// The time to read the VIN is up.
    Budget,
    /// A timer of ISO-TP.
    Transport(isotp::Timer),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReaderEvent {
    /// An ECU told the VIN; others may follow, and may disagree.
    Told(Candidate),
    /// Nothing more is sent, and nothing more will happen.
    Finished(Outcome),
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// One or more ECUs told the VIN.
    Told,
    /// No ECU told a VIN.
    NotTold,
    /// Nobody acknowledges our frames, or the bus went off.
    NotAcknowledged,
}
