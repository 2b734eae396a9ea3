//! A connection with a gateway: routing activation, alive checks, diagnostic messages and their acknowledgements.
//!
//! For each turn: 1. [`Connection::handle_bytes`] with what one read gave, or [`Connection::handle_timeout`]; 2. all of
//! [`Connection::poll_event`]; 3. [`Connection::poll_transmit`] while the stream takes it; 4. wait for the stream, or
//! until [`Connection::poll_timeout`]. After [`Event::Closed`] the connection is of no more use.

mod outcome;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::codec::{Decoded, StreamDecoder};
use super::{
    ActivationCode, ActivationRequest, ActivationResponse, DiagnosticMessage, LogicalAddress, Message,
    Payload,
};
pub use outcome::{ConnectionError, ConnectionSettings, Event, SendError, SendFailure, SendId, Timer};

/// A_DoIP_Ctrl: how long a routing activation is waited for.
pub const CONTROL_TIME: Duration = Duration::from_secs(2);
/// A_DoIP_Diagnostic_Message: how long an acknowledgement is waited for.
pub const ACKNOWLEDGE_TIME: Duration = Duration::from_secs(2);
/// T_TCP_General_Inactivity: without a byte for so long, the gateway closes the connection.
pub const GENERAL_INACTIVITY: Duration = Duration::from_secs(300);
/// Messages that may wait for the stream or for their acknowledgement.
const MAX_UNACKNOWLEDGED: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Activating { until: Instant },
    Confirming { until: Instant },
    Active,
    Closed,
}

/// A message on its way.
#[derive(Debug)]
struct Unacknowledged {
    id: SendId,
    target: LogicalAddress,
    /// When it was given to the stream.
    sent: Option<Instant>,
    /// Its response came ahead of the acknowledgement: nothing more is told of it.
    is_told: bool,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    id: Option<SendId>,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    settings: ConnectionSettings,
    decoder: StreamDecoder,
    state: State,
    entity: Option<LogicalAddress>,
    outgoing: VecDeque<Outgoing>,
    /// An alive check is to be answered; however many came, one answer will do.
    owes_alive: bool,
    unacknowledged: VecDeque<Unacknowledged>,
    events: VecDeque<Event>,
    next_id: u64,
    last_traffic: Instant,
}

impl Connection {
    /// A connection whose stream has just been opened; asks for routing at once.
    pub fn new(settings: ConnectionSettings, now: Instant) -> Self {
        let mut connection = Self {
            settings,
            decoder: StreamDecoder::new(max_payload(settings.max_data)),
            state: State::Activating { until: now + CONTROL_TIME },
            entity: None,
            outgoing: VecDeque::new(),
            owes_alive: false,
            unacknowledged: VecDeque::new(),
            events: VecDeque::new(),
            next_id: 0,
            last_traffic: now,
        };
        let ConnectionSettings { tester, activation_type, oem, .. } = settings;
        connection.queue(None, ActivationRequest { source: tester, activation_type, oem });
        connection
    }

    /// Whether diagnostic messages can be sent.
    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// The gateway's address, once routing is active.
    pub fn entity(&self) -> Option<LogicalAddress> {
        self.entity
    }

    /// Sends a diagnostic message; what becomes of it comes as [`Event::Sent`] or [`Event::SendFailed`].
    pub fn send(&mut self, target: LogicalAddress, data: &[u8]) -> Result<SendId, SendError> {
        let max = self.settings.max_data;
        if self.state != State::Active {
            return Err(SendError::NotActive);
        }
        if data.is_empty() || data.len() > max {
            return Err(SendError::Length { max });
        }
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED {
            return Err(SendError::Full);
        }
        let id = SendId(self.next_id);
        self.next_id += 1;
        self.unacknowledged.push_back(Unacknowledged { id, target, sent: None, is_told: false });
        let source = self.settings.tester;
        self.queue(Some(id), DiagnosticMessage { source, target, data: data.to_vec() });
        Ok(id)
    }

    fn queue(&mut self, id: Option<SendId>, payload: impl Into<Payload>) {
        match Message::new(self.settings.version, payload).encode() {
            Ok(bytes) => self.outgoing.push_back(Outgoing { bytes, id }),
            Err(error) => tracing::warn!(%error, "a DoIP message was not sent"),
        }
    }

