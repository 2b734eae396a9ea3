//! Initialisation (ISO 14230-2, 5.2): a pulse and StartCommunication, or the address at 5 baud.

use std::time::Instant;

use connector_hal::kline::{ADDRESS_TIME, Signal};

use super::{EcuLink, Endpoint, Exchange, TurnPhase};
use crate::protocol::kline::config::Initialisation;
use crate::protocol::kline::event::{Event, Failure};
use crate::protocol::kline::key_bytes::KeyBytes;
use crate::protocol::kline::message::{HeaderForm, LengthForm};
use crate::protocol::kline::timing::{LATENCY_ALLOWANCE, Timing};
use crate::protocol::kline::transmitter::Transmitter;
use crate::protocol::uds::START_COMMUNICATION;
use connector_hal::kline::byte_time;

/// First byte of the answer to a 5-baud address, from which the bit rate can be measured.
const SYNCHRONISATION: u8 = 0x55;
/// Allowance for the end of a slow signal, after which the interface counts as failed. It is longer than the
/// latency of any adapter, and than the 500 ms that `hal` waits for an echo on a pseudo-terminal.
const SIGNAL_ALLOWANCE: std::time::Duration = std::time::Duration::from_secs(1);

impl Endpoint {
    pub(super) fn begin_initialisation(&mut self, now: Instant) {
        self.decoder.reset();
        let (signal, takes, is_address) = match self.config.initialisation {
            Initialisation::Fast => {
                let low = Timing::NORMAL.t_ini_low;
                (Signal::Pulse(low), low, false)
            }
            Initialisation::Slow => (Signal::Address(self.config.addressing.address()), ADDRESS_TIME, true),
        };
        self.transmit = Some(signal);
        self.phase = TurnPhase::Signal { until: now + takes + SIGNAL_ALLOWANCE, is_address };
    }

    /// Reports that the pulse or address from [`Endpoint::poll_transmit`] ended at `at`.
    pub fn handle_sent(&mut self, at: Instant) {
        let TurnPhase::Signal { is_address, .. } = self.phase else { return };
        let timing = Timing::NORMAL;
        self.phase = if is_address {
            TurnPhase::Synchronising { until: at + timing.w1_max + LATENCY_ALLOWANCE }
        } else {
            TurnPhase::WakingUp { until: at + (timing.t_wup - timing.t_ini_low) }
        };
    }

    pub(super) fn handle_initialisation_byte(&mut self, now: Instant, byte: u8) {
        let timing = Timing::NORMAL;
        let slack = byte_time(self.config.bit_rate) + LATENCY_ALLOWANCE;
        match self.phase {
            // a UART reads our own low level as 0
            TurnPhase::Synchronising { .. } if byte == 0 => {}
            TurnPhase::Synchronising { .. } if byte == SYNCHRONISATION => {
                self.phase = TurnPhase::FirstKeyByte { until: now + timing.w2_max + slack };
            }
            TurnPhase::Synchronising { .. } => {
                self.handle_initialisation_failed(Failure::Synchronisation(byte));
            }
            TurnPhase::FirstKeyByte { .. } => {
                self.phase = TurnPhase::SecondKeyByte { until: now + timing.w3_max + slack, first: byte };
            }
            TurnPhase::SecondKeyByte { first, .. } => match self.check_key_bytes(first, byte) {
                Ok(key_bytes) => {
                    self.phase = TurnPhase::BeforeComplement { until: now + timing.w4, key_bytes };
                }
                Err(failure) => self.handle_initialisation_failed(failure),
            },
            TurnPhase::AddressComplement { key_bytes, .. } => {
                if byte == !self.config.addressing.address() {
                    self.handle_up(now, key_bytes);
                    self.phase = TurnPhase::Idle;
                } else {
                    self.handle_initialisation_failed(Failure::Address(byte));
                }
            }
            // bytes of other nodes before our turn to send
            _ => {}
        }
    }

    pub(super) fn handle_initialisation_timeout(&mut self, now: Instant) {
        match self.phase {
            TurnPhase::Signal { .. } => self.handle_initialisation_failed(Failure::NoEcho),
            TurnPhase::WakingUp { .. } => {
                let header = HeaderForm { mode: Some(self.mode()), length: LengthForm::InFormatByte };
                self.transmit_message(now, Exchange::StartCommunication, header, &[START_COMMUNICATION]);
            }
            TurnPhase::Synchronising { .. }
            | TurnPhase::FirstKeyByte { .. }
            | TurnPhase::SecondKeyByte { .. }
            | TurnPhase::AddressComplement { .. } => self.handle_initialisation_failed(Failure::NoAnswer),
            TurnPhase::BeforeComplement { key_bytes, .. } => {
                let [_, second] = key_bytes.bytes();
                let transmitter = Transmitter::new(vec![!second], self.config.bit_rate, now);
                self.phase = TurnPhase::Sending { exchange: Exchange::Complement(key_bytes), transmitter };
                self.drive_transmitter(now);
            }
            _ => {}
        }
    }

    /// Returns the key bytes, if they are valid and the configured ones.
    pub(super) fn check_key_bytes(&self, first: u8, second: u8) -> Result<KeyBytes, Failure> {
        let key_bytes = KeyBytes::new(first, second)?;
        match self.config.keyword {
            Some((one, other)) if !key_bytes.is(one, other) => Err(Failure::OtherKeyBytes(key_bytes)),
            _ => Ok(key_bytes),
        }
    }

    pub(super) fn handle_up(&mut self, now: Instant, key_bytes: KeyBytes) {
        self.attempts = 0;
        self.wanted = false;
        self.link = Some(EcuLink {
            header: key_bytes.header(self.mode()),
            timing: key_bytes.timing(),
            alive_at: now,
            unanswered: 0,
        });
        self.events.push_back(Event::Up(key_bytes));
    }

    /// Lets the next turn repeat the initialisation, or reports that it failed.
    pub(super) fn handle_initialisation_failed(&mut self, failure: Failure) {
        self.phase = TurnPhase::Idle;
        self.transmit = None;
        self.attempts += 1;
        let is_over = self.attempts >= self.config.attempts || !failure.is_worth_another_attempt();
        if !is_over && !self.stopping {
            // the PDU or the request to connect still waits
            return;
        }
        self.attempts = 0;
        self.wanted = false;
        self.events.push_back(Event::Down(failure));
        if self.pdu.take().is_some() {
            self.events.push_back(Event::SendFailed(failure));
        }
        if self.stopping {
            self.finish_stop();
        }
    }
}
