//! Raw channels: they carry frames in both directions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use super::output::{Output, detail_of};
use super::transport::EcuTarget;
use crate::policy::{ChannelPolicy, Stage};
use crate::protocol::isotp::SendFailure;
use crate::protocol::uds::{NEGATIVE_RESPONSE, RESPONSE_PENDING};
use crate::relay::wire::codec::{EventCode, SendFailedDetail};

/// The number of frames that may wait for the bus: those of half a second of a full bus at 500 kbit/s, because an older
/// frame is too old to be sent. Further frames are refused with `send-failed` 5.
const QUEUE_LIMIT: usize = 2048;

/// The time after a frame of the operator in which the channel may be in the middle of an exchange: N_Bs and N_Cr
/// (ISO 15765-2, 9.7).
const EXCHANGE: Duration = Duration::from_secs(1);

/// The time after a frame of the operator in which an ECU answers: P2 is 50 ms (ISO 15765-4), and a gateway adds its own
/// time.
const ANSWER: Duration = Duration::from_millis(100);

/// The time after response pending in which the final response, or the next response pending, is due: P2* with what the
/// client adds for bus and network (ISO 14229-2).
const PENDING: Duration = Duration::from_millis(5500);

/// A raw channel. It receives one identifier or all frames, and sends one identifier or nothing.
#[derive(Debug)]
pub struct RawChannel {
    request_id: Option<CanId>,
    response_id: Option<CanId>,
    takes_fd: bool,
    queue: VecDeque<(CanFrame, Instant)>,
    /// When the last frame was given to the bus, and its first byte, which may be an address.
    last_sent: Option<(Instant, Option<u8>)>,
    /// The ECU that sent response pending last, and until when its response is due.
    pending: Option<(CanId, Instant)>,
    policy: Option<ChannelPolicy>,
    outputs: VecDeque<Output>,
}

impl RawChannel {
    /// A channel that sends only `request_id` (`None`: nothing) and receives only `response_id` (`None`:
    /// everything).
    pub fn new(request_id: Option<CanId>, response_id: Option<CanId>, takes_fd: bool) -> Self {
        Self {
            request_id,
            response_id,
            takes_fd,
            queue: VecDeque::new(),
            last_sent: None,
            pending: None,
            policy: None,
            outputs: VecDeque::new(),
        }
    }

    /// Has every frame judged by this policy.
    pub(super) fn set_policy(&mut self, policy: ChannelPolicy) {
        self.policy = Some(policy);
    }

    /// Reports the refusal if the policy refuses the frame.
    fn refuse_by_policy(&mut self, now: Instant, stage: Stage, frame: &CanFrame) -> bool {
        let refusal = self.policy.as_ref().and_then(|policy| policy.refuses_frame(now, stage, frame));
        self.outputs.extend(refusal.as_ref().map(Output::refused));
        refusal.is_some()
    }

    /// Whether the operator can send frames on this channel.
    pub(super) fn may_send(&self) -> bool {
        self.request_id.is_some()
    }

