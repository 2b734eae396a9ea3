//! The requests of the cloud and the operator.

use connector_hal::clock::now;
use serde_json::json;
use uuid::Uuid;

use super::supervisor::Supervisor;
use super::waiting::{RequestId, WaitingOpen};
use crate::protocol::problem::Problem;
use crate::relay::connection::VinTrigger;
use crate::relay::wire::request::Request;
use crate::relay::wire::{Envelope, ProblemKind};
use crate::vehicle::vin::VinReport;

/// How many `identifyVehicle` requests may wait for an answer. One reading, which takes seconds at most,
/// answers all of them; more requests in that time are a flood.
const MAX_IDENTIFYING: usize = 16;

/// The longest `request_id`, in bytes: requests that wait keep theirs.
const MAX_REQUEST_ID: usize = 256;

impl Supervisor {
    pub(super) async fn handle_text(&mut self, text: &str) {
        let envelope = match Envelope::read(text) {
            Ok(envelope) => envelope,
            Err(refused) => {
                let (problem, request_id) = *refused;
                return self.refuse(&problem, request_id.filter(|id| id.len() <= MAX_REQUEST_ID));
            }
        };
        if let Some(length) = envelope.request_id.as_ref().map(String::len)
            && length > MAX_REQUEST_ID
        {
            let detail = format!("A request_id has at most {MAX_REQUEST_ID} bytes, not {length}.");
            return self.refuse(&ProblemKind::InvalidMessage.problem(detail), None);
        }
        if envelope.action == "error" {
            tracing::debug!(problem = %envelope.message, "the cloud reports an error");
            return;
        }
        match Request::parse(&envelope) {
            Ok(request) => self.handle_request(request, envelope.request_id).await,
            Err(problem) => self.refuse(&problem, envelope.request_id),
        }
    }

    /// Refuses a text that was too long to be read.
    pub(super) fn refuse_long_text(&mut self, len: usize, max: usize) {
        let detail = format!("A text message has at most {max} bytes, not {len}.");
        self.refuse(&ProblemKind::TooLong.problem(detail), None);
    }

    pub(super) fn refuse(&mut self, problem: &Problem, request_id: RequestId) {
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
            Request::SetReporting(request) => {
                self.reporting.handle_interval(request.interval());
                self.reply("reportingSet", &request, request_id);
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
        let is_notice = matches!(request, Request::OperatorJoined(_) | Request::OperatorLeft(_));
        if self.connection_of(connection_uuid).is_none() {
            if is_notice {
                return tracing::debug!(action, %connection_uuid, "a notice about a connection that is not open");
            }
            let detail = format!("No connection {connection_uuid} is open.");
            let problem = ProblemKind::UnknownConnection.problem(detail);
            return self.refuse(&problem.answering(action), request_id);
        }
        // the VIN watch must not ask a vehicle whose connector is muted
        if matches!(request, Request::ConfigureBuses(_) | Request::MuteLocals(_)) {
            self.hand_over_buses().await;
        }
        if let Some(connection) = &mut self.connection {
            connection.relay.handle_request(now(), request, request_id);
        }
    }

    /// Makes the VIN watch release the buses, so that the connection can open them.
    async fn hand_over_buses(&mut self) {
        self.watch.release().await;
        if std::mem::take(&mut self.vehicle.is_being_read) {
            self.refuse_identifying();
        }
    }

    async fn identify_vehicle(&mut self, request_id: RequestId) {
        if self.waiting_for_vin.identifying.len() >= MAX_IDENTIFYING {
            let problem = ProblemKind::Busy.problem("The VIN is being read already.");
            return self.refuse(&problem.answering("identifyVehicle"), request_id);
        }
        if self.connection.as_ref().is_some_and(|connection| connection.relay.is_muted()) {
            let detail =
                "The operator has muted what the connector sends on its own account; unmuteLocals ends this.";
            let problem = ProblemKind::LocalsMuted.problem(detail);
            return self.refuse(&problem.answering("identifyVehicle"), request_id);
        }
        self.waiting_for_vin.identifying.push(request_id);
        self.read_vin(VinTrigger::Request).await;
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
        Request::RequestConsent(request) => ("requestConsent", request.connection_uuid),
        Request::MuteLocals(request) => ("muteLocals", request.connection_uuid),
        Request::UnmuteLocals(request) => ("unmuteLocals", request.connection_uuid),
        Request::GetConfiguration(request) => ("getConfiguration", request.connection_uuid),
        Request::ConnectionQuality(request) => ("connectionQuality", request.connection_uuid),
        Request::OperatorJoined(notice) => ("operatorJoined", notice.connection_uuid),
        Request::OperatorLeft(notice) => ("operatorLeft", notice.connection_uuid),
        Request::OpenConnection(_)
        | Request::IdentifyVehicle
        | Request::DismissCallForAttention
        | Request::SetReporting(_) => return None,
    })
}
