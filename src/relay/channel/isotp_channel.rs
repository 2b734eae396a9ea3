//! ISO-TP channels: PDUs both ways, chained PDUs, and TesterPresent beside the vehicle.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use super::chain::{Accepted, Broken, Chain};
use super::{Output, describe, detail_of};
use crate::isotp::{Endpoint, Event, FunctionalEndpoint, ReceiveFailure, SendError, SendFailure};
use crate::relay::codec::{EventCode, PduFlags, SendFailedDetail};

/// TesterPresent without response (ISO 14229-1, 10.7).
const TESTER_PRESENT: [u8; 2] = [0x3E, 0x80];
/// How long nothing was sent before TesterPresent is.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(2);
/// DiagnosticSessionControl (ISO 14229-1, 10.2).
const SESSION_CONTROL: u8 = 0x10;
const DEFAULT_SESSION: u8 = 0x01;
const SUPPRESS_RESPONSE: u8 = 0x80;

/// The transport below a channel.
#[derive(Debug)]
pub enum Transport {
    /// One ECU.
    Physical(Endpoint),
    /// Several ECUs at once.
    Functional(FunctionalEndpoint),
}

/// Calls the same method of either transport.
macro_rules! transport {
    ($self:expr, $endpoint:ident => $call:expr) => {
        match &mut $self.transport {
            Transport::Physical($endpoint) => $call,
            Transport::Functional($endpoint) => $call,
        }
    };
}

/// What an operator chose for a channel.
#[derive(Debug, Clone, Copy)]
pub struct IsotpChannelSettings {
    /// Whether the channel sends TesterPresent by itself.
    pub keep_alive: bool,
    /// How long a chained PDU waits for the response to the one before it (P2).
    pub p2: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Operator { confirm: bool },
    KeepAlive,
}

/// An ISO-TP channel.
#[derive(Debug)]
pub struct IsotpChannel {
    transport: Transport,
    chain: Chain,
    sending: Option<Sending>,
    keep_alive_at: Option<Instant>,
    /// The ECU was asked to leave its default session.
    left_default_session: bool,
    outputs: VecDeque<Output>,
}

impl IsotpChannel {
    /// A channel over this transport.
    pub fn new(transport: Transport, settings: IsotpChannelSettings, now: Instant) -> Self {
        Self {
            transport,
            chain: Chain::new(settings.p2),
            sending: None,
            keep_alive_at: settings.keep_alive.then(|| now + KEEP_ALIVE_AFTER),
            left_default_session: false,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn refuse(&mut self) {
        self.fail(SendFailedDetail::RefusedByPolicy);
    }

    fn fail(&mut self, detail: SendFailedDetail) {
        self.outputs.push_back(Output::send_failed(detail));
    }

    pub(super) fn handle_pdu(&mut self, now: Instant, flags: PduFlags, data: &[u8]) {
        match self.chain.push(flags, data) {
            Accepted::Queued => self.start_next(now),
            Accepted::Full => self.fail(SendFailedDetail::QueueFull),
            Accepted::Broken(broken) => self.report(Some(broken)),
        }
    }

    pub(super) fn handle_refused_pdu(&mut self, flags: PduFlags) {
        self.chain.handle_refused(flags);
    }

    pub(super) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    pub(super) fn is_receiving_from(&self, request: CanId) -> bool {
        match &self.transport {
            Transport::Physical(endpoint) => {
                endpoint.is_receiving() && endpoint.config().addressing.transmit_id() == request
            }
            Transport::Functional(_) => false,
        }
    }

    pub(super) fn is_functional_flow_control(&self, frame: &CanFrame) -> bool {
        matches!(&self.transport, Transport::Functional(endpoint) if endpoint.config().transmit != frame.id())
    }

    /// Asks the ECU to go back to its default session if the operator had it leave that; for an orderly end.
    pub fn return_to_default_session(&mut self, now: Instant) {
        self.chain.drain();
        self.keep_alive_at = None;
        if std::mem::take(&mut self.left_default_session) {
            transport!(self, endpoint => endpoint.abort_send());
            self.sending = None;
            let request = [SESSION_CONTROL, DEFAULT_SESSION];
            if transport!(self, endpoint => endpoint.send(now, &request)).is_ok() {
                self.sending = Some(Sending::KeepAlive);
            }
        }
    }

    fn start_next(&mut self, now: Instant) {
        while self.sending.is_none() {
            match self.chain.pop() {
                Ok(Some(queued)) => match transport!(self, endpoint => endpoint.send(now, &queued.data)) {
                    Ok(()) => {
                        self.note_session(&queued.data);
                        self.sending = Some(Sending::Operator { confirm: queued.flags.confirm });
                        self.postpone_keep_alive(now);
                    }
                    Err(error) => {
                        self.fail(match error {
                            SendError::Busy => SendFailedDetail::QueueFull,
                            _ => SendFailedDetail::RefusedByPolicy,
                        });
                        let broken = self.chain.handle_send_failed();
                        self.report(broken);
                    }
                },
                Ok(None) => return,
                Err(broken) => self.report(Some(broken)),
            }
        }
    }

    fn note_session(&mut self, pdu: &[u8]) {
        if let [SESSION_CONTROL, session, ..] = pdu {
            self.left_default_session = session & !SUPPRESS_RESPONSE != DEFAULT_SESSION;
        }
    }

    fn postpone_keep_alive(&mut self, now: Instant) {
        if let Some(at) = &mut self.keep_alive_at {
            *at = now + KEEP_ALIVE_AFTER;
        }
    }

    fn report(&mut self, broken: Option<Broken>) {
        if let Some(Broken { thrown_away, code }) = broken {
            let text = match code {
                0 => "no positive response to the PDU before",
                _ => "a negative response to the PDU before",
            };
            let detail = u16::from(code);
            self.outputs.push_back(Output::Event {
                code: EventCode::ChainBroken,
                detail,
                value: thrown_away,
                text,
            });
        }
    }

    pub(super) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if transport!(self, endpoint => endpoint.handle_frame(now, frame)) {
            self.handle_events(now);
        }
    }

    pub(super) fn handle_transmitted(&mut self, now: Instant) {
        transport!(self, endpoint => endpoint.handle_transmitted(now));
        self.handle_events(now);
    }

    pub(super) fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        transport!(self, endpoint => endpoint.handle_transmit_failed(now, failure));
        self.handle_events(now);
    }

