//! Reading the VIN on a K-line, from vehicles whose CAN buses tell none: `1A 90` (ISO 14230-3), and mode 09 of OBD.
//!
//! An initialisation is no polite listening, so the line is only asked where CAN told nothing: first the emission-related
//! ECUs together, then the engine's by its usual addresses, each by a pulse; then all again by the 5-baud address that
//! OBD has for them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::kline::{KLine, KLineError, KLineEvent, Signal};
use connector_hal::timer::{Deadline, TimerKind};

use super::{Answer, Candidate, EcuAddress, VinReport, VinSource};
use crate::kline::{Addressing, Config, Endpoint, Event, Initialisation, LineClock, OBD_FUNCTIONAL_ADDRESS};

/// How long reading may take: three pulses of half a second, and a slow initialisation with its request.
pub const DEFAULT_BUDGET: Duration = Duration::from_secs(6);
/// The bit rate of OBD (ISO 14230-4, 5).
const BIT_RATE: u32 = 10_400;
/// The engine's addresses (SAE J2178-1).
const ENGINES: [u8; 2] = [0x11, 0x10];

/// ReadECUIdentification of the VIN (ISO 14230-3, 7.1).
const READ_ECU_IDENTIFICATION: [u8; 2] = [0x1A, 0x90];
/// Mode 09, InfoType 02: five messages of four bytes (SAE J1979, 6.9).
const OBD_VIN: [u8; 2] = [0x09, 0x02];
const OBD_MESSAGES: usize = 5;

/// A line that is being asked: a pure state machine with the interface of [`Endpoint`].
#[derive(Debug)]
pub struct KlineReader {
    until: Instant,
    line: LineClock,
    /// Who is still to be asked, and how.
    attempts: VecDeque<(Addressing, Initialisation)>,
    endpoint: Endpoint,
    questions: VecDeque<[u8; 2]>,
    /// The bytes of mode 09 so far, of one ECU.
    pieces: Option<(u8, Vec<Vec<u8>>)>,
    candidates: Vec<Candidate>,
    is_finished: bool,
}

impl KlineReader {
    /// Begins to ask, to be done by `until`.
    pub fn new(until: Instant, now: Instant) -> Self {
        let functional = Addressing::Functional(OBD_FUNCTIONAL_ADDRESS);
        let mut attempts = VecDeque::from([(functional, Initialisation::Fast)]);
        attempts.extend(ENGINES.map(|address| (Addressing::Physical(address), Initialisation::Fast)));
        attempts.push_back((functional, Initialisation::Slow));
        let mut reader = Self {
            until,
            line: LineClock::new(now),
            attempts,
            endpoint: Endpoint::new(Config::new(functional, Initialisation::Fast, BIT_RATE), now),
            questions: VecDeque::new(),
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

    fn try_next(&mut self, now: Instant) {
        let Some((addressing, initialisation)) = self.attempts.pop_front() else {
            self.is_finished = true;
            return;
        };
        let config = Config { attempts: 1, ..Config::new(addressing, initialisation, BIT_RATE) };
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
                tracing::debug!(%failure, "no link on the K-line");
                self.try_next(now);
            }
            Event::Sent { .. } | Event::ReceptionStarted => {}
        }
    }

    /// Asks the next question, or says goodbye.
    fn ask_next(&mut self) {
        self.pieces = None;
        let question = if self.candidates.is_empty() { self.questions.pop_front() } else { None };
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
pub async fn read_line(mut line: Box<dyn KLine>, budget: Duration, timer: TimerKind) -> LineReading {
    let device = line.device().to_owned();
    if let Err(error) = line.set_bit_rate(BIT_RATE) {
        return LineReading { device, candidates: Vec::new(), error: Some(error) };
    }
    let mut deadline = Deadline::new(timer);
    let mut reader = KlineReader::new(timer.now() + budget, timer.now());
    let driven = poll_fn(|cx| poll_read(&mut reader, line.as_mut(), &mut deadline, timer, cx)).await;
    LineReading { device, candidates: reader.candidates().to_vec(), error: driven.err() }
}

fn poll_read(
    reader: &mut KlineReader,
    line: &mut dyn KLine,
    deadline: &mut Deadline,
    timer: TimerKind,
    cx: &mut Context<'_>,
) -> Poll<Result<(), KLineError>> {
    loop {
        while let Some(signal) = reader.poll_transmit() {
            line.transmit(signal)?;
        }
        if reader.is_finished() {
            return Poll::Ready(Ok(()));
        }
        match line.poll_event(cx) {
            Poll::Ready(Ok(KLineEvent::Received { byte, at })) => reader.handle_byte(at, byte),
            Poll::Ready(Ok(KLineEvent::Sent { at })) => reader.handle_sent(at),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                deadline.set(reader.poll_timeout());
                if deadline.poll_expired(cx).is_pending() {
                    return Poll::Pending;
                }
                reader.handle_timeout(timer.now());
            }
        }
    }
}

/// Reads the VIN on these lines one after the other, until one tells it; the report's time counts from `elapsed` on.
/// `None` where there is no line.
pub async fn read(
    lines: Vec<Box<dyn KLine>>,
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