    /// Bytes from the stream; no bytes are its end.
    pub fn handle_bytes(&mut self, now: Instant, bytes: &[u8]) {
        if self.is_closed() {
            return;
        }
        if bytes.is_empty() {
            return self.close(ConnectionError::ClosedByGateway);
        }
        self.last_traffic = now;
        self.decoder.handle_bytes(bytes);
        while !self.is_closed() {
            match self.decoder.poll_message() {
                Ok(Some(Decoded::Message(message))) => self.handle_message(now, message.payload),
                Ok(Some(Decoded::TooLarge { length, .. })) => {
                    let max = max_payload(self.settings.max_data);
                    return self.close(ConnectionError::TooLong { length, max });
                }
                Ok(None) => return,
                Err(error) => return self.close(error.into()),
            }
        }
    }

    /// The stream failed.
    pub fn handle_stream_error(&mut self, error: &std::io::Error) {
        if !self.is_closed() {
            self.close(ConnectionError::Stream(error.to_string()));
        }
    }

    fn handle_message(&mut self, now: Instant, payload: Payload) {
        match payload {
            Payload::ActivationResponse(response) => self.handle_activation(now, response),
            Payload::AliveCheckRequest => self.owes_alive = true,
            Payload::Diagnostic(message) => self.handle_diagnostic(now, message),
            Payload::DiagnosticAck(ack) => {
                if let Some(index) = self.find(ack.source) {
                    self.finish(now, index, None);
                }
            }
            Payload::DiagnosticNack(nack) => {
                if let Some(index) = self.find(nack.source) {
                    self.finish(now, index, Some(SendFailure::Nack(nack.code)));
                }
            }
            Payload::HeaderNack(code) => match self.state {
                State::Activating { .. } | State::Confirming { .. } => {
                    self.close(ConnectionError::ActivationRefused(code));
                }
                // it does not say which message it is about: they are looked at in order
                _ => match self.first_sent(|_| true) {
                    Some(index) => self.finish(now, index, Some(SendFailure::HeaderNack(code))),
                    None => tracing::debug!(%code, "the gateway refuses a message"),
                },
            },
            other => tracing::debug!(payload = ?other, "the gateway sent what a tester has no use for"),
        }
    }

    fn handle_activation(&mut self, now: Instant, response: ActivationResponse) {
        if !matches!(self.state, State::Activating { .. } | State::Confirming { .. }) {
            return tracing::debug!(code = %response.code, "a routing activation that nobody asked for");
        }
        let asked = self.settings.tester;
        if response.tester != asked {
            return self.close(ConnectionError::OtherTester { asked, answered: response.tester });
        }
        match response.code {
            ActivationCode::Activated => {
                self.state = State::Active;
                self.entity = Some(response.entity);
                self.events.push_back(Event::Activated { entity: response.entity, oem: response.oem });
            }
            ActivationCode::ConfirmationRequired => {
                // however often it is said, the time does not begin anew
                if let State::Activating { .. } = self.state {
                    self.state = State::Confirming { until: now + self.settings.confirmation_time };
                    self.events.push_back(Event::ConfirmationRequired);
                }
            }
            code => self.close(ConnectionError::Denied(code)),
        }
    }

    fn handle_diagnostic(&mut self, now: Instant, message: DiagnosticMessage) {
        if self.state != State::Active || message.target != self.settings.tester {
            let DiagnosticMessage { source, target, .. } = message;
            return tracing::debug!(%source, %target, "a diagnostic message that is not for us");
        }
        // some gateways acknowledge after the response, or never
        if let Some(index) = self.first_sent(|sent| sent.target == message.source && !sent.is_told)
            && let Some(sent) = self.unacknowledged.get_mut(index)
        {
            sent.is_told = true;
            let elapsed = sent.sent.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
            self.events.push_back(Event::Sent { id: sent.id, elapsed });
        }
        self.events.push_back(Event::Received { source: message.source, data: message.data });
    }

