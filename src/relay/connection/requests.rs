//! The requests about a connection, and their replies.

use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::RelayConnection;
use super::pending::{OpenedChannel, PendingReply};
use super::policy::refused_by_policy;
use super::transfers::Transfers;
use crate::policy::{BusPolicy, IntentTarget, Stage, What};
use crate::protocol::problem::Problem;
use crate::relay::buses::bus::StartFailure;
use crate::relay::buses::bus_setup::BusSetup;
use crate::relay::buses::channel_setup::{ChannelKind, ChannelSetup};
use crate::relay::buses::{Opening, build};
use crate::relay::wire::request::{CloseChannel, ConfigureBuses, OpenChannel, Request, ResumeConnection};
use crate::relay::wire::{CloseReason, Envelope, ProblemKind};

/// The number of buses that a connection may have: an OBD connector has 16 pins.
const MAX_BUSES: usize = 16;
/// The number of requests that may wait while buses are being set up; further requests are refused.
const MAX_WAITING_REQUESTS: usize = 64;
/// The number of texts that may wait for the websocket. When it is reached, errors are discarded and requests
/// ignored. It is four times [`MAX_WAITING_REQUESTS`], so that each waiting request has room for its reply.
const MAX_TEXTS: usize = 256;

impl RelayConnection {
    pub(super) fn reply(&mut self, action: &str, message: &impl Serialize, request_id: Option<String>) {
        self.texts.push_back(Envelope::new(action, message).in_reply_to(request_id));
    }

    pub(super) fn refuse(&mut self, problem: &Problem, request_id: Option<String>) {
        if self.texts.len() < MAX_TEXTS {
            self.texts.push_back(Envelope::error(problem, request_id));
        }
    }

    /// Handles a request about this connection; [`RelayConnection::poll_text`] returns the reply.
    pub fn handle_request(&mut self, now: Instant, request: Request, request_id: Option<String>) {
        match request {
            Request::OperatorLeft(_) => return self.handle_operator_left(now),
            Request::OperatorJoined(_) => return self.handle_operator_joined(now),
            _ => self.handle_heard(now),
        }
        // requests that close or resume the connection do not wait for slow hardware
        let is_urgent = matches!(request, Request::CloseConnection(_) | Request::ResumeConnection(_));
        if self.closed.is_some() || self.texts.len() >= MAX_TEXTS && !is_urgent {
            return tracing::warn!(
                "ignoring a request: the connection has ended, or too many replies wait to be sent"
            );
        }
        self.link.announce_clock();
        if self.configuring.is_some() && !is_urgent {
            if self.waiting.len() >= MAX_WAITING_REQUESTS {
                let detail =
                    format!("{MAX_WAITING_REQUESTS} requests already wait for the buses to be set up.");
                return self.refuse(&ProblemKind::Busy.problem(detail), request_id);
            }
            return self.waiting.push_back((request, request_id));
        }
        let outcome = match request {
            Request::ConfigureBuses(request) => self.configure_buses(now, &request, &request_id),
            Request::OpenChannel(request) => self.open_channel(now, &request, &request_id),
            Request::CloseChannel(request) => self.close_channel(&request, &request_id),
            Request::ResumeConnection(request) => self.resume(now, &request, &request_id),
            Request::CloseConnection(_) => {
                self.close(CloseReason::Closed);
                let message = self.closed_message(CloseReason::Closed);
                self.reply("connectionClosed", &message, request_id.clone());
                Ok(())
            }
            Request::RequestConsent(request) => self.request_consent(now, &request, &request_id),
            Request::ScanEcus(request) => self.scan_ecus(now, &request, &request_id),
            Request::MuteLocals(_) => self.set_muted(true, &request_id),
            Request::UnmuteLocals(_) => self.set_muted(false, &request_id),
            Request::GetConfiguration(_) => self.report_configuration(&request_id),
            Request::ConnectionQuality(_) => self.report_quality(&request_id),
            Request::OpenConnection(_)
            | Request::IdentifyVehicle
            | Request::DismissCallForAttention
            | Request::OperatorLeft(_)
            | Request::OperatorJoined(_)
            | Request::SetReporting(_) => {
                Err(ProblemKind::InvalidMessage.problem("This request is not about a connection."))
            }
        };
        if let Err(problem) = outcome {
            self.refuse(&problem, request_id);
        }
        // a channel may have an output as soon as it is open
        self.collect_outputs(now);
    }

