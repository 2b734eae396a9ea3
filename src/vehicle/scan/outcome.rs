//! How far a scan is, how it ended, and the observer that follows it.

/// The reason why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ScanOutcome {
    /// The scan is complete.
    #[error("the scan is complete")]
    Done,
    /// The time was up before all was asked.
    #[error("the time was up")]
    OutOfTime,
    /// An ECU reports that the vehicle moves.
    #[error("the vehicle moves")]
    VehicleMoves,
    /// No ECU reports that the vehicle stands, and no user confirmed it.
    #[error("no ECU reports that the vehicle stands")]
    MayMove,
    /// Another tester is on the bus.
    #[error("another tester is in use")]
    OtherTester,
    /// The ignition was switched off.
    #[error("the ignition was switched off")]
    IgnitionOff,
    /// No node ever acknowledged a frame, and none was heard.
    #[error("no other node is on the bus")]
    NotAcknowledged,
    /// Nodes acknowledged frames or were heard, and then no frame was acknowledged any more.
    #[error("the bus fell asleep")]
    FellAsleep,
    /// The bus went off.
    #[error("the bus is off")]
    BusOff,
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanProgress {
    /// The number of questions that were asked.
    pub done: u32,
    /// The number of questions in total, as far as known.
    pub total: u32,
    /// The number of ECUs that were found.
    pub found: usize,
}

/// The owner of a scan, who knows the ignition and follows the progress.
pub trait ScanObserver {
    /// Whether the ignition is on; `None` if that is unknown.
    fn ignition(&self) -> Option<bool>;
    /// The scan got this far.
    fn handle_progress(&mut self, progress: ScanProgress);
}
