//! A tester's channel to an ECU: set up when it is needed, and again after the ECU has dropped it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use super::sender::check;
use super::{
    ChannelConfig, CloseReason, Connection, ConnectionConfig, Event, Opening, Refusal, SETUP_ID, SendError,
    SetupMessage, SetupOpcode, Timer, Tpdu,
};

/// How long the ECU may take to answer a set-up request, some of them behind a gateway, before the next is sent.
const SETUP_WAIT: Duration = Duration::from_millis(300);
/// How long it may take to answer the last.
const LAST_SETUP_WAIT: Duration = Duration::from_millis(500);
/// How long to wait before an ECU is asked again that had no channel left.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// How often such an ECU is asked again.
const MAX_BUSY: u8 = 4;
/// How many frames may wait for their outcome.
const MAX_IN_FLIGHT: usize = 32;
/// While so many events wait to be polled, frames of the ECU are dropped.
const MAX_EVENTS: usize = 8;

/// What a set-up request says of the identifier that the ECU is to listen to, and of the one it is to send with. Most
/// ECUs want to choose the one and to be told the other; a few know only one of the other forms.
const FORMS: [Form; 4] = [
    Form { names_receive: false, names_transmit: true },
    Form { names_receive: false, names_transmit: true },
    Form { names_receive: true, names_transmit: true },
    Form { names_receive: false, names_transmit: false },
];

#[derive(Debug, Clone, Copy)]
struct Form {
    names_receive: bool,
    names_transmit: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    /// The request of this form is to go, is on its way, or is to be answered by the deadline.
    SettingUp {
        form: usize,
        busy: u8,
        step: Step,
    },
    Connected(Box<Connection>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Ready,
    InFlight,
    Waiting {
        deadline: Instant,
    },
    /// The ECU was busy, and is asked again then.
    Pausing {
        until: Instant,
    },
}

/// Whose frame it is; those of earlier set-ups and connections are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    generation: u32,
    is_setup: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Channel {
    config: ChannelConfig,
    state: State,
    generation: u32,
    /// A PDU that waits for the channel to be open.
    pending: Option<Vec<u8>>,
    /// The channel is not wanted any more.
    is_closing: bool,
    /// The channel is tested, and so kept, while nobody speaks.
    is_kept: bool,
    in_flight: VecDeque<Owner>,
    events: VecDeque<Event>,
}

impl Channel {
    /// A channel that is not set up yet: [`Channel::open`] or the first PDU begins that.
    pub fn new(config: ChannelConfig) -> Self {
        Self {
            config,
            state: State::Idle,
            generation: 0,
            pending: None,
            is_closing: false,
            is_kept: true,
            in_flight: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// How it is set up.
    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// The identifier that the ECU sends with: the one it chose, or else the one it will be asked to use.
    pub fn receive_id(&self) -> CanId {
        match &self.state {
            State::Connected(connection) => connection.config().receive,
            _ => self.config.receive,
        }
    }

    /// Whether PDUs go out at once.
    pub fn is_open(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.is_open())
    }

    /// Whether nothing is left to be sent, and no answer is awaited that this depends on.
    pub fn is_idle(&self) -> bool {
        self.pending.is_none()
            && match &self.state {
                State::Idle => true,
                State::SettingUp { .. } => false,
                State::Connected(connection) => connection.is_done(),
            }
    }

    /// Whether a PDU is under way out, or waits for the channel to be set up.
    pub fn is_sending(&self) -> bool {
        self.pending.is_some()
            || matches!(&self.state, State::Connected(connection) if connection.is_sending())
    }

    /// Whether a PDU is under way in.
    pub fn is_receiving(&self) -> bool {
        matches!(&self.state, State::Connected(connection) if connection.is_receiving())
    }

    /// Begins to set the channel up, unless it is; this ends with [`Event::Opened`] or [`Event::Closed`].
    pub fn open(&mut self) {
        self.is_closing = false;
        if matches!(self.state, State::Idle) {
            self.set_up();
        }
    }

    fn set_up(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.state = State::SettingUp { form: 0, busy: 0, step: Step::Ready };
    }

    /// Disconnects; what is being sent fails.
    pub fn close(&mut self, now: Instant) {
        self.is_closing = true;
        let reason = CloseReason::Requested;
        match &mut self.state {
            State::Idle => {}
            // an ECU that answers late drops the channel by itself, as it hears no parameters
            State::SettingUp { .. } => self.give_up(reason),
            State::Connected(connection) => {
                connection.close();
                self.fail_pending(reason);
                self.settle(now);
            }
        }
    }

    /// Begins to send a PDU, and to set the channel up where that is needed; its end is told by [`Event::Sent`] or
    /// [`Event::SendFailed`].
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        if self.is_sending() {
            return Err(SendError::Busy);
        }
        check(pdu, self.config.max_pdu)?;
        self.is_closing = false;
        match &mut self.state {
            State::Connected(connection) if connection.is_open() => return connection.send(now, pdu),
            State::Idle => self.set_up(),
            State::SettingUp { .. } | State::Connected(_) => {}
        }
        self.pending = Some(pdu.to_vec());
        Ok(())
    }

