//! Opening a connection: `openConnection` is answered immediately, or after the VIN has been read.

use std::time::Duration;

use connector_hal::clock::now;
use uuid::Uuid;

use super::active_connection::ActiveConnection;
use super::messages::ConnectionOpened;
use super::supervisor::Supervisor;
use super::waiting::{RequestId, WaitingOpen};
use crate::config::PowerConfig;
use crate::protocol::problem::Problem;
use crate::relay::connection::{CloseReason, RelayConnection, RelaySettings};
use crate::relay::limits::{KeepAliveLimits, RelayLimits};
use crate::relay::wire::request::OpenConnection;
use crate::relay::wire::{ConnectionClosed, PolicyReport, ProblemKind};

/// The longest time that a connection is held while the websocket is down (relay protocol, section 4.3).
const MAX_HOLD: Duration = Duration::from_secs(300);

impl Supervisor {
    pub(super) fn open_connection(&mut self, open: OpenConnection, request_id: RequestId) {
        if let Some(connection) = &self.connection {
            let (open_uuid, is_unused) = (connection.relay.connection_uuid(), connection.relay.is_unused());
            return self.answer_already_open(open_uuid, is_unused, &open, request_id);
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
    /// answer was lost. An operator cannot begin with a connection whose messages have been numbered already.
    fn answer_already_open(
        &mut self,
        open_uuid: Uuid,
        is_unused: bool,
        open: &OpenConnection,
        request_id: RequestId,
    ) {
        if open_uuid == open.connection_uuid && is_unused {
            return self.reply_opened(open_uuid, request_id);
        }
        let state = if open_uuid == open.connection_uuid { "in use; close it first" } else { "open already" };
        let problem = ProblemKind::ConnectionOpen.problem(format!("Connection {open_uuid} is {state}."));
        self.refuse(&problem.answering("openConnection"), request_id);
    }

    fn reply_opened(&mut self, connection_uuid: Uuid, request_id: RequestId) {
        let policy = self.policy.with(|policy| PolicyReport::of(policy));
        let opened = ConnectionOpened { connection_uuid, vin_number: self.vehicle.vin, policy };
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
            (Some(wanted), Some(vin)) if !vin.is_written(wanted) => {
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
                operator_silence: config.relay.operator_silence,
                operator_idle: config.relay.operator_idle,
                keep_alive: keep_alive_limits(&config.power),
                ..RelayLimits::default()
            },
            hardware: self.setup.hardware.clone(),
            policy: self.policy.clone(),
        };
        tracing::info!(connection_uuid = %open.connection_uuid, "connection opened");
        let ticket =
            open.ticket_id.as_ref().map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned));
        self.policy.with(|policy| {
            policy.announce_connection(open.connection_uuid, ticket.as_deref());
            policy.handle_opened(now(), open.ticket_id.is_some(), open.unattended);
        });
        let mut relay = RelayConnection::new(settings, now());
        relay.handle_ignition(now(), self.power.ignition());
        relay.handle_voltage(now(), self.setup.board.voltage());
        self.connection = Some(ActiveConnection::new(relay, self.vehicle.vin, open));
        self.report_vin_to_policy();
    }

    /// An `openConnection` for this UUID that waits for the VIN.
    pub(super) fn take_waiting_open(&mut self, connection_uuid: Uuid) -> Option<WaitingOpen> {
        self.waiting_for_vin.opening.take_if(|waiting| waiting.open.connection_uuid == connection_uuid)
    }

    /// Answers a `closeConnection` for a connection that still waits for the VIN.
    pub(super) fn close_before_open(&mut self, waiting: WaitingOpen, request_id: RequestId) {
        let problem = ProblemKind::ConnectionClosed.problem("The connection was closed before it was open.");
        self.refuse(&problem.answering("openConnection"), waiting.request_id);
        let connection_uuid = waiting.open.connection_uuid;
        let closed = ConnectionClosed { connection_uuid, reason: CloseReason::Closed };
        self.send(&closed.envelope().in_reply_to(request_id));
    }
}

fn keep_alive_limits(power: &PowerConfig) -> KeepAliveLimits {
    KeepAliveLimits {
        after_ignition_off: power.keep_alive_after_ignition_off,
        after_last_request: power.keep_alive_after_last_request,
        above: power.keep_alive_above,
        after_low_voltage: power.keep_alive_after_low_voltage,
    }
}
