//! The protocol of a DoIP entity, without I/O.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::codec::{DecodeError, Decoded, StreamDecoder, decode_datagram};
use connector_agent::protocol::doip::{
    DiagnosticAck, DiagnosticMessage, DiagnosticNack, DiagnosticNackCode, EntityStatus, HeaderNackCode,
    LogicalAddress, Message, Payload, PowerMode,
};

use super::config::EntityConfig;
use super::connection::{ConnectionId, RoutingState, TesterConnection};

/// How many outgoing messages may wait. Further messages are lost. The shell takes them after each call; the
/// limit bounds the memory.
const MAX_OUTPUTS: usize = 4096;
/// The length of the two addresses before a diagnostic message's data, in bytes.
const ADDRESSES: u32 = 4;
/// The shortest limit on payloads, in bytes: long enough for all messages other than diagnostic ones.
const MIN_PAYLOAD: u32 = 64;

/// A task for the sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram to one address.
    Datagram {
        /// The destination.
        to: SocketAddr,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Broadcast a datagram.
    Broadcast(Vec<u8>),
    /// Send bytes on a connection.
    Send {
        /// The connection.
        connection: ConnectionId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close a connection after all earlier bytes are sent. `handle_closed` must not follow.
    Close(ConnectionId),
}

/// An event for the owner of the ECUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Routing for a tester is active.
    Activated {
        /// The tester.
        tester: LogicalAddress,
    },
    /// Routing for a tester ended.
    Deactivated {
        /// The tester.
        tester: LogicalAddress,
    },
    /// A message for an ECU or a group of ECUs, which is already acknowledged.
    Diagnostic(DiagnosticMessage),
}

/// The timer behind a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types, reason = "as the standard spells them")]
pub enum Timer {
    /// A delayed message is due.
    Output,
    /// T_TCP_Alive_Check.
    T_TCP_Alive_Check,
    /// The confirmation in the vehicle is due.
    Confirmation,
    /// T_TCP_Initial_Inactivity or T_TCP_General_Inactivity.
    T_TCP_Inactivity,
}

/// A DoIP entity.
///
/// After every `handle_*` and every call that sends, take everything from `poll_output` and `poll_event`,
/// then call `poll_timeout` again.
#[derive(Debug)]
pub struct Entity {
    pub(super) config: EntityConfig,
    pub(super) connections: BTreeMap<ConnectionId, TesterConnection>,
    /// Outgoing messages, by due time and sequence number.
    outputs: BTreeMap<(Instant, u64), Output>,
    last_output: u64,
    pub(super) events: VecDeque<Event>,
}

impl Entity {
    /// An entity that starts and announces itself now.
    pub fn new(config: EntityConfig, now: Instant) -> Self {
        let (connections, outputs) = (BTreeMap::new(), BTreeMap::new());
        let mut entity = Self { config, connections, outputs, last_output: 0, events: VecDeque::new() };
        entity.announce(now);
        entity
    }

    /// The configuration.
    pub fn config(&self) -> &EntityConfig {
        &self.config
    }

    /// Changes the answer to the power mode request.
    pub fn set_power_mode(&mut self, mode: Option<PowerMode>) {
        self.config.power_mode = mode;
    }

    /// Changes the VIN, and announces the new one.
    pub fn set_vin(&mut self, now: Instant, vin: [u8; 17]) {
        self.config.announcement.vin = vin;
        self.announce(now);
    }

    fn announce(&mut self, now: Instant) {
        for count in 0..self.config.announcements {
            let at = now + self.config.timeouts.announce_interval * count;
            if let Some(bytes) = self.encode(self.config.announcement) {
                self.output_at(at, Output::Broadcast(bytes));
            }
        }
    }