    /// The content of `connectionClosed`.
    pub(crate) fn closed_message(&self, reason: CloseReason) -> serde_json::Value {
        json!({"connection_uuid": self.settings.connection_uuid, "reason": reason})
    }

    fn configure_buses(
        &mut self,
        now: Instant,
        request: &ConfigureBuses,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        let refuse = |problem: Problem| problem.answering("configureBuses");
        if request.buses.len() > MAX_BUSES {
            let detail = format!("A connection has at most {MAX_BUSES} buses, not {}.", request.buses.len());
            return Err(refuse(ProblemKind::InvalidMessage.problem(detail)));
        }
        let mut setups: Vec<BusSetup> = Vec::new();
        for bus in &request.buses {
            let setup = BusSetup::new(bus, &self.settings.hardware).map_err(refuse)?;
            if let Some(other) = setups.iter().find(|other| other.name() == setup.name()) {
                let detail = format!("Two buses are named {:?}.", other.name());
                return Err(refuse(ProblemKind::InvalidMessage.problem(detail)));
            }
            let shared = setups.iter().find_map(|other| other.shared_with(&setup).map(|part| (other, part)));
            if let Some((other, part)) = shared {
                let (one, two) = (other.describe(), setup.describe());
                let detail = format!("Buses {one} and {two} both need {part}.");
                return Err(refuse(ProblemKind::PinsInUse.problem(detail)));
            }
            setups.push(setup);
        }
        let shared = &self.settings.policy;
        let policies: Vec<BusPolicy> = setups
            .iter()
            .enumerate()
            .map(|(index, setup)| shared.bus(index, setup.configured_name()))
            .collect();
        for policy in &policies {
            let refusal = policy.refuses(now, Stage::Turn, IntentTarget::None, What::ConfigureBus);
            refused_by_policy(refusal).map_err(refuse)?;
        }
        shared.with(|policy| {
            self.channels.values().for_each(|closed| policy.handle_channel_closed(closed.bus, closed.target));
        });
        self.clear_channels();
        self.transfers = Transfers::default();
        self.buses.clear();
        self.stop_scans();
        self.suspend_vin_reading();
        let (hardware, ignition) = (&self.settings.hardware, self.ignition);
        let buses = setups.into_iter().zip(&policies);
        self.buses.extend(buses.map(|(setup, policy)| build(setup, hardware, ignition, policy.clone())));
        self.policies = policies;
        self.configured.clone_from(&request.buses);
        self.buses.iter_mut().for_each(|bus| bus.channels_mut().set_muted(self.is_muted));
        self.configuring = Some(PendingReply { request_id: request_id.clone() });
        self.answer_if_configured(now);
        Ok(())
    }

    pub(super) fn answer_if_configured(&mut self, now: Instant) {
        if self.buses.iter().all(|bus| bus.has_started())
            && let Some(PendingReply { request_id }) = self.configuring.take()
        {
            let names: Vec<_> = self.buses.iter().map(|bus| bus.name()).collect();
            let message = json!({"connection_uuid": self.connection_uuid(), "buses": names});
            self.reply("busesConfigured", &message, request_id);
            self.resume_vin_reading(now);
            // So that the VIN is confirmed when the operator begins to program. A parked vehicle is asked only then.
            if self.ignition != Some(false) {
                self.want_vin();
            }
        }
    }

    pub(super) fn handle_start_failed(&mut self, now: Instant, name: &str, failure: &StartFailure) {
        let error = &failure.detail;
        tracing::warn!(bus = name, error, "could not set up the bus");
        self.buses.clear();
        self.configured.clear();
        self.resume_vin_reading(now);
        let detail = format!("Bus {name:?}: {error}.");
        let problem = failure.kind.problem(detail);
        let request_id = self.configuring.take().and_then(|pending| pending.request_id);
        self.refuse(&problem.answering("configureBuses"), request_id);
    }

    /// Handles the requests that waited for the buses.
    pub(super) fn handle_waiting(&mut self, now: Instant) {
        while self.configuring.is_none() {
            let Some((request, request_id)) = self.waiting.pop_front() else { return };
            self.handle_request(now, request, request_id);
        }
    }

