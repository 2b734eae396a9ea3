//! The open connection: its agreement with the cloud, its replies, its end.

use std::task::Poll;
use std::time::Duration;

use connector_hal::board::Led;
use uuid::Uuid;

use super::{Background, Supervisor, now};
use crate::cloud::rest::{Chain, differences};
use crate::relay::connection::{CloseReason, Session};
use crate::relay::wire::Envelope;

/// How long ECUs have to take notice that the session ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long the websocket's goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);

impl Supervisor {
    /// Asks the cloud which ticket is in progress: a connection must not outlive its ticket, if it was opened for one.
    pub(super) fn reconcile(&mut self) {
        let (cloud, found) = (self.cloud.clone(), self.background_sender.clone());
        let session = self.session.as_ref().filter(|_| self.session_has_ticket);
        let held = session.map(Session::connection_uuid);
        let compare = (!std::mem::replace(&mut self.compared_record, true)).then(|| self.config.clone());
        tokio::spawn(async move {
            match cloud.active_ticket().await {
                Ok(ticket) => {
                    let _agent_ended = found.send(Background::ActiveTicket { held, ticket }).await;
                }
                Err(error) => tracing::warn!("the active ticket could not be fetched: {}", Chain(&error)),
            }
            let Some(config) = compare else { return };
            match cloud.connector().await {
                Ok(record) => differences(&config, &record)
                    .iter()
                    .for_each(|difference| tracing::warn!("the cloud's record differs: {difference}")),
                Err(error) => {
                    tracing::warn!("the connector's record could not be fetched: {}", Chain(&error))
                }
            }
        });
    }

    pub(super) fn handle_background(&mut self, found: Background) {
        match found {
            Background::Status(status) => self.cloud_status = status,
            Background::ActiveTicket { held, ticket } => {
                let state = ticket.as_ref().and_then(|ticket| ticket.state.as_deref());
                tracing::debug!(?state, "the connector's active ticket");
                let Some(session) = &mut self.session else { return };
                // only what was held when the question was asked: a connection opened since is newer than the answer
                if held != Some(session.connection_uuid()) {
                    return;
                }
                let is_this = ticket.is_some_and(|ticket| {
                    ticket.is_in_progress() && ticket.connection_uuid.is_none_or(|uuid| held == Some(uuid))
                });
                if !is_this {
                    tracing::info!("the ticket is no longer in progress; closing the connection");
                    session.close(CloseReason::Policy);
                }
            }
        }
    }

    pub(super) fn tell_closed(&mut self, connection_uuid: Uuid, reason: CloseReason) {
        let message = serde_json::json!({"connection_uuid": connection_uuid, "reason": reason});
        self.send(&Envelope::new("connectionClosed", &message));
    }

    /// Sends what the session says, and ends it when it is over.
    pub(super) async fn attend_session(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        while let Some(envelope) = session.poll_text() {
            self.send(&envelope);
        }
        if let Some(report) = session.poll_vin(now()) {
            self.session = Some(session);
            self.handle_vin(&report);
            let Some(same) = self.session.take() else { return };
            session = same;
        }
        let Some(reason) = session.closed() else {
            let has_changed = session.take_state_change();
            self.session = Some(session);
            if has_changed {
                self.report_status();
            }
            return;
        };
        let connection_uuid = session.connection_uuid();
        tracing::info!(%connection_uuid, ?reason, pdus = session.pdus_relayed(), "connection closed");
        drop(session);
        self.session_vin = None;
        match reason {
            CloseReason::Closed => {}
            _ if self.link.is_up() => self.tell_closed(connection_uuid, reason),
            _ => self.ended_unheard = Some((connection_uuid, reason)),
        }
        if self.vehicle.is_known {
            self.watch.resume(self.vehicle.vin).await;
        } else {
            self.read_vin().await;
        }
        self.report_status();
    }

    /// Ends in good order: ECUs back to their default session, the cloud told, nothing lit.
    pub(super) async fn shut_down(&mut self, reason: CloseReason) {
        if reason == CloseReason::Shutdown {
            self.notifier.stopping();
        }
        if let Some(mut session) = self.session.take() {
            session.return_to_default_sessions(now());
            let farewell = std::future::poll_fn(|cx| {
                if session.is_quiet() {
                    return Poll::Ready(());
                }
                if session.poll_drive(cx).is_ready() {
                    // one turn at a time, so that the time it may take is looked at in between
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            });
            if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
                tracing::warn!("ECUs could not be told that the session ends");
            }
            let connection_uuid = session.connection_uuid();
            tracing::info!(%connection_uuid, ?reason, pdus = session.pdus_relayed(), "connection closed");
            self.tell_closed(connection_uuid, reason);
        }
        self.link.close(GOODBYE).await;
        self.board.set_buzzer(false);
        self.board.set_led(Led::Off);
    }
}
