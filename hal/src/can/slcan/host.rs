//! The host's side of an adapter on the bus: frames without an answer, state, load. A pure state machine.

use std::time::{Duration, Instant};

use super::codec::{BusErrors, ControllerState, SlcanLine, StatusFlags};
use super::dialogue::ANSWER_TIMEOUT;
use super::unanswered::{FrameAnswer, Unanswered};
use crate::bus::{BusState, BusStatus, LoadMeter};
use crate::can::events::EventQueue;
use crate::can::{CanEvent, CanFilter, CanFrame, CanSettings, WireLength};

/// How many frames may be without an answer: enough to keep a bus of 500 kbit/s busy despite USB's latency of
/// some milliseconds, and few enough for the buffers of common firmware.
pub(super) const WINDOW: usize = 16;
/// How many received frames are kept unread; further frames are lost and counted. The number is that of a
/// second on a full bus at 500 kbit/s.
const EVENTS: usize = 4096;
/// How often the status flags are requested. Two characters a second cost little and detect a dead adapter.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How often the status flags are requested for [`FIRST_LISTENING`] by a host that only listens, if the adapter answers
/// as fast. Many adapters report
/// errors on the bus by a flag alone: read six times within the 100 ms of a search for the bit rate, the flag shows more
/// than the noise of a plug that makes contact.
const LISTENING_STATUS_INTERVAL: Duration = Duration::from_millis(15);
/// How long a host that only listens requests the status flags often: longer than the checks of a bit rate listen.
const FIRST_LISTENING: Duration = Duration::from_millis(500);
/// How long an adapter may take to send the status flags: a full second of frames on a slow line may come
/// first.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);
/// How many invalid lines in a row count as more than line noise. Noise spoils one line or two; after this
/// many, the adapter speaks another protocol or has another baud rate.
const GARBAGE_LIMIT: u32 = 16;

/// How an adapter behaves, as detected while it was set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdapterBehaviour {
    /// The adapter answers commands and frames. If it does not, every frame counts as sent.
    pub answers: bool,
    /// The adapter knows the command `F`.
    pub has_status: bool,
}

#[derive(Debug)]
pub(super) struct HostState {
    settings: CanSettings,
    behaviour: AdapterBehaviour,
    filters: Vec<CanFilter>,
    unanswered: Unanswered,
    /// The adapter reports states by itself, more exactly than the status flags do.
    reports_state: bool,
    state: BusState,
    load: LoadMeter,
    pub events: EventQueue,
    status_due: Instant,
    /// Until when the status flags are requested often.
    listens_closely_until: Option<Instant>,
    /// When the status flags were last requested.
    last_asked: Instant,
    /// When they were requested first since the last answer.
    status_asked: Option<Instant>,
    garbage: u32,
}

impl HostState {
    pub(super) fn new(
        settings: CanSettings,
        behaviour: AdapterBehaviour,
        filters: Vec<CanFilter>,
        now: Instant,
    ) -> Self {
        Self {
            settings,
            behaviour,
            filters,
            unanswered: Unanswered::default(),
            reports_state: false,
            state: BusState::Active,
            load: LoadMeter::new(now),
            events: EventQueue::new(EVENTS),
            status_due: now + if settings.listen_only { LISTENING_STATUS_INTERVAL } else { STATUS_INTERVAL },
            listens_closely_until: settings.listen_only.then(|| now + FIRST_LISTENING),
            last_asked: now,
            status_asked: None,
            garbage: 0,
        }
    }

    /// Sets the behaviour that was detected after the adapter joined the bus.
    pub(super) fn set_behaviour(&mut self, behaviour: AdapterBehaviour) {
        self.behaviour = behaviour;
    }

    pub(super) fn settings(&self) -> CanSettings {
        self.settings
    }

    pub(super) fn confirms_transmission(&self) -> bool {
        self.unanswered.confirms() == Some(true)
    }

    pub(super) fn status(&self, now: Instant) -> BusStatus {
        BusStatus { state: self.state, load: self.load.load(now) }
    }

    pub(super) fn set_filters(&mut self, filters: Vec<CanFilter>) {
        self.filters = filters;
    }

    /// Whether another frame may be sent to the adapter.
    pub(super) fn has_room(&self) -> bool {
        self.unanswered.len() < WINDOW && self.state != BusState::Off && !self.events.is_full()
    }

    /// Records that a frame is on its way to the adapter.
    pub(super) fn handle_sent(&mut self, now: Instant, frame: &CanFrame) {
        if self.behaviour.answers {
            self.unanswered.push(now, frame, &self.settings);
        } else {
            self.load.add(now, WireLength::of(frame).occupancy(&self.settings));
            self.events.push(CanEvent::Transmitted { at: now });
        }
    }

