//! Channels that carry PDUs, over any transport: chained PDUs, confirmations, and TesterPresent beside the vehicle.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::chain::{Accepted, Broken, Chain};
use super::output::{BATTERY_SPARED, Output, describe};
use crate::protocol::uds;
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};

/// How long nothing was sent before TesterPresent is.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(2);

/// What carries whole PDUs below a channel; the contract is that of the `isotp` module.
pub trait PduTransport: Send + std::fmt::Debug {
    /// Begins to send a PDU; nothing else is being sent.
    ///
    /// # Errors
    ///
    /// This transport cannot send such a PDU, or not now.
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail>;

    /// Forgets the PDU that is being sent, as far as it has not left.
    fn abort_send(&mut self);

    /// What happened, in order.
    fn poll_event(&mut self) -> Option<TransportEvent>;

    /// A deadline of [`PduTransport::poll_timeout`] has passed.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`PduTransport::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The bus is gone: what is being sent fails, by an event.
    fn handle_bus_off(&mut self, now: Instant);

    /// Whether the transport may keep a connection of its own alive while nobody speaks.
    fn set_keep_alive(&mut self, _now: Instant, _enabled: bool) {}

    /// Words for the last failure to send, where the transport knows better than its detail says.
    fn failure_text(&self) -> Option<&'static str> {
        None
    }

    /// Whether a PDU is coming in, which a TesterPresent in between might spoil.
    fn is_receiving(&self) -> bool {
        false
    }

    /// What keeps the ECU's session alive without an answer (ISO 14229-1, 10.7).
    fn tester_present(&self) -> &'static [u8] {
        &uds::TESTER_PRESENT_SUPPRESSED
    }

    /// What asks the ECU to go back to its default session (ISO 14229-1, 10.2).
    fn default_session(&self) -> &'static [u8] {
        &[uds::SESSION_CONTROL, uds::DEFAULT_SESSION]
    }
}

/// What a transport reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// A PDU began to come in; P2 counts to here.
    ReceptionStarted,
    /// A PDU came in.
    Received {
        /// Whose, as the relay protocol writes it.
        address: u32,
        /// Its bytes.
        pdu: Vec<u8>,
    },
    /// A PDU did not come in whole.
    ReceiveFailed {
        /// The detail of the event `receive-failed`.
        detail: u16,
        /// Words for it.
        text: &'static str,
    },
    /// The PDU is on the bus.
    Sent {
        /// From its start to its end.
        elapsed: Duration,
    },
    /// The PDU was not sent, or not whole.
    SendFailed {
        /// Why.
        detail: SendFailedDetail,
    },
    /// What keeps the transport's own connection to the ECU alive failed; the next PDU sets it up anew.
    ConnectionLost {
        /// Why, as for a PDU.
        detail: SendFailedDetail,
        /// Words for it.
        text: &'static str,
    },
}

/// What an operator chose for a channel.
#[derive(Debug, Clone, Copy)]
pub struct PduChannelSettings {
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

/// A channel that carries PDUs.
#[derive(Debug)]
pub struct PduChannel<T: PduTransport + ?Sized> {
    chain: Chain,
    sending: Option<Sending>,
    keep_alive_at: Option<Instant>,
    /// Somebody who cares for the battery has stopped it.
    keep_alive_stopped: bool,
    /// The ECU was asked to leave its default session.
    left_default_session: bool,
    outputs: VecDeque<Output>,
    transport: Box<T>,
}

impl<T: PduTransport + ?Sized> PduChannel<T> {
    /// A channel over this transport.
    pub fn new(transport: Box<T>, settings: PduChannelSettings, now: Instant) -> Self {
        Self {
            chain: Chain::new(settings.p2),
            sending: None,
            keep_alive_at: settings.keep_alive.then(|| now + KEEP_ALIVE_AFTER),
            keep_alive_stopped: false,
            left_default_session: false,
            outputs: VecDeque::new(),
            transport,
        }
    }

    /// The same channel over another transport, before the first PDU.
    pub(super) fn with_transport<U: PduTransport + ?Sized>(
        self,
        transport: Box<U>,
        now: Instant,
    ) -> PduChannel<U> {
        let Self { chain, keep_alive_at, keep_alive_stopped, outputs, .. } = self;
        let keep_alive_at = keep_alive_at.map(|_| now + KEEP_ALIVE_AFTER);
        let (sending, left_default_session) = (None, false);
        PduChannel {
            chain,
            sending,
            keep_alive_at,
            keep_alive_stopped,
            left_default_session,
            outputs,
            transport,
        }
    }

    /// What carries the PDUs; after anything that may have made it report, call [`PduChannel::handle_events`].
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The same, to be changed.
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The operator sent something that this channel does not carry.
    pub fn refuse(&mut self) {
        self.fail(SendFailedDetail::RefusedByPolicy);
    }

    fn fail(&mut self, detail: SendFailedDetail) {
        self.outputs.push_back(Output::send_failed(detail));
    }

    /// A PDU of the operator.
    pub fn handle_pdu(&mut self, now: Instant, flags: PduFlags, data: &[u8]) {
        match self.chain.push(flags, data) {
            Accepted::Queued => self.start_next(now),
            Accepted::Full => self.fail(SendFailedDetail::QueueFull),
            Accepted::Broken(broken) => self.report(Some(broken)),
        }
    }

    /// A PDU of the operator that was refused before it came here: what is chained to it must not be sent.
    pub fn handle_refused_pdu(&mut self, flags: PduFlags) {
        self.chain.handle_refused(flags);
    }

