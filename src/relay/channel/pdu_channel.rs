//! Channels that carry PDUs over any transport: the queue of PDUs, chained PDUs, confirmations, TesterPresent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::keep_alive::{KeepAlive, KeepAliveHold};
use super::last_request::{LastRequest, Permission, ResponseTiming};
use super::output::{KeepAliveStop, Output, PduToSend, describe};
use super::own_request::OwnRequest;
use super::pdu_queue::{Accepted, Queue, QueuedPdu};
use super::transport::{PduTransport, TransportEvent};
use crate::policy::{ChannelPolicy, IntentTarget, Stage};
use crate::protocol::uds;
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};

/// The settings that an operator chose for a channel.
#[derive(Debug, Clone, Copy)]
pub struct PduChannelSettings {
    /// Whether the channel sends TesterPresent.
    pub keep_alive: bool,
    /// The times that a chained PDU waits for the response to the PDU before it.
    pub timing: ResponseTiming,
}

/// The origin of the PDU that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Operator {
        confirm: bool,
    },
    KeepAlive,
    /// A question of the connector itself.
    Question,
}

/// A channel that carries PDUs.
#[derive(Debug)]
pub struct PduChannel<T: PduTransport + ?Sized> {
    queue: Queue,
    last: LastRequest,
    sending: Option<Origin>,
    own: OwnRequest,
    /// When the PDU that is being sent becomes too old, unless it has begun. A chained PDU does not.
    expires: Option<Instant>,
    keep_alive: KeepAlive,
    policy: Option<ChannelPolicy>,
    outputs: VecDeque<Output>,
    transport: Box<T>,
}

