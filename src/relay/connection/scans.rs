//! Scans of the buses for ECUs, and who asked for them.

use std::time::Instant;

use super::RelayConnection;
use crate::protocol::problem::Problem;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::request::ScanEcus;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanReport};

/// Requests that may wait for one scan.
const MAX_ASKED: usize = 8;

/// A scan that runs.
pub(super) struct Scan {
    bus: usize,
    bus_name: String,
    /// The requests that its result answers.
    asked: Vec<Option<String>>,
}

impl RelayConnection {
    /// Begins to scan a bus; one that is being scanned answers both who asked.
    pub(super) fn scan_ecus(
        &mut self,
        now: Instant,
        request: &ScanEcus,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        let refuse = |problem: Problem| problem.answering("scanEcus");
        let name = request.bus_name.as_str();
        let found = self.buses.iter_mut().enumerate().find(|(_, bus)| bus.name() == name);
        let Some((index, bus)) = found else {
            let detail = format!("No bus named {name:?} is configured.");
            return Err(refuse(ProblemKind::UnknownBus.problem(detail)));
        };
        if let Some(scan) = self.scans.iter_mut().find(|scan| scan.bus == index) {
            if scan.asked.contains(request_id) {
                return Ok(());
            }
            if scan.asked.len() >= MAX_ASKED {
                let detail =
                    format!("Bus {name:?} is being scanned, and {MAX_ASKED} requests wait for that.");
                return Err(refuse(ProblemKind::Busy.problem(detail)));
            }
            scan.asked.push(request_id.clone());
            return Ok(());
        }
        bus.channels_mut().handle_ignition(now, self.ignition);
        if !bus.channels_mut().start_scan(now) {
            let detail = format!("Bus {name:?} is of a kind that cannot be scanned.");
            return Err(refuse(ProblemKind::Unsupported.problem(detail)));
        }
        let bus_name = name.to_owned();
        self.scans.push(Scan { bus: index, bus_name, asked: vec![request_id.clone()] });
        self.collect_scans();
        Ok(())
    }

    /// Answers who asked for scans that have ended.
    pub(super) fn collect_scans(&mut self) {
        let mut index = 0;
        while let Some(bus) = self.buses.get_mut(index) {
            if let Some((outcome, ecus)) = bus.channels_mut().take_scan() {
                self.handle_scanned(index, outcome, ecus);
            }
            index += 1;
        }
    }

    /// The scan of a bus has ended.
    fn handle_scanned(&mut self, bus: usize, outcome: ScanOutcome, ecus: Vec<FoundEcu>) {
        let Some(index) = self.scans.iter().position(|scan| scan.bus == bus) else { return };
        let Scan { bus_name, asked, .. } = self.scans.swap_remove(index);
        let count = ecus.len();
        let stopped = |kind: ProblemKind| {
            let detail = format!("Bus {bus_name:?}: {outcome}; ECUs found until then: {count}.");
            Err(kind.problem(detail).answering("scanEcus"))
        };
        let result = match outcome {
            // nobody who acknowledges is nobody who answers
            ScanOutcome::Done | ScanOutcome::NotAcknowledged => {
                Ok(ScanReport { bus_name: bus_name.clone(), ecus })
            }
            ScanOutcome::VehicleMoves => stopped(ProblemKind::VehicleMoving),
            ScanOutcome::IgnitionOff => stopped(ProblemKind::IgnitionOff),
            ScanOutcome::BusOff => stopped(ProblemKind::BusUnavailable),
        };
        for request_id in asked {
            match &result {
                Ok(report) => self.reply("ecusFound", report, request_id),
                Err(problem) => self.refuse(problem, request_id),
            }
        }
    }

    /// The buses are gone, and their scans with them.
    pub(super) fn stop_scans(&mut self) {
        for Scan { bus_name, asked, .. } in std::mem::take(&mut self.scans) {
            let detail = format!("Bus {bus_name:?} was set up anew while it was scanned.");
            let problem = ProblemKind::ScanStopped.problem(detail).answering("scanEcus");
            asked.into_iter().for_each(|request_id| self.refuse(&problem, request_id));
        }
    }
}
