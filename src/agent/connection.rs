//! The agent's work on the open connection: the agent sends its messages, checks its ticket, and closes it.

use std::task::Poll;
use std::time::Duration;

use connector_hal::board::Led;
use connector_hal::clock::now;
use uuid::Uuid;

use super::active_connection::ActiveConnection;
use super::background::BackgroundAnswer;
use super::ending::{EndStep, OpenWork};
use super::setup::Control;
use super::supervisor::Supervisor;
use crate::relay::connection::{CloseReason, RelayConnection, VinTrigger};
use crate::relay::wire::Envelope;

const CONNECTION_CLOSED: &str = "connectionClosed";
/// How long sending the ECUs back to their default session may take. With [`LEAVE_TIME`] it makes 1.5 s of the two
/// seconds in which the agent ends.
const ECU_FAREWELL_TIME: Duration = Duration::from_millis(500);
/// How long closing the websocket may take, while devices are left; see [`LEAVE_TIME`].
const SOCKET_CLOSE_TIME: Duration = Duration::from_millis(500);
/// How long leaving the devices may take: the last frames 100 ms, and an interface that goes down and up some 100 ms; the
/// links of a K-line take up to 1 s.
const LEAVE_TIME: Duration = Duration::from_secs(1);

impl Supervisor {
    /// The open connection, if it has this UUID.
    pub(super) fn connection_of(&mut self, connection_uuid: Uuid) -> Option<&mut ActiveConnection> {
        self.connection.as_mut().filter(|connection| connection.relay.connection_uuid() == connection_uuid)
    }

    /// Asks the cloud for the ticket in progress: a connection opened for a ticket must not outlive it.
    pub(super) fn check_ticket(&mut self) {
        let connection = self.connection.as_ref().filter(|connection| connection.has_ticket());
        let held = connection.map(|connection| connection.relay.connection_uuid());
        self.background.ask_for_ticket(held, &self.setup.config);
    }

    pub(super) fn handle_background(&mut self, answer: BackgroundAnswer) {
        match answer {
            BackgroundAnswer::Status(status) => self.cloud_status = status,
            BackgroundAnswer::KeptVin(kept) => {
                tracing::info!(age = ?kept.age(), "the VIN from before the restart is known");
                self.vehicle.handle_kept(kept);
                self.report_status();
            }
            BackgroundAnswer::ActiveTicket { held, ticket } => {
                let state = ticket.as_ref().and_then(|ticket| ticket.state.as_deref());
                tracing::debug!(?state, "the connector's active ticket");
                // the answer says nothing about a connection that was opened after the request was sent
                let Some(held) = held else { return };
                let own = |connection: &&mut ActiveConnection| connection.relay.connection_uuid() == held;
                if let Some(connection) = self.connection.as_mut().filter(own) {
                    connection.handle_ticket(ticket.as_ref(), &self.setup.config.cloud.ended_ticket_states);
                }
            }
        }
    }

    /// Sends the connection's text messages, handles the VIN that it has read, and ends it if it has closed.
    pub(super) async fn update_connection(&mut self) {
        self.send_texts().await;
        if self.connection.as_mut().is_some_and(|connection| connection.relay.take_returned()) {
            self.handle_device_return();
        }
        if self.returns.poll_reading(now()) {
            self.read_vin(VinTrigger::Returned).await;
        }
        if self.connection.as_mut().is_some_and(|connection| connection.relay.take_vin_wanted()) {
            self.read_vin(VinTrigger::Request).await;
        }
        let vin = self.connection.as_mut().and_then(|connection| connection.relay.poll_vin(now()));
        if let Some(report) = vin {
            self.handle_vin(&report);
        }
        let Some(connection) = &mut self.connection else { return };
        match connection.relay.closed() {
            Some(reason) => self.end_connection(reason).await,
            None => {
                if connection.relay.take_state_change() {
                    self.report_status();
                }
            }
        }
    }

    /// Sends the connection's texts, as far as the websocket takes them. The connection bounds the rest.
    async fn send_texts(&mut self) {
        while (self.socket.takes_text() || !self.socket.is_up())
            && let Some(envelope) =
                self.connection.as_mut().and_then(|connection| connection.relay.poll_text())
        {
            self.send_text(envelope).await;
        }
    }