    /// Processes a line of the adapter.
    pub(super) fn handle_line(&mut self, now: Instant, line: &SlcanLine) {
        self.garbage = 0;
        match line {
            SlcanLine::Frame(frame, _) => {
                self.load.add(now, WireLength::of(frame).occupancy(&self.settings));
                if self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(frame.id())) {
                    self.events.push(CanEvent::Received { frame: *frame, at: now });
                }
                self.unanswered.handle_received(now);
            }
            SlcanLine::Transmitted { extended } => {
                self.unanswered.handle_answer(now, FrameAnswer::Sent { extended: *extended });
            }
            SlcanLine::Done => self.unanswered.handle_answer(now, FrameAnswer::Accepted),
            SlcanLine::Refused => self.unanswered.handle_answer(now, FrameAnswer::Refused),
            SlcanLine::Status(flags) => {
                self.handle_status(now, *flags);
                if let Some(asked) = self.status_asked.take() {
                    self.unanswered.handle_status(now, asked, flags.has_any(StatusFlags::TROUBLE));
                }
            }
            SlcanLine::State { state, .. } => {
                self.reports_state = true;
                self.set_state(match state {
                    ControllerState::Active | ControllerState::Warning => BusState::Active,
                    ControllerState::Passive => BusState::Passive,
                    ControllerState::Off | ControllerState::Failed => BusState::Off,
                });
            }
            SlcanLine::Errors(errors) => {
                self.events.push(CanEvent::Received { frame: error_frame(*errors), at: now });
            }
            _ => {}
        }
        self.report_settled(now);
    }

    /// Counts an invalid line; returns false after too many in a row.
    pub(super) fn handle_garbage(&mut self) -> bool {
        self.garbage += 1;
        self.garbage < GARBAGE_LIMIT
    }

    /// When to call [`HostState::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        if !self.behaviour.has_status {
            return self.unanswered.poll_timeout().filter(|_| self.state == BusState::Active);
        }
        let silent_at = self.status_asked.map(|asked| asked + STATUS_TIMEOUT);
        [Some(self.ask_at()), silent_at].into_iter().flatten().min()
    }

    /// When to request the status flags: at intervals, and also when an answer to a frame is overdue.
    fn ask_at(&self) -> Instant {
        if self.listens_closely_until.is_some() && self.status_asked.is_some() {
            // a slow adapter must not collect requests
            return self.status_due.max(self.last_asked + ANSWER_TIMEOUT);
        }
        let overdue_at = self.unanswered.overdue_at().filter(|at| *at > self.last_asked);
        overdue_at.map_or(self.status_due, |at| at.min(self.status_due))
    }

    /// Returns the request for the status flags when it is due; an error if the adapter takes too long to
    /// answer. One lost answer is made up for by the next.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<Option<SlcanLine>, Silence> {
        if !self.behaviour.has_status {
            self.unanswered.handle_timeout(now);
            self.report_settled(now);
            return Ok(None);
        }
        if self.status_asked.is_some_and(|asked| now >= asked + STATUS_TIMEOUT) {
            return Err(Silence);
        }
        if now < self.ask_at() {
            return Ok(None);
        }
        Ok(Some(self.request_status(now)))
    }

    /// The request for the status flags, which is written now.
    pub(super) fn request_status(&mut self, now: Instant) -> SlcanLine {
        self.status_asked.get_or_insert(now);
        self.last_asked = now;
        let is_close = self.listens_closely_until.is_some_and(|until| now < until);
        self.status_due = now + if is_close { LISTENING_STATUS_INTERVAL } else { STATUS_INTERVAL };
        SlcanLine::ReadStatus
    }

    /// Whether the status flags report the errors of other nodes.
    pub(super) fn reads_flags_of_others(&self) -> bool {
        self.settings.listen_only && self.behaviour.has_status
    }

    /// When the status flags were last requested, if the adapter has not answered since.
    pub(super) fn unanswered_request(&self) -> Option<Instant> {
        self.status_asked.map(|_| self.last_asked)
    }

    /// Reports the frames that have an outcome.
    fn report_settled(&mut self, now: Instant) {
        while let Some(frame) = self.unanswered.poll_settled() {
            let at = frame.at;
            self.events.push(if frame.is_sent {
                self.load.add(now, frame.busy);
                CanEvent::Transmitted { at }
            } else {
                CanEvent::TransmitFailed { at }
            });
        }
    }

    fn handle_status(&mut self, now: Instant, flags: StatusFlags) {
        if flags.has_any(StatusFlags::RECEIVE_FULL | StatusFlags::OVERRUN) {
            self.events.push(CanEvent::Lost(1));
        }
        // an adapter that sends has errors of its own, such as a frame without an acknowledgement
        if self.settings.listen_only
            && let Some(frame) = flags_frame(flags)
        {
            self.events.push(CanEvent::Received { frame, at: now });
        }
        if !self.reports_state {
            let passive = flags.has_any(StatusFlags::PASSIVE);
            self.set_state(if passive { BusState::Passive } else { BusState::Active });
        }
    }

    fn set_state(&mut self, state: BusState) {
        if state == self.state {
            return;
        }
        self.state = state;
        if state == BusState::Off {
            self.unanswered.clear();
        }
        self.events.push(CanEvent::State(state));
    }
}