    pub(super) fn handle_bus_off(&mut self, now: Instant) {
        // the transport tells of what is under way, the queue's PDUs get an event each
        transport!(self, endpoint => endpoint.handle_transmit_failed(now, SendFailure::BusOff));
        let waiting = self.chain.drain();
        self.handle_events(now);
        (0..waiting).for_each(|_| self.fail(SendFailedDetail::BusOff));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        transport!(self, endpoint => endpoint.handle_timeout(now));
        self.handle_events(now);
        let broken = self.chain.handle_timeout(now);
        self.report(broken);
        self.start_next(now);
        if self.keep_alive_due().is_some_and(|at| at <= now) {
            self.postpone_keep_alive(now);
            if transport!(self, endpoint => endpoint.send(now, &TESTER_PRESENT)).is_ok() {
                self.sending = Some(Sending::KeepAlive);
            }
        }
    }

    fn handle_events(&mut self, now: Instant) {
        while let Some(event) = transport!(self, endpoint => endpoint.poll_event()) {
            match event {
                Event::ReceptionStarted { .. } => self.chain.handle_reception_started(),
                Event::Received { address, pdu } => {
                    let broken = self.chain.handle_response(now, &pdu);
                    self.outputs.push_back(Output::Pdu { address, data: pdu });
                    self.report(broken);
                }
                Event::ReceiveFailed { failure, .. } => {
                    self.chain.handle_reception_failed();
                    self.outputs.push_back(receive_failed(failure));
                }
                Event::Sent { elapsed } => self.handle_sent(now, elapsed),
                Event::SendFailed { failure } => self.handle_send_failed(failure),
            }
        }
        self.start_next(now);
    }

    fn handle_sent(&mut self, now: Instant, elapsed: Duration) {
        self.postpone_keep_alive(now);
        if let Some(Sending::Operator { confirm }) = self.sending.take() {
            if confirm {
                let value = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
                self.outputs.push_back(Output::Event { code: EventCode::Sent, detail: 0, value, text: "" });
            }
            self.chain.handle_sent(now);
        }
    }

    fn handle_send_failed(&mut self, failure: SendFailure) {
        let detail = detail_of(failure);
        match self.sending.take() {
            Some(Sending::KeepAlive) => self.outputs.push_back(Output::Event {
                code: EventCode::KeepAliveFailed,
                detail: detail as u16,
                value: 0,
                text: describe(detail),
            }),
            Some(Sending::Operator { .. }) => {
                self.fail(detail);
                let broken = self.chain.handle_send_failed();
                self.report(broken);
            }
            None => {}
        }
    }

    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        transport!(self, endpoint => endpoint.poll_transmit(now))
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let transport = match &self.transport {
            Transport::Physical(endpoint) => endpoint.poll_timeout(),
            Transport::Functional(endpoint) => endpoint.poll_timeout(),
        };
        [transport.map(|(at, _)| at), self.chain.poll_timeout(), self.keep_alive_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When TesterPresent is due; not while the transport is busy, since half-duplex ECUs would give up a transfer.
    fn keep_alive_due(&self) -> Option<Instant> {
        let is_receiving = match &self.transport {
            Transport::Physical(endpoint) => endpoint.is_receiving(),
            Transport::Functional(_) => false,
        };
        self.keep_alive_at.filter(|_| self.sending.is_none() && !is_receiving)
    }
}

fn receive_failed(failure: ReceiveFailure) -> Output {
    let (detail, text) = match failure {
        ReceiveFailure::ConsecutiveFrameTimeout => (1, "the next consecutive frame did not come (N_Cr)"),
        ReceiveFailure::WrongSequenceNumber => (2, "a consecutive frame was missing"),
        ReceiveFailure::TooLong => (3, "the PDU is longer than allowed"),
        ReceiveFailure::NotAcknowledged => (1, "the flow control was not acknowledged on the bus (N_Ar)"),
        ReceiveFailure::Interrupted => (2, "the ECU began another PDU in the middle of one"),
    };
    Output::Event { code: EventCode::ReceiveFailed, detail, value: 0, text }
}
