//! Channels that carry PDUs over any transport: chained PDUs, confirmations, and TesterPresent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::chain::{Accepted, Broken, Chain};
use super::output::{BATTERY_SPARED, Output, describe};
use crate::protocol::uds;
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};

/// The time without a PDU after which TesterPresent is sent.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(2);

/// The transport of complete PDUs below a channel. Its contract is that of [`crate::protocol::isotp`].
pub trait PduTransport: Send + std::fmt::Debug {
    /// Begins to send a PDU. No other PDU is being sent.
    ///
    /// # Errors
    ///
    /// The transport cannot send this PDU, or cannot send a PDU now.
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail>;

    /// Discards the rest of the PDU that is being sent.
    fn abort_send(&mut self);

    /// The next event, in order.
    fn poll_event(&mut self) -> Option<TransportEvent>;

    /// Handles the deadline of [`PduTransport::poll_timeout`].
    fn handle_timeout(&mut self, now: Instant);

    /// When [`PduTransport::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The bus is gone: the PDU that is being sent fails with an event.
    fn handle_bus_off(&mut self, now: Instant);

    /// Allows or stops keep-alive messages of the transport itself.
    fn set_keep_alive(&mut self, _now: Instant, _enabled: bool) {}

    /// A description of the last failure to send, if it is more precise than the detail.
    fn failure_text(&self) -> Option<&'static str> {
        None
    }

    /// Whether a PDU is being received, which a TesterPresent might disturb.
    fn is_receiving(&self) -> bool {
        false
    }

    /// The request that keeps the diagnostic session of the ECU alive (ISO 14229-1, 10.7).
    fn tester_present(&self) -> &'static [u8] {
        &uds::TESTER_PRESENT_SUPPRESSED
    }

    /// The request that returns the ECU to its default session (ISO 14229-1, 10.2).
    fn default_session(&self) -> &'static [u8] {
        &[uds::SESSION_CONTROL, uds::DEFAULT_SESSION]
    }
}

/// An event of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// The reception of a PDU began, which ends P2.
    ReceptionStarted,
    /// A PDU was received.
    Received {
        /// The address of the sender, as the relay protocol writes it.
        address: u32,
        /// The bytes of the PDU.
        pdu: Vec<u8>,
    },
    /// The reception of a PDU failed.
    ReceiveFailed {
        /// The detail of the event `receive-failed`.
        detail: u16,
        /// A description in words.
        text: &'static str,
    },
    /// The PDU was sent on the bus.
    Sent {
        /// The time from the start of the PDU to its end.
        elapsed: Duration,
    },
    /// The PDU was not sent, or not completely.
    SendFailed {
        /// Why the PDU was not sent.
        detail: SendFailedDetail,
    },
    /// The transport's own connection to the ECU was lost. The next PDU sets it up again.
    ConnectionLost {
        /// Why the connection was lost.
        detail: SendFailedDetail,
        /// A description in words.
        text: &'static str,
    },
}

/// The settings that an operator chose for a channel.
#[derive(Debug, Clone, Copy)]
pub struct PduChannelSettings {
    /// Whether the channel sends TesterPresent.
    pub keep_alive: bool,
    /// The time that a chained PDU waits for the response to the PDU before it (P2).
    pub p2: Duration,
}

/// The origin of the PDU that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Operator { confirm: bool },
    KeepAlive,
}

/// A channel that carries PDUs.
#[derive(Debug)]
pub struct PduChannel<T: PduTransport + ?Sized> {
    chain: Chain,
    sending: Option<Origin>,
    keep_alive_at: Option<Instant>,
    /// TesterPresent is stopped to save the battery.
    keep_alive_stopped: bool,
    /// The operator made the ECU leave its default session.
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

    /// Replaces the transport of a channel that has not sent a PDU yet.
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

