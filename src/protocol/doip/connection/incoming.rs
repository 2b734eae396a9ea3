//! The messages of the gateway.

use std::time::{Duration, Instant};

use super::Connection;
use super::limits::MAX_LATE;
use super::outcome::{ConnectionError, Event, SendFailure};
use super::state::{RoutingState, Unacknowledged};
use crate::protocol::doip::{
    ActivationCode, ActivationResponse, DiagnosticMessage, HeaderNackCode, LogicalAddress, Message, Payload,
};

impl Connection {
    /// Handles a message of any edition. Our own version stays as it is, because the gateway has accepted it.
    pub(super) fn handle_message(&mut self, now: Instant, Message { version, payload }: Message) {
        match payload {
            Payload::ActivationResponse(response) => self.handle_activation(now, response),
            Payload::AliveCheckRequest => self.owes_alive = true,
            Payload::Diagnostic(message) => self.handle_diagnostic(now, message),
            Payload::DiagnosticAck(ack) => {
                if let Some(index) = self.find(ack.source, &ack.previous) {
                    self.finish(now, index, None);
                }
            }
            Payload::DiagnosticNack(nack) => {
                if let Some(index) = self.find(nack.source, &nack.previous) {
                    self.finish(now, index, Some(SendFailure::Nack(nack.code)));
                }
            }
            Payload::HeaderNack(code) => match self.state {
                RoutingState::Activating { .. } | RoutingState::Confirming { .. } => {
                    let asked = self.settings.version;
                    self.close(match code {
                        HeaderNackCode::IncorrectPattern if version != asked => {
                            ConnectionError::OtherVersion { asked, own: version }
                        }
                        _ => ConnectionError::ActivationRefused(code),
                    });
                }
                // the refusal does not name its message; assume the oldest
                _ => match self.first_sent(|_| true) {
                    Some(index) => self.finish(now, index, Some(SendFailure::HeaderNack(code))),
                    None => tracing::debug!(%code, "the gateway refuses a message"),
                },
            },
            other => tracing::debug!(payload = ?other, "ignored a message that is not for testers"),
        }
    }

    fn handle_activation(&mut self, now: Instant, response: ActivationResponse) {
        if !matches!(self.state, RoutingState::Activating { .. } | RoutingState::Confirming { .. }) {
            return tracing::debug!(code = %response.code, "ignored an unrequested routing activation");
        }
        let asked = self.settings.tester;
        if response.tester != asked {
            return self.close(ConnectionError::OtherTester { asked, answered: response.tester });
        }
        if let Some(asked) = self.settings.entity.filter(|asked| *asked != response.entity) {
            return self.close(ConnectionError::OtherEntity { asked, answered: response.entity });
        }
        match response.code {
            ActivationCode::Activated => {
                self.state = RoutingState::Active;
                self.entity = Some(response.entity);
                self.events.push_back(Event::Activated { entity: response.entity, oem: response.oem });
            }
            ActivationCode::ConfirmationRequired => {
                // a repeated response does not extend the time
                if let RoutingState::Activating { .. } = self.state {
                    self.state = RoutingState::Confirming { until: now + self.settings.confirmation_time };
                    self.events.push_back(Event::ConfirmationRequired);
                }
            }
            code => self.close(ConnectionError::Denied(code)),
        }
    }

    fn handle_diagnostic(&mut self, now: Instant, message: DiagnosticMessage) {
        if self.state != RoutingState::Active || message.target != self.settings.tester {
            let DiagnosticMessage { source, target, .. } = message;
            return tracing::debug!(%source, %target, "ignored a diagnostic message for another tester");
        }
        // some gateways acknowledge after the response, or never
        if let Some(index) = self.first_sent(|sent| sent.target == message.source && !sent.is_reported)
            && let Some(sent) = self.unacknowledged.get_mut(index)
        {
            sent.is_reported = true;
            let elapsed = sent.sent.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            self.events.push_back(Event::Sent { id: sent.id, elapsed });
        }
        self.events.push_back(Event::Received { source: message.source, data: message.data });
    }

    /// Returns the message that an acknowledgement from this source belongs to.
    ///
    /// That is the oldest message to this ECU that begins as the acknowledgement repeats it. If there is none, it is
    /// the oldest message to this ECU; if there is none, it is the oldest message of all if the gateway acknowledges
    /// in its own name, otherwise the oldest message to a group.
    fn find(&mut self, source: LogicalAddress, previous: &[u8]) -> Option<usize> {
        let named = self.first_sent(|sent| sent.target == source && begins_alike(&sent.head, previous));
        if named.is_some() {
            return named;
        }
        let is_late = |(target, head): &(LogicalAddress, Vec<u8>)| {
            *target == source && !previous.is_empty() && begins_alike(head, previous)
        };
        if let Some(index) = self.late.iter().position(is_late) {
            tracing::debug!(%source, "ignored the late acknowledgement of a message that was reported as failed");
            self.late.remove(index);
            return None;
        }
        self.first_sent(|sent| sent.target == source)
            .or_else(|| (self.entity == Some(source)).then(|| self.first_sent(|_| true)).flatten())
            .or_else(|| self.first_sent(|sent| sent.target.is_functional()))
    }

    pub(super) fn first_sent(&self, is_meant: impl Fn(&Unacknowledged) -> bool) -> Option<usize> {
        self.unacknowledged.iter().position(|sent| sent.sent.is_some() && is_meant(sent))
    }

    /// The acknowledgement of a message did not come in time.
    pub(super) fn expire(&mut self, now: Instant, index: usize) {
        if let Some(Unacknowledged { target, head, .. }) = self.unacknowledged.get(index) {
            if self.late.len() >= MAX_LATE {
                self.late.pop_front();
            }
            self.late.push_back((*target, head.clone()));
        }
        self.finish(now, index, Some(SendFailure::NotAcknowledged));
    }

    pub(super) fn finish(&mut self, now: Instant, index: usize, failure: Option<SendFailure>) {
        let Some(Unacknowledged { id, sent, is_reported, .. }) = self.unacknowledged.remove(index) else {
            return;
        };
        if is_reported {
            return;
        }
        self.events.push_back(match failure {
            Some(failure) => Event::SendFailed { id, failure },
            None => Event::Sent { id, elapsed: now.saturating_duration_since(sent.unwrap_or(now)) },
        });
    }
}

/// Whether one text is the beginning of the other. The repetition in an acknowledgement may be empty.
fn begins_alike(head: &[u8], previous: &[u8]) -> bool {
    head.iter().zip(previous).all(|(one, other)| one == other)
}
