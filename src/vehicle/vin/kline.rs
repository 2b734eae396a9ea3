//! Reading the VIN on a K-line, from vehicles whose CAN buses tell none: `1A 90` (ISO 14230-3), and mode 09 of OBD.
//!
//! An initialisation is no polite listening, so the line is only asked where CAN told nothing: first the emission-related
//! ECUs together, then the engine's by its usual addresses, each by a pulse; then all again by the 5-baud address that
//! OBD has for them. Then the pulses once more at the other bit rates. The address needs no such repetition: ECUs hear it
//! whatever their bit rate, and one that has another shows that by its synchronisation byte; only then the address is
//! sent again.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::kline::{KLine, KLineError, KLineEvent, Signal};
use connector_hal::timer::{Deadline, TimerKind};

use super::{Answer, Candidate, EcuAddress, VinReport, VinSource};
use crate::protocol::kline::{
    Addressing, Config, Endpoint, Event, Failure, Initialisation, LineClock, OBD_FUNCTIONAL_ADDRESS,
};

/// The engine's addresses (SAE J2178-1).
const ENGINES: [u8; 2] = [0x11, 0x10];

/// ReadECUIdentification of the VIN (ISO 14230-3, 7.1).
const READ_ECU_IDENTIFICATION: [u8; 2] = [0x1A, 0x90];
/// Mode 09, InfoType 02: five messages of four bytes (SAE J1979, 6.9).
const OBD_VIN: [u8; 2] = [0x09, 0x02];
const OBD_MESSAGES: usize = 5;

/// The number of times that a busy ECU is asked the same question again.
const MAX_REPEATS: u8 = 2;

/// Who is to be asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempt {
    addressing: Addressing,
    initialisation: Initialisation,
    bit_rate: u32,
}

/// What is tried, in this order.
fn attempts(bit_rates: &[u32]) -> VecDeque<Attempt> {
    let functional = Addressing::Functional(OBD_FUNCTIONAL_ADDRESS);
    let engines = ENGINES.map(Addressing::Physical);
    let mut attempts = VecDeque::new();
    for (index, &bit_rate) in bit_rates.iter().enumerate() {
        let mut push = |addressing, initialisation| {
            attempts.push_back(Attempt { addressing, initialisation, bit_rate });
        };
        push(functional, Initialisation::Fast);
        engines.into_iter().for_each(|engine| push(engine, Initialisation::Fast));
        if index == 0 {
            push(functional, Initialisation::Slow);
        }
    }
    attempts
}

/// A line that is being asked: a pure state machine with the interface of [`Endpoint`].
#[derive(Debug)]
pub struct KlineReader {
    until: Instant,
    line: LineClock,
    bit_rates: Vec<u32>,
    /// What is still to be tried.
    attempts: VecDeque<Attempt>,
    endpoint: Endpoint,
    questions: VecDeque<[u8; 2]>,
    /// The question that was sent last.
    question: Option<[u8; 2]>,
    repeats_left: u8,
    /// The bytes of mode 09 so far, of one ECU.
    pieces: Option<(u8, Vec<Vec<u8>>)>,
    candidates: Vec<Candidate>,
    is_finished: bool,
}

