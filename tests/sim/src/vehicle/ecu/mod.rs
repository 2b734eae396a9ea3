//! An ECU's diagnostic server (ISO 14229-1, -2) as a pure state machine.
//!
//! The caller passes requests and the time to `handle_*`, and takes responses and the next deadline from
//! `poll_*`. A recorded answer of the real ECU takes precedence over the generic one.

mod anomalies;
mod config;
mod download;
mod dtc;
mod nrc;
mod responder;
mod security;
mod services;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub use anomalies::Anomalies;
pub use config::{EcuConfig, Timing};
pub use connector_operator::flash::{crc32, toy_key};
pub use download::{Image, Progress};
pub use dtc::{Dtc, STATUS_AVAILABILITY_MASK};
pub use nrc::Nrc;
pub use responder::{EcuStatus, Responder, ScriptProgress, Session, Target, Timer};

use download::Flash;
use security::Security;

/// Limit of the responses that wait for the transport; more are lost, and counted.
const MAX_RESPONSES: usize = 8;
/// Limit of the requests that wait while the ECU processes another; more are refused as busy.
const MAX_WAITING: usize = 2;

/// The result of a request.
struct Outcome {
    response: Result<Vec<u8>, Nrc>,
    /// The tool requested no positive response.
    suppress: bool,
    takes: Duration,
    /// The ECU restarts after this request.
    reset: bool,
}

/// The request in progress.
#[derive(Debug)]
struct RunningRequest {
    service: u8,
    response: Vec<u8>,
    /// Whether the response is sent. A suppressed response is sent after a response pending (ISO 14229-1,
    /// 7.5.5).
    respond: bool,
    reset: bool,
    done: Instant,
    pending_at: Instant,
}

/// One ECU.
#[derive(Debug)]
pub struct Ecu {
    config: EcuConfig,
    session: Session,
    security: Security,
    flash: Flash,
    supported_dtcs: Vec<Dtc>,
    dtcs: Vec<Dtc>,
    /// The values that WriteDataByIdentifier stored.
    written: BTreeMap<u16, Vec<u8>>,
    communication: u8,
    dtc_setting: bool,
    job: Option<RunningRequest>,
    waiting: VecDeque<(Target, Vec<u8>)>,
    responses: VecDeque<Vec<u8>>,
    /// The number of responses that were polled and have no outcome yet.
    in_flight: usize,
    receiving: bool,
    s3: Option<Instant>,
    reset_until: Option<Instant>,
    status: EcuStatus,
    changed: bool,
}

impl Ecu {
    /// Creates an ECU in its default session.
    pub fn new(config: EcuConfig) -> Self {
        let dtcs = dtc::generate(config.identity);
        Self {
            session: Session::Default,
            security: Security::new(config.identity, config.timing.security_delay),
            flash: Flash::new(config.max_block_length, config.max_memory),
            supported_dtcs: dtcs.clone(),
            dtcs,
            written: BTreeMap::new(),
            communication: 0,
            dtc_setting: true,
            job: None,
            waiting: VecDeque::new(),
            responses: VecDeque::new(),
            in_flight: 0,
            receiving: false,
            s3: None,
            reset_until: None,
            status: EcuStatus::default(),
            changed: true,
            config,
        }
    }

    /// The stored trouble codes.
    pub fn dtcs(&self) -> &[Dtc] {
        &self.dtcs
    }

    /// The observable state.
    pub fn status(&self) -> EcuStatus {
        EcuStatus {
            session: self.session,
            unlocked: self.security.unlocked(),
            communication: self.communication,
            dtc_setting: self.dtc_setting,
            download: self.flash.progress(),
            memory: self.flash.images().to_vec(),
            ..self.status.clone()
        }
    }

    /// Starts processing a request.
    fn start(&mut self, now: Instant, target: Target, pdu: &[u8]) {
        let Some(service) = pdu.first().copied() else { return };
        let outcome = self.execute(now, pdu);
        let (response, respond) = match outcome.response {
            Ok(response) => (response, !outcome.suppress),
            Err(nrc) => {
                let is_suppressed = target == Target::Functional && nrc.is_suppressed_when_functional();
                (nrc.response(service), !is_suppressed)
            }
        };
        let p2 = self.config.timing.p2;
        self.s3 = None;
        self.job = Some(RunningRequest {
            service,
            response,
            respond,
            reset: outcome.reset,
            done: now + outcome.takes,
            // a response pending must be on the bus before P2 ends; a shorter request needs none
            pending_at: now + if outcome.takes > p2 { p2 * 4 / 5 } else { outcome.takes + p2 },
        });
        if outcome.takes.is_zero() {
            self.finish(now);
        }
    }