/// The adapter no longer answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Silence;

/// The error frame for the status flags of an adapter that only listens, if they report errors on the bus.
fn flags_frame(flags: StatusFlags) -> Option<CanFrame> {
    if flags.has_any(StatusFlags::WARNING | StatusFlags::PASSIVE) {
        let counted = if flags.has_any(StatusFlags::PASSIVE) { 0x10 } else { 0x04 };
        return Some(CanFrame::new_error(0x04, [0, counted, 0, 0, 0, 0, 0, 0]));
    }
    flags.has_any(StatusFlags::BUS_ERROR).then(|| CanFrame::new_error(0x80, [0; 8]))
}

/// The error frame that Linux's slcan driver would report (`linux/can/error.h`).
fn error_frame(errors: BusErrors) -> CanFrame {
    let has = |flag: u8| errors.0 & flag != 0;
    let mut classes = 0;
    let mut detail = [0; 8];
    let [_, controller, kind, location, ..] = &mut detail;
    if has(BusErrors::ACKNOWLEDGEMENT) {
        classes |= 0x20;
    }
    for (flag, value) in
        [(BusErrors::FORM, 0x02), (BusErrors::STUFF, 0x04), (BusErrors::BIT0, 0x08), (BusErrors::BIT1, 0x10)]
    {
        if has(flag) {
            classes |= 0x88;
            *kind |= value;
        }
    }
    if has(BusErrors::CRC) {
        classes |= 0x88;
        *location = 0x08;
    }
    for (flag, value) in [(BusErrors::RECEIVE_OVERRUN, 0x01), (BusErrors::TRANSMIT_OVERRUN, 0x02)] {
        if has(flag) {
            classes |= 0x04;
            *controller |= value;
        }
    }
    CanFrame::new_error(classes, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHAVIOUR: AdapterBehaviour = AdapterBehaviour { answers: true, has_status: true };

    /// The error frames of a host whose adapter answers every request with these flags for a time.
    fn errors(listen_only: bool, flags: u8, time: Duration) -> (usize, Option<CanFrame>) {
        let mut now = Instant::now();
        let end = now + time;
        let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only };
        let mut host = HostState::new(settings, BEHAVIOUR, Vec::new(), now);
        let (mut count, mut last) = (0, None);
        while let Some(at) = host.poll_timeout().filter(|at| *at <= end) {
            now = at;
            if let Ok(Some(SlcanLine::ReadStatus)) = host.handle_timeout(now) {
                host.handle_line(now, &SlcanLine::Status(StatusFlags(flags)));
            }
            while let Some(event) = host.events.pop() {
                if let CanEvent::Received { frame, .. } = event {
                    count += 1;
                    last = Some(frame);
                }
            }
        }
        (count, last)
    }

    #[test]
    fn a_host_that_only_listens_reports_errors_that_the_adapter_shows_by_its_flags_alone() {
        let listening = Duration::from_millis(100);
        assert_eq!(errors(true, 0x80, listening), (6, Some(CanFrame::new_error(0x80, [0; 8]))));
        let passive = CanFrame::new_error(0x04, [0, 0x10, 0, 0, 0, 0, 0, 0]);
        assert_eq!(errors(true, 0xA4, listening), (6, Some(passive)));
        assert_eq!(errors(true, 0x00, listening).0, 0);
        assert_eq!(errors(false, 0x80, Duration::from_secs(3)).0, 0, "errors of its own");
    }

    #[test]
    fn a_host_that_listens_for_long_requests_the_flags_once_a_second() {
        let in_one = errors(true, 0x80, Duration::from_secs(1)).0;
        let in_eleven = errors(true, 0x80, Duration::from_secs(11)).0;
        assert_eq!(in_eleven - in_one, 10);
    }
}
