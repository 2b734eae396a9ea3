//! Requests of the connector itself on a channel of the operator, and the wait of the operator's requests for them.

use std::time::Instant;

use super::{Origin, PduChannel, Permission};
use crate::relay::channel::own_request::OwnRequest;
use crate::relay::channel::transport::PduTransport;

impl<T: PduTransport + ?Sized> PduChannel<T> {
    /// Whether a PDU is being sent or received, or a response is awaited.
    pub(crate) fn is_exchanging(&self) -> bool {
        let is_awaiting = self.last.permission() == Permission::Pending;
        self.is_transferring() || is_awaiting || self.own.held_until().is_some()
    }

    /// Whether a PDU is being sent or received.
    pub(crate) fn is_transferring(&self) -> bool {
        self.is_sending() || self.transport.is_receiving()
    }

    /// Whether the next PDU waits until the vehicle has reported its speed.
    pub(super) fn must_wait(&self, now: Instant) -> bool {
        let next = self.queue.pdus.front().filter(|next| !next.is_too_old(now));
        next.zip(self.policy.as_ref()).is_some_and(|(next, policy)| policy.must_pdu_wait(now, &next.data))
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
        let can_ask = !self.is_exchanging() && self.transport.send(now, request).is_ok();
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
}
