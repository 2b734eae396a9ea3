//! The communication with one ECU: initialisation, requests, keep-alive, and recovery.

mod answers;
mod initialisation;
mod pause;
mod timing;
mod transmission;
mod turn;

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::kline::Signal;

use self::turn::{EcuLink, Exchange, TurnPhase, TurnPurpose};
use super::config::{Addressing, Config};
use super::event::{Event, Failure, SendError, Timer};
use super::line::LineClock;
use super::message::{AddressMode, MAX_DATA, TooLong};
use super::receiver::Receiver;
use super::timing::{Timing, TimingParameters};
use super::transmitter::Echo;
use crate::protocol::uds::{KWP_TESTER_PRESENT, STOP_COMMUNICATION};

/// Number of waiting events from which no turn begins, no PDU is accepted, and bytes of other nodes are dropped. One
/// turn causes a few, so that only a caller that does not poll reaches this number.
const MAX_EVENTS: usize = 16;

/// Exchanges PDUs with one ECU on a K-line (ISO 14230).
///
/// An endpoint is a pure state machine: it does no I/O and reads no clock. It initialises the communication
/// when a PDU needs it, keeps it alive with TesterPresent, and initialises it again after a loss. It never
/// repeats a PDU: a request whose answer was lost may have had its effect.
///
/// Several endpoints can share one line. The line belongs to one endpoint at a time:
///
/// 1. [`send`](Self::send), [`connect`](Self::connect) and [`stop`](Self::stop) record what the endpoint has
///    to do.
/// 2. [`wants_line`](Self::wants_line) returns when the endpoint needs the line. If no other endpoint of the
///    line [`is_busy`](Self::is_busy), call [`start`](Self::start), which gives the line to the endpoint
///    until `is_busy` returns false.
/// 3. While the endpoint is busy, put each signal of [`poll_transmit`](Self::poll_transmit) on the line. Pass
///    every byte on the line, including the echo of our own, to [`handle_byte`](Self::handle_byte), and the
///    end of a pulse or address to [`handle_sent`](Self::handle_sent). When
///    [`poll_timeout`](Self::poll_timeout) is due, call [`handle_timeout`](Self::handle_timeout), after all
///    bytes that have arrived by then.
/// 4. After each of these calls, take the events of [`poll_event`](Self::poll_event).
///
/// Report each byte and signal on the line to the shared [`LineClock`], too; a byte is foreign unless the
/// endpoint with the line [`is_exchanging`](Self::is_exchanging). `now` never decreases from one
/// call to the next.
///
/// # Example
///
/// A fast initialisation and one request in virtual time, with a scripted ECU.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use connector_agent::protocol::kline::{
///     Addressing, Config, Decoder, Endpoint, Event, HeaderForm, Initialisation, LineClock, encode,
/// };
/// use connector_hal::kline::{Signal, byte_time};
///
/// const BIT_RATE: u32 = 10_400;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut now = Instant::now();
/// let mut line = LineClock::new(now);
/// let config = Config::new(Addressing::Physical(0x11), Initialisation::Fast, BIT_RATE);
/// let mut endpoint = Endpoint::new(config, now);
/// endpoint.send(&[0x1A, 0x90])?;
///
/// let mut ecu = Decoder::default();
/// let mut events = Vec::new();
/// while !events.iter().any(|event| matches!(event, Event::Received { .. })) {
///     if endpoint.wants_line().is_some_and(|at| at <= now) {
///         endpoint.start(now, &line);
///     }
///     let mut request = None;
///     while let Some(signal) = endpoint.poll_transmit() {
///         match signal {
///             // the line is a single wire, so each byte is received as its own echo
///             Signal::Byte(byte) => {
///                 now += byte_time(BIT_RATE);
///                 endpoint.handle_byte(now, byte);
///                 request = ecu.push(byte);
///             }
///             Signal::Pulse(low) => {
///                 now += low;
///                 endpoint.handle_sent(now);
///             }
///             Signal::Address(_) => unreachable!("a fast initialisation has no 5-baud address"),
///         }
///         line.handle_activity(now);
///     }
///     // the ECU answers after 30 ms
///     if let Some(request) = request {
///         let answer: &[u8] = match request?.data[..] {
///             [0x81] => &[0xC1, 0xE9, 0x8F],
///             _ => &[0x5A, 0x90, b'V', b'I', b'N'],
///         };
///         now += Duration::from_millis(30);
///         for byte in encode(HeaderForm::START_COMMUNICATION, 0xF1, 0x11, answer)? {
///             now += byte_time(BIT_RATE);
///             endpoint.handle_byte(now, byte);
///             line.handle_activity(now);
///         }
///     }
///     events.extend(std::iter::from_fn(|| endpoint.poll_event()));
///     if let Some((due, _timer)) = endpoint.poll_timeout() {
///         now = now.max(due);
///         endpoint.handle_timeout(now);
///     }
/// }
///
/// assert!(matches!(events[0], Event::Up(key_bytes) if key_bytes.number() == 0x8FE9));
/// assert!(matches!(events[1], Event::Sent { .. }));
/// assert_eq!(events[2], Event::ReceptionStarted);
/// assert_eq!(events[3], Event::Received { source: 0x11, pdu: b"\x5A\x90VIN".to_vec() });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    created: Instant,
    keeps_alive: bool,
    link: Option<EcuLink>,
    /// The communication is to be initialised without a PDU.
    wanted: bool,
    /// The communication is to be ended.
    stopping: bool,
    /// The PDU that waits for a turn.
    pdu: Option<Vec<u8>>,
    /// Number of consecutive failed initialisations.
    attempts: u32,
    /// The next address at 5 baud has a parity bit, because the ECU did not answer the eight bits.
    uses_parity: bool,
    phase: TurnPhase,
    receiver: Receiver,
    /// The ECUs that have announced their answer to the PDU by response pending.
    pending: Vec<u8>,
    /// The parameters of the AccessTimingParameters that is being sent or answered.
    requested_timing: Option<TimingParameters>,
    transmit: Option<Signal>,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// Creates an endpoint without communication.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            created: now,
            keeps_alive: true,
            link: None,
            wanted: false,
            stopping: false,
            pdu: None,
            attempts: 0,
            uses_parity: false,
            phase: TurnPhase::Idle,
            receiver: Receiver::new(config.tester),
            pending: Vec::new(),
            requested_timing: None,
            transmit: None,
            events: VecDeque::new(),
        }
    }

    /// Returns the endpoint's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether the communication is initialised.
    pub fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Returns whether the endpoint has the line.
    pub fn is_busy(&self) -> bool {
        !matches!(self.phase, TurnPhase::Idle)
    }

    /// Returns whether a byte on the line belongs to the endpoint's turn: the endpoint has the line, and does not
    /// wait for silence.
    pub fn is_exchanging(&self) -> bool {
        !matches!(self.phase, TurnPhase::Idle | TurnPhase::Pausing { .. })
    }

    /// Returns whether a PDU is waiting or being sent.
    pub fn is_sending(&self) -> bool {
        self.pdu.is_some() || matches!(self.phase, TurnPhase::Sending { exchange: Exchange::Pdu { .. }, .. })
    }

    /// Returns whether an answer is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        matches!(self.phase, TurnPhase::Receiving { wait, .. } if matches!(wait.exchange, Exchange::Pdu { .. }))
    }

    /// Switches the configured TesterPresent on or off.
    ///
    /// The next PDU initialises a communication that has ended meanwhile.
    pub(crate) fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        if !std::mem::replace(&mut self.keeps_alive, enabled) {
            self.link.take_if(|link| link.has_ended(now));
        }
    }

    /// Initialises the communication without a PDU; ends with [`Event::Up`] or [`Event::Down`].
    pub fn connect(&mut self) {
        self.wanted = true;
        self.stopping = false;
    }

    /// Sends a PDU in the next turn, which ends with [`Event::Sent`] or [`Event::SendFailed`].
    ///
    /// Initialises the communication first if necessary.
    ///
    /// # Errors
    ///
    /// Another PDU is waiting or being sent, many events have not been read, or the PDU is empty or too long for a
    /// message to this ECU.
    pub fn send(&mut self, pdu: &[u8]) -> Result<(), SendError> {
        if self.is_sending() || self.has_unread_events() {
            return Err(SendError::Busy);
        }
        let max = self.link.map_or(MAX_DATA, |link| link.header.max_data());
        if pdu.is_empty() || pdu.len() > max {
            return Err(TooLong { len: pdu.len(), max }.into());
        }
        self.pdu = Some(pdu.to_vec());
        self.stopping = false;
        Ok(())
    }

    /// Withdraws a PDU that is not on the line yet. A PDU on the line is sent completely.
    pub fn abort_send(&mut self) {
        if self.pdu.take().is_some() {
            self.events.push_back(Event::SendFailed(Failure::Aborted));
        }
    }

    /// Ends the communication with the ECU, if there is one; [`Event::Stopped`] reports the end.
    pub fn stop(&mut self) {
        self.abort_send();
        self.wanted = false;
        self.stopping = true;
        if self.link.is_none() && !self.is_busy() {
            self.finish_stop();
        }
    }

    fn finish_stop(&mut self) {
        self.link = None;
        if std::mem::take(&mut self.stopping) && self.events.back() != Some(&Event::Stopped) {
            self.events.push_back(Event::Stopped);
        }
    }

    /// Reports that the line was lost or opened again. The PDU being sent fails, and the communication is
    /// lost.
    pub fn handle_line_lost(&mut self) {
        let was_sending = self.is_sending();
        self.pdu = None;
        self.transmit = None;
        self.receiver.reset();
        self.phase = TurnPhase::Idle;
        let had_link = self.link.take().is_some();
        if was_sending {
            self.events.push_back(Event::SendFailed(Failure::NoEcho));
        } else if had_link {
            self.events.push_back(Event::Down(Failure::NoEcho));
        }
        if self.stopping {
            self.finish_stop();
        }
    }

    /// Returns whether the bound of waiting events is reached. Then no turn begins, and bytes of other nodes are dropped.
    fn has_unread_events(&self) -> bool {
        self.events.len() >= MAX_EVENTS
    }

    /// Returns the time from which the endpoint needs the line, or `None` if it does not, or if many events have not
    /// been read.
    pub fn wants_line(&self) -> Option<Instant> {
        if self.is_busy() || self.has_unread_events() {
            return None;
        }
        match (&self.link, self.stopping) {
            (None, true) => None,
            (None, false) => (self.pdu.is_some() || self.wanted).then_some(self.created),
            (Some(link), true) => Some(link.alive_at),
            (Some(link), false) if self.pdu.is_some() || link.unanswered > 0 => Some(link.alive_at),
            (Some(_), false) if !self.keeps_alive => None,
            // half of P3max leaves time for a line that another endpoint has
            (Some(link), false) => Some(link.alive_at + self.config.keep_alive?.min(link.timing.p3_max / 2)),
        }
    }

    /// Gives the line to the endpoint. No other endpoint may be busy.
    pub fn start(&mut self, now: Instant, line: &LineClock) {
        if self.is_busy() || self.has_unread_events() {
            return;
        }
        let p3_min = self.timing().p3_min;
        let request_at = (line.quiet_since() + p3_min).max(now);
        let ended = self.link.take_if(|link| link.has_ended(request_at));
        if ended.is_some() && self.keeps_alive && self.config.keep_alive.is_some() && !self.stopping {
            self.events.push_back(Event::Down(Failure::NotKeptAlive));
        }
        if self.link.is_none() && self.stopping {
            return self.finish_stop();
        }
        let purpose = match &self.link {
            None => TurnPurpose::Initialise,
            Some(_) if self.stopping => TurnPurpose::Stop,
            // an ECU that did not answer may be gone, and would lose the PDU
            Some(link) if link.unanswered > 0 => TurnPurpose::TesterPresent,
            Some(_) if self.pdu.is_some() => TurnPurpose::Pdu,
            Some(_) => TurnPurpose::TesterPresent,
        };
        self.begin_pause(now, line, purpose);
    }

    fn begin(&mut self, now: Instant, purpose: TurnPurpose) {
        match (purpose, self.link) {
            (TurnPurpose::Initialise, _) | (_, None) => self.begin_initialisation(now),
            (TurnPurpose::Stop, Some(link)) => {
                self.transmit_message(now, Exchange::StopCommunication, link.header, &[STOP_COMMUNICATION])
            }
            (TurnPurpose::TesterPresent, Some(link)) => {
                self.transmit_message(now, Exchange::TesterPresent, link.header, &KWP_TESTER_PRESENT)
            }
            (TurnPurpose::Pdu, Some(link)) => match self.pdu.take() {
                Some(pdu) => {
                    let service = pdu.first().copied().unwrap_or_default();
                    self.requested_timing = timing::requested(&pdu);
                    self.transmit_message(now, Exchange::Pdu { service }, link.header, &pdu);
                }
                // withdrawn meanwhile
                None => self.phase = TurnPhase::Idle,
            },
        }
    }

    /// Returns the next signal to put on the line.
    pub fn poll_transmit(&mut self) -> Option<Signal> {
        self.transmit.take()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Endpoint::handle_timeout`] is due, and for which timer; `None` unless the endpoint is
    /// busy.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let p2 = |is_pending: bool| if is_pending { Timer::P2Star } else { Timer::P2 };
        match &self.phase {
            TurnPhase::Idle => None,
            TurnPhase::Pausing { quiet_at, latest, .. } => Some(((*quiet_at).min(*latest), Timer::Idle)),
            TurnPhase::Signal { until, .. } => Some((*until, Timer::Echo)),
            TurnPhase::WakingUp { until } => Some((*until, Timer::TWup)),
            TurnPhase::Synchronising { until, .. } => Some((*until, Timer::W1)),
            TurnPhase::FirstKeyByte { until } => Some((*until, Timer::W2)),
            TurnPhase::SecondKeyByte { until, .. } => Some((*until, Timer::W3)),
            TurnPhase::BeforeComplement { until, .. } | TurnPhase::AddressComplement { until, .. } => {
                Some((*until, Timer::W4))
            }
            TurnPhase::Sending { transmitter, .. } => {
                let timer = if transmitter.awaits_echo() { Timer::Echo } else { Timer::P4 };
                Some((transmitter.poll_timeout(), timer))
            }
            TurnPhase::Awaiting(wait) => Some((wait.until, p2(wait.is_pending))),
            TurnPhase::Receiving { until, .. } => Some((*until, Timer::P1)),
        }
    }

    /// Takes a byte from the line.
    pub fn handle_byte(&mut self, now: Instant, byte: u8) {
        match &mut self.phase {
            TurnPhase::Sending { exchange, transmitter } => {
                let exchange = *exchange;
                match transmitter.handle_byte(now, byte) {
                    Echo::Right => {}
                    Echo::Last(elapsed) => self.handle_message_sent(now, exchange, elapsed),
                    Echo::Wrong(failure) => self.handle_transmit_failed(now, exchange, failure),
                }
            }
            TurnPhase::Pausing { .. } => self.handle_byte_in_pause(now, byte),
            TurnPhase::Awaiting(_) | TurnPhase::Receiving { .. } => self.handle_answer_byte(now, byte),
            _ => self.handle_initialisation_byte(now, byte),
        }
    }

    /// Handles the timer, if it has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|(at, _)| now < at) {
            return;
        }
        match &mut self.phase {
            TurnPhase::Pausing { .. } => self.handle_pause_over(now),
            TurnPhase::Sending { exchange, transmitter } => {
                let exchange = *exchange;
                if transmitter.is_missing_echo(now) {
                    self.handle_transmit_failed(now, exchange, Failure::NoEcho);
                } else {
                    self.drive_transmitter(now);
                }
            }
            TurnPhase::Awaiting(_) | TurnPhase::Receiving { .. } => self.handle_answer_timeout(now),
            _ => self.handle_initialisation_timeout(now),
        }
    }

    fn timing(&self) -> Timing {
        self.link.map_or(Timing::NORMAL, |link| link.timing)
    }

    fn mode(&self) -> AddressMode {
        match self.config.addressing {
            Addressing::Physical(_) => AddressMode::Physical,
            Addressing::Functional(_) => AddressMode::Functional,
        }
    }
}