    /// Gives up what is being sent, without an event; if a part of it is on the bus, the channel is closed with it.
    pub fn abort_send(&mut self) {
        self.pending = None;
        if let State::Connected(connection) = &mut self.state {
            connection.abort_send();
            self.events.extend(std::iter::from_fn(|| connection.poll_event()));
        }
    }

    /// The frame that disconnects, where there is a channel: for whoever drops this machine without driving it on.
    pub fn farewell(&self) -> Option<CanFrame> {
        match &self.state {
            State::Connected(connection) if !connection.is_done() => {
                Tpdu::Disconnect.encode(connection.config().transmit)
            }
            _ => None,
        }
    }

    /// Whether the channel is kept while nobody speaks; if not, it is closed now unless something is being sent, and
    /// the ECU drops one that is set up for a PDU later by itself.
    pub fn set_kept(&mut self, now: Instant, is_kept: bool) {
        self.is_kept = is_kept;
        if !is_kept && !self.is_sending() {
            self.close(now);
        }
    }

    /// Ends a set-up that came to nothing.
    fn give_up(&mut self, reason: CloseReason) {
        self.state = State::Idle;
        self.fail_pending(reason);
        self.events.push_back(Event::Closed { reason });
    }

    fn fail_pending(&mut self, reason: CloseReason) {
        if self.pending.take().is_some() {
            self.events.push_back(Event::SendFailed { reason });
        }
    }

