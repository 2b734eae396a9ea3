//! Transmission of one message, and the effect of a missing answer on the link.

use std::time::{Duration, Instant};

use connector_hal::kline::Signal;

use super::Endpoint;
use super::turn::{Exchange, TurnPhase, Wait};
use crate::protocol::kline::event::{Event, Failure};
use crate::protocol::kline::message::{HeaderForm, encode};
use crate::protocol::kline::timing::{LATENCY_ALLOWANCE, Timing};
use crate::protocol::kline::transmitter::Transmitter;

/// Number of unanswered TesterPresent after which the link counts as lost (ISO 14230-2, 5.4.2: two
/// repetitions).
const MAX_UNANSWERED: u32 = 3;

impl Endpoint {
    pub(super) fn transmit_message(
        &mut self,
        now: Instant,
        exchange: Exchange,
        header: HeaderForm,
        data: &[u8],
    ) {
        match encode(header, self.config.addressing.address(), self.config.tester, data) {
            Ok(bytes) => {
                let gap = self.timing().p4_min;
                let transmitter = Transmitter::new(bytes, self.config.bit_rate, gap, now);
                self.phase = TurnPhase::Sending { exchange, transmitter };
                self.drive_transmitter(now);
            }
            // the key bytes arrived after the PDU was accepted
            Err(too_long) => {
                self.phase = TurnPhase::Idle;
                self.events.push_back(Event::SendFailed(too_long.into()));
            }
        }
    }

    pub(super) fn drive_transmitter(&mut self, now: Instant) {
        if let TurnPhase::Sending { transmitter, .. } = &mut self.phase
            && let Some(byte) = transmitter.poll_transmit(now)
        {
            self.transmit = Some(Signal::Byte(byte));
        }
    }

    pub(super) fn handle_message_sent(&mut self, now: Instant, exchange: Exchange, elapsed: Duration) {
        if let Exchange::Complement(key_bytes) = exchange {
            let until = now + Timing::NORMAL.w4_max + LATENCY_ALLOWANCE;
            self.phase = TurnPhase::AddressComplement { until, key_bytes, other: None };
            return;
        }
        if let Exchange::Pdu { .. } = exchange {
            self.events.push_back(Event::Sent { elapsed });
        }
        self.receiver.reset();
        self.pending.clear();
        self.phase = TurnPhase::Awaiting(Wait::new(exchange, now + self.p2_window()));
    }

    pub(super) fn handle_transmit_failed(&mut self, now: Instant, exchange: Exchange, failure: Failure) {
        self.phase = TurnPhase::Idle;
        match exchange {
            Exchange::Pdu { .. } => {
                self.events.push_back(Event::SendFailed(failure));
                self.suspect_loss(now);
            }
            Exchange::TesterPresent => self.handle_unanswered(now, failure),
            Exchange::StopCommunication => self.finish_stop(),
            Exchange::StartCommunication | Exchange::Complement(_) => {
                self.handle_initialisation_failed(failure)
            }
        }
    }

    /// Has TesterPresent sent before the next PDU, because the ECU did not answer correctly.
    pub(super) fn suspect_loss(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.unanswered = link.unanswered.max(1);
            link.alive_at = now;
        }
    }

    /// Takes note of an unanswered TesterPresent. After the last repetition the communication is lost and
    /// initialised again.
    pub(super) fn handle_unanswered(&mut self, now: Instant, failure: Failure) {
        self.suspect_loss(now);
        let Some(link) = &mut self.link else { return };
        link.unanswered += 1;
        if link.unanswered > MAX_UNANSWERED {
            self.link = None;
            self.attempts = 0;
            self.wanted = !self.stopping;
            self.events.push_back(Event::Down(failure));
            if self.stopping {
                self.finish_stop();
            }
        }
    }
}