impl KlineReader {
    /// Begins to ask at these bit rates, the likeliest first, in bit/s; to be done by `until`.
    pub fn new(bit_rates: &[u32], until: Instant, now: Instant) -> Self {
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

    /// What was told.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whether nothing more will happen.
    pub fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// The bit rate that the line has to have now, in bit/s.
    pub fn bit_rate(&self) -> u32 {
        self.endpoint.config().bit_rate
    }

    /// The line cannot have this bit rate: nothing is asked at it.
    pub fn handle_refused(&mut self, now: Instant) {
        let refused = self.bit_rate();
        self.bit_rates.retain(|bit_rate| *bit_rate != refused);
        // as if it had never been there
        self.attempts = attempts(&self.bit_rates);
        self.try_next(now);
        self.go_on(now);
    }

    fn try_next(&mut self, now: Instant) {
        let Some(Attempt { addressing, initialisation, bit_rate }) = self.attempts.pop_front() else {
            self.is_finished = true;
            return;
        };
        let config = Config { attempts: 1, ..Config::new(addressing, initialisation, bit_rate) };
        self.endpoint = Endpoint::new(config, now);
        self.endpoint.connect();
    }

    /// A byte that was on the line.
    pub fn handle_byte(&mut self, now: Instant, byte: u8) {
        self.line.handle_activity(now);
        self.endpoint.handle_byte(now, byte);
        self.go_on(now);
    }

    /// A slow signal is over since `at`.
    pub fn handle_sent(&mut self, at: Instant) {
        self.line.handle_activity(at);
        self.endpoint.handle_sent(at);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.until <= now && !self.is_finished {
            self.is_finished = true;
            return;
        }
        self.endpoint.handle_timeout(now);
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
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
                // who answered is who will be asked, and nobody else
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

    /// An ECU whose synchronisation byte cannot be read is woken again at the next bit rate.
    fn try_other_bit_rate(&mut self, failure: Failure) {
        let &Config { addressing, initialisation, bit_rate, .. } = self.endpoint.config();
        if !matches!(failure, Failure::Synchronisation(_)) {
            return;
        }
        let next = self.bit_rates.iter().skip_while(|other| **other != bit_rate).nth(1);
        let again = next.map(|bit_rate| Attempt { addressing, initialisation, bit_rate: *bit_rate });
        again.into_iter().for_each(|again| self.attempts.push_front(again));
    }

    /// Asks the next question, or says goodbye.
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
            _ => match Answer::parse(pdu) {
                Answer::Pending(_) | Answer::Unrelated => {}
                // P3min is pause enough
                Answer::Busy(_) if self.repeats_left > 0 => {
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
        if let Answer::Vin(_, vin) = Answer::parse(pdu) {
            self.candidates.push(Candidate { vin, source, address: EcuAddress::Kline(address) });
        }
    }

    /// What to put on the line now.
    pub fn poll_transmit(&mut self) -> Option<Signal> {
        self.endpoint.poll_transmit()
    }

    /// When [`KlineReader::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at).or_else(|| self.endpoint.wants_line());
        (!self.is_finished).then(|| endpoint.map_or(self.until, |at| at.min(self.until)))
    }
}

/// A line to ask, and at which bit rates, the likeliest first, in bit/s.
pub struct LineToAsk {
    /// The line.
    pub line: Box<dyn KLine>,
    /// The bit rates.
    pub bit_rates: Vec<u32>,
}

/// What came of a line.
pub struct LineReading {
    /// The line's device.
    pub device: String,
    /// What was told.
    pub candidates: Vec<Candidate>,
    /// Why it ended early.
    pub error: Option<KLineError>,
}

/// Reads the VIN on a line.
pub async fn read_line(asked: LineToAsk, budget: Duration, timer: TimerKind) -> LineReading {
    let LineToAsk { mut line, bit_rates } = asked;
    let device = line.device().to_owned();
    let mut driver = Driver {
        reader: KlineReader::new(&bit_rates, timer.now() + budget, timer.now()),
        bit_rate: None,
        refused: None,
        deadline: Deadline::new(timer),
        timer,
    };
    let driven = poll_fn(|cx| driver.poll(line.as_mut(), cx)).await;
    // a line that can have one of the bit rates was asked
    let error = driven.err().or(driver.refused.take_if(|_| driver.bit_rate.is_none()));
    LineReading { device, candidates: driver.reader.candidates().to_vec(), error }
}

/// Moves a line's bytes and time along.
struct Driver {
    reader: KlineReader,
    /// That of the line.
    bit_rate: Option<u32>,
    /// What the line said to the last bit rate that it cannot have.
    refused: Option<KLineError>,
    deadline: Deadline,
    timer: TimerKind,
}

impl Driver {
    fn poll(&mut self, line: &mut dyn KLine, cx: &mut Context<'_>) -> Poll<Result<(), KLineError>> {
        let reader = &mut self.reader;
        loop {
            if reader.is_finished() {
                return Poll::Ready(Ok(()));
            }
            if self.bit_rate != Some(reader.bit_rate()) {
                match line.set_bit_rate(reader.bit_rate()) {
                    Ok(()) => self.bit_rate = Some(reader.bit_rate()),
                    Err(error @ KLineError::Unsupported { .. }) => {
                        tracing::debug!(%error, "the VIN is not asked for at this bit rate");
                        self.refused = Some(error);
                        reader.handle_refused(self.timer.now());
                        continue;
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            while let Some(signal) = reader.poll_transmit() {
                line.transmit(signal)?;
            }
            match line.poll_event(cx) {
                Poll::Ready(Ok(KLineEvent::Received { byte, at })) => reader.handle_byte(at, byte),
                Poll::Ready(Ok(KLineEvent::Sent { at })) => reader.handle_sent(at),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.deadline.set(reader.poll_timeout());
                    if self.deadline.poll_expired(cx).is_pending() {
                        return Poll::Pending;
                    }
                    reader.handle_timeout(self.timer.now());
                }
            }
        }
    }
}

/// Reads the VIN on these lines one after the other, until one tells it; the report's time counts from `elapsed` on.
/// `None` where there is no line.
pub async fn read(
    lines: Vec<LineToAsk>,
    budget: Duration,
    elapsed: Duration,
    timer: TimerKind,
) -> Option<(VinReport, Vec<LineReading>)> {
    let since = timer.now();
    let mut readings = Vec::new();
    for line in lines {
        let reading = read_line(line, budget, timer).await;
        if let Some(error) = &reading.error {
            tracing::warn!(%error, "no VIN can be read here");
        }
        let has_told = !reading.candidates.is_empty();
        readings.push(reading);
        if has_told {
            break;
        }
    }
    let told: Vec<_> = readings.iter().map(|reading| reading.candidates.clone()).collect();
    let elapsed = elapsed + timer.now().saturating_duration_since(since);
    (!readings.is_empty()).then(|| (VinReport::from_buses(&told, elapsed), readings))
}
