//! One ECU's link: set up, kept alive, asked, and set up again.

mod answers;
mod initialisation;
mod transmission;
mod turn;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::kline::Signal;

use self::turn::{EcuLink, Exchange, TurnPhase, TurnPurpose};
use super::config::{Addressing, Config, Initialisation};
use super::event::{Event, Failure, SendError, Timer};
use super::line::LineClock;
use super::message::{AddressMode, Decoder, MAX_DATA, TooLong};
use super::timing::Timing;
use super::transmitter::Echo;
use crate::protocol::uds::{KWP_TESTER_PRESENT, STOP_COMMUNICATION};

/// How long bytes of others may keep a turn from beginning; a line that never falls silent is an error to be told.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// See [the module](super).
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    created: Instant,
    keeps_alive: bool,
    link: Option<EcuLink>,
    /// The link is to be set up.
    wanted: bool,
    /// The communication is to be ended.
    stopping: bool,
    /// The PDU that waits for its turn.
    pdu: Option<Vec<u8>>,
    /// Initialisations that failed in a row.
    attempts: u32,
    phase: TurnPhase,
    decoder: Decoder,
    transmit: Option<Signal>,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// A link that is not set up.
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
            phase: TurnPhase::Idle,
            decoder: Decoder::default(),
            transmit: None,
            events: VecDeque::new(),
        }
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether the link is set up.
    pub fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it has the line.
    pub fn is_busy(&self) -> bool {
        !matches!(self.phase, TurnPhase::Idle)
    }

    /// Whether a PDU is waiting, or on its way.
    pub fn is_sending(&self) -> bool {
        self.pdu.is_some() || matches!(self.phase, TurnPhase::Sending { exchange: Exchange::Pdu { .. }, .. })
    }

    /// Whether an answer is coming in.
    pub fn is_receiving(&self) -> bool {
        matches!(self.phase, TurnPhase::Receiving { exchange: Exchange::Pdu { .. }, .. })
    }

    /// Switches TesterPresent on or off, where it is configured. Links that end meanwhile are set up by the next PDU.
    pub fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        if !std::mem::replace(&mut self.keeps_alive, enabled) {
            self.link.take_if(|link| link.has_ended(now));
        }
    }

    /// Sets the link up, without anything to send.
    pub fn connect(&mut self) {
        self.wanted = true;
        self.stopping = false;
    }

    /// Sends a PDU, as soon as its turn comes; the link is set up for it where it is not.
    pub fn send(&mut self, pdu: &[u8]) -> Result<(), SendError> {
        if self.is_sending() {
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

    /// Takes a PDU back that is not on the line yet; one that is goes on.
    pub fn abort_send(&mut self) {
        if self.pdu.take().is_some() {
            self.events.push_back(Event::SendFailed(Failure::Aborted));
        }
    }

    /// Ends the communication with the ECU, if there is one; [`Event::Stopped`] tells when that is done.
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
        if std::mem::take(&mut self.stopping) {
            self.events.push_back(Event::Stopped);
        }
    }

    /// The line is gone, or was opened anew: the link has to be set up again, and what was under way has failed.
    pub fn handle_line_lost(&mut self) {
        let was_sending = self.is_sending();
        self.pdu = None;
        self.transmit = None;
        self.decoder.reset();
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

    /// From when on it wants the line, if no other endpoint has it; `None`: not at all.
    pub fn wants_line(&self) -> Option<Instant> {
        if self.is_busy() {
            return None;
        }
        match (&self.link, self.stopping) {
            (None, true) => None,
            (None, false) => (self.pdu.is_some() || self.wanted).then_some(self.created),
            (Some(link), true) => Some(link.alive_at),
            (Some(link), false) if self.pdu.is_some() || link.unanswered > 0 => Some(link.alive_at),
            (Some(_), false) if !self.keeps_alive => None,
            (Some(link), false) => Some(link.alive_at + self.config.keep_alive?),
        }
    }

    /// Gives it the line, which nobody else uses.
    pub fn start(&mut self, now: Instant, line: &LineClock) {
        if self.is_busy() {
            return;
        }
        let p3_min = Timing::NORMAL.p3_min;
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
            // an ECU that did not answer may be gone: a PDU would be lost on it
            Some(link) if link.unanswered > 0 => TurnPurpose::TesterPresent,
            Some(_) if self.pdu.is_some() => TurnPurpose::Pdu,
            Some(_) => TurnPurpose::TesterPresent,
        };
        let pause = match purpose {
            TurnPurpose::Initialise => {
                let is_slow = self.config.initialisation == Initialisation::Slow;
                line.pause_before_initialisation(is_slow, self.attempts > 0)
            }
            TurnPurpose::Stop | TurnPurpose::Pdu | TurnPurpose::TesterPresent => p3_min,
        };
        let (until, latest) = (line.quiet_since() + pause, now + MAX_PAUSE);
        self.phase = TurnPhase::Pausing { until, pause, latest, then: purpose };
        self.handle_timeout(now);
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
                    self.transmit_message(now, Exchange::Pdu { service }, link.header, &pdu);
                }
                // taken back meanwhile
                None => self.phase = TurnPhase::Idle,
            },
        }
    }

    /// What to put on the line now.
    pub fn poll_transmit(&mut self) -> Option<Signal> {
        self.transmit.take()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Endpoint::handle_timeout`] is due, and why; only while it has the line.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let p2 = |is_pending: bool| if is_pending { Timer::P2Star } else { Timer::P2 };
        match &self.phase {
            TurnPhase::Idle => None,
            TurnPhase::Pausing { until, .. } => Some((*until, Timer::Idle)),
            TurnPhase::Signal { until, .. } => Some((*until, Timer::Echo)),
            TurnPhase::WakingUp { until } => Some((*until, Timer::TWup)),
            TurnPhase::Synchronising { until } => Some((*until, Timer::W1)),
            TurnPhase::FirstKeyByte { until } => Some((*until, Timer::W2)),
            TurnPhase::SecondKeyByte { until, .. } => Some((*until, Timer::W3)),
            TurnPhase::BeforeComplement { until, .. } | TurnPhase::AddressComplement { until, .. } => {
                Some((*until, Timer::W4))
            }
            TurnPhase::Sending { transmitter, .. } => {
                let timer = if transmitter.awaits_echo() { Timer::Echo } else { Timer::P4 };
                Some((transmitter.poll_timeout(), timer))
            }
            TurnPhase::Awaiting { until, is_pending, .. } => Some((*until, p2(*is_pending))),
            TurnPhase::Receiving { until, .. } | TurnPhase::Draining { until, .. } => {
                Some((*until, Timer::P1))
            }
        }
    }

    /// A byte that was on the line.
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
            TurnPhase::Pausing { until, pause, latest, .. } => {
                *until = (now + *pause).min(*latest).max(*until)
            }
            TurnPhase::Awaiting { .. } | TurnPhase::Receiving { .. } | TurnPhase::Draining { .. } => {
                self.handle_answer_byte(now, byte);
            }
            _ => self.handle_initialisation_byte(now, byte),
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|(at, _)| now < at) {
            return;
        }
        match &mut self.phase {
            TurnPhase::Pausing { then, .. } => {
                let purpose = *then;
                self.begin(now, purpose);
            }
            TurnPhase::Sending { exchange, transmitter } => {
                let exchange = *exchange;
                if transmitter.is_missing_echo(now) {
                    self.handle_transmit_failed(now, exchange, Failure::NoEcho);
                } else {
                    self.drive_transmitter(now);
                }
            }
            TurnPhase::Awaiting { .. } | TurnPhase::Receiving { .. } | TurnPhase::Draining { .. } => {
                self.handle_answer_timeout(now);
            }
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
