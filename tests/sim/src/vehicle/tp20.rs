//! An ECU behind TP2.0: its responder at a logical address, as a node of a CAN bus.

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

/// Time that an ECU keeps a channel on which it receives nothing; real ECUs keep it for about a second.
const SILENCE_LIMIT: Duration = Duration::from_millis(1100);
/// Limit for the tester to send its parameters.
const PARAMETERS_LIMIT: Duration = Duration::from_millis(1000);
/// A request that ends the session.
const DEFAULT_SESSION: [u8; 2] = [0x10, 0x81];

/// The set-up requests that an ECU accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SetupForm {
    /// The usual form: the tester chooses the identifier of the ECU's frames, and the ECU the identifier of
    /// the tester's.
    #[default]
    ChoosesReceive,
    /// The tester chooses both identifiers.
    WantsBoth,
    /// The ECU chooses both identifiers.
    ChoosesBoth,
}

/// An ECU behind TP2.0, and its deviations from the usual behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tp20EcuConfig {
    /// The ECU's function, such as `engine`.
    pub name: String,
    /// The ECU's logical address.
    pub ecu: LogicalAddress,
    /// The identifier on which the ECU receives while a channel is open.
    pub listens: CanId,
    /// The identifier with which the ECU sends, in forms in which it chooses that itself.
    pub sends: CanId,
    /// The channel parameters that the ECU requests from testers.
    pub parameters: Parameters,
    /// The set-up requests that the ECU accepts.
    pub form: SetupForm,
    /// Whether the ECU requests the tester's parameters before the tester sends them.
    pub asks_first: bool,
    /// The number of set-up requests that the ECU first refuses for lack of channels.
    pub busy: u8,
    /// The ECU also tests the channel after it has sent nothing for this long.
    pub test_after: Option<Duration>,
    /// Tolerance for the tester's times: none on a simulated clock, more where processes are scheduled.
    pub tolerance: Duration,
    /// The recorded answers of the real ECU.
    pub exchanges: Vec<Exchange>,
}

impl Tp20EcuConfig {
    /// An ECU with the usual behaviour.
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
            tolerance: Duration::ZERO,
            exchanges: vec![
                // sessions that testers of such ECUs request (ISO 14230-3 leaves the numbers to the
                // manufacturer)
                exchange(&[0x10, 0x89], &[0x50, 0x89]),
                exchange(&[0x10, 0x85], &[0x50, 0x85]),
                exchange(&[0x1A, 0x9B], identification(name).as_slice()),
            ],
        }
    }

    /// The ECUs of a Golf of the mid-2000s, at their known addresses and identifiers.
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

    /// The ECU's address in the form of ISO-TP ECUs: the identifiers of set-up requests and of their
    /// responses.
    pub fn address(&self) -> EcuAddress {
        EcuAddress { request: SETUP_ID, response: self.ecu.setup_response_id(), extended: None }
    }

    /// The ECU as a record of a vehicle.
    pub fn record(&self) -> EcuRecord {
        EcuRecord { name: self.name.clone(), address: self.address(), exchanges: self.exchanges.clone() }
    }
}

fn exchange(request: &[u8], response: &[u8]) -> Exchange {
    Exchange { request: request.to_vec(), response: response.to_vec() }
}

/// `5A 9B`, a part number and the ECU's name.
fn identification(name: &str) -> Vec<u8> {
    let mut text = format!("1K0907115L  0030{name:<30}").into_bytes();
    text.truncate(46);
    [vec![0x5A, 0x9B], text].concat()
}

/// A TP2.0 ECU on the bus.
pub(super) struct Tp20Node {
    config: Tp20EcuConfig,
    connection: Option<Connection>,
    /// Responses to set-up requests that wait for transmission.
    setup: VecDeque<CanFrame>,
    /// The connection's generation for each frame that waits for its outcome; `None` for a response to a
    /// set-up request.
    in_flight: VecDeque<Option<u32>>,
    generation: u32,
    responder: Box<dyn Responder>,
}

impl Tp20Node {
    /// Creates an ECU without an open channel.
    pub(crate) fn new(config: Tp20EcuConfig, responder: Box<dyn Responder>) -> Self {
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
            let tolerance = self.config.tolerance;
            let opening = match self.config.asks_first {
                true => Opening::Active,
                false => Opening::Passive(PARAMETERS_LIMIT + tolerance),
            };
            self.connection = Some(Connection::new(
                ConnectionConfig {
                    transmit: sends,
                    receive: listens,
                    parameters: self.config.parameters,
                    opening,
                    test_after: self.config.test_after,
                    silence_limit: Some(SILENCE_LIMIT + tolerance),
                    max_pdu: MAX_PDU,
                },
                now,
            ));
        }
    }

    /// Returns to the default session, because a session ends with its channel.
    fn leave_session(&mut self, now: Instant) {
        self.responder.handle_request(now, Target::Functional, &DEFAULT_SESSION);
    }

    /// Passes requests to the responder and responses to the connection until both are empty.
    fn settle(&mut self, now: Instant) {
        loop {
            let event = self.connection.as_mut().and_then(Connection::poll_event);
            match event {
                // the channel test keeps the session: S3 does not run between requests
                Some(Event::Opened | Event::ReceptionStarted) => self.responder.handle_reception_started(now),
                Some(Event::Received { pdu }) => {
                    self.responder.handle_request(now, Target::Physical, in_uds(&pdu));
                }
                Some(Event::ReceiveFailed { failure }) => {
                    tracing::debug!(ecu = %self.config.ecu, %failure, "abandoned an incomplete request");
                    self.responder.handle_reception_failed(now);
                }
                Some(Event::Sent { .. }) => self.response_done(now, true),
                Some(Event::SendFailed { reason }) => {
                    tracing::debug!(ecu = %self.config.ecu, %reason, "cannot send a response");
                    self.response_done(now, false);
                }
                Some(Event::Closed { reason }) => {
                    tracing::debug!(ecu = %self.config.ecu, %reason, "channel closed");
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

/// Translates TesterPresent of KWP2000 (ISO 14230-3) to UDS, which the responder expects.
fn in_uds(pdu: &[u8]) -> &[u8] {
    match pdu {
        [0x3E, 0x02] => &[0x3E, 0x80],
        [0x3E] | [0x3E, 0x01] => &[0x3E, 0x00],
        other => other,
    }
}
