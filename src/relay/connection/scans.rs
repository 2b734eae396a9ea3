//! Scans of the buses for ECUs, and the requests that they answer.

use std::time::Instant;

use super::RelayConnection;
use super::pending::{PendingReply, RunningScan};
use super::policy::refused_by_policy;
use crate::policy::{IntentTarget, Stage, What};
use crate::protocol::problem::Problem;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::request::ScanEcus;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanReport, ScanRequest};

/// The number of requests that may wait for one scan.
const MAX_REQUESTS: usize = 8;
/// What an operator can do where no ECU reports that the vehicle stands.
const CONSENT: &str = " Send \"vehicle_stands\": true in scanEcus if a person made sure of it.";

impl RelayConnection {
    /// Begins to scan a bus. A scan that is already running answers this request too.
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
            if scan.requests.iter().any(|pending| pending.request_id == *request_id) {
                return Ok(());
            }
            if scan.requests.len() >= MAX_REQUESTS {
                let detail = format!(
                    "Bus {name:?} is being scanned, and {MAX_REQUESTS} requests already wait for the result."
                );
                return Err(refuse(ProblemKind::Busy.problem(detail)));
            }
            scan.requests.push(PendingReply { request_id: request_id.clone() });
            return Ok(());
        }
        if let Some(policy) = self.policies.get(index) {
            let refusal = policy.refuses(now, Stage::Turn, IntentTarget::None, What::Scan);
            refused_by_policy(refusal).map_err(refuse)?;
        }
        bus.channels_mut().handle_ignition(now, self.ignition);
        let wanted = ScanRequest { vehicle_stands: request.vehicle_stands, ranges: request.ranges.clone() };
        if !bus.channels_mut().start_scan(now, &wanted) {
            let detail = format!("Bus {name:?} is of a kind that cannot be scanned.");
            return Err(refuse(ProblemKind::Unsupported.problem(detail)));
        }
        let bus_name = name.to_owned();
        let requests = vec![PendingReply { request_id: request_id.clone() }];
        self.scans.push(RunningScan { bus: index, bus_name, requests });
        self.collect_scans();
        Ok(())
    }

    /// Replies to the requests for scans that have ended.
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
        let RunningScan { bus_name, requests, .. } = self.scans.swap_remove(index);
        let count = ecus.len();
        let stopped = |kind: ProblemKind| {
            let advice = if outcome == ScanOutcome::MayMove { CONSENT } else { "" };
            let detail = format!("Bus {bus_name:?}: {outcome}; ECUs found until then: {count}.{advice}");
            Err(kind.problem(detail).answering("scanEcus"))
        };
        let result = match outcome {
            // if no node acknowledges frames, there is no ECU on the bus
            ScanOutcome::Done | ScanOutcome::NotAcknowledged => {
                Ok(ScanReport { bus_name: bus_name.clone(), ecus, is_complete: true })
            }
            ScanOutcome::OutOfTime | ScanOutcome::FellAsleep => {
                Ok(ScanReport { bus_name: bus_name.clone(), ecus, is_complete: false })
            }
            ScanOutcome::VehicleMoves => stopped(ProblemKind::VehicleMoving),
            ScanOutcome::MayMove => stopped(ProblemKind::VehicleMayMove),
            ScanOutcome::OtherTester => stopped(ProblemKind::OtherTester),
            ScanOutcome::IgnitionOff => stopped(ProblemKind::IgnitionOff),
            ScanOutcome::BusOff => stopped(ProblemKind::BusUnavailable),
        };
        for PendingReply { request_id } in requests {
            match &result {
                Ok(report) => self.reply("ecusFound", report, request_id),
                Err(problem) => self.refuse(problem, request_id),
            }
        }
    }

    /// Replies to the requests for scans whose buses are gone.
    pub(super) fn stop_scans(&mut self) {
        for RunningScan { bus_name, requests, .. } in std::mem::take(&mut self.scans) {
            let detail = format!("The buses were configured again during the scan of bus {bus_name:?}.");
            let problem = ProblemKind::ScanStopped.problem(detail).answering("scanEcus");
            requests.into_iter().for_each(|pending| self.refuse(&problem, pending.request_id));
        }
    }
}