    /// Whether TesterPresent may be sent; the operator is told, once, when it may no longer.
    pub fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        let was_enabled = !std::mem::replace(&mut self.keep_alive_stopped, !enabled);
        if was_enabled != enabled {
            self.transport.set_keep_alive(now, enabled);
            self.handle_events(now);
        }
        if self.keep_alive_at.is_none() || was_enabled == enabled {
            return;
        }
        if enabled {
            self.postpone_keep_alive(now);
        } else {
            self.outputs.push_back(Output::event(
                EventCode::KeepAliveFailed,
                SendFailedDetail::RefusedByPolicy as u16,
                0,
                BATTERY_SPARED,
            ));
        }
    }

    /// Whether a PDU is on its way to the bus.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether a request is under way, its response, or anything that waits for its turn.
    pub fn is_busy(&self) -> bool {
        self.is_sending() || self.transport.is_receiving() || !self.chain.is_idle()
    }

    /// Asks the ECU to go back to its default session if the operator had it leave that; for an orderly end.
    pub fn return_to_default_session(&mut self, now: Instant) {
        self.chain.drain();
        self.keep_alive_at = None;
        if std::mem::take(&mut self.left_default_session) {
            self.transport.abort_send();
            self.sending = None;
            let request = self.transport.default_session();
            if self.transport.send(now, request).is_ok() {
                self.sending = Some(Sending::KeepAlive);
            }
        }
    }

    fn start_next(&mut self, now: Instant) {
        while self.sending.is_none() {
            match self.chain.pop() {
                Ok(Some(queued)) => match self.transport.send(now, &queued.data) {
                    Ok(()) => {
                        self.note_session(&queued.data);
                        self.sending = Some(Sending::Operator { confirm: queued.flags.confirm });
                        self.postpone_keep_alive(now);
                    }
                    Err(detail) => {
                        self.fail(detail);
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
        if let [uds::SESSION_CONTROL, session, ..] = pdu {
            self.left_default_session = session & !uds::SUPPRESS_POSITIVE_RESPONSE != uds::DEFAULT_SESSION;
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
            self.outputs.push_back(Output::event(EventCode::ChainBroken, detail, thrown_away, text));
        }
    }

    /// The bus is gone: whatever waits is thrown away.
    pub fn handle_bus_off(&mut self, now: Instant) {
        // the transport tells of what is under way, the queue's PDUs get an event each
        self.transport.handle_bus_off(now);
        let waiting = self.chain.drain();
        self.handle_events(now);
        (0..waiting).for_each(|_| self.fail(SendFailedDetail::BusOff));
    }

    /// A deadline of [`PduChannel::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.transport.handle_timeout(now);
        self.handle_events(now);
        let broken = self.chain.handle_timeout(now);
        self.report(broken);
        self.start_next(now);
        if self.keep_alive_due().is_some_and(|at| at <= now) {
            self.postpone_keep_alive(now);
            let request = self.transport.tester_present();
            if self.transport.send(now, request).is_ok() {
                self.sending = Some(Sending::KeepAlive);
            }
        }
    }

    /// Takes what the transport reports; to be called whenever something came in below.
    pub fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::ReceptionStarted => self.chain.handle_reception_started(),
                TransportEvent::Received { address, pdu } => {
                    let broken = self.chain.handle_response(now, &pdu);
                    self.outputs.push_back(Output::Pdu { address, data: pdu });
                    self.report(broken);
                }
                TransportEvent::ReceiveFailed { detail, text } => {
                    self.chain.handle_reception_failed();
                    let code = EventCode::ReceiveFailed;
                    self.outputs.push_back(Output::event(code, detail, 0, text));
                }
                TransportEvent::Sent { elapsed } => self.handle_sent(now, elapsed),
                TransportEvent::SendFailed { detail } => self.handle_send_failed(detail),
                TransportEvent::ConnectionLost { detail, text } => {
                    let code = EventCode::KeepAliveFailed;
                    let detail = detail as u16;
                    self.outputs.push_back(Output::event(code, detail, 0, text));
                }
            }
        }
        self.start_next(now);
    }

    fn handle_sent(&mut self, now: Instant, elapsed: Duration) {
        self.postpone_keep_alive(now);
        if let Some(Sending::Operator { confirm }) = self.sending.take() {
            if confirm {
                let value = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
                self.outputs.push_back(Output::event(EventCode::Sent, 0, value, ""));
            }
            self.chain.handle_sent(now);
        }
    }

    fn handle_send_failed(&mut self, detail: SendFailedDetail) {
        match self.sending.take() {
            Some(Sending::KeepAlive) => self.outputs.push_back(Output::event(
                EventCode::KeepAliveFailed,
                detail as u16,
                0,
                self.transport.failure_text().unwrap_or(describe(detail)),
            )),
            Some(Sending::Operator { .. }) => {
                let text = self.transport.failure_text().unwrap_or(describe(detail));
                let (code, detail) = (EventCode::SendFailed, detail as u16);
                self.outputs.push_back(Output::event(code, detail, 0, text));
                let broken = self.chain.handle_send_failed();
                self.report(broken);
            }
            None => {}
        }
    }

    /// The next thing to tell the operator.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`PduChannel::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.transport.poll_timeout(), self.chain.poll_timeout(), self.keep_alive_due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// When TesterPresent is due; not while the transport is busy, since half-duplex ECUs would give up a transfer.
    fn keep_alive_due(&self) -> Option<Instant> {
        self.keep_alive_at
            .filter(|_| !self.keep_alive_stopped && self.sending.is_none() && !self.transport.is_receiving())
    }
}