    /// The discovery port received a datagram.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let answer: Payload = match decode_datagram(bytes) {
            // a recorded real gateway ignores messages that belong on a connection
            Err(DecodeError::InvalidPayloadLength { payload_type: 0x0005 | 0x8001..=0x8003, .. }) => return,
            Err(error) => Payload::HeaderNack(error.nack()),
            Ok(message) => match self.answer_datagram(message.payload) {
                Some(answer) => answer,
                None => return,
            },
        };
        if let Some(bytes) = self.encode(answer) {
            self.output(now, Output::Datagram { to: from, bytes });
        }
    }

    fn answer_datagram(&self, payload: Payload) -> Option<Payload> {
        let who = self.config.announcement;
        match payload {
            Payload::IdentificationRequest => Some(who.into()),
            Payload::IdentificationRequestByEid(eid) => (eid == who.eid).then_some(who.into()),
            Payload::IdentificationRequestByVin(vin) => (vin == who.vin).then_some(who.into()),
            Payload::EntityStatusRequest => Some(self.status().into()),
            Payload::PowerModeRequest => Some(match self.config.power_mode {
                Some(mode) => Payload::PowerModeResponse(mode),
                None => Payload::HeaderNack(HeaderNackCode::UnknownPayloadType),
            }),
            Payload::AliveCheckRequest | Payload::AliveCheckResponse(_) | Payload::Other { .. } => {
                Some(Payload::HeaderNack(HeaderNackCode::UnknownPayloadType))
            }
            // messages of other entities, and messages that belong on a connection
            _ => None,
        }
    }

    fn status(&self) -> EntityStatus {
        let active = self.connections.values().filter(|connection| connection.tester().is_some()).count();
        EntityStatus {
            node_type: self.config.node_type,
            max_sockets: self.config.max_sockets,
            open_sockets: u8::try_from(active).unwrap_or(u8::MAX),
            max_data_size: self.config.max_data_size,
        }
    }

    /// A tester has opened a connection.
    pub fn handle_connected(&mut self, now: Instant, id: ConnectionId, tls: bool) {
        // accept one connection above the limit, so that its tester receives the reason for the denial
        // (7.2.4)
        if self.connections.len() > usize::from(self.config.max_sockets) {
            tracing::debug!(?id, "too many connections");
            return self.output(now, Output::Close(id));
        }
        let longest = self.config.max_data_size.map_or(u32::MAX, |size| size.saturating_add(ADDRESSES));
        // read messages that are moderately too long, to refuse them with the specific answer
        let decoder = StreamDecoder::new(longest.saturating_mul(2).clamp(MIN_PAYLOAD, 16 << 20));
        let idle_at = now + self.config.timeouts.initial_inactivity;
        let connection =
            TesterConnection { decoder, tls, state: RoutingState::Initialized, idle_at, asked_alive: false };
        self.connections.insert(id, connection);
    }

    /// A connection received bytes.
    pub fn handle_bytes(&mut self, now: Instant, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.decoder.handle_bytes(bytes);
        if matches!(connection.state, RoutingState::Active { .. } | RoutingState::Unconfirmed { .. }) {
            connection.idle_at = now + self.config.timeouts.general_inactivity;
        }
        while let Some(connection) = self.connections.get_mut(&id) {
            match connection.decoder.poll_message() {
                Ok(None) => return,
                Ok(Some(Decoded::Message(message))) => self.handle_message(now, id, message.payload),
                Ok(Some(Decoded::TooLarge { payload_type, .. })) => {
                    // the check of the type precedes the check of the length (ISO 13400-2, figure 7)
                    let code = match payload_type {
                        0x0000 | 0x0005 | 0x0007 | 0x0008 | 0x8001..=0x8003 => {
                            HeaderNackCode::MessageTooLarge
                        }
                        _ => HeaderNackCode::UnknownPayloadType,
                    };
                    self.send(now, id, Payload::HeaderNack(code));
                }
                Err(error) => {
                    self.send(now, id, Payload::HeaderNack(error.nack()));
                    self.close(now, id);
                }
            }
        }
    }

    fn handle_message(&mut self, now: Instant, id: ConnectionId, payload: Payload) {
        match payload {
            Payload::ActivationRequest(request) => self.handle_activation(now, id, request),
            Payload::Diagnostic(message) => self.handle_diagnostic(now, id, message),
            Payload::AliveCheckResponse(tester) => self.handle_alive(now, id, tester),
            // not in the standard, but some testers send this
            Payload::AliveCheckRequest => {
                self.send(now, id, Payload::AliveCheckResponse(self.config.announcement.address));
            }
            Payload::HeaderNack(code) => tracing::debug!(?id, %code, "the tester refused a message"),
            Payload::DiagnosticAck(_) | Payload::DiagnosticNack(_) => {}
            _ => self.send(now, id, Payload::HeaderNack(HeaderNackCode::UnknownPayloadType)),
        }
    }

    /// The diagnostic message handler (ISO 13400-2, figure 12 and table 26).
    fn handle_diagnostic(&mut self, now: Instant, id: ConnectionId, message: DiagnosticMessage) {
        let active = match self.connections.get(&id).map(|connection| connection.state) {
            Some(RoutingState::Active { tester }) => Some(tester),
            _ => None,
        };
        let (source, target) = (message.target, message.source);
        let too_large = |limit| u32::try_from(message.data.len()).unwrap_or(u32::MAX) > limit;
        let refusal = if active != Some(message.source) {
            Some(DiagnosticNackCode::InvalidSourceAddress)
        } else if !self.config.knows(message.target) {
            Some(DiagnosticNackCode::UnknownTargetAddress)
        } else if self.config.max_data_size.is_some_and(too_large) {
            Some(DiagnosticNackCode::MessageTooLarge)
        } else {
            self.config.diagnostic_nack
        };
        if let Some(code) = refusal {
            self.send(now, id, DiagnosticNack { source, target, code, previous: Vec::new() });
            if code == DiagnosticNackCode::InvalidSourceAddress {
                self.close(now, id);
            }
            return;
        }
        if !self.config.no_acknowledgement {
            self.send(now, id, DiagnosticAck { source, target, code: 0, previous: Vec::new() });
        }
        self.events.push_back(Event::Diagnostic(message));
    }

    /// Sends an ECU's response to a tester. Returns `false` if the tester has disconnected.
    pub fn respond(&mut self, now: Instant, message: DiagnosticMessage) -> bool {
        let tester = message.target;
        let active = |connection: &TesterConnection| connection.state == RoutingState::Active { tester };
        let Some((id, connection)) = self.connections.iter_mut().find(|(_, connection)| active(connection))
        else {
            return false;
        };
        connection.idle_at = now + self.config.timeouts.general_inactivity;
        let id = *id;
        self.send(now, id, message);
        true
    }

    /// Refuses a message that was acknowledged before.
    pub fn refuse(
        &mut self,
        now: Instant,
        tester: LogicalAddress,
        target: LogicalAddress,
        code: DiagnosticNackCode,
    ) {
        let active = |connection: &TesterConnection| connection.state == RoutingState::Active { tester };
        let found = self.connections.iter().find(|(_, connection)| active(connection));
        if let Some(id) = found.map(|(id, _)| *id) {
            self.send(now, id, DiagnosticNack { source: target, target: tester, code, previous: Vec::new() });
        }
    }

    /// A tester closed its connection, or the connection failed.
    pub fn handle_closed(&mut self, now: Instant, id: ConnectionId) {
        self.forget(id);
        self.recheck(now);
    }

    /// Handles the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, id, timer)) = self.next_timer()
            && at <= now
        {
            match timer {
                Timer::T_TCP_Alive_Check => self.end_alive_check(now, id),
                Timer::Confirmation => self.confirm(now, id),
                Timer::T_TCP_Inactivity | Timer::Output => {
                    tracing::debug!(?id, "closing an inactive connection");
                    self.close(now, id);
                    self.recheck(now);
                }
            }
        }
    }

    /// The next output that is due.
    pub fn poll_output(&mut self, now: Instant) -> Option<Output> {
        let entry = self.outputs.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }

    /// The next event for the owner of the ECUs.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call `handle_timeout` and `poll_output`, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let output = self.outputs.keys().next().map(|(at, _)| (*at, Timer::Output));
        output.into_iter().chain(self.next_timer().map(|(at, _, timer)| (at, timer))).min()
    }

    fn next_timer(&self) -> Option<(Instant, ConnectionId, Timer)> {
        let timer = |(id, connection): (&ConnectionId, &TesterConnection)| match connection.state {
            RoutingState::Checking { until, .. } => (until, *id, Timer::T_TCP_Alive_Check),
            RoutingState::Unconfirmed { until, .. } => (until, *id, Timer::Confirmation),
            RoutingState::Initialized | RoutingState::Active { .. } => {
                (connection.idle_at, *id, Timer::T_TCP_Inactivity)
            }
        };
        self.connections.iter().map(timer).min_by_key(|(at, id, _)| (*at, *id))
    }

    pub(super) fn send(&mut self, now: Instant, connection: ConnectionId, payload: impl Into<Payload>) {
        if let Some(bytes) = self.encode(payload) {
            self.output(now, Output::Send { connection, bytes });
        }
    }

    pub(super) fn close(&mut self, now: Instant, id: ConnectionId) {
        self.forget(id);
        self.output(now, Output::Close(id));
    }

    fn forget(&mut self, id: ConnectionId) {
        let state = self.connections.remove(&id).map(|connection| connection.state);
        if let Some(RoutingState::Active { tester }) = state {
            self.events.push_back(Event::Deactivated { tester });
        }
    }

    fn output(&mut self, now: Instant, output: Output) {
        self.output_at(now + self.config.latency, output);
    }

    fn output_at(&mut self, at: Instant, output: Output) {
        if self.outputs.len() < MAX_OUTPUTS || matches!(output, Output::Close(_)) {
            self.last_output += 1;
            self.outputs.insert((at, self.last_output), output);
        } else {
            tracing::warn!("too many outgoing messages; one is lost");
        }
    }

    fn encode(&self, payload: impl Into<Payload>) -> Option<Vec<u8>> {
        let encoded = Message::new(self.config.version, payload).encode();
        encoded.inspect_err(|error| tracing::warn!(%error, "a message cannot be sent")).ok()
    }
}

impl Entity {
    /// How long the entity waits for the answer to an alive check.
    pub(super) fn alive_check(&self) -> Duration {
        self.config.timeouts.alive_check
    }
}