    /// Takes a frame of the bus; whether it was for this channel.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        match &mut self.state {
            State::Connected(connection)
                if self.events.len() >= MAX_EVENTS && connection.config().receive == frame.id() =>
            {
                true
            }
            State::Connected(connection) => {
                let is_taken = connection.handle_frame(now, frame);
                if is_taken {
                    self.settle(now);
                }
                is_taken
            }
            State::SettingUp { .. }
                if frame.is_data() && frame.id() == self.config.ecu.setup_response_id() =>
            {
                if let Some(message) = SetupMessage::decode(frame.data()) {
                    self.handle_setup(now, &message);
                }
                true
            }
            State::SettingUp { .. } | State::Idle => false,
        }
    }

    fn handle_setup(&mut self, now: Instant, message: &SetupMessage) {
        let State::SettingUp { form, busy, step } = self.state else { return };
        if (form, step) == (0, Step::Ready) {
            return;
        }
        match message.opcode {
            SetupOpcode::Request => {}
            SetupOpcode::Positive => match message.transmit {
                Some(transmit) => self.connect(now, transmit, message.receive),
                None => tracing::debug!(ecu = %self.config.ecu, "the ECU does not say where it listens"),
            },
            SetupOpcode::Negative(refusal) => {
                let is_temporary = matches!(refusal, Refusal::ApplicationTypeNow | Refusal::Resources);
                if !is_temporary || busy >= MAX_BUSY {
                    return self.give_up(CloseReason::Refused(refusal));
                }
                let step = Step::Pausing { until: now + BUSY_PAUSE };
                self.state = State::SettingUp { form, busy: busy + 1, step };
            }
        }
    }

    fn connect(&mut self, now: Instant, transmit: CanId, receive: Option<CanId>) {
        let config = ConnectionConfig {
            transmit,
            receive: receive.unwrap_or(self.config.receive),
            parameters: self.config.parameters,
            opening: Opening::Active,
            test_after: self.is_kept.then_some(self.config.test_after),
            silence_limit: None,
            max_pdu: self.config.max_pdu,
        };
        self.generation = self.generation.wrapping_add(1);
        self.state = State::Connected(Box::new(Connection::new(config, now)));
    }

    /// Looks at what the connection reports.
    fn settle(&mut self, now: Instant) {
        let State::Connected(connection) = &mut self.state else { return };
        let mut closed = None;
        while let Some(event) = connection.poll_event() {
            if let Event::Closed { reason } = event {
                closed = Some(reason);
            }
            self.events.push_back(event);
        }
        if connection.is_open()
            && !connection.is_sending()
            && let Some(pdu) = self.pending.take()
            && let Err(error) = connection.send(now, &pdu)
        {
            tracing::debug!(%error, "a PDU was not sent");
            self.events.push_back(Event::SendFailed { reason: CloseReason::Requested });
        }
        if let Some(reason) = closed
            && reason != CloseReason::Requested
        {
            self.fail_pending(reason);
        }
        self.leave_if_done();
    }

    /// A connection that is over makes room, for a new one where a PDU waits.
    fn leave_if_done(&mut self) {
        if matches!(&self.state, State::Connected(connection) if connection.is_done()) {
            self.state = State::Idle;
            if self.pending.is_some() && !self.is_closing {
                self.set_up();
            }
        }
    }

    /// The oldest frame given out without outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        let Some(owner) = self.in_flight.pop_front().filter(|owner| owner.generation == self.generation)
        else {
            return;
        };
        match &mut self.state {
            State::SettingUp { form, step: step @ Step::InFlight, .. } if owner.is_setup => {
                let wait = if *form + 1 >= FORMS.len() { LAST_SETUP_WAIT } else { SETUP_WAIT };
                *step = Step::Waiting { deadline: now + wait };
            }
            State::Connected(connection) if !owner.is_setup => {
                connection.handle_transmitted(now);
                self.settle(now);
            }
            _ => {}
        }
    }

    /// The oldest frame given out without outcome will not be sent; or, with [`CloseReason::BusOff`], none will.
    pub fn handle_transmit_failed(&mut self, now: Instant, reason: CloseReason) {
        if reason == CloseReason::BusOff {
            self.in_flight.clear();
            match &mut self.state {
                State::Idle => {}
                State::SettingUp { .. } => self.give_up(reason),
                State::Connected(connection) => {
                    connection.handle_transmit_failed(now, reason);
                    self.settle(now);
                }
            }
            return;
        }
        let Some(owner) = self.in_flight.pop_front().filter(|owner| owner.generation == self.generation)
        else {
            return;
        };
        match &mut self.state {
            State::SettingUp { step: Step::InFlight, .. } if owner.is_setup => self.give_up(reason),
            State::Connected(connection) if !owner.is_setup => {
                connection.handle_transmit_failed(now, reason);
                self.settle(now);
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Idle => {}
            State::SettingUp { form, step, .. } => match *step {
                Step::Waiting { deadline } if deadline <= now => {
                    if *form + 1 >= FORMS.len() {
                        return self.give_up(CloseReason::SetupTimeout);
                    }
                    *form += 1;
                    *step = Step::Ready;
                }
                Step::Pausing { until } if until <= now => *step = Step::Ready,
                _ => {}
            },
            State::Connected(connection) => {
                connection.handle_timeout(now);
                self.settle(now);
            }
        }
    }

    /// The next frame to hand to the bus; each needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let (frame, is_setup) = match &mut self.state {
            State::Idle => return None,
            State::SettingUp { form, step, .. } => {
                let Form { names_receive, names_transmit } = *FORMS.get(*form)?;
                let id = self.config.receive;
                let request = SetupMessage::request(
                    self.config.ecu,
                    names_receive.then_some(id),
                    names_transmit.then_some(id),
                    self.config.application_type,
                );
                if *step != Step::Ready {
                    return None;
                }
                *step = Step::InFlight;
                (request.encode(SETUP_ID)?, true)
            }
            State::Connected(connection) => (connection.poll_transmit(now)?, false),
        };
        self.in_flight.push_back(Owner { generation: self.generation, is_setup });
        self.leave_if_done();
        Some(frame)
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Channel::handle_timeout`], and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match &self.state {
            State::Idle => None,
            State::SettingUp {
                step: Step::Waiting { deadline: at } | Step::Pausing { until: at }, ..
            } => Some((*at, Timer::Setup)),
            State::SettingUp { .. } => None,
            State::Connected(connection) => connection.poll_timeout(),
        }
    }

    /// How much memory a PDU not yet whole takes, how many frames have no outcome, and how many events wait.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let memory = match &self.state {
            State::Connected(connection) => connection.load().0,
            _ => 0,
        };
        (memory, self.in_flight.len(), self.events.len())
    }
}