    /// The message that an acknowledgement from there is about: the oldest to that ECU; or the oldest of all where the
    /// gateway acknowledges in its own name; or the oldest to a group, where a member does.
    fn find(&self, source: LogicalAddress) -> Option<usize> {
        self.first_sent(|sent| sent.target == source)
            .or_else(|| (self.entity == Some(source)).then(|| self.first_sent(|_| true)).flatten())
            .or_else(|| self.first_sent(|sent| sent.target.is_functional()))
    }

    fn first_sent(&self, is_meant: impl Fn(&Unacknowledged) -> bool) -> Option<usize> {
        self.unacknowledged.iter().position(|sent| sent.sent.is_some() && is_meant(sent))
    }

    fn finish(&mut self, now: Instant, index: usize, failure: Option<SendFailure>) {
        let Some(Unacknowledged { id, sent, is_told, .. }) = self.unacknowledged.remove(index) else {
            return;
        };
        if is_told {
            return;
        }
        self.events.push_back(match failure {
            Some(failure) => Event::SendFailed { id, failure },
            None => Event::Sent { id, elapsed: now.saturating_duration_since(sent.unwrap_or(now)) },
        });
    }

    fn close(&mut self, error: ConnectionError) {
        self.state = State::Closed;
        self.outgoing.clear();
        self.owes_alive = false;
        for Unacknowledged { id, is_told, .. } in self.unacknowledged.drain(..) {
            if !is_told {
                self.events.push_back(Event::SendFailed { id, failure: SendFailure::ConnectionLost });
            }
        }
        self.events.push_back(Event::Closed(error));
    }

    /// Tells the gateway that we are there although it has not asked, which ISO 13400-2 lets a tester do: it may have, in what
    /// was not read.
    pub fn volunteer_alive(&mut self) {
        self.owes_alive |= self.is_active();
    }

    /// Nothing was read for so long: acknowledgements that came meanwhile are not late.
    pub fn handle_pause(&mut self, now: Instant, length: Duration) {
        for at in self.unacknowledged.iter_mut().filter_map(|sent| sent.sent.as_mut()) {
            *at = (*at + length).min(now);
        }
    }

    /// A deadline of [`Connection::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.poll_timeout() {
            if at > now {
                return;
            }
            match timer {
                Timer::Activation => self.close(ConnectionError::ActivationTimeout),
                Timer::Confirmation => {
                    self.close(ConnectionError::ConfirmationTimeout(self.settings.confirmation_time));
                }
                Timer::GeneralInactivity => self.close(ConnectionError::Inactive),
                Timer::Acknowledgement => match self.first_sent(|_| true) {
                    Some(index) => self.finish(now, index, Some(SendFailure::NotAcknowledged)),
                    None => return,
                },
            }
        }
    }

    /// When [`Connection::handle_timeout`] is due, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match self.state {
            State::Closed => None,
            State::Activating { until } => Some((until, Timer::Activation)),
            State::Confirming { until } => Some((until, Timer::Confirmation)),
            State::Active => {
                let inactive = (self.last_traffic + GENERAL_INACTIVITY, Timer::GeneralInactivity);
                // they were sent in this order, so the first one's time is the earliest
                let unacknowledged = self.unacknowledged.front().and_then(|sent| sent.sent);
                let acknowledgement =
                    unacknowledged.map(|sent| (sent + ACKNOWLEDGE_TIME, Timer::Acknowledgement));
                acknowledgement.into_iter().chain([inactive]).min_by_key(|(at, _)| *at)
            }
        }
    }

    /// The next message for the stream; to be called only when it can take one.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let bytes = if std::mem::take(&mut self.owes_alive) {
            let alive = Payload::AliveCheckResponse(self.settings.tester);
            Message::new(self.settings.version, alive).encode().ok()?
        } else {
            let Outgoing { bytes, id } = self.outgoing.pop_front()?;
            if let Some(sent) = self.unacknowledged.iter_mut().find(|sent| Some(sent.id) == id) {
                sent.sent = Some(now);
            }
            bytes
        };
        self.last_traffic = now;
        Some(bytes)
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// The longest payload taken: addresses and codes besides the data.
fn max_payload(max_data: usize) -> u32 {
    u32::try_from(max_data).unwrap_or(u32::MAX).saturating_add(16)
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
