//! An ECU behind TP2.0: its answering machine at a logical address, as a node of a bus.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::SendFailure;
use connector_agent::protocol::tp20::{
    CloseReason, Connection, ConnectionConfig, Event, LogicalAddress, MAX_PDU, Opening, Parameters, Refusal,
    SETUP_ID, SetupMessage, SetupOpcode, TimeByte,
};
use connector_hal::can::{CanFilter, CanFrame, CanId};

use super::catalogue::{EcuAddress, EcuRecord, Exchange};
use super::ecu::{EcuStatus, Responder, Target};
use super::transport::CanNode;

/// How long an ECU keeps a channel on which it hears nothing (the field's figure is about a second).
const SILENCE_LIMIT: Duration = Duration::from_millis(1100);
/// How long the tester may take to tell its parameters.
const PARAMETERS_LIMIT: Duration = Duration::from_millis(1000);
/// Leaves the session without an answer.
const DEFAULT_SESSION: [u8; 2] = [0x10, 0x81];

/// Which set-up requests an ECU understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetupForm {
    /// The usual: the tester names the identifier to send with, the ECU chooses the one to listen to.
    #[default]
    ChoosesReceive,
    /// The tester names both.
    WantsBoth,
    /// The ECU chooses both.
    ChoosesBoth,
}

/// An ECU behind TP2.0, and how it differs from the usual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tp20EcuConfig {
    /// What it does: `engine`.
    pub name: String,
    /// Where it is.
    pub ecu: LogicalAddress,
    /// The identifier that it listens to once a channel is open.
    pub listens: CanId,
    /// The identifier that it sends with where it chooses that itself.
    pub sends: CanId,
    /// What it tells testers to keep to.
    pub parameters: Parameters,
    /// Which set-up requests it understands.
    pub form: SetupForm,
    /// It asks for the tester's parameters before it is told them.
    pub asks_first: bool,
    /// How many set-up requests it refuses for lack of channels first.
    pub busy: u8,
    /// It tests the channel too, after so long a silence of its own.
    pub test_after: Option<Duration>,
    /// What the real ECU answered.
    pub exchanges: Vec<Exchange>,
}

impl Tp20EcuConfig {
    /// An ECU that does what most do.
    pub fn new(name: &str, ecu: LogicalAddress, listens: u32) -> Self {
        Self {
            name: name.to_owned(),
            ecu,
            listens: CanId::standard_truncated(listens),
            sends: CanId::standard_truncated(0x380 + u32::from(ecu.get() & 0x1F)),
            parameters: Parameters { t3: TimeByte(0x4A), ..Parameters::default() },
            form: SetupForm::default(),
            asks_first: false,
            busy: 0,
            test_after: None,
            exchanges: vec![
                // the sessions that testers of such ECUs ask for (ISO 14230-3 leaves the number to the maker)
                exchange(&[0x10, 0x89], &[0x50, 0x89]),
                exchange(&[0x10, 0x85], &[0x50, 0x85]),
                exchange(&[0x1A, 0x9B], identification(name).as_slice()),
            ],
        }
    }

    /// The ECUs of a mid-2000s Golf, at the addresses and identifiers known of such.
    pub fn golf() -> Vec<Self> {
        let ecu = |name, address, listens| {
            LogicalAddress::try_from(address).map(|address| Self::new(name, address, listens))
        };
        let ecus = [
            ecu("engine", 0x01, 0x740),
            ecu("transmission", 0x02, 0x760),
            ecu("abs", 0x03, 0x4A3),
            ecu("steering", 0x09, 0x7A8),
            ecu("gateway", 0x1F, 0x32E),
        ];
        ecus.into_iter().flatten().collect()
    }

    /// Where it is, as other ECUs' places are told: set-up requests go to the one identifier, and come from the other.
    pub fn address(&self) -> EcuAddress {
        EcuAddress { request: SETUP_ID, response: self.ecu.setup_response_id(), extended: None }
    }

