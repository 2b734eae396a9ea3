//! The requests of the cloud and the operator.

use std::time::Duration;

use connector_hal::clock::now;
use serde_json::json;
use uuid::Uuid;

use super::active_connection::ActiveConnection;
use super::messages::ConnectionOpened;
use super::supervisor::Supervisor;
use super::waiting::{RequestId, WaitingOpen};
use crate::protocol::problem::Problem;
use crate::relay::connection::{CloseReason, RelayConnection, RelaySettings};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::request::{OpenConnection, Request};
use crate::relay::wire::{ConnectionClosed, Envelope, ProblemKind};
use crate::vehicle::vin::VinReport;

/// The longest time that a connection is held while the websocket is down (relay protocol, section 4.3).
const MAX_HOLD: Duration = Duration::from_secs(300);
/// How many `identifyVehicle` requests may wait for an answer. One reading, which takes seconds at most,
/// answers all of them; more requests in that time are a flood.
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

    fn refuse(&mut self, problem: &Problem, request_id: RequestId) {
        tracing::debug!(%problem, "refused a request");
        self.send(&Envelope::error(problem, request_id));
    }

    async fn handle_request(&mut self, request: Request, request_id: RequestId) {
        match request {
            Request::OpenConnection(open) => self.open_connection(open, request_id),
            Request::IdentifyVehicle => self.identify_vehicle(request_id).await,
            Request::DismissCallForAttention => {
                self.end_call();
                self.reply("callForAttentionDismissed", &json!({}), request_id);
            }
            request => self.handle_connection_request(request, request_id).await,
        }
    }

    /// Passes a request on to the connection that it names.
    async fn handle_connection_request(&mut self, request: Request, request_id: RequestId) {
        let Some((action, connection_uuid)) = target_of(&request) else { return };
        if matches!(request, Request::CloseConnection(_))
            && let Some(waiting) = self.take_waiting_open(connection_uuid)
        {
            return self.close_before_open(waiting, request_id);
        }
        if self.connection_of(connection_uuid).is_none() {
            let detail = format!("No connection {connection_uuid} is open.");
            let problem = ProblemKind::UnknownConnection.problem(detail);
            return self.refuse(&problem.answering(action), request_id);
        }
        if matches!(request, Request::ConfigureBuses(_)) {
            self.hand_over_buses().await;
        }
        if let Some(connection) = &mut self.connection {
            connection.relay.handle_request(now(), request, request_id);
        }
    }

    fn take_waiting_open(&mut self, connection_uuid: Uuid) -> Option<WaitingOpen> {
        self.waiting_for_vin.opening.take_if(|waiting| waiting.open.connection_uuid == connection_uuid)
    }

    /// Answers a `closeConnection` for a connection that still waits for the VIN.
    fn close_before_open(&mut self, waiting: WaitingOpen, request_id: RequestId) {
        let problem = ProblemKind::ConnectionClosed.problem("The connection was closed before it was open.");
        self.refuse(&problem.answering("openConnection"), waiting.request_id);
        let connection_uuid = waiting.open.connection_uuid;
        let closed = ConnectionClosed { connection_uuid, reason: CloseReason::Closed };
        self.send(&closed.envelope().in_reply_to(request_id));
    }

    /// Makes the VIN watch release the buses, so that the connection can open them.
    async fn hand_over_buses(&mut self) {
        self.watch.release().await;
        if std::mem::take(&mut self.vehicle.is_being_read) {
            self.refuse_identifying();
        }
    }

    fn open_connection(&mut self, open: OpenConnection, request_id: RequestId) {
        if let Some(connection) = &self.connection {
            let open_uuid = connection.relay.connection_uuid();
            return self.answer_already_open(open_uuid, &open, request_id);
        }
        if open.vin.is_some() && self.vehicle.is_being_read {
            return self.wait_to_open(open, request_id);
        }
        if let Err(problem) = self.check_vin(&open) {
            return self.refuse(&problem.answering("openConnection"), request_id);
        }
        self.start_connection(&open);
        self.reply_opened(open.connection_uuid, request_id);
        self.report_status();
    }

    /// Answers an `openConnection` while a connection is open: with success if the request repeats one whose
    /// answer was lost.
    fn answer_already_open(&mut self, open_uuid: Uuid, open: &OpenConnection, request_id: RequestId) {
        if open_uuid == open.connection_uuid {
            return self.reply_opened(open_uuid, request_id);
        }
        let problem = ProblemKind::ConnectionOpen.problem(format!("Connection {open_uuid} is open already."));
        self.refuse(&problem.answering("openConnection"), request_id);
    }

    fn reply_opened(&mut self, connection_uuid: Uuid, request_id: RequestId) {
        let opened = ConnectionOpened { connection_uuid, vin_number: self.vehicle.vin };
        self.reply("connectionOpened", &opened, request_id);
    }

    /// Keeps an `openConnection` until the VIN has been read.
    fn wait_to_open(&mut self, open: OpenConnection, request_id: RequestId) {
        let waiting = self.waiting_for_vin.opening.as_ref();
        if waiting.is_some_and(|waiting| waiting.open.connection_uuid != open.connection_uuid) {
            let problem = ProblemKind::ConnectionOpen.problem("Another connection is being opened.");
            return self.refuse(&problem.answering("openConnection"), request_id);
        }
        self.waiting_for_vin.opening = Some(WaitingOpen { open, request_id });
    }

    /// Checks that the connector is in the vehicle that the connection is meant for.
    fn check_vin(&self, open: &OpenConnection) -> Result<(), Problem> {
        match (&open.vin, self.vehicle.vin) {
            (Some(wanted), Some(vin)) if *wanted != vin.as_str() => {
                let detail = format!("The connection is meant for {wanted}, but the connector is in {vin}.");
                return Err(ProblemKind::WrongVehicle.problem(detail));
            }
            (Some(_), None) => {
                tracing::warn!("no VIN could be read: cannot check the ticket's VIN");
            }
            _ => {}
        }
        Ok(())
    }

    fn start_connection(&mut self, open: &OpenConnection) {
        let config = &self.setup.config;
        let hold = open.hold_seconds.unwrap_or(config.relay.hold_seconds);
        let settings = RelaySettings {
            connection_uuid: open.connection_uuid,
            hold: Duration::from_secs(hold).min(MAX_HOLD),
            limits: RelayLimits {
                max_pdu: config.relay.max_pdu,
                keep_alive_after_ignition_off: config.power.keep_alive_after_ignition_off,
                ..RelayLimits::default()
            },
            hardware: self.setup.hardware.clone(),
        };
        tracing::info!(connection_uuid = %open.connection_uuid, "connection opened");
        let mut relay = RelayConnection::new(settings, now());
        relay.handle_ignition(now(), self.power.ignition());
        // without a VIN from the vehicle, a VIN read later must equal the VIN in the request
        let vin = self.vehicle.vin.or_else(|| open.vin.as_ref()?.parse().ok());
        self.connection = Some(ActiveConnection::new(relay, vin, open.ticket_id.is_some()));
    }

    async fn identify_vehicle(&mut self, request_id: RequestId) {
        if self.waiting_for_vin.identifying.len() >= MAX_IDENTIFYING {
            let problem = ProblemKind::Busy.problem("The VIN is being read already.");
            return self.refuse(&problem.answering("identifyVehicle"), request_id);
        }
        self.waiting_for_vin.identifying.push(request_id);
        self.read_vin().await;
    }

    /// Answers the requests that wait for the VIN.
    pub(super) fn answer_waiting_for_vin(&mut self, report: &VinReport) {
        for request_id in std::mem::take(&mut self.waiting_for_vin.identifying) {
            self.reply("vehicleIdentified", report, request_id);
        }
        if let Some(WaitingOpen { open, request_id }) = self.waiting_for_vin.opening.take() {
            self.open_connection(open, request_id);
        }
    }

    fn refuse_identifying(&mut self) {
        for request_id in std::mem::take(&mut self.waiting_for_vin.identifying) {
            let problem = ProblemKind::Interrupted.problem("A connection took the buses; ask again.");
            self.refuse(&problem.answering("identifyVehicle"), request_id);
        }
    }
}

/// The action's name, and the connection that the request names.
fn target_of(request: &Request) -> Option<(&'static str, Uuid)> {
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