    /// Completes the request in progress.
    fn finish(&mut self, now: Instant) {
        let Some(job) = self.job.take() else { return };
        if job.respond {
            self.respond(job.response);
        }
        if job.reset {
            self.reset_until = Some(now + self.config.timing.reset);
            self.waiting.clear();
            self.status.resets += 1;
            self.enter(Session::Default);
        }
        self.rearm_s3(now);
        if let Some((target, pdu)) = self.waiting.pop_front() {
            self.start(now, target, &pdu);
        }
    }

    fn respond(&mut self, response: Vec<u8>) {
        if self.responses.len() < MAX_RESPONSES {
            self.responses.push_back(response);
            self.status.responses += 1;
        } else {
            self.status.anomalies.lost_responses += 1;
        }
    }

    /// Changes the session, and abandons everything that the old session holds.
    fn enter(&mut self, session: Session) {
        self.security.lock();
        self.flash.abort();
        if session == Session::Default {
            self.communication = 0;
            self.dtc_setting = true;
            self.s3 = None;
        }
        self.session = session;
    }

    /// Restarts S3. It runs while a session is held and nothing is being received, processed or sent (ISO
    /// 14229-2, 9.4).
    fn rearm_s3(&mut self, now: Instant) {
        let idle = self.job.is_none() && self.responses.is_empty() && self.in_flight == 0 && !self.receiving;
        self.s3 = (idle && self.session != Session::Default).then(|| now + self.config.timing.s3);
    }

    fn handle_request_while_busy(&mut self, now: Instant, target: Target, pdu: &[u8]) {
        // TesterPresent without response is accepted at any time, because it keeps the session (ISO 14229-2,
        // 9.4)
        if pdu == [0x3E, 0x80] {
            self.status.tester_presents += 1;
            return;
        }
        let long = self.job.as_ref().is_some_and(|job| job.done.saturating_duration_since(now) > self.p2());
        if !long && self.waiting.len() < MAX_WAITING {
            self.waiting.push_back((target, pdu.to_vec()));
            return;
        }
        self.status.anomalies.requests_while_busy += 1;
        if let (Target::Physical, Some(service)) = (target, pdu.first()) {
            self.respond(Nrc::BusyRepeatRequest.response(*service));
        }
    }

    fn p2(&self) -> Duration {
        self.config.timing.p2
    }
}

impl Responder for Ecu {
    fn handle_reception_started(&mut self, _now: Instant) {
        self.receiving = true;
        self.s3 = None;
    }

    fn handle_reception_failed(&mut self, now: Instant) {
        self.receiving = false;
        self.changed = true;
        self.status.anomalies.broken_receptions += 1;
        self.rearm_s3(now);
    }

    fn handle_request(&mut self, now: Instant, target: Target, pdu: &[u8]) {
        if target == Target::Physical {
            self.receiving = false;
        }
        self.changed = true;
        self.status.requests += 1;
        if self.reset_until.is_some_and(|until| now < until) {
            self.status.anomalies.requests_while_resetting += 1;
        } else if self.job.is_some() {
            self.handle_request_while_busy(now, target, pdu);
        } else {
            self.start(now, target, pdu);
        }
    }

    fn handle_response_done(&mut self, now: Instant, sent: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if !sent {
            self.changed = true;
            self.status.anomalies.lost_responses += 1;
        }
        self.rearm_s3(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.poll_timeout() {
            if at > now {
                break;
            }
            self.changed = true;
            match timer {
                Timer::Processing => self.finish(now),
                Timer::P2 => {
                    let again = self.config.timing.p2_star * 9 / 10;
                    let Some(job) = self.job.as_mut() else { break };
                    let pending = Nrc::ResponsePending.response(job.service);
                    job.respond = true;
                    // never immediately again, however short P2* is
                    job.pending_at = now + again.max(Duration::from_millis(1));
                    self.status.pending_responses += 1;
                    self.respond(pending);
                }
                Timer::S3 => self.enter(Session::Default),
                Timer::Reset => self.reset_until = None,
            }
        }
    }

    fn poll_response(&mut self) -> Option<Vec<u8>> {
        let response = self.responses.pop_front()?;
        self.in_flight += 1;
        Some(response)
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let job = self.job.as_ref();
        let timers = [
            (job.map(|job| job.done), Timer::Processing),
            (job.map(|job| job.pending_at), Timer::P2),
            (self.s3, Timer::S3),
            (self.reset_until, Timer::Reset),
        ];
        timers.into_iter().filter_map(|(at, timer)| Some((at?, timer))).min()
    }

    fn poll_status(&mut self) -> Option<EcuStatus> {
        std::mem::take(&mut self.changed).then(|| self.status())
    }
}