    pub(super) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        let wanted = match self.response_id {
            Some(id) => !frame.is_error() && frame.id() == id,
            None => true,
        };
        if wanted {
            self.note_response(now, frame);
            self.outputs.push_back(Output::Frame(*frame));
        }
    }

    /// Notes whether this frame is a response pending, or the response that follows it. A raw channel does not say
    /// whether an address byte comes first, so that both readings count.
    fn note_response(&mut self, now: Instant, frame: &CanFrame) {
        let data = frame.data();
        let n_pdus = [Some(data), data.get(1..)].into_iter().flatten();
        let is_pending = |n_pdu: &[u8]| matches!(n_pdu, [3, NEGATIVE_RESPONSE, _, RESPONSE_PENDING, ..]);
        if n_pdus.clone().any(is_pending) {
            self.pending = self.last_sent.map(|_| (frame.id(), now + PENDING)).or(self.pending);
        } else if n_pdus.clone().any(|n_pdu| matches!(n_pdu, [0x01..=0x07 | 0x10..=0x1F, _, ..])) {
            self.pending.take_if(|(id, _)| *id == frame.id());
        }
    }

    pub(super) fn handle_frame_to_send(&mut self, now: Instant, frame: CanFrame, expires: Instant) {
        let allowed = !frame.is_error() && (self.takes_fd || !frame.is_fd());
        if !allowed || self.request_id != Some(frame.id()) {
            self.refuse();
        } else if self.queue.len() >= QUEUE_LIMIT {
            self.outputs.push_back(Output::send_failed(SendFailedDetail::QueueFull));
        } else if !self.refuse_by_policy(now, Stage::Arrival, &frame) {
            self.queue.push_back((frame, expires));
        }
    }

    pub(super) fn refuse(&mut self) {
        self.outputs.push_back(Output::send_failed(SendFailedDetail::RefusedByPolicy));
    }

    /// The adapter took a frame of [`RawChannel::poll_transmit`].
    pub(super) fn handle_accepted(&mut self, now: Instant, frame: &CanFrame) {
        if let Some(policy) = &self.policy {
            policy.handle_frame_sent(now, frame);
        }
    }

    /// Frames that the adapter has taken may not be sent.
    pub(super) fn handle_abandoned(&mut self) {
        if let (Some(policy), Some(id)) = (&self.policy, self.request_id) {
            policy.handle_frame_lost(id);
        }
    }

    pub(super) fn handle_transmit_failed(&mut self, failure: SendFailure) {
        self.handle_abandoned();
        self.outputs.push_back(Output::send_failed(detail_of(failure)));
    }

    pub(super) fn handle_bus_off(&mut self) {
        let dropped = self.queue.drain(..).map(|_| Output::send_failed(SendFailedDetail::BusOff));
        self.outputs.extend(dropped);
    }

    pub(super) fn handle_lost(&mut self, frames: u32) {
        let text = "the adapter lost frames";
        self.outputs.push_back(Output::event(EventCode::Gap, 0, frames, text));
    }

    /// A frame of [`RawChannel::poll_transmit`] was not sent in time.
    pub(super) fn handle_too_old(&mut self) {
        self.outputs.push_back(Output::send_failed(SendFailedDetail::TooOld));
    }

    /// The next frame that may still be sent, and the time until which it may be sent.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(CanFrame, Instant)> {
        while let Some((frame, expires)) = self.queue.front().copied() {
            if now <= expires
                && self.policy.as_ref().is_some_and(|policy| policy.must_frame_wait(now, &frame))
            {
                return None;
            }
            self.queue.pop_front();
            if now > expires {
                self.handle_too_old();
            } else if !self.refuse_by_policy(now, Stage::Turn, &frame) {
                self.last_sent = Some((now, frame.data().first().copied()));
                return Some((frame, expires));
            }
        }
        None
    }

    /// Forgets an exchange that is over.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.pending.take_if(|(_, until)| *until <= now);
        if self.pending.is_none() {
            self.last_sent.take_if(|(at, _)| *at + EXCHANGE <= now);
        }
    }

    /// Until when the operator may be in the middle of an exchange.
    pub(super) fn busy_until(&self) -> Option<Instant> {
        let exchange = self.last_sent.map(|(at, _)| at + EXCHANGE);
        exchange.max(self.pending.map(|(_, until)| until))
    }

    /// Until when the operator may be in the middle of an exchange with this ECU.
    pub(super) fn busy_until_with(&self, target: EcuTarget) -> Option<Instant> {
        let is_to = |(_, first): (Instant, Option<u8>)| target.address.is_none() || first == target.address;
        self.busy_until().filter(|_| self.request_id == Some(target.id) && self.last_sent.is_some_and(is_to))
    }

    /// Whether the operator may be in the middle of an exchange.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        !self.queue.is_empty() || self.busy_until().is_some_and(|until| now < until)
    }

    /// Whether an ECU may be about to answer, while new requests of the operator wait.
    pub(super) fn is_in_exchange(&self, now: Instant) -> bool {
        self.pending.is_some() || self.last_sent.is_some_and(|(at, _)| now < at + ANSWER)
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
