//! The settings, timers and events of a [`VinReader`](super::VinReader).

use std::time::Instant;

use crate::protocol::isotp;
use crate::vehicle::vin::report::Candidate;

/// What a [`VinReader`](super::VinReader) knows about its bus.
#[derive(Debug, Clone, Copy)]
pub struct ReaderSettings {
    /// The latest time at which reading ends, with the answers until then.
    pub until: Instant,
    /// Frames of others were heard, so the bit rate is right and some node acknowledges.
    pub alive: bool,
    /// The adapter reports when a frame was acknowledged, and not only when the adapter took the frame.
    pub confirms_transmission: bool,
    /// Channels of a session use the bus too, so that ECUs also respond to their requests.
    pub shares_bus: bool,
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReaderTimer {
    /// The first frame must be acknowledged by any node.
    NAs,
    /// An ECU must begin its answer.
    P2,
    /// An ECU must begin its answer after response pending.
    P2Star,
    /// A busy ECU is asked again.
    Repeat,
    /// The time to read the VIN is up.
    Budget,
    /// A timer of ISO-TP.
    Transport(isotp::Timer),
}

/// What a reader reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReaderEvent {
    /// An ECU sent the VIN; others may follow, and may disagree.
    Answered(Candidate),
    /// Reading has ended: the reader sends nothing more and reports nothing more.
    Finished(ReaderOutcome),
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReaderOutcome {
    /// One or more ECUs sent the VIN.
    Answered,
    /// No ECU sent a VIN.
    NotAnswered,
    /// Other traffic had the bus when the time was up, and no ECU had sent a VIN.
    Held,
    /// No node acknowledges our frames, or the bus went off.
    NotAcknowledged,
    /// Another tester is on the bus.
    OtherTester,
}
