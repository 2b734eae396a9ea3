//! Asking a K-line for the VIN: `1A 90` (ISO 14230-3) and mode 09 of OBD.
//!
//! An initialisation disturbs a line, so the reader tries the likeliest ways first: the emission-related ECUs
//! together, then the engine by its usual addresses, each by a pulse; then all again by the 5-baud address of
//! OBD. Then the reader sends the pulses once more at the other bit rates. The 5-baud address needs no
//! repetition: ECUs detect it at any bit rate, and an ECU with another bit rate shows that by its
//! synchronisation byte. Only then is the address sent again.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::kline::Signal;

use super::attempts::{WakeAttempt, attempts};
use crate::protocol::kline::{
    Addressing, Config, Endpoint, Event, Failure, Initialisation, LineClock, OBD_FUNCTIONAL_ADDRESS,
};
use crate::vehicle::vin::answer::VinAnswer;
use crate::vehicle::vin::report::{Candidate, EcuAddress, VinSource};

/// ReadECUIdentification of the VIN (ISO 14230-3, 7.1).
const READ_ECU_IDENTIFICATION: [u8; 2] = [0x1A, 0x90];
/// Mode 09, InfoType 02: five messages of four bytes (SAE J1979, 6.9).
const OBD_VIN: [u8; 2] = [0x09, 0x02];
const OBD_MESSAGES: usize = 5;
/// The number of times that a busy ECU is asked the same question again: as often as on CAN. More would take
/// the budget from the addresses that are tried later.
const MAX_REPEATS: u8 = 2;

/// A line that is being asked: a pure state machine with the interface of [`Endpoint`].
#[derive(Debug)]
pub(crate) struct KlineReader {
    until: Instant,
    line: LineClock,
    bit_rates: Vec<u32>,
    /// The attempts that are left.
    attempts: VecDeque<WakeAttempt>,
    endpoint: Endpoint,
    questions: VecDeque<[u8; 2]>,
    /// The question that was sent last.
    question: Option<[u8; 2]>,
    repeats_left: u8,
    /// The messages of mode 09 so far, and the ECU that sent them.
    pieces: Option<(u8, Vec<Vec<u8>>)>,
    candidates: Vec<Candidate>,
    is_finished: bool,
}

impl KlineReader {
    /// Begins to ask at these bit rates, the likeliest first, in bit/s, and ends at `until`.
    pub(crate) fn new(bit_rates: &[u32], until: Instant, now: Instant) -> Self {
        let functional = Addressing::Functional(OBD_FUNCTIONAL_ADDRESS);
        let first = bit_rates.first().copied().unwrap_or_default();
        let mut reader = Self {
            until,
            line: LineClock::new(now),
            bit_rates: bit_rates.to_vec(),
            attempts: attempts(bit_rates),
            endpoint: Endpoint::new(Config::new(functional, Initialisation::Fast, first), now),
            questions: VecDeque::new(),
            question: None,
            repeats_left: MAX_REPEATS,
            pieces: None,
            candidates: Vec::new(),
            is_finished: false,
        };
        reader.try_next(now);
        reader
    }

    /// The VINs, in the order in which they came.
    pub(crate) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whether reading has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// The bit rate that the line must be set to now, in bit/s.
    pub(crate) fn bit_rate(&self) -> u32 {
        self.endpoint.config().bit_rate
    }

    /// The line does not support the present bit rate: nothing is asked at it.
    pub(crate) fn handle_refused(&mut self, now: Instant) {
        let refused = self.bit_rate();
        self.bit_rates.retain(|bit_rate| *bit_rate != refused);
        // begin again without that bit rate
        self.attempts = attempts(&self.bit_rates);
        self.try_next(now);
        self.advance(now);
    }

    fn try_next(&mut self, now: Instant) {
        let Some(WakeAttempt { addressing, initialisation, bit_rate }) = self.attempts.pop_front() else {
            self.is_finished = true;
            return;
        };
        let config = Config { attempts: 1, ..Config::new(addressing, initialisation, bit_rate) };
        self.endpoint = Endpoint::new(config, now);
        self.endpoint.connect();
    }

    /// A byte that was on the line.
    pub(crate) fn handle_byte(&mut self, now: Instant, byte: u8) {
        self.line.handle_activity(now);
        self.endpoint.handle_byte(now, byte);
        self.advance(now);
    }