    fn open_channel(
        &mut self,
        now: Instant,
        request: &OpenChannel,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        let refuse = |problem: Problem| problem.answering("openChannel");
        let setup = ChannelSetup::new(request).map_err(refuse)?;
        let number = request.channel;
        let message = json!({"connection_uuid": self.connection_uuid(), "channel": number});
        match self.channels.get_mut(&number) {
            // the operator repeats a request whose reply was lost with the link
            Some(opened) if opened.request == *request => {
                match &mut opened.opening {
                    Some(pending) => pending.request_id.clone_from(request_id),
                    None => self.reply("channelOpened", &message, request_id.clone()),
                }
                return Ok(());
            }
            Some(_) => {
                let detail = format!("Channel {number} is open already.");
                return Err(refuse(ProblemKind::ChannelInUse.problem(detail)));
            }
            None => {}
        }
        let limits = self.settings.limits;
        if self.channels.len() >= limits.max_channels {
            let detail = format!("{} channels are open already.", self.channels.len());
            return Err(refuse(ProblemKind::TooManyChannels.problem(detail)));
        }
        let found = self.buses.iter_mut().enumerate().find(|(_, bus)| bus.name() == setup.bus_name);
        let Some((index, bus)) = found else {
            let detail = format!("No bus named {:?} is configured.", setup.bus_name);
            return Err(refuse(ProblemKind::UnknownBus.problem(detail)));
        };
        if let Some(policy) = self.policies.get(index) {
            let what = match setup.kind {
                ChannelKind::Raw(_) => What::OpenRawChannel,
                _ => What::OpenChannel(setup.kind.framing(false)),
            };
            for target in std::iter::once(setup.kind.target()).chain(setup.kind.flow_control_targets()) {
                let refusal = policy.refuses(now, Stage::Turn, target, what);
                refused_by_policy(refusal).map_err(refuse)?;
            }
        }
        let opening = bus.open_channel(now, number, &setup.kind, &limits).map_err(refuse)?;
        if let Some(stop) = self.keep_alive.stopped() {
            bus.channels_mut().set_keep_alive(now, Some(stop));
        }
        let opened = OpenedChannel {
            bus: index,
            target: setup.kind.target(),
            framings: [false, true].map(|is_fd| setup.kind.framing(is_fd)),
            max_age: setup.max_age(&limits),
            request: request.clone(),
            opening: (opening == Opening::UnderWay).then(|| PendingReply { request_id: request_id.clone() }),
        };
        self.channels.insert(number, opened);
        if opening == Opening::Done {
            self.reply("channelOpened", &message, request_id.clone());
        }
        Ok(())
    }

    /// Replies to `openChannel`: the vehicle has answered.
    pub(super) fn handle_opened(&mut self, number: u16, outcome: Result<(), Problem>) {
        let opening = self.channels.get_mut(&number).and_then(|opened| opened.opening.take());
        let Some(PendingReply { request_id }) = opening else { return };
        match outcome {
            Ok(()) => {
                let message = json!({"connection_uuid": self.connection_uuid(), "channel": number});
                self.reply("channelOpened", &message, request_id);
            }
            Err(problem) => {
                self.channels.remove(&number);
                self.refuse(&problem.answering("openChannel"), request_id);
            }
        }
    }

    fn close_channel(&mut self, request: &CloseChannel, request_id: &Option<String>) -> Result<(), Problem> {
        let number = request.channel;
        let Some(opened) = self.channels.remove(&number) else {
            let detail = format!("Channel {number} is not open.");
            let problem = ProblemKind::UnknownChannel.problem(detail);
            return Err(problem.answering("closeChannel"));
        };
        if let Some(bus) = self.buses.get_mut(opened.bus) {
            bus.close_channel(number);
        }
        self.report_closed(&opened);
        self.held_frames.discard(number);
        self.vin_gate.discard(number);
        self.transfers.handle_closed(number);
        if let Some(PendingReply { request_id }) = opened.opening {
            let detail = format!("Channel {number} was closed before it was open.");
            let problem = ProblemKind::ChannelClosed.problem(detail);
            self.refuse(&problem.answering("openChannel"), request_id);
        }
        let message = json!({"connection_uuid": self.connection_uuid(), "channel": number});
        self.reply("channelClosed", &message, request_id.clone());
        Ok(())
    }

    fn resume(
        &mut self,
        now: Instant,
        request: &ResumeConnection,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        self.link.resume(now, request.received).map_err(|error| {
            ProblemKind::CannotResume.problem(format!("{error}.")).answering("resumeConnection")
        })?;
        self.handle_resumed();
        let message =
            ResumeConnection { connection_uuid: self.connection_uuid(), received: self.link.received() };
        self.reply("connectionResumed", &message, request_id.clone());
        Ok(())
    }
}