    /// The same as a record of a vehicle.
    pub fn record(&self) -> EcuRecord {
        EcuRecord { name: self.name.clone(), address: self.address(), exchanges: self.exchanges.clone() }
    }
}

fn exchange(request: &[u8], response: &[u8]) -> Exchange {
    Exchange { request: request.to_vec(), response: response.to_vec() }
}

/// `5A 9B`, a part number, and what the ECU is called.
fn identification(name: &str) -> Vec<u8> {
    let mut text = format!("1K0907115L  0030{name:<30}").into_bytes();
    text.truncate(46);
    [vec![0x5A, 0x9B], text].concat()
}

/// One such ECU on the bus.
pub struct Tp20Node {
    config: Tp20EcuConfig,
    connection: Option<Connection>,
    /// Answers to set-up requests that have not left.
    setup: VecDeque<CanFrame>,
    /// Of which connection each frame without outcome is; `None`: an answer to a set-up request.
    in_flight: VecDeque<Option<u32>>,
    generation: u32,
    responder: Box<dyn Responder>,
}

impl Tp20Node {
    /// An ECU without a channel.
    pub fn new(config: Tp20EcuConfig, responder: Box<dyn Responder>) -> Self {
        Self {
            config,
            connection: None,
            setup: VecDeque::new(),
            in_flight: VecDeque::new(),
            generation: 0,
            responder,
        }
    }

    fn handle_setup(&mut self, now: Instant, frame: &CanFrame) {
        let Some(request) = SetupMessage::decode(frame.data()) else { return };
        if request.opcode != SetupOpcode::Request || request.destination != self.config.ecu.get() {
            return;
        }
        let (sends, listens) = match (self.config.form, request.transmit, request.receive) {
            (SetupForm::ChoosesReceive, Some(sends), None) => (sends, self.config.listens),
            (SetupForm::WantsBoth, Some(sends), Some(_)) => (sends, self.config.listens),
            (SetupForm::ChoosesBoth, None, None) => (self.config.sends, self.config.listens),
            _ => return,
        };
        let is_open = self.connection.as_ref().is_some_and(|connection| !connection.is_done());
        let refusal = if request.application_type != 0x01 {
            Some(Refusal::ApplicationType)
        } else if self.config.busy > 0 {
            self.config.busy -= 1;
            Some(Refusal::Resources)
        } else {
            let elsewhere = |connection: &Connection| connection.config().transmit != sends;
            (is_open && self.connection.as_ref().is_some_and(elsewhere)).then_some(Refusal::Resources)
        };
        let answer = SetupMessage {
            destination: 0,
            opcode: refusal.map_or(SetupOpcode::Positive, SetupOpcode::Negative),
            receive: refusal.is_none().then_some(sends),
            transmit: refusal.is_none().then_some(listens),
            application_type: request.application_type,
        };
        self.setup.extend(answer.encode(self.config.ecu.setup_response_id()));
        if refusal.is_none() {
            self.leave_session(now);
            self.generation = self.generation.wrapping_add(1);
            let opening =
                if self.config.asks_first { Opening::Active } else { Opening::Passive(PARAMETERS_LIMIT) };
            self.connection = Some(Connection::new(
                ConnectionConfig {
                    transmit: sends,
                    receive: listens,
                    parameters: self.config.parameters,
                    opening,
                    test_after: self.config.test_after,
                    silence_limit: Some(SILENCE_LIMIT),
                    max_pdu: MAX_PDU,
                },
                now,
            ));
        }
    }

    /// The session lasts as long as the channel.
    fn leave_session(&mut self, now: Instant) {
        self.responder.handle_request(now, Target::Functional, &DEFAULT_SESSION);
    }