    /// The transport. After a call that may have caused an event, call [`PduChannel::handle_events`].
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport, for changes. After a call that may have caused an event, call
    /// [`PduChannel::handle_events`].
    pub fn transport_mut(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Refuses a record of the operator that this channel does not carry.
    pub fn refuse(&mut self) {
        self.fail(SendFailedDetail::RefusedByPolicy);
    }

    fn fail(&mut self, detail: SendFailedDetail) {
        self.outputs.push_back(Output::send_failed(detail));
    }

    /// Sends a PDU of the operator.
    pub fn handle_pdu(&mut self, now: Instant, flags: PduFlags, data: &[u8]) {
        match self.chain.push(flags, data) {
            Accepted::Queued => self.start_next(now),
            Accepted::Full => self.fail(SendFailedDetail::QueueFull),
            Accepted::Broken(broken) => self.report(Some(broken)),
        }
    }

    /// Breaks the chain behind a PDU of the operator that was refused before it reached the channel.
    pub fn handle_refused_pdu(&mut self, flags: PduFlags) {
        self.chain.handle_refused(flags);
    }

    /// Allows or stops TesterPresent. An event notifies the operator once when it stops.
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

    /// Whether a PDU is being sent or received, or PDUs wait.
    pub fn is_busy(&self) -> bool {
        self.is_sending() || self.transport.is_receiving() || !self.chain.is_idle()
    }

    /// Asks the ECU to return to its default diagnostic session, if the operator made it leave that session.
    pub fn return_to_default_session(&mut self, now: Instant) {
        self.chain.drain();
        self.keep_alive_at = None;
        if std::mem::take(&mut self.left_default_session) {
            self.transport.abort_send();
            self.sending = None;
            let request = self.transport.default_session();
            if self.transport.send(now, request).is_ok() {
                self.sending = Some(Origin::KeepAlive);
            }
        }
    }

    fn start_next(&mut self, now: Instant) {
        while self.sending.is_none() {
            match self.chain.pop() {
                Ok(Some(queued)) => match self.transport.send(now, &queued.data) {
                    Ok(()) => {
                        self.note_diagnostic_session(&queued.data);
                        self.sending = Some(Origin::Operator { confirm: queued.flags.confirm });
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

    fn note_diagnostic_session(&mut self, pdu: &[u8]) {
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
        if let Some(Broken { discarded, code }) = broken {
            let text = match code {
                0 => "the PDU before got no positive response",
                _ => "the PDU before got a negative response",
            };
            let detail = u16::from(code);
            self.outputs.push_back(Output::event(EventCode::ChainBroken, detail, discarded, text));
        }
    }

    /// The bus is gone: all PDUs that wait fail.
    pub fn handle_bus_off(&mut self, now: Instant) {
        // the transport reports the PDU that is being sent; each queued PDU gets its own event
        self.transport.handle_bus_off(now);
        let waiting = self.chain.drain();
        self.handle_events(now);
        (0..waiting).for_each(|_| self.fail(SendFailedDetail::BusOff));
    }

    /// Handles the deadline of [`PduChannel::poll_timeout`].
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
                self.sending = Some(Origin::KeepAlive);
            }
        }
    }

    /// Handles the events of the transport. Call it after each call to the transport.
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
        if let Some(Origin::Operator { confirm }) = self.sending.take() {
            if confirm {
                let value = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
                self.outputs.push_back(Output::event(EventCode::Sent, 0, value, ""));
            }
            self.chain.handle_sent(now);
        }
    }

    fn handle_send_failed(&mut self, detail: SendFailedDetail) {
        match self.sending.take() {
            Some(Origin::KeepAlive) => self.outputs.push_back(Output::event(
                EventCode::KeepAliveFailed,
                detail as u16,
                0,
                self.transport.failure_text().unwrap_or(describe(detail)),
            )),
            Some(Origin::Operator { .. }) => {
                let text = self.transport.failure_text().unwrap_or(describe(detail));
                let (code, detail) = (EventCode::SendFailed, detail as u16);
                self.outputs.push_back(Output::event(code, detail, 0, text));
                let broken = self.chain.handle_send_failed();
                self.report(broken);
            }
            None => {}
        }
    }

    /// The next output for the operator.
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

    /// When TesterPresent is due. It is never due while the transport is busy, because half-duplex ECUs would
    /// abort a transfer.
    fn keep_alive_due(&self) -> Option<Instant> {
        self.keep_alive_at
            .filter(|_| !self.keep_alive_stopped && self.sending.is_none() && !self.transport.is_receiving())
    }
}
