//! A tester's connection to a gateway: routing activation, alive checks, diagnostic messages and their
//! acknowledgements.

mod incoming;
mod limits;
mod outcome;
mod state;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ActivationRequest, DiagnosticMessage, LogicalAddress, Message, Payload};
use crate::protocol::doip::codec::{Decoded, StreamDecoder};
use limits::{ACKNOWLEDGE_TIME, CONTROL_TIME, GENERAL_INACTIVITY, HEAD, MAX_EVENTS, MAX_UNACKNOWLEDGED};
pub use outcome::{ConnectionError, ConnectionSettings, Event, SendError, SendFailure, SendId, Timer};
use state::{RoutingState, Unacknowledged};

#[derive(Debug)]
struct QueuedMessage {
    bytes: Vec<u8>,
    id: Option<SendId>,
}

/// A tester's connection to a DoIP gateway, by TCP or TLS (ISO 13400-2).
///
/// A connection is a pure state machine: it does no I/O and reads no clock. It activates routing, answers
/// alive checks, and reports for each diagnostic message whether the gateway has passed it on. Its methods
/// fall into four groups:
///
/// - Getters such as [`is_active`](Self::is_active) have no effect.
/// - `handle_*` methods take what happened outside: bytes from the stream, a failure of the stream, a
///   timeout.
/// - [`send`](Self::send) queues a diagnostic message.
/// - `poll_*` methods return what the caller must act upon: events, bytes to write and the next timeout.
///
/// After [`new`](Self::new) and after every call of a method of the second or third group:
///
/// 1. Call [`poll_event`](Self::poll_event) until it returns `None`. After [`Event::Closed`], close the
///    stream and drop the connection.
/// 2. While the stream accepts bytes, call [`poll_transmit`](Self::poll_transmit) and write each message,
///    until it returns `None`. The time of the call counts as the time of sending.
/// 3. Call [`poll_timeout`](Self::poll_timeout) and wait until that time, or until the stream is readable.
///
/// Pass the bytes of each read to [`handle_bytes`](Self::handle_bytes) before a timeout that is due at the
/// same time. `now` never decreases from one call to the next.
///
/// # Example
///
/// Routing activation and one request in virtual time, with a scripted gateway. Without further traffic, the
/// connection ends after 300 s.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder};
/// use connector_agent::protocol::doip::connection::{Connection, ConnectionError, ConnectionSettings, Event};
/// use connector_agent::protocol::doip::{
///     ActivationCode, ActivationResponse, DiagnosticAck, DiagnosticMessage, LogicalAddress, Message,
///     Payload, ProtocolVersion,
/// };
///
/// const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);
/// const GATEWAY: LogicalAddress = LogicalAddress::new(0x1000);
/// const ENGINE: LogicalAddress = LogicalAddress::new(0x1010);
///
/// /// The gateway's messages in answer to one of the tester.
/// fn answers(payload: Payload) -> Vec<Payload> {
///     match payload {
///         Payload::ActivationRequest(request) => vec![Payload::ActivationResponse(ActivationResponse {
///             tester: request.source,
///             entity: GATEWAY,
///             code: ActivationCode::Activated,
///             oem: None,
///         })],
///         Payload::Diagnostic(request) => vec![
///             Payload::DiagnosticAck(DiagnosticAck {
///                 source: request.target,
///                 target: request.source,
///                 code: 0,
///                 previous: Vec::new(),
///             }),
///             Payload::Diagnostic(DiagnosticMessage {
///                 source: request.target,
///                 target: request.source,
///                 data: vec![0x7E, 0x00],
///             }),
///         ],
///         _ => Vec::new(),
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut now = Instant::now();
/// let mut connection = Connection::new(ConnectionSettings::new(TESTER), now);
/// let mut gateway = StreamDecoder::new(4096);
///
/// let mut events = Vec::new();
/// while !connection.is_closed() {
///     while let Some(bytes) = connection.poll_transmit(now) {
///         now += Duration::from_millis(10);
///         gateway.handle_bytes(&bytes);
///         while let Some(Decoded::Message(message)) = gateway.poll_message()? {
///             for answer in answers(message.payload) {
///                 let bytes = Message::new(ProtocolVersion::V2012, answer).encode()?;
///                 connection.handle_bytes(now, &bytes);
///             }
///         }
///     }
///     while let Some(event) = connection.poll_event() {
///         if let Event::Activated { .. } = event {
///             connection.send(ENGINE, &[0x3E, 0x00])?;
///         }
///         events.push(event);
///     }
///     // nothing more is sent or received, so the next thing to happen is a timeout
///     if events.len() == 3
///         && let Some((due, _timer)) = connection.poll_timeout()
///     {
///         now = due;
///         connection.handle_timeout(now);
///     }
/// }
/// events.extend(std::iter::from_fn(|| connection.poll_event()));
///
/// assert_eq!(events[0], Event::Activated { entity: GATEWAY, oem: None });
/// assert!(matches!(events[1], Event::Sent { elapsed, .. } if elapsed == Duration::from_millis(10)));
/// assert_eq!(events[2], Event::Received { source: ENGINE, data: vec![0x7E, 0x00] });
/// assert_eq!(events[3], Event::Closed(ConnectionError::Inactive));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Connection {
    settings: ConnectionSettings,
    decoder: StreamDecoder,
    state: RoutingState,
    entity: Option<LogicalAddress>,
    outgoing: VecDeque<QueuedMessage>,
    /// An alive check is to be answered. One answer is enough for several alive checks.
    owes_alive: bool,
    unacknowledged: VecDeque<Unacknowledged>,
    /// The targets and first bytes of messages whose acknowledgements are late.
    late: VecDeque<(LogicalAddress, Vec<u8>)>,
    events: VecDeque<Event>,
    next_id: u64,
    last_traffic: Instant,
}

