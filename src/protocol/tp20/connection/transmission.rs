//! The frames that a connection sends, and their outcomes.

use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use super::Connection;
use super::state::{ConnectionPhase, SentFrame};
use crate::protocol::tp20::{CloseReason, Tpdu};

/// Number of frames that may be without an outcome: the longest block, which has 15 frames, and one more.
const MAX_IN_FLIGHT: usize = 16;
/// Time that the peer may take to answer our disconnect: as long as for an acknowledgement, our T1 of 100 ms.
/// The channel is closed afterwards in any case.
const DISCONNECT_WAIT: Duration = Duration::from_millis(100);

impl Connection {
    /// Reports that the oldest frame without an outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        let t1 = self.config.parameters.t1.longest();
        match self.in_flight.pop_front() {
            Some(SentFrame::Data { serial }) => self.sender.handle_transmitted(now, serial),
            Some(SentFrame::Offer) => {
                if let ConnectionPhase::Offering { deadline: deadline @ None, .. } = &mut self.phase {
                    *deadline = Some(now + t1);
                }
            }
            Some(SentFrame::Test) => self.presence.handle_test_transmitted(now),
            Some(SentFrame::Disconnect) => {
                if let ConnectionPhase::Closing { deadline: deadline @ None } = &mut self.phase {
                    *deadline = Some(now + DISCONNECT_WAIT);
                }
            }
            Some(SentFrame::Other) | None => {}
        }
    }

    /// Reports that the oldest frame without an outcome will not be sent, or with [`CloseReason::BusOff`]
    /// that none will.
    pub fn handle_transmit_failed(&mut self, _now: Instant, reason: CloseReason) {
        if reason == CloseReason::BusOff {
            self.in_flight.clear();
            return self.end(reason, false);
        }
        match self.in_flight.pop_front() {
            Some(SentFrame::Data { serial }) if self.sender.is_in_flight(serial) => self.end(reason, false),
            Some(SentFrame::Offer | SentFrame::Test) if self.phase != ConnectionPhase::Closed => {
                self.end(reason, false)
            }
            Some(SentFrame::Disconnect) if matches!(self.phase, ConnectionPhase::Closing { .. }) => {
                self.end(CloseReason::Requested, false);
            }
            _ => {}
        }
    }

    /// Returns the next frame to send, data last. Each frame needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let id = self.config.transmit;
        let own = self.config.parameters;
        if std::mem::take(&mut self.due.disconnect) {
            return self.emit(now, SentFrame::Disconnect, Tpdu::Disconnect.encode(id));
        }
        if matches!(self.phase, ConnectionPhase::Closing { .. } | ConnectionPhase::Closed) {
            return None;
        }
        if let Some(sequence) = self.receiver.take_ack() {
            let ack = Tpdu::Ack { ready: true, sequence };
            return self.emit(now, SentFrame::Other, ack.encode(id));
        }
        if std::mem::take(&mut self.due.parameters) {
            let response = Tpdu::ParametersResponse(Some(own));
            return self.emit(now, SentFrame::Other, response.encode(id));
        }
        if let ConnectionPhase::Offering { sent, deadline: None } = self.phase
            && !self.in_flight.contains(&SentFrame::Offer)
        {
            self.phase = ConnectionPhase::Offering { sent: sent + 1, deadline: None };
            return self.emit(now, SentFrame::Offer, Tpdu::ParametersRequest(own).encode(id));
        }
        if self.phase != ConnectionPhase::Open {
            return None;
        }
        if self.presence.take_due() {
            return self.emit(now, SentFrame::Test, Tpdu::ChannelTest.encode(id));
        }
        let (tpdu, serial) = self.sender.poll_transmit(now)?;
        let frame = tpdu.encode(id);
        self.emit(now, SentFrame::Data { serial }, frame)
    }

    fn emit(&mut self, now: Instant, sent: SentFrame, frame: Option<CanFrame>) -> Option<CanFrame> {
        let frame = frame?;
        self.in_flight.push_back(sent);
        if self.phase == ConnectionPhase::Open {
            self.presence.handle_used(now);
        }
        Some(frame)
    }
}
