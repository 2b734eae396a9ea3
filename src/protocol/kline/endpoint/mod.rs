//! One ECU's link: set up, kept alive, asked, and set up again.

mod answers;
mod initialisation;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::kline::Signal;

use super::config::{Addressing, Config, Initialisation};
use super::event::{Event, Failure, SendError, Timer};
use super::key_bytes::KeyBytes;
use super::line::LineClock;
use super::message::{AddressMode, Decoder, HeaderForm, MAX_DATA, TooLong, encode};
use super::timing::{LATENCY_ALLOWANCE, Timing};
use super::transmitter::{Echo, Transmitter};

/// StartCommunication, StopCommunication and TesterPresent (ISO 14230-2, 5.2; ISO 14230-3, 6.4).
const START_COMMUNICATION: u8 = 0x81;
const STOP_COMMUNICATION: u8 = 0x82;
const TESTER_PRESENT: u8 = 0x3E;
/// How long bytes of others may keep a turn from beginning; a line that never falls silent is an error to be told.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How often TesterPresent may go unanswered before the link counts as lost (ISO 14230-2, 5.4.2: two repetitions).
const MAX_UNANSWERED: u32 = 3;

/// What the bytes on the line are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    StartCommunication,
    Pdu {
        service: u8,
    },
    TesterPresent,
    StopCommunication,
    /// The slow initialisation's complement of key byte 2.
    Complement(KeyBytes),
}

/// Where a turn on the line stands.
#[derive(Debug)]
enum Phase {
    /// Nothing is under way; the line is others'.
    Idle,
    /// The line has to be quiet for longer: for `pause` after the last byte, but not beyond `latest`.
    Pausing {
        until: Instant,
        pause: Duration,
        latest: Instant,
        then: Work,
    },
    /// A slow signal is on the line.
    Signal {
        until: Instant,
        is_address: bool,
    },
    /// High after the pulse.
    WakingUp {
        until: Instant,
    },
    /// The synchronisation byte is due.
    Synchronising {
        until: Instant,
    },
    FirstKeyByte {
        until: Instant,
    },
    SecondKeyByte {
        until: Instant,
        first: u8,
    },
    /// The complement of key byte 2 is due.
    BeforeComplement {
        until: Instant,
        key_bytes: KeyBytes,
    },
    /// The complement of the address is due.
    AddressComplement {
        until: Instant,
        key_bytes: KeyBytes,
    },
    Sending {
        job: Job,
        transmitter: Transmitter,
    },
    /// An answer is due: the first one until then, or another.
    Awaiting {
        job: Job,
        until: Instant,
        is_pending: bool,
        is_answered: bool,
    },
    /// An answer is coming in; the other answers are awaited until `window` at least.
    Receiving {
        job: Job,
        until: Instant,
        window: Instant,
        is_pending: bool,
        is_answered: bool,
    },
    /// What came was no message; the line has to fall silent.
    Draining {
        job: Job,
        until: Instant,
    },
}

/// What a turn on the line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Initialise,
    Stop,
    Pdu,
    TesterPresent,
}

/// A link that is set up.
#[derive(Debug, Clone, Copy)]
struct Link {
    header: HeaderForm,
    timing: Timing,
    /// The end of the last exchange.
    alive_at: Instant,
    /// Requests in a row that were not answered; the link is looked at before anything else is sent.
    unanswered: u32,
}

impl Link {
    /// Whether a request at that time is too late: an ECU that has heard nothing for P3max has ended the communication.
    fn has_ended(&self, request_at: Instant) -> bool {
        request_at + LATENCY_ALLOWANCE > self.alive_at + self.timing.p3_max
    }
}