    /// Sends a text of the connection. Its last one has the head of the audit.
    async fn send_text(&mut self, mut envelope: Envelope) {
        if envelope.action == CONNECTION_CLOSED {
            self.add_audit_head(&mut envelope).await;
        }
        self.send(&envelope);
    }

    async fn end_connection(&mut self, reason: CloseReason) {
        let Some(mut connection) = self.connection.take() else { return };
        let mut closed = connection.closed(reason).envelope();
        while let Some(envelope) = connection.relay.poll_text() {
            self.send_text(envelope).await;
        }
        if connection.has_been_active() {
            self.power.handle_activity(now());
        }
        drop(connection);
        match reason {
            // the reply to `closeConnection` has reported the end
            CloseReason::Closed => {}
            _ => {
                self.add_audit_head(&mut closed).await;
                if self.socket.is_up() {
                    self.send(&closed);
                } else {
                    self.unreported_end = Some(closed);
                }
            }
        }
        // with the ignition off, no ECU is asked only because nothing is known yet
        if self.vehicle.is_known || self.power.ignition() == Some(false) {
            self.watch.resume(self.vehicle.vin).await;
        } else {
            self.read_vin(VinTrigger::Vehicle).await;
        }
        self.report_status();
    }

    /// The process asks for an end of the agent.
    pub(super) fn handle_control(&mut self, control: Control) {
        self.ending.handle_control(now(), control);
        if control == Control::Shutdown && self.open_work().is_some_and(|work| work.transfer_until.is_some())
        {
            tracing::info!("about to end: waiting for the end of a download");
            self.notifier.report_waiting();
        }
    }

    /// What an end of the agent would interrupt; `None` without a connection.
    pub(super) fn open_work(&self) -> Option<OpenWork> {
        self.connection.as_ref().map(|connection| OpenWork {
            heard_at: connection.relay.operator_heard_at(),
            transfer_until: connection.relay.transfer_until(now()),
        })
    }

    /// Whether the agent ends now. Closes a connection whose operator is gone, if it is in the way.
    pub(super) fn poll_end(&mut self) -> Option<Control> {
        match self.ending.poll_step(now(), self.open_work())? {
            EndStep::End(control) => Some(control),
            EndStep::CloseConnection => {
                tracing::info!(
                    "the operator has been silent; closing the connection for the new configuration"
                );
                if let Some(connection) = &mut self.connection {
                    connection.relay.close(CloseReason::Shutdown);
                }
                None
            }
        }
    }

    /// Ends in good order: sends the ECUs back to their default session, closes connection and websocket, and
    /// switches LED and buzzer off.
    pub(super) async fn shut_down(&mut self, reason: CloseReason) {
        if reason == CloseReason::Shutdown {
            self.notifier.report_stopping();
        }
        if let Some(mut connection) = self.connection.take() {
            if connection.relay.transfer_until(now()).is_some() {
                tracing::warn!(
                    "a download is in progress: the ECUs are not sent back to their default session"
                );
                connection.relay.leave_silently();
            } else {
                return_to_default_sessions(&mut connection.relay).await;
            }
            let closed = connection.closed(reason).envelope();
            drop(connection);
            self.policy.with(|policy| policy.handle_closed());
            self.send_text(closed).await;
        }
        // the end of the process would leave frames in the adapters, and interfaces active
        let departures = self.setup.hardware.departures.clone();
        let leaving = tokio::time::timeout(LEAVE_TIME, departures.wait());
        let ((), left) = tokio::join!(self.socket.close(SOCKET_CLOSE_TIME), leaving);
        if left.is_err() {
            tracing::warn!("a device of the connection was not released in time");
        }
        self.setup.board.set_buzzer(false);
        self.setup.board.set_led(Led::Off);
    }
}

/// Sends every ECU back to its default session.
async fn return_to_default_sessions(relay: &mut RelayConnection) {
    relay.return_to_default_sessions(now());
    let farewell = std::future::poll_fn(|cx| {
        if relay.is_quiet() {
            return Poll::Ready(());
        }
        if relay.poll_drive(cx).is_ready() {
            // return after each step, so that the timeout is checked
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    if tokio::time::timeout(ECU_FAREWELL_TIME, farewell).await.is_err() {
        tracing::warn!("some ECUs were not returned to their default session in time");
    }
}
