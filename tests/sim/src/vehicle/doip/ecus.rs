//! ECUs behind a gateway: responders with a logical address each.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::{DiagnosticMessage, LogicalAddress};
use tokio::sync::watch;

use crate::vehicle::ecu::{Anomalies, EcuStatus, Image, Responder, ScriptProgress, Target, Timer};
use crate::vehicle::simulation::write_image;

/// An ECU behind a gateway.
pub(super) struct Host {
    pub(super) address: LogicalAddress,
    responder: Box<dyn Responder>,
    /// The tester that sent the last request, and receives the responses.
    tester: LogicalAddress,
    status: watch::Sender<EcuStatus>,
    memory: Option<PathBuf>,
}

impl Host {
    pub(super) fn new(
        address: LogicalAddress,
        responder: Box<dyn Responder>,
        memory: Option<PathBuf>,
    ) -> (Self, watch::Receiver<EcuStatus>) {
        let (sender, status) = watch::channel(EcuStatus::default());
        let tester = LogicalAddress::new(0);
        (Self { address, responder, tester, status: sender, memory }, status)
    }

    pub(super) fn handle_request(
        &mut self,
        now: Instant,
        tester: LogicalAddress,
        target: Target,
        pdu: &[u8],
    ) {
        self.tester = tester;
        self.responder.handle_request(now, target, pdu);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.responder.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.responder.poll_timeout().map(|(at, _)| at)
    }

    pub(super) fn poll_response(&mut self, now: Instant) -> Option<DiagnosticMessage> {
        let data = self.responder.poll_response()?;
        self.responder.handle_response_done(now, true);
        Some(DiagnosticMessage { source: self.address, target: self.tester, data })
    }

    /// Publishes the ECU's state, and writes new downloads to files.
    pub(super) fn publish(&mut self) {
        let Some(status) = self.responder.poll_status() else { return };
        if let Some(directory) = &self.memory {
            let before = self.status.borrow().memory.clone();
            let known = |image: &Arc<Image>| before.iter().any(|old| Arc::ptr_eq(old, image));
            for image in status.memory.iter().filter(|image| !known(image)) {
                let name = format!("{}-0x{:08X}.bin", self.address, image.address);
                write_image(&directory.join(name), &self.address, image);
            }
        }
        self.status.send_replace(status);
    }
}

/// A recorded request, and the answers with their delays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordedRequest {
    pub(super) request: Vec<u8>,
    pub(super) answers: Vec<(Duration, Vec<u8>)>,
}

/// An ECU that replays a recording. It answers a request as at the request's next position in the recording,
/// or, after the last position, as at that one.
#[derive(Debug)]
pub(super) struct RecordedDoipEcu {
    steps: Vec<RecordedRequest>,
    next: usize,
    due: VecDeque<(Instant, Vec<u8>)>,
    responses: VecDeque<Vec<u8>>,
    requests: u64,
    anomalies: Anomalies,
    changed: bool,
}

impl RecordedDoipEcu {
    pub(super) fn new(steps: Vec<RecordedRequest>) -> Self {
        let (due, responses, anomalies) = (VecDeque::new(), VecDeque::new(), Anomalies::default());
        Self { steps, next: 0, due, responses, requests: 0, anomalies, changed: true }
    }

    fn find(&self, pdu: &[u8]) -> Option<usize> {
        let places = || self.steps.iter().enumerate().filter(|(_, step)| step.request == pdu);
        let next = places().find(|(place, _)| *place >= self.next);
        next.or_else(|| places().next_back()).map(|(place, _)| place)
    }
}

impl Responder for RecordedDoipEcu {
    fn handle_reception_started(&mut self, _now: Instant) {}

    fn handle_reception_failed(&mut self, _now: Instant) {}

    fn handle_request(&mut self, now: Instant, _target: Target, pdu: &[u8]) {
        self.requests += 1;
        self.changed = true;
        // a new request discards the answers to the one before
        self.due.clear();
        match self.find(pdu).and_then(|place| Some((place, self.steps.get(place)?))) {
            Some((place, step)) => {
                self.due.extend(step.answers.iter().map(|(delay, pdu)| (now + *delay, pdu.clone())));
                self.next = place + 1;
            }
            None => {
                self.anomalies.unrecorded_requests += 1;
                let service = pdu.first().copied().unwrap_or_default();
                self.due.push_back((now, vec![0x7F, service, 0x11]));
            }
        }
        self.handle_timeout(now);
    }

    fn handle_response_done(&mut self, _now: Instant, _sent: bool) {}

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, pdu)) = self.due.front()
            && *at <= now
        {
            self.responses.push_back(pdu.clone());
            self.due.pop_front();
        }
    }

    fn poll_response(&mut self) -> Option<Vec<u8>> {
        self.responses.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.due.front().map(|(at, _)| (*at, Timer::Processing))
    }

    fn poll_status(&mut self) -> Option<EcuStatus> {
        let script = ScriptProgress { played: self.next, total: self.steps.len() };
        std::mem::take(&mut self.changed).then(|| EcuStatus {
            requests: self.requests,
            anomalies: self.anomalies,
            script: Some(script),
            ..EcuStatus::default()
        })
    }
}