/// See [the module](super).
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    created: Instant,
    keeps_alive: bool,
    link: Option<Link>,
    /// The link is to be set up.
    wanted: bool,
    /// The communication is to be ended.
    stopping: bool,
    /// The PDU that waits for its turn.
    pdu: Option<Vec<u8>>,
    /// Initialisations that failed in a row.
    attempts: u32,
    phase: Phase,
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
            phase: Phase::Idle,
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
        !matches!(self.phase, Phase::Idle)
    }

    /// Whether a PDU is waiting, or on its way.
    pub fn is_sending(&self) -> bool {
        self.pdu.is_some() || matches!(self.phase, Phase::Sending { job: Job::Pdu { .. }, .. })
    }

    /// Whether an answer is coming in.
    pub fn is_receiving(&self) -> bool {
        matches!(self.phase, Phase::Receiving { job: Job::Pdu { .. }, .. })
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
        self.phase = Phase::Idle;
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
        let work = match &self.link {
            None => Work::Initialise,
            Some(_) if self.stopping => Work::Stop,
            // an ECU that did not answer may be gone: a PDU would be lost on it
            Some(link) if link.unanswered > 0 => Work::TesterPresent,
            Some(_) if self.pdu.is_some() => Work::Pdu,
            Some(_) => Work::TesterPresent,
        };
        let pause = match work {
            Work::Initialise => {
                let is_slow = self.config.initialisation == Initialisation::Slow;
                line.pause_before_initialisation(is_slow, self.attempts > 0)
            }
            Work::Stop | Work::Pdu | Work::TesterPresent => p3_min,
        };
        let (until, latest) = (line.quiet_since() + pause, now + MAX_PAUSE);
        self.phase = Phase::Pausing { until, pause, latest, then: work };
        self.handle_timeout(now);
    }

    fn begin(&mut self, now: Instant, work: Work) {
        match (work, self.link) {
            (Work::Initialise, _) | (_, None) => self.begin_initialisation(now),
            (Work::Stop, Some(link)) => {
                self.transmit_message(now, Job::StopCommunication, link.header, &[STOP_COMMUNICATION])
            }
            (Work::TesterPresent, Some(link)) => {
                self.transmit_message(now, Job::TesterPresent, link.header, &[TESTER_PRESENT])
            }
            (Work::Pdu, Some(link)) => match self.pdu.take() {
                Some(pdu) => {
                    let service = pdu.first().copied().unwrap_or_default();
                    self.transmit_message(now, Job::Pdu { service }, link.header, &pdu);
                }
                // taken back meanwhile
                None => self.phase = Phase::Idle,
            },
        }
    }

    fn transmit_message(&mut self, now: Instant, job: Job, header: HeaderForm, data: &[u8]) {
        match encode(header, self.config.addressing.address(), self.config.tester, data) {
            Ok(bytes) => {
                let transmitter = Transmitter::new(bytes, self.config.bit_rate, now);
                self.phase = Phase::Sending { job, transmitter };
                self.drive_transmitter(now);
            }
            // the key bytes came after the PDU was taken
            Err(too_long) => {
                self.phase = Phase::Idle;
                self.events.push_back(Event::SendFailed(too_long.into()));
            }
        }
    }

    fn drive_transmitter(&mut self, now: Instant) {
        if let Phase::Sending { transmitter, .. } = &mut self.phase
            && let Some(byte) = transmitter.poll_transmit(now)
        {
            self.transmit = Some(Signal::Byte(byte));
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
            Phase::Idle => None,
            Phase::Pausing { until, .. } => Some((*until, Timer::Idle)),
            Phase::Signal { until, .. } => Some((*until, Timer::Echo)),
            Phase::WakingUp { until } => Some((*until, Timer::TWup)),
            Phase::Synchronising { until } => Some((*until, Timer::W1)),
            Phase::FirstKeyByte { until } => Some((*until, Timer::W2)),
            Phase::SecondKeyByte { until, .. } => Some((*until, Timer::W3)),
            Phase::BeforeComplement { until, .. } | Phase::AddressComplement { until, .. } => {
                Some((*until, Timer::W4))
            }
            Phase::Sending { transmitter, .. } => {
                let timer = if transmitter.awaits_echo() { Timer::Echo } else { Timer::P4 };
                Some((transmitter.poll_timeout(), timer))
            }
            Phase::Awaiting { until, is_pending, .. } => Some((*until, p2(*is_pending))),
            Phase::Receiving { until, .. } | Phase::Draining { until, .. } => Some((*until, Timer::P1)),
        }
    }

    /// A byte that was on the line.
    pub fn handle_byte(&mut self, now: Instant, byte: u8) {
        match &mut self.phase {
            Phase::Sending { job, transmitter } => {
                let job = *job;
                match transmitter.handle_byte(now, byte) {
                    Echo::Right => {}
                    Echo::Last(elapsed) => self.handle_message_sent(now, job, elapsed),
                    Echo::Wrong(failure) => self.handle_transmit_failed(now, job, failure),
                }
            }
            Phase::Pausing { until, pause, latest, .. } => *until = (now + *pause).min(*latest).max(*until),
            Phase::Awaiting { .. } | Phase::Receiving { .. } | Phase::Draining { .. } => {
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
            Phase::Pausing { then, .. } => {
                let work = *then;
                self.begin(now, work);
            }
            Phase::Sending { job, transmitter } => {
                let job = *job;
                if transmitter.is_missing_echo(now) {
                    self.handle_transmit_failed(now, job, Failure::NoEcho);
                } else {
                    self.drive_transmitter(now);
                }
            }
            Phase::Awaiting { .. } | Phase::Receiving { .. } | Phase::Draining { .. } => {
                self.handle_answer_timeout(now);
            }
            _ => self.handle_initialisation_timeout(now),
        }
    }

    fn handle_message_sent(&mut self, now: Instant, job: Job, elapsed: Duration) {
        if let Job::Complement(key_bytes) = job {
            let until = now + Timing::NORMAL.w4_max + LATENCY_ALLOWANCE;
            self.phase = Phase::AddressComplement { until, key_bytes };
            return;
        }
        if let Job::Pdu { .. } = job {
            self.events.push_back(Event::Sent { elapsed });
        }
        self.decoder.reset();
        let until = now + self.timing().p2_max + LATENCY_ALLOWANCE;
        self.phase = Phase::Awaiting { job, until, is_pending: false, is_answered: false };
    }

    fn handle_transmit_failed(&mut self, now: Instant, job: Job, failure: Failure) {
        self.phase = Phase::Idle;
        match job {
            Job::Pdu { .. } => {
                self.events.push_back(Event::SendFailed(failure));
                self.doubt(now);
            }
            Job::TesterPresent => self.handle_unanswered(now, failure),
            Job::StopCommunication => self.finish_stop(),
            Job::StartCommunication | Job::Complement(_) => self.handle_initialisation_failed(failure),
        }
    }

    fn timing(&self) -> Timing {
        self.link.map_or(Timing::NORMAL, |link| link.timing)
    }

    /// The ECU did not answer as it should: whether it is still there is found out before the next PDU.
    fn doubt(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.unanswered = link.unanswered.max(1);
            link.alive_at = now;
        }
    }

    /// TesterPresent brought no answer: the link is lost after the last repetition, and set up anew.
    fn handle_unanswered(&mut self, now: Instant, failure: Failure) {
        self.doubt(now);
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

    fn mode(&self) -> AddressMode {
        match self.config.addressing {
            Addressing::Physical(_) => AddressMode::Physical,
            Addressing::Functional(_) => AddressMode::Functional,
        }
    }
}
