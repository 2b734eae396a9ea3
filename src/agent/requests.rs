//! What the cloud and the operator ask of the connector.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use super::messages::ConnectionOpened;
use super::{Supervisor, now};
use crate::protocol::problem::Problem;
use crate::relay::connection::{CloseReason, Session, SessionSettings};
use crate::relay::limits::SessionLimits;
use crate::relay::wire::Envelope;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::request::{OpenConnection, Request};
use crate::vehicle::vin::VinReport;

/// The longest that a connection is held without a link.
const MAX_HOLD: Duration = Duration::from_secs(300);
/// `identifyVehicle` requests that may wait for an answer.
const MAX_IDENTIFYING: usize = 16;

impl Supervisor {
    pub(super) async fn handle_text(&mut self, text: &str) {
        let envelope = match Envelope::read(text) {
            Ok(envelope) => envelope,
            Err(refused) => {
                let (problem, request_id) = *refused;
                return self.refuse(&problem, request_id);
            }
        };
        if envelope.action == "error" {
            tracing::debug!(problem = %envelope.message, "the cloud reports an error");
            return;
        }
        match Request::parse(&envelope) {
            Ok(request) => self.handle_request(request, envelope.request_id).await,
            Err(problem) => self.refuse(&problem, envelope.request_id),
        }
    }

    fn refuse(&mut self, problem: &Problem, request_id: Option<String>) {
        tracing::debug!(%problem, "refused a request");
        self.send(&Envelope::error(problem, request_id));
    }

    async fn handle_request(&mut self, request: Request, request_id: Option<String>) {
        match request {
            Request::OpenConnection(open) => self.open_connection(open, request_id),
            Request::IdentifyVehicle => self.identify_vehicle(request_id).await,
            Request::DismissCallForAttention => {
                self.end_call();
                self.reply("callForAttentionDismissed", &json!({}), request_id);
            }
            request => self.handle_session_request(request, request_id).await,
        }
    }

    async fn handle_session_request(&mut self, request: Request, request_id: Option<String>) {
        let Some((action, wanted)) = about(&request) else { return };
        let is_waiting = |(open, _): &mut (OpenConnection, _)| open.connection_uuid == wanted;
        if matches!(request, Request::CloseConnection(_))
            && let Some((_, opening)) = self.waiting_open.take_if(is_waiting)
        {
            let detail = "The connection was closed before it was open.";
            let problem = ProblemKind::ConnectionClosed.problem(detail);
            self.refuse(&problem.answering("openConnection"), opening);
            let closed = json!({"connection_uuid": wanted, "reason": CloseReason::Closed});
            return self.reply("connectionClosed", &closed, request_id);
        }
        let Some(session) = self.session.as_mut().filter(|session| session.connection_uuid() == wanted)
        else {
            let detail = format!("No connection {wanted} is open.");
            let problem = ProblemKind::UnknownConnection.problem(detail);
            return self.refuse(&problem.answering(action), request_id);
        };
        if matches!(request, Request::ConfigureBuses(_)) {
            self.watch.release().await;
            if std::mem::take(&mut self.vehicle.is_being_read) {
                self.give_up_identifying();
            }
            if let Some(session) = &mut self.session {
                session.handle_request(now(), request, request_id);
            }
        } else {
            session.handle_request(now(), request, request_id);
        }
    }