impl Connection {
    /// Creates the connection of a stream that was opened at `now`, and requests routing.
    pub fn new(settings: ConnectionSettings, now: Instant) -> Self {
        let mut connection = Self {
            settings,
            decoder: StreamDecoder::new(max_payload(settings.max_data)),
            state: RoutingState::Activating { until: now + CONTROL_TIME },
            entity: None,
            outgoing: VecDeque::new(),
            owes_alive: false,
            unacknowledged: VecDeque::new(),
            late: VecDeque::new(),
            events: VecDeque::new(),
            next_id: 0,
            last_traffic: now,
        };
        let ConnectionSettings { tester, activation_type, oem, .. } = settings;
        connection.queue(None, ActivationRequest { source: tester, activation_type, oem });
        connection
    }

    /// Returns whether diagnostic messages can be sent.
    pub fn is_active(&self) -> bool {
        self.state == RoutingState::Active
    }

    /// Returns whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.state == RoutingState::Closed
    }

    /// Returns the gateway's address, once routing is active.
    pub fn entity(&self) -> Option<LogicalAddress> {
        self.entity
    }

    /// Queues a diagnostic message, which ends with [`Event::Sent`] or [`Event::SendFailed`].
    ///
    /// # Errors
    ///
    /// Routing is not active, the message is empty or too long, too many messages are waiting, or many events have
    /// not been read.
    pub fn send(&mut self, target: LogicalAddress, data: &[u8]) -> Result<SendId, SendError> {
        let max = self.settings.max_data;
        if self.state != RoutingState::Active {
            return Err(SendError::NotActive);
        }
        if data.is_empty() || data.len() > max {
            return Err(SendError::Length { max });
        }
        if self.unacknowledged.len() >= MAX_UNACKNOWLEDGED || self.events.len() >= MAX_EVENTS {
            return Err(SendError::Full);
        }
        let id = SendId(self.next_id);
        self.next_id += 1;
        let head = data.get(..HEAD).unwrap_or(data).to_vec();
        self.unacknowledged.push_back(Unacknowledged { id, target, head, sent: None, is_reported: false });
        let source = self.settings.tester;
        self.queue(Some(id), DiagnosticMessage { source, target, data: data.to_vec() });
        Ok(id)
    }

    fn queue(&mut self, id: Option<SendId>, payload: impl Into<Payload>) {
        match Message::new(self.settings.version, payload).encode() {
            Ok(bytes) => self.outgoing.push_back(QueuedMessage { bytes, id }),
            Err(error) => tracing::warn!(%error, "a DoIP message was not sent"),
        }
    }

    /// Takes the bytes of one read; an empty slice is the end of the stream.
    ///
    /// Each message in the bytes causes at most two events. A caller that has not read the events passes no bytes.
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
                Ok(Some(Decoded::Message(message))) => self.handle_message(now, message),
                Ok(Some(Decoded::TooLarge { length, .. })) => {
                    let max = max_payload(self.settings.max_data);
                    return self.close(ConnectionError::TooLong { length, max });
                }
                Ok(None) => return,
                Err(error) => return self.close(error.into()),
            }
        }
    }

    /// Reports that the stream failed.
    pub(crate) fn handle_stream_error(&mut self, error: &std::io::Error) {
        if !self.is_closed() {
            self.close(ConnectionError::Stream(error.to_string()));
        }
    }

    fn close(&mut self, error: ConnectionError) {
        self.state = RoutingState::Closed;
        self.outgoing.clear();
        self.owes_alive = false;
        for Unacknowledged { id, is_reported, .. } in self.unacknowledged.drain(..) {
            if !is_reported {
                self.events.push_back(Event::SendFailed { id, failure: SendFailure::ConnectionLost });
            }
        }
        self.events.push_back(Event::Closed(error));
    }

    /// Sends an alive check response without a request, which ISO 13400-2 allows.
    ///
    /// The request may be among the bytes that the caller has not read yet.
    pub(crate) fn volunteer_alive(&mut self) {
        self.owes_alive |= self.is_active();
    }

    /// Reports that the stream was not read for `length`: acknowledgements that arrived meanwhile are not
    /// late.
    pub(crate) fn handle_pause(&mut self, now: Instant, length: Duration) {
        for at in self.unacknowledged.iter_mut().filter_map(|sent| sent.sent.as_mut()) {
            *at = (*at + length).min(now);
        }
    }

    /// Handles every timer that has expired.
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
                    Some(index) => self.expire(now, index),
                    None => return,
                },
            }
        }
    }

    /// Returns when [`Connection::handle_timeout`] is due, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match self.state {
            RoutingState::Closed => None,
            RoutingState::Activating { until } => Some((until, Timer::Activation)),
            RoutingState::Confirming { until } => Some((until, Timer::Confirmation)),
            RoutingState::Active => {
                let inactive = (self.last_traffic + GENERAL_INACTIVITY, Timer::GeneralInactivity);
                // messages are in the order of sending, so the first has the earliest time
                let unacknowledged = self.unacknowledged.front().and_then(|sent| sent.sent);
                let acknowledgement =
                    unacknowledged.map(|sent| (sent + ACKNOWLEDGE_TIME, Timer::Acknowledgement));
                acknowledgement.into_iter().chain([inactive]).min_by_key(|(at, _)| *at)
            }
        }
    }

    /// Returns the bytes of the next message. Call this only when the stream can accept them.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let bytes = if std::mem::take(&mut self.owes_alive) {
            let alive = Payload::AliveCheckResponse(self.settings.tester);
            Message::new(self.settings.version, alive).encode().ok()?
        } else {
            let QueuedMessage { bytes, id } = self.outgoing.pop_front()?;
            if let Some(sent) = self.unacknowledged.iter_mut().find(|sent| Some(sent.id) == id) {
                sent.sent = Some(now);
            }
            bytes
        };
        self.last_traffic = now;
        Some(bytes)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}

/// Returns the longest payload accepted, which contains addresses and codes besides the data.
fn max_payload(max_data: usize) -> u32 {
    u32::try_from(max_data).unwrap_or(u32::MAX).saturating_add(16)
}

#[cfg(test)]
mod tests;