impl<T: PduTransport + ?Sized> PduChannel<T> {
    /// A channel over this transport.
    pub fn new(transport: Box<T>, settings: PduChannelSettings, now: Instant) -> Self {
        Self {
            queue: Queue::default(),
            last: LastRequest::new(settings.timing),
            sending: None,
            own: OwnRequest::default(),
            expires: None,
            keep_alive: KeepAlive::new(settings.keep_alive, now),
            policy: None,
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
        let Self { queue, last, mut keep_alive, policy, outputs, .. } = self;
        keep_alive.postpone(now);
        PduChannel {
            queue,
            last,
            sending: None,
            own: OwnRequest::default(),
            expires: None,
            keep_alive,
            policy,
            outputs,
            transport,
        }
    }

    /// Has every request judged by this policy.
    pub(crate) fn set_policy(&mut self, policy: ChannelPolicy) {
        self.policy = Some(policy);
    }

    /// Whether the requests go to this ECU.
    pub(crate) fn is_to(&self, target: IntentTarget) -> bool {
        self.policy.as_ref().is_some_and(|policy| policy.target() == target)
    }

    /// The transport. After a call that may have caused an event, call [`PduChannel::handle_events`].
    pub fn transport(&self) -> &T {
        &self.transport
    }

    /// The transport, for changes. After a call that may have caused an event, call
    /// [`PduChannel::handle_events`].
    pub(crate) fn transport_mut(&mut self) -> &mut T {
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
    pub(crate) fn handle_pdu(&mut self, now: Instant, pdu: PduToSend<'_>) {
        if self.refuse_by_policy(now, Stage::Arrival, pdu.data) {
            return self.queue.handle_refused(pdu.flags);
        }
        match self.queue.push(&self.last, pdu) {
            Accepted::Queued => self.start_next(now),
            Accepted::Full => self.fail(SendFailedDetail::QueueFull),
            Accepted::Broken(code) => self.outputs.push_back(Output::chain_broken(code, 1)),
        }
    }

    /// Asks the ECU a question of the connector itself; false if the channel is busy.
    pub(crate) fn ask(&mut self, now: Instant, question: &[u8]) -> bool {
        self.send_own(now, question, false)
    }

    /// Sends the ECU a request of the connector itself that ends with its answer; false if the channel is busy. The
    /// PDUs of the operator wait for the answer.
    pub(crate) fn ask_briefly(&mut self, now: Instant, request: &[u8]) -> bool {
        self.send_own(now, request, true)
    }

    fn send_own(&mut self, now: Instant, request: &[u8], is_brief: bool) -> bool {
        let can_ask = !self.is_busy() && self.transport.send(now, request).is_ok();
        if can_ask {
            self.own.begin(request, is_brief);
            self.sending = Some(Origin::Question);
        }
        can_ask
    }

    /// The request of [`PduChannel::ask`], and its answer.
    pub(crate) fn own_request(&mut self) -> &mut OwnRequest {
        &mut self.own
    }

    /// Breaks the chain behind a PDU of the operator that was refused before it reached the channel.
    pub(crate) fn handle_refused_pdu(&mut self, flags: PduFlags) {
        self.queue.handle_refused(flags);
    }

    /// Allows or stops TesterPresent. An event notifies the operator once when it stops.
    pub(crate) fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        if !self.keep_alive.set_allowed(now, stop.is_none()) {
            return;
        }
        self.transport.set_keep_alive(now, stop);
        self.handle_events(now);
        if let Some(stop) = stop.filter(|_| self.keep_alive.is_configured()) {
            self.outputs.push_back(Output::event(
                EventCode::KeepAliveFailed,
                SendFailedDetail::RefusedByPolicy as u16,
                0,
                stop.text(),
            ));
        }
    }

    /// Whether the operator chose TesterPresent for this channel.
    pub(crate) fn has_keep_alive(&self) -> bool {
        self.keep_alive.is_configured()
    }

    /// Whether a PDU is on its way to the bus.
    pub fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Whether a PDU is being sent or received, or PDUs wait.
    pub fn is_busy(&self) -> bool {
        let is_awaiting = self.last.permission() == Permission::Pending;
        let is_held = self.own.held_until().is_some();
        self.is_sending()
            || self.transport.is_receiving()
            || is_awaiting
            || is_held
            || !self.queue.pdus.is_empty()
    }

    /// Asks the ECU to return to its default diagnostic session, if the operator made it leave that session.
    pub fn return_to_default_session(&mut self, now: Instant) {
        self.queue.discard_all();
        if self.keep_alive.end() {
            self.transport.abort_send();
            self.sending = None;
            let request = self.transport.default_session();
            if self.transport.send(now, request).is_ok() {
                self.sending = Some(Origin::KeepAlive);
            }
        }
    }

    /// Starts to send queued PDUs while the transport is free.
    fn start_next(&mut self, now: Instant) {
        while self.sending.is_none() && self.own.held_until().is_none() {
            if self.queue.is_next_chained() {
                match self.last.permission() {
                    Permission::Granted => {}
                    Permission::Pending => return,
                    Permission::Denied { code } => {
                        self.break_chain(code);
                        continue;
                    }
                }
            }
            let Some(queued) = self.queue.pop() else { return };
            let is_too_old = queued.is_too_old(now);
            let QueuedPdu { data, flags, expires } = queued;
            self.last.begin(&data);
            if is_too_old {
                self.fail(SendFailedDetail::TooOld);
                self.handle_request_not_sent();
                continue;
            }
            if self.refuse_by_policy(now, Stage::Turn, &data) {
                self.handle_request_not_sent();
                continue;
            }
            match self.transport.send(now, &data) {
                Ok(()) => {
                    self.keep_alive.handle_pdu(&data);
                    self.keep_alive.postpone(now);
                    self.sending = Some(Origin::Operator { confirm: flags.confirm });
                    self.expires = (!flags.chained).then_some(expires);
                }
                Err(detail) => {
                    self.fail(detail);
                    self.handle_request_not_sent();
                }
            }
        }
    }

    /// Reports the refusal if the policy refuses the request.
    fn refuse_by_policy(&mut self, now: Instant, stage: Stage, request: &[u8]) -> bool {
        let refusal = self.policy.as_ref().and_then(|policy| policy.refuses_pdu(now, stage, request));
        self.outputs.extend(refusal.as_ref().map(Output::refused));
        refusal.is_some()
    }

    fn handle_request_not_sent(&mut self) {
        if let Some(code) = self.last.handle_send_failed() {
            self.break_chain(code);
        }
    }

    /// Discards the PDUs that are chained to a request that failed with this code, and reports their number.
    fn break_chain(&mut self, code: u8) {
        let discarded = self.queue.discard_chained(code);
        if discarded > 0 {
            if let Some(policy) = &self.policy {
                policy.handle_chain_broken();
            }
            self.outputs.push_back(Output::chain_broken(code, discarded));
        }
    }

    /// The bus is gone: all PDUs that wait fail.
    pub fn handle_bus_off(&mut self, now: Instant) {
        // the transport reports the PDU that is being sent; each queued PDU gets its own event
        self.transport.handle_bus_off(now);
        let waiting = self.queue.discard_all();
        self.handle_events(now);
        (0..waiting).for_each(|_| self.fail(SendFailedDetail::BusOff));
    }

    /// Handles the deadline of [`PduChannel::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_timeout_with(now, KeepAliveHold::default());
    }

    /// Handles the deadline of [`PduChannel::poll_timeout_with`].
    pub(crate) fn handle_timeout_with(&mut self, now: Instant, hold: KeepAliveHold) {
        if self.waiting_until().is_some_and(|at| at <= now) {
            self.transport.abort_send();
            self.handle_send_failed(SendFailedDetail::TooOld);
        }
        self.own.handle_timeout(now);
        self.transport.handle_timeout(now);
        self.handle_events(now);
        if let Some(code) = self.last.handle_timeout(now) {
            self.break_chain(code);
        }
        self.start_next(now);
        if self.keep_alive_due(hold).is_some_and(|at| at <= now) {
            self.keep_alive.postpone(now);
            let request = self.transport.tester_present();
            if self.transport.send(now, request).is_ok() {
                self.sending = Some(Origin::KeepAlive);
            }
        }
    }

