//! Setting a link up (ISO 14230-2, 5.2): the pulse and StartCommunication, or the address at 5 baud.

use std::time::Instant;

use connector_hal::kline::{ADDRESS_TIME, Signal};

use super::{Endpoint, Job, Link, Phase, START_COMMUNICATION};
use crate::protocol::kline::config::Initialisation;
use crate::protocol::kline::event::{Event, Failure};
use crate::protocol::kline::key_bytes::KeyBytes;
use crate::protocol::kline::message::{HeaderForm, LengthForm};
use crate::protocol::kline::timing::{LATENCY_ALLOWANCE, Timing};
use crate::protocol::kline::transmitter::Transmitter;
use connector_hal::kline::byte_time;

/// What an ECU answers a 5-baud address with: its bit rate can be measured by it.
const SYNCHRONISATION: u8 = 0x55;
/// How long the end of a slow signal may be overdue before the interface counts as dead.
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
        self.phase = Phase::Signal { until: now + takes + SIGNAL_ALLOWANCE, is_address };
    }

    /// The slow signal that was given out is over since `at`.
    pub fn handle_sent(&mut self, at: Instant) {
        let Phase::Signal { is_address, .. } = self.phase else { return };
        let timing = Timing::NORMAL;
        self.phase = if is_address {
            Phase::Synchronising { until: at + timing.w1_max + LATENCY_ALLOWANCE }
        } else {
            Phase::WakingUp { until: at + (timing.t_wup - timing.t_ini_low) }
        };
    }

    pub(super) fn handle_initialisation_byte(&mut self, now: Instant, byte: u8) {
        let timing = Timing::NORMAL;
        let slack = byte_time(self.config.bit_rate) + LATENCY_ALLOWANCE;
        match self.phase {
            // what our own low level looks like to a UART
            Phase::Synchronising { .. } if byte == 0 => {}
            Phase::Synchronising { .. } if byte == SYNCHRONISATION => {
                self.phase = Phase::FirstKeyByte { until: now + timing.w2_max + slack };
            }
            Phase::Synchronising { .. } => {
                self.handle_initialisation_failed(Failure::Synchronisation(byte));
            }
            Phase::FirstKeyByte { .. } => {
                self.phase = Phase::SecondKeyByte { until: now + timing.w3_max + slack, first: byte };
            }
            Phase::SecondKeyByte { first, .. } => match self.check_key_bytes(first, byte) {
                Ok(key_bytes) => {
                    self.phase = Phase::BeforeComplement { until: now + timing.w4, key_bytes };
                }
                Err(failure) => self.handle_initialisation_failed(failure),
            },
            Phase::AddressComplement { key_bytes, .. } => {
                if byte == !self.config.addressing.address() {
                    self.handle_up(now, key_bytes);
                    self.phase = Phase::Idle;
                } else {
                    self.handle_initialisation_failed(Failure::Address(byte));
                }
            }
            // somebody else's bytes before it is our turn to speak
            _ => {}
        }
    }

    pub(super) fn handle_initialisation_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Signal { .. } => self.handle_initialisation_failed(Failure::NoEcho),
            Phase::WakingUp { .. } => {
                let header = HeaderForm { mode: Some(self.mode()), length: LengthForm::InFormatByte };
                self.transmit_message(now, Job::StartCommunication, header, &[START_COMMUNICATION]);
            }
            Phase::Synchronising { .. }
            | Phase::FirstKeyByte { .. }
            | Phase::SecondKeyByte { .. }
            | Phase::AddressComplement { .. } => self.handle_initialisation_failed(Failure::NoAnswer),
            Phase::BeforeComplement { key_bytes, .. } => {
                let [_, second] = key_bytes.bytes();
                let transmitter = Transmitter::new(vec![!second], self.config.bit_rate, now);
                self.phase = Phase::Sending { job: Job::Complement(key_bytes), transmitter };
                self.drive_transmitter(now);
            }
            _ => {}
        }
    }

    /// Whether these are key bytes that can be worked with.
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
        self.link = Some(Link {
            header: key_bytes.header(self.mode()),
            timing: key_bytes.timing(),
            alive_at: now,
            unanswered: 0,
        });
        self.events.push_back(Event::Up(key_bytes));
    }

    /// Tries again, or gives up.
    pub(super) fn handle_initialisation_failed(&mut self, failure: Failure) {
        self.phase = Phase::Idle;
        self.transmit = None;
        self.attempts += 1;
        let is_over = self.attempts >= self.config.attempts || !failure.is_worth_another_attempt();
        if !is_over && !self.stopping {
            // the PDU, or whoever wanted the link, still does
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
