//! Requests of the connector itself on a channel of the operator.

use std::time::Instant;

use super::{Origin, PduChannel};
use crate::relay::channel::own_request::OwnRequest;
use crate::relay::channel::transport::PduTransport;

impl<T: PduTransport + ?Sized> PduChannel<T> {
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
}