    /// Handles the events of the transport. Call it after each call to the transport.
    pub(crate) fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::ReceptionStarted => self.last.handle_reception_started(),
                TransportEvent::ReceptionDropped => self.last.handle_reception_failed(),
                TransportEvent::Received { pdu, .. } if self.is_for_keep_alive(now, &pdu) => {
                    tracing::trace!("an ECU answered the connector's own TesterPresent");
                }
                TransportEvent::Received { pdu, .. } if self.own.is_answered_by(now, &pdu, &self.last) => {
                    self.report_response(now, &pdu);
                    self.own.handle_answer(pdu);
                }
                TransportEvent::Received { address, pdu } => {
                    self.report_response(now, &pdu);
                    let failed = self.last.handle_response(now, &pdu);
                    self.outputs.push_back(Output::Pdu { address, data: pdu });
                    if let Some(code) = failed {
                        self.break_chain(code);
                    }
                }
                TransportEvent::ReceiveFailed { detail, text } => {
                    self.last.handle_reception_failed();
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

    fn report_response(&self, now: Instant, response: &[u8]) {
        if let Some(policy) = &self.policy {
            policy.handle_response(now, response);
        }
    }

    /// Whether this PDU answers a TesterPresent that the connector has sent by itself. The operator must not get an
    /// answer to a request that the operator did not send.
    fn is_for_keep_alive(&self, now: Instant, pdu: &[u8]) -> bool {
        self.keep_alive.expects_answer(now)
            && uds::is_response_to(uds::TESTER_PRESENT, pdu)
            && !self.last.is_pending_for(uds::TESTER_PRESENT)
    }

    /// Whether the operator awaits a response of this service.
    pub(crate) fn awaits(&self, service: u8) -> bool {
        self.last.is_pending_for(service)
    }

    fn handle_sent(&mut self, now: Instant, elapsed: Duration) {
        self.keep_alive.postpone(now);
        if self.sending == Some(Origin::KeepAlive) {
            self.keep_alive.handle_sent(now);
        }
        if self.sending == Some(Origin::Question) {
            self.own.handle_sent(now);
        }
        if let Some(Origin::Operator { confirm }) = self.sending.take() {
            if confirm {
                let value = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
                self.outputs.push_back(Output::event(EventCode::Sent, 0, value, ""));
            }
            self.last.handle_sent(now, self.transport.agreed_p2());
        }
    }

    fn handle_send_failed(&mut self, detail: SendFailedDetail) {
        let Some(origin) = self.sending.take() else { return };
        let text = self.transport.failure_text().unwrap_or_else(|| describe(detail).to_owned());
        let code = match origin {
            // the question stays without an answer
            Origin::Question => return,
            Origin::KeepAlive => EventCode::KeepAliveFailed,
            Origin::Operator { .. } => EventCode::SendFailed,
        };
        self.outputs.push_back(Output::event(code, detail as u16, 0, text));
        if matches!(origin, Origin::Operator { .. }) {
            self.handle_request_not_sent();
        }
    }

    /// The next output for the operator.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`PduChannel::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout_with(KeepAliveHold::default())
    }

    /// When [`PduChannel::handle_timeout_with`] is due, while TesterPresent has to wait.
    pub(crate) fn poll_timeout_with(&self, hold: KeepAliveHold) -> Option<Instant> {
        [
            self.transport.poll_timeout(),
            self.last.poll_timeout(),
            self.keep_alive_due(hold),
            self.waiting_until(),
            self.own.held_until(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Until when the operator's PDU may wait for its first frame.
    fn waiting_until(&self) -> Option<Instant> {
        let is_waiting = matches!(self.sending, Some(Origin::Operator { .. })) && !self.transport.has_begun();
        self.expires.filter(|_| is_waiting)
    }

    /// When TesterPresent is due. It is never due while the transport is busy, because half-duplex ECUs would
    /// abort a transfer, nor while a response is pending: S3 does not run then (ISO 14229-2), and an ECU that is
    /// busy with a request may have no buffer for another one.
    fn keep_alive_due(&self, hold: KeepAliveHold) -> Option<Instant> {
        let is_pending = self.last.permission() == Permission::Pending;
        self.keep_alive.poll_timeout(hold).filter(|_| {
            self.sending.is_none()
                && self.own.held_until().is_none()
                && !is_pending
                && !self.transport.is_receiving()
        })
    }
}