    /// Carries requests to the responder and its responses to the connection until neither has more.
    fn settle(&mut self, now: Instant) {
        loop {
            let event = self.connection.as_mut().and_then(Connection::poll_event);
            match event {
                // the channel test keeps the session: S3 stands still between requests
                Some(Event::Opened | Event::ReceptionStarted) => self.responder.handle_reception_started(now),
                Some(Event::Received { pdu }) => {
                    self.responder.handle_request(now, Target::Physical, in_uds(&pdu));
                }
                Some(Event::ReceiveFailed { failure }) => {
                    tracing::debug!(ecu = %self.config.ecu, %failure, "a request was given up");
                    self.responder.handle_reception_failed(now);
                }
                Some(Event::Sent { .. }) => self.response_done(now, true),
                Some(Event::SendFailed { reason }) => {
                    tracing::debug!(ecu = %self.config.ecu, %reason, "a response was not sent");
                    self.response_done(now, false);
                }
                Some(Event::Closed { reason }) => {
                    tracing::debug!(ecu = %self.config.ecu, %reason, "a channel is over");
                    self.leave_session(now);
                }
                None => {
                    let is_free = self.connection.as_ref().is_none_or(|connection| !connection.is_sending());
                    let Some(response) = is_free.then(|| self.responder.poll_response()).flatten() else {
                        return;
                    };
                    let sent = self.connection.as_mut().is_some_and(|connection| {
                        connection.is_open() && connection.send(now, &response).is_ok()
                    });
                    if !sent {
                        self.response_done(now, false);
                    }
                }
            }
        }
    }

    fn response_done(&mut self, now: Instant, sent: bool) {
        self.responder.handle_response_done(now, sent);
        if self.connection.as_ref().is_some_and(Connection::is_open) {
            self.responder.handle_reception_started(now);
        }
    }

    fn current(&mut self, generation: Option<u32>) -> Option<&mut Connection> {
        self.connection.as_mut().filter(|_| generation == Some(self.generation))
    }
}

impl CanNode for Tp20Node {
    fn address(&self) -> EcuAddress {
        self.config.address()
    }

    fn filters(&self) -> Vec<CanFilter> {
        [SETUP_ID, self.config.listens].map(CanFilter::exactly).to_vec()
    }

    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if frame.id() == SETUP_ID && frame.is_data() {
            self.handle_setup(now, frame);
        } else if let Some(connection) = &mut self.connection {
            connection.handle_frame(now, frame);
        }
        self.settle(now);
    }

    fn handle_transmitted(&mut self, now: Instant) {
        let generation = self.in_flight.pop_front().flatten();
        if let Some(connection) = self.current(generation) {
            connection.handle_transmitted(now);
        }
        self.settle(now);
    }

    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        let reason = match failure {
            SendFailure::BusOff => CloseReason::BusOff,
            _ => CloseReason::NotAcknowledged,
        };
        let generation = match reason {
            CloseReason::BusOff => {
                self.in_flight.clear();
                Some(self.generation)
            }
            _ => self.in_flight.pop_front().flatten(),
        };
        if let Some(connection) = self.current(generation) {
            connection.handle_transmit_failed(now, reason);
        }
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(connection) = &mut self.connection
            && connection.poll_timeout().is_some_and(|(at, _)| at <= now)
        {
            connection.handle_timeout(now);
        }
        if self.responder.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.responder.handle_timeout(now);
        }
        self.settle(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if let Some(frame) = self.setup.pop_front() {
            self.in_flight.push_back(None);
            return Some(frame);
        }
        let frame = self.connection.as_mut()?.poll_transmit(now)?;
        self.in_flight.push_back(Some(self.generation));
        Some(frame)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let connection = self.connection.as_ref().and_then(Connection::poll_timeout).map(|(at, _)| at);
        connection.into_iter().chain(self.responder.poll_timeout().map(|(at, _)| at)).min()
    }

    fn poll_status(&mut self) -> Option<EcuStatus> {
        self.responder.poll_status()
    }
}

/// TesterPresent as KWP2000 has it (ISO 14230-3), for an answering machine that knows it by UDS.
fn in_uds(pdu: &[u8]) -> &[u8] {
    match pdu {
        [0x3E, 0x02] => &[0x3E, 0x80],
        [0x3E] | [0x3E, 0x01] => &[0x3E, 0x00],
        other => other,
    }
}
