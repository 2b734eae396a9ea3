//! Initialisation (ISO 14230-2, 5.2): a pulse and StartCommunication, or the address at 5 baud.

use std::time::Instant;

use connector_hal::kline::{ADDRESS_TIME, Signal};

use super::{EcuLink, Endpoint, Exchange, TurnPhase};
use crate::protocol::kline::config::Initialisation;
use crate::protocol::kline::event::{Event, Failure};
use crate::protocol::kline::heard::Heard;
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
        self.receiver.reset();
        let (signal, takes, is_address) = match self.config.initialisation {
            Initialisation::Fast => {
                let low = Timing::NORMAL.t_ini_low;
                (Signal::Pulse(low), low, false)
            }
            Initialisation::Slow => (Signal::Address(self.address_at_5_baud()), ADDRESS_TIME, true),
        };
        self.transmit = Some(signal);
        self.phase = TurnPhase::Signal { until: now + takes + SIGNAL_ALLOWANCE, is_address };
    }

    /// Reports that the pulse or address from [`Endpoint::poll_transmit`] ended at `at`.
    pub fn handle_sent(&mut self, at: Instant) {
        let TurnPhase::Signal { is_address, .. } = self.phase else { return };
        let timing = Timing::NORMAL;
        self.phase = if is_address {
            TurnPhase::Synchronising { until: at + timing.w1_max + LATENCY_ALLOWANCE, other: None }
        } else {
            TurnPhase::WakingUp { until: at + (timing.t_wup - timing.t_ini_low) }
        };
    }

    pub(super) fn handle_initialisation_byte(&mut self, now: Instant, byte: u8) {
        let timing = Timing::NORMAL;
        let slack = byte_time(self.config.bit_rate) + LATENCY_ALLOWANCE;
        let is_confirmed = self.is_complement_of_address(byte);
        match &mut self.phase {
            TurnPhase::AddressComplement { key_bytes, .. } if is_confirmed => {
                let key_bytes = *key_bytes;
                self.handle_up(now, key_bytes);
                self.phase = TurnPhase::Idle;
            }
            // a UART reads a short low level as 0, which is none of these bytes
            _ if byte == 0 => {}
            TurnPhase::Synchronising { .. } if byte == SYNCHRONISATION => {
                self.phase = TurnPhase::FirstKeyByte { until: now + timing.w2_max + slack };
            }
            TurnPhase::FirstKeyByte { .. } => {
                self.phase = TurnPhase::SecondKeyByte { until: now + timing.w3_max + slack, first: byte };
            }
            TurnPhase::SecondKeyByte { first, .. } => {
                let first = *first;
                match self.check_key_bytes(first, byte) {
                    Ok(key_bytes) => {
                        self.phase = TurnPhase::BeforeComplement { until: now + timing.w4, key_bytes };
                    }
                    Err(failure) => self.handle_initialisation_failed(failure),
                }
            }
            // noise before the right byte, or a wrong one, which its deadline reports
            TurnPhase::Synchronising { other, .. } | TurnPhase::AddressComplement { other, .. } => {
                other.get_or_insert(byte);
            }
            // bytes of other nodes before our turn to send
            _ => {}
        }
    }

    /// Returns whether an ECU confirms its address with this byte: with the complement of its eight bits, or of seven
    /// bits and odd parity.
    fn is_complement_of_address(&self, byte: u8) -> bool {
        let forms = [Some(self.config.addressing.address()), self.address_with_parity()];
        forms.contains(&Some(!byte))
    }

    /// The address in the form that the next signal has.
    fn address_at_5_baud(&self) -> u8 {
        let with_parity = self.address_with_parity().filter(|_| self.uses_parity);
        with_parity.unwrap_or_else(|| self.config.addressing.address())
    }

    /// The address as seven bits and odd parity (ISO 9141), if that is another byte than its eight bits.
    fn address_with_parity(&self) -> Option<u8> {
        let address = self.config.addressing.address();
        (address < 0x80 && address.count_ones().is_multiple_of(2)).then_some(address | 0x80)
    }

    pub(super) fn handle_initialisation_timeout(&mut self, now: Instant) {
        let heard = |bytes: &[u8]| Failure::Incomplete(Heard::new(bytes));
        match self.phase {
            TurnPhase::Signal { .. } => self.handle_initialisation_failed(Failure::NoEcho),
            TurnPhase::WakingUp { .. } => {
                let header = HeaderForm { mode: Some(self.mode()), length: LengthForm::InFormatByte };
                self.transmit_message(now, Exchange::StartCommunication, header, &[START_COMMUNICATION]);
            }
            TurnPhase::Synchronising { other, .. } => {
                let failure = other.map_or(Failure::NoAnswer, Failure::Synchronisation);
                self.handle_initialisation_failed(failure);
            }
            TurnPhase::FirstKeyByte { .. } => self.handle_initialisation_failed(heard(&[SYNCHRONISATION])),
            TurnPhase::SecondKeyByte { first, .. } => {
                self.handle_initialisation_failed(heard(&[SYNCHRONISATION, first]));
            }
            TurnPhase::AddressComplement { key_bytes, other, .. } => {
                let [first, second] = key_bytes.bytes();
                let incomplete = heard(&[SYNCHRONISATION, first, second]);
                self.handle_initialisation_failed(other.map_or(incomplete, Failure::Address));
            }
            TurnPhase::BeforeComplement { key_bytes, .. } => {
                let [_, second] = key_bytes.bytes();
                let transmitter =
                    Transmitter::new(vec![!second], self.config.bit_rate, Timing::NORMAL.p4_min, now);
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
        self.uses_parity = false;
        self.wanted = false;
        self.link = Some(EcuLink {
            header: key_bytes.header(self.mode()),
            timing: key_bytes.timing(),
            default_timing: key_bytes.timing(),
            alive_at: now,
            unanswered: 0,
        });
        self.events.push_back(Event::Up(key_bytes));
    }

    /// Lets the next turn repeat the initialisation, or reports that it failed.
    ///
    /// After silence, an address that has another form with a parity bit is sent in that form, once, as part of the
    /// first attempt.
    pub(super) fn handle_initialisation_failed(&mut self, failure: Failure) {
        self.phase = TurnPhase::Idle;
        self.transmit = None;
        let is_first = self.attempts == 0 && self.config.attempts > 1;
        let is_silent_ecu =
            failure == Failure::NoAnswer && self.config.initialisation == Initialisation::Slow;
        let has_other_form = is_first && is_silent_ecu && self.address_with_parity().is_some();
        self.uses_parity = has_other_form && !self.uses_parity;
        if !self.uses_parity {
            self.attempts += 1;
        }
        let is_over = self.attempts >= self.config.attempts || !failure.is_worth_another_attempt();
        if !is_over && !self.stopping {
            // the PDU or the request to connect still waits
            return;
        }
        self.attempts = 0;
        self.uses_parity = false;
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
