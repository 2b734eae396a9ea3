//! The progress of the reading of the VIN and of the scan, which the driver runs beside the channels.

use std::time::Instant;

use crate::protocol::doip::LogicalAddress;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanRequest};
use crate::vehicle::vin::Candidate;

/// A reading of the VIN: it is requested, then ends with candidates.
#[derive(Debug, Default)]
pub(super) struct DoipVinReading {
    /// The deadline of a reading that the driver has not started yet.
    requested: Option<Instant>,
    is_running: bool,
    ended: Option<Vec<Candidate>>,
}

impl DoipVinReading {
    pub(super) fn request(&mut self, until: Instant) {
        *self = Self { requested: Some(until), is_running: true, ended: None };
    }

    /// The deadline of a requested reading; returned once.
    pub(super) fn take_request(&mut self) -> Option<Instant> {
        self.requested.take()
    }

    pub(super) fn end(&mut self, candidates: Vec<Candidate>) {
        *self = Self { requested: None, is_running: false, ended: Some(candidates) };
    }

    /// Whether a reading is requested or running.
    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    /// Ends a reading that is requested or running without a candidate.
    pub(super) fn abort(&mut self) {
        if self.is_running {
            self.end(Vec::new());
        }
    }

    pub(super) fn take_ended(&mut self) -> Option<Vec<Candidate>> {
        self.ended.take()
    }
}

/// A scan: it is requested, may be stopped, and ends with an outcome.
#[derive(Debug, Default)]
pub(super) struct DoipScan {
    /// A scan that the driver has not started yet.
    requested: Option<ScanRequest>,
    is_running: bool,
    /// The outcome with which the scan must end now.
    stopped: Option<ScanOutcome>,
    ended: Option<(ScanOutcome, Vec<FoundEcu>)>,
}

impl DoipScan {
    pub(super) fn request(&mut self, request: ScanRequest) {
        *self = Self { requested: Some(request), is_running: true, stopped: None, ended: None };
    }

    /// What a scan was requested to do; returned once.
    pub(super) fn take_request(&mut self) -> Option<ScanRequest> {
        self.requested.take()
    }

    /// Makes the driver end a running scan with this outcome.
    pub(super) fn stop(&mut self, outcome: ScanOutcome) {
        if self.is_running {
            self.stopped = Some(outcome);
        }
    }

    /// The outcome with which a running scan must end now.
    pub(super) fn stopped(&self) -> Option<ScanOutcome> {
        self.stopped
    }

    /// The scan ended; `found` are pairs of gateway and ECU.
    pub(super) fn end(&mut self, outcome: ScanOutcome, found: Vec<(LogicalAddress, LogicalAddress)>) {
        let ecus = found.into_iter().map(|(gateway, ecu)| FoundEcu::Doip { gateway, ecu }).collect();
        *self = Self { ended: Some((outcome, ecus)), ..Self::default() };
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    pub(super) fn take_ended(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        self.ended.take()
    }
}
