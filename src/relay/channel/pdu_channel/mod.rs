//! Channels that carry PDUs over any transport: the queue of PDUs, chained PDUs, confirmations, TesterPresent.

mod events;
mod questions;

use std::collections::VecDeque;
use std::time::Instant;

use super::keep_alive::{KeepAlive, KeepAliveHold};
use super::last_request::{LastRequest, NO_RESPONSE, Permission, ResponseTiming};
use super::output::{KeepAliveStop, Output, PduToSend};
use super::own_request::OwnRequest;
use super::transport::PduTransport;
use crate::policy::{ChannelPolicy, IntentTarget, Stage};
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};

/// The number of PDUs that may wait on a channel (relay protocol, section 4.1).
const QUEUE_PDUS: usize = 64;
/// The number of bytes that may wait on a channel (relay protocol, section 4.1): room for most downloads, and less
/// than a hundredth of the smallest connector's memory.
const QUEUE_BYTES: usize = 512 * 1024;

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
        self.is_exchanging() || !self.queue.pdus.is_empty()
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
            if self.must_wait(now) {
                return;
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

/// A PDU that waits for its turn.
#[derive(Debug, PartialEq, Eq)]
struct QueuedPdu {
    data: Vec<u8>,
    flags: PduFlags,
    expires: Instant,
}

impl QueuedPdu {
    /// Whether the PDU has waited for too long. A chained PDU waits on purpose.
    fn is_too_old(&self, now: Instant) -> bool {
        !self.flags.chained && self.expires < now
    }
}

/// Whether a PDU of the operator was queued.
#[derive(Debug, PartialEq, Eq)]
enum Accepted {
    Queued,
    /// The queue is full.
    Full,
    /// The PDU is chained to a PDU that failed with this code.
    Broken(u8),
}

/// The PDUs of the operator that wait for their turn.
#[derive(Debug, Default)]
struct Queue {
    pdus: VecDeque<QueuedPdu>,
    bytes: usize,
    /// Chained PDUs that arrive behind discarded ones are discarded too, with this code.
    tail_broken: Option<u8>,
    /// A chained PDU was refused because the queue is full. Chained PDUs behind it are refused too, until all
    /// PDUs before it are answered.
    tail_refused: bool,
}

impl Queue {
    fn push(&mut self, last: &LastRequest, pdu: PduToSend<'_>) -> Accepted {
        let PduToSend { flags, expires, data } = pdu;
        let is_answered = last.permission() == Permission::Granted;
        if flags.chained {
            if let Some(code) = self.tail_broken {
                return Accepted::Broken(code);
            }
            if self.tail_refused && !(self.pdus.is_empty() && is_answered) {
                return Accepted::Full;
            }
        }
        let must_wait = !self.pdus.is_empty() || last.is_sending() || flags.chained && !is_answered;
        if self.pdus.len() >= QUEUE_PDUS || must_wait && self.bytes + data.len() > QUEUE_BYTES {
            if flags.chained {
                self.tail_refused = true;
            } else {
                // otherwise the PDUs chained to it would be sent behind another PDU
                self.tail_broken = Some(NO_RESPONSE);
            }
            return Accepted::Full;
        }
        self.tail_refused = false;
        self.tail_broken = None;
        self.bytes += data.len();
        self.pdus.push_back(QueuedPdu { data: data.to_vec(), flags, expires });
        Accepted::Queued
    }

    fn pop(&mut self) -> Option<QueuedPdu> {
        let next = self.pdus.pop_front()?;
        self.bytes -= next.data.len();
        Some(next)
    }

    fn is_next_chained(&self) -> bool {
        self.pdus.front().is_some_and(|next| next.flags.chained)
    }

    /// A PDU was refused before it reached the queue: the PDUs chained to it are discarded.
    fn handle_refused(&mut self, flags: PduFlags) {
        if self.tail_broken.is_none() || !flags.chained {
            self.tail_broken = Some(NO_RESPONSE);
        }
    }

    /// Discards the chained PDUs, because the request before them failed with this code. Returns their number.
    fn discard_chained(&mut self, code: u8) -> u32 {
        if self.pdus.back().is_none_or(|last| last.flags.chained) {
            self.tail_broken = Some(code);
        }
        let before = self.pdus.len();
        self.pdus.retain(|queued| !queued.flags.chained);
        self.bytes = self.pdus.iter().map(|queued| queued.data.len()).sum();
        (before - self.pdus.len()) as u32
    }

    /// Discards all PDUs. Returns their number.
    fn discard_all(&mut self) -> usize {
        let count = self.pdus.len();
        if self.pdus.back().is_some_and(|last| last.flags.chained) {
            self.tail_broken = Some(NO_RESPONSE);
        }
        self.pdus.clear();
        self.bytes = 0;
        count
    }
}