    fn open_connection(&mut self, open: OpenConnection, request_id: Option<String>) {
        let refuse = |problem: Problem| problem.answering("openConnection");
        if let Some(session) = &self.session {
            let connection_uuid = session.connection_uuid();
            if connection_uuid == open.connection_uuid {
                // asked again, after an answer that was lost
                let vin_number = self.vehicle.vin;
                return self.reply(
                    "connectionOpened",
                    &ConnectionOpened { connection_uuid, vin_number },
                    request_id,
                );
            }
            let detail = format!("Connection {connection_uuid} is open already.");
            let problem = ProblemKind::ConnectionOpen.problem(detail);
            return self.refuse(&refuse(problem), request_id);
        }
        if open.vin.is_some() && self.vehicle.is_being_read {
            let is_other =
                |(waiting, _): &(OpenConnection, _)| waiting.connection_uuid != open.connection_uuid;
            if self.waiting_open.as_ref().is_some_and(is_other) {
                let problem = ProblemKind::ConnectionOpen.problem("One is being opened.");
                return self.refuse(&refuse(problem), request_id);
            }
            self.waiting_open = Some((open, request_id));
            return;
        }
        match (&open.vin, self.vehicle.vin) {
            (Some(wanted), Some(vin)) if *wanted != vin.as_str() => {
                let detail = format!("The connection is meant for {wanted}, but the connector is in {vin}.");
                let problem = ProblemKind::WrongVehicle.problem(detail);
                return self.refuse(&refuse(problem), request_id);
            }
            (Some(_), None) => tracing::warn!("the vehicle tells no VIN: the ticket's cannot be checked"),
            _ => {}
        }
        let hold = open.hold_seconds.unwrap_or(self.config.relay.hold_seconds);
        let relay = &self.config.relay;
        let settings = SessionSettings {
            connection_uuid: open.connection_uuid,
            hold: Duration::from_secs(hold).min(MAX_HOLD),
            limits: SessionLimits {
                max_pdu: relay.max_pdu,
                keep_alive_after_ignition_off: self.config.power.keep_alive_after_ignition_off,
                ..SessionLimits::default()
            },
            hardware: self.hardware.clone(),
        };
        tracing::info!(connection_uuid = %open.connection_uuid, "connection opened");
        let mut session = Session::new(settings, now());
        session.handle_ignition(now(), self.power.ignition());
        self.session = Some(session);
        self.session_has_ticket = open.ticket_id.is_some();
        // where the vehicle tells no VIN yet, the one that was asked for is what it must not differ from
        self.session_vin = self.vehicle.vin.or_else(|| open.vin.as_ref()?.parse().ok());
        let opened = ConnectionOpened { connection_uuid: open.connection_uuid, vin_number: self.vehicle.vin };
        self.reply("connectionOpened", &opened, request_id);
        self.report_status();
    }

    async fn identify_vehicle(&mut self, request_id: Option<String>) {
        if self.identifying.len() >= MAX_IDENTIFYING {
            let problem = ProblemKind::Busy.problem("The VIN is being read already.");
            return self.refuse(&problem.answering("identifyVehicle"), request_id);
        }
        self.identifying.push(request_id);
        self.read_vin().await;
    }

    /// Answers whoever waited for the VIN.
    pub(super) fn answer_waiting_for_vin(&mut self, report: &VinReport) {
        for request_id in std::mem::take(&mut self.identifying) {
            self.reply("vehicleIdentified", report, request_id);
        }
        if let Some((open, request_id)) = self.waiting_open.take() {
            self.open_connection(open, request_id);
        }
    }

    fn give_up_identifying(&mut self) {
        for request_id in std::mem::take(&mut self.identifying) {
            let problem = ProblemKind::Interrupted.problem("A session took the buses; ask again.");
            self.refuse(&problem.answering("identifyVehicle"), request_id);
        }
    }
}

/// The action's name, and the connection that a request is about.
fn about(request: &Request) -> Option<(&'static str, Uuid)> {
    Some(match request {
        Request::ConfigureBuses(request) => ("configureBuses", request.connection_uuid),
        Request::OpenChannel(request) => ("openChannel", request.connection_uuid),
        Request::CloseChannel(request) => ("closeChannel", request.connection_uuid),
        Request::ResumeConnection(request) => ("resumeConnection", request.connection_uuid),
        Request::CloseConnection(request) => ("closeConnection", request.connection_uuid),
        Request::ScanEcus(request) => ("scanEcus", request.connection_uuid),
        Request::OpenConnection(_) | Request::IdentifyVehicle | Request::DismissCallForAttention => {
            return None;
        }
    })
}