    /// A slow signal ended at `at`.
    pub(crate) fn handle_sent(&mut self, at: Instant) {
        self.line.handle_activity(at);
        self.endpoint.handle_sent(at);
    }

    /// The deadline of [`KlineReader::poll_timeout`] may have passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.until <= now && !self.is_finished {
            self.is_finished = true;
            return;
        }
        self.endpoint.handle_timeout(now);
        self.advance(now);
    }

    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.endpoint.poll_event() {
            self.handle_event(now, event);
        }
        if !self.is_finished && self.endpoint.wants_line().is_some_and(|at| at <= now) {
            self.endpoint.start(now, &self.line);
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Up(_) => {
                // only the ECU that answered is asked
                self.attempts.clear();
                self.questions = VecDeque::from([READ_ECU_IDENTIFICATION, OBD_VIN]);
                self.ask_next();
            }
            Event::Received { source, pdu } => self.handle_answer(source, &pdu),
            Event::NoAnswer | Event::SendFailed(_) | Event::ReceiveFailed(_) => self.ask_next(),
            Event::Stopped => self.is_finished = true,
            Event::Down(failure) => {
                tracing::debug!(bit_rate = self.bit_rate(), %failure, "no link on the K-line");
                self.try_other_bit_rate(failure);
                self.try_next(now);
            }
            Event::Sent { .. } | Event::ReceptionStarted => {}
        }
    }

    /// Wakes an ECU whose synchronisation byte cannot be read again, at the next bit rate.
    fn try_other_bit_rate(&mut self, failure: Failure) {
        let &Config { addressing, initialisation, bit_rate, .. } = self.endpoint.config();
        if !matches!(failure, Failure::Synchronisation(_)) {
            return;
        }
        let next = self.bit_rates.iter().skip_while(|other| **other != bit_rate).nth(1);
        let again = next.map(|bit_rate| WakeAttempt { addressing, initialisation, bit_rate: *bit_rate });
        again.into_iter().for_each(|again| self.attempts.push_front(again));
    }

    /// Asks the next question, or ends the communication.
    fn ask_next(&mut self) {
        self.pieces = None;
        let question = if self.candidates.is_empty() { self.questions.pop_front() } else { None };
        self.question = question;
        match question {
            Some(question) if self.endpoint.send(&question).is_ok() => {}
            _ => self.endpoint.stop(),
        }
    }

    fn handle_answer(&mut self, source: u8, pdu: &[u8]) {
        match pdu {
            [0x49, 0x02, _, piece @ ..] if piece.len() == 4 => {
                let (sender, pieces) = self.pieces.get_or_insert_with(|| (source, Vec::new()));
                if *sender != source {
                    return;
                }
                pieces.push(piece.to_vec());
                if pieces.len() < OBD_MESSAGES {
                    return;
                }
                let whole = [&[0x49, 0x02, 0x01][..], &pieces.concat()].concat();
                self.handle_vin(source, &whole, VinSource::Obd);
                self.ask_next();
            }
            _ => match VinAnswer::parse(pdu) {
                VinAnswer::Pending(_) | VinAnswer::Unrelated => {}
                // P3min is pause enough
                VinAnswer::Busy(_) if self.repeats_left > 0 => {
                    self.repeats_left -= 1;
                    self.question.take().into_iter().for_each(|question| self.questions.push_front(question));
                    self.ask_next();
                }
                _ => {
                    self.handle_vin(source, pdu, VinSource::Kwp);
                    self.ask_next();
                }
            },
        }
    }

    fn handle_vin(&mut self, address: u8, pdu: &[u8], source: VinSource) {
        if let VinAnswer::Vin(_, vin) = VinAnswer::parse(pdu) {
            self.candidates.push(Candidate { vin, source, address: EcuAddress::Kline(address) });
        }
    }

    /// The next signal for the line.
    pub(crate) fn poll_transmit(&mut self) -> Option<Signal> {
        self.endpoint.poll_transmit()
    }

    /// The time of the next [`KlineReader::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at).or_else(|| self.endpoint.wants_line());
        (!self.is_finished).then(|| endpoint.map_or(self.until, |at| at.min(self.until)))
    }
}
