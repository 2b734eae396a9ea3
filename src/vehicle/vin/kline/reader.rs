//! Asking a K-line for the VIN: `1A 90` (ISO 14230-3) and mode 09 of OBD.
//!
//! An initialisation disturbs a line, so the reader tries the likeliest ways first: the emission-related ECUs
//! together, then the engine by its usual addresses, each by a pulse; then all again by the 5-baud address of
//! OBD. Then the reader sends the pulses once more at the other bit rates. The 5-baud address needs no
//! repetition: ECUs detect it at any bit rate, and an ECU with another bit rate shows that by its
//! synchronisation byte. Only then is the address sent again.
//!
//! A line that another tester uses is left alone: if any byte is heard before the first signal, or a message of
//! another tester later, the reader sends nothing more.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::kline::Signal;

use super::attempts::{WakeAttempt, attempts};
use super::pieces::VinPieces;
use crate::protocol::kline::{
    Addressing, Config, Endpoint, Event, Failure, Initialisation, LineClock, OBD_FUNCTIONAL_ADDRESS,
};
use crate::vehicle::vin::answer::{Service, VinAnswer};
use crate::vehicle::vin::report::{Candidate, EcuAddress, VinSource};

/// ReadECUIdentification of the VIN (ISO 14230-3, 7.1).
const READ_ECU_IDENTIFICATION: [u8; 2] = [0x1A, 0x90];
/// Mode 09, InfoType 02: five messages of four bytes (SAE J1979, 6.9).
const OBD_VIN: [u8; 2] = [0x09, 0x02];
/// The number of times that a question is repeated, because the ECU is busy or the line is disturbed: as often as on
/// CAN. More would take the budget from the addresses that are tried later.
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
    /// An ECU was busy, or an answer disturbed.
    is_worth_repeating: bool,
    /// The messages of mode 09 so far.
    pieces: VinPieces,
    candidates: Vec<Candidate>,
    has_sent: bool,
    is_in_use: bool,
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
            is_worth_repeating: false,
            pieces: VinPieces::default(),
            candidates: Vec::new(),
            has_sent: false,
            is_in_use: false,
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

    /// Whether reading ended because another tester uses the line.
    pub(crate) fn is_in_use(&self) -> bool {
        self.is_in_use
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
        if !self.has_sent {
            return self.leave_alone();
        }
        if self.endpoint.is_exchanging() {
            self.line.handle_activity(now);
        } else {
            self.line.handle_foreign_activity(now);
        }
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
            Event::ReceiveFailed(_) => self.is_worth_repeating = true,
            Event::AnswersOver => self.handle_answers_over(),
            Event::SendFailed(Failure::Collision { .. }) => {
                self.is_worth_repeating = true;
                self.handle_answers_over();
            }
            Event::SendFailed(Failure::LineInUse) | Event::Down(Failure::LineInUse) | Event::OtherTester => {
                self.leave_alone()
            }
            Event::SendFailed(_) => self.handle_answers_over(),
            Event::Stopped => self.is_finished = true,
            Event::Down(failure) => {
                tracing::debug!(bit_rate = self.bit_rate(), %failure, "no link on the K-line");
                self.try_again(failure);
                self.try_next(now);
            }
            Event::Sent { .. } | Event::ReceptionStarted | Event::ReceptionDropped | Event::NoAnswer => {}
        }
    }

    /// Ends reading without another signal: the line is another tester's.
    fn leave_alone(&mut self) {
        self.is_in_use = true;
        self.is_finished = true;
    }

    /// Wakes an ECU again whose synchronisation byte is that of another bit rate, or whose answer was disturbed.
    fn try_again(&mut self, failure: Failure) {
        let &Config { addressing, initialisation, bit_rate, .. } = self.endpoint.config();
        let bit_rate = match failure {
            Failure::Synchronisation(_) => {
                self.bit_rates.iter().skip_while(|other| **other != bit_rate).nth(1).copied()
            }
            Failure::Collision { .. } | Failure::Disturbed(_) if self.repeats_left > 0 => {
                self.repeats_left -= 1;
                Some(bit_rate)
            }
            _ => None,
        };
        let again = bit_rate.map(|bit_rate| WakeAttempt { addressing, initialisation, bit_rate });
        again.into_iter().for_each(|again| self.attempts.push_front(again));
    }

    /// Asks the next question, or ends the communication.
    fn ask_next(&mut self) {
        self.pieces = VinPieces::default();
        self.is_worth_repeating = false;
        let question = if self.candidates.is_empty() { self.questions.pop_front() } else { None };
        self.question = question;
        match question {
            Some(question) if self.endpoint.send(&question).is_ok() => {}
            _ => self.endpoint.stop(),
        }
    }

    /// Takes an answer, which may also be a late one to the question before.
    fn handle_answer(&mut self, source: u8, pdu: &[u8]) {
        if let [0x49, 0x02, count, piece @ ..] = pdu
            && let Ok(piece) = piece.try_into()
        {
            if self.question == Some(OBD_VIN) {
                self.pieces.insert(source, *count, piece);
            }
            return;
        }
        match VinAnswer::parse(pdu) {
            VinAnswer::Vin(Service::Gmlan, _) => self.handle_vin(source, pdu, VinSource::Kwp),
            VinAnswer::Vin(Service::Obd, _) => self.handle_vin(source, pdu, VinSource::Obd),
            VinAnswer::Busy(_) => self.is_worth_repeating = true,
            _ => {}
        }
        if !self.candidates.is_empty() {
            self.endpoint.stop();
        }
    }

    /// All ECUs have answered the question, or none will.
    fn handle_answers_over(&mut self) {
        let fields: Vec<_> = std::mem::take(&mut self.pieces).fields().collect();
        for (source, field) in fields {
            let whole = [&[0x49, 0x02, 0x01][..], &field].concat();
            self.handle_vin(source, &whole, VinSource::Obd);
        }
        // P3min is pause enough
        if self.is_worth_repeating && self.repeats_left > 0 {
            self.repeats_left -= 1;
            self.question.take().into_iter().for_each(|question| self.questions.push_front(question));
        }
        self.ask_next();
    }

    fn handle_vin(&mut self, address: u8, pdu: &[u8], source: VinSource) {
        if let VinAnswer::Vin(_, vin) = VinAnswer::parse(pdu) {
            self.candidates.push(Candidate { vin, source, address: EcuAddress::Kline(address) });
        }
    }

    /// The next signal for the line.
    pub(crate) fn poll_transmit(&mut self) -> Option<Signal> {
        let signal = self.endpoint.poll_transmit().filter(|_| !self.is_in_use);
        self.has_sent |= signal.is_some();
        signal
    }

    /// The time of the next [`KlineReader::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at).or_else(|| self.endpoint.wants_line());
        (!self.is_finished).then(|| endpoint.map_or(self.until, |at| at.min(self.until)))
    }
}
