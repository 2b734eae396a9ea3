//! A tester's channel to an ECU.

mod state;
mod transmission;

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use self::state::{ChannelFrame, ChannelState};
use super::sender::check;
use super::setup::is_setup_id;
use super::setup_exchange::SetupExchange;
use super::{
    ChannelConfig, CloseReason, Connection, ConnectionConfig, Event, Opening, SendError, SetupMessage,
    SetupOpcode, Timer, Tpdu,
};

/// Number of waiting events from which frames of the ECU are dropped, and neither a PDU nor a set-up begins. The
/// caller takes the events after each call, and one call causes a few at most, so that only a caller that does not
/// poll reaches this number.
const MAX_EVENTS: usize = 8;

/// A tester's channel to one ECU by TP2.0.
///
/// A channel is a pure state machine: it does no I/O and reads no clock. It is set up by [`open`](Self::open)
/// or by the first PDU, and set up again by the next PDU after the ECU has dropped it. Its methods fall into
/// four groups:
///
/// - Getters such as [`is_open`](Self::is_open) have no effect.
/// - `handle_*` methods take what happened outside: a frame from the bus, the outcome of a sent frame, a
///   timeout.
/// - [`open`](Self::open), [`send`](Self::send), [`abort_send`](Self::abort_send) and [`close`](Self::close)
///   change what the channel is to do.
/// - `poll_*` methods return what the caller must act upon: frames, events and the next timeout.
///
/// After every call of a method of the second or third group:
///
/// 1. Call [`poll_transmit`](Self::poll_transmit) and send each frame, until it returns `None`.
/// 2. Call [`poll_event`](Self::poll_event) until it returns `None`.
/// 3. Call [`poll_timeout`](Self::poll_timeout) and wait until that time, or until something happens on the
///    bus.
///
/// Each frame from `poll_transmit` needs exactly one outcome, in the same order: call
/// [`handle_transmitted`](Self::handle_transmitted) when the frame was acknowledged on the bus, otherwise
/// [`handle_transmit_failed`](Self::handle_transmit_failed). Bus off is the outcome of all frames without
/// one. `now` never decreases from one call to the next.
///
/// # Example
///
/// A request and its answer in virtual time. The ECU accepts the channel with a scripted message and then
/// runs the other side of the connection.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use connector_agent::protocol::tp20::{
///     Channel, ChannelConfig, Connection, ConnectionConfig, Event, LogicalAddress, MAX_PDU, Opening,
///     Parameters, SetupMessage, SetupOpcode,
/// };
/// use connector_hal::can::CanId;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let address = LogicalAddress::try_from(0x01)?;
/// let listens_on = CanId::try_from(0x740)?;
/// let mut channel = Channel::new(ChannelConfig::new(address, 0));
/// let mut ecu: Option<Connection> = None;
///
/// let mut now = Instant::now();
/// channel.send(now, &[0x1A, 0x9B])?;
///
/// let mut events = Vec::new();
/// while !events.iter().any(|event| matches!(event, Event::Received { .. })) {
///     while let Some(frame) = channel.poll_transmit(now) {
///         channel.handle_transmitted(now);
///         if let Some(ecu) = &mut ecu {
///             ecu.handle_frame(now, &frame);
///         } else if let Some(request) = SetupMessage::decode(frame.data()) {
///             let answer = SetupMessage {
///                 destination: 0,
///                 opcode: SetupOpcode::Positive,
///                 receive: request.transmit,
///                 transmit: Some(listens_on),
///                 application_type: request.application_type,
///             };
///             let answer = answer.encode(address.setup_response_id()).ok_or("no such frame")?;
///             channel.handle_frame(now, &answer);
///             let config = ConnectionConfig {
///                 transmit: request.transmit.ok_or("no identifier")?,
///                 receive: listens_on,
///                 parameters: Parameters::default(),
///                 opening: Opening::Passive(Duration::from_secs(1)),
///                 test_after: None,
///                 silence_limit: None,
///                 max_pdu: MAX_PDU,
///             };
///             ecu = Some(Connection::new(config, now));
///         }
///     }
///     if let Some(ecu) = &mut ecu {
///         while let Some(event) = ecu.poll_event() {
///             if let Event::Received { pdu } = event {
///                 assert_eq!(pdu, [0x1A, 0x9B]);
///                 ecu.send(now, b"\x5A\x9B03G906021AB")?;
///             }
///         }
///         while let Some(frame) = ecu.poll_transmit(now) {
///             ecu.handle_transmitted(now);
///             channel.handle_frame(now, &frame);
///         }
///     }
///     events.extend(std::iter::from_fn(|| channel.poll_event()));
///     let timeouts = [channel.poll_timeout(), ecu.as_ref().and_then(Connection::poll_timeout)];
///     if let Some((due, _timer)) = timeouts.into_iter().flatten().min_by_key(|(at, _)| *at) {
///         now = now.max(due);
///         channel.handle_timeout(now);
///         if let Some(ecu) = &mut ecu {
///             ecu.handle_timeout(now);
///         }
///     }
/// }
///
/// assert_eq!(events[0], Event::Opened);
/// assert!(matches!(events[1], Event::Sent { .. }));
/// assert_eq!(events[2], Event::ReceptionStarted);
/// assert_eq!(events[3], Event::Received { pdu: b"\x5A\x9B03G906021AB".to_vec() });
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Channel {
    config: ChannelConfig,
    state: ChannelState,
    generation: u32,
    /// The PDU that waits until the channel is open.
    pending: Option<Vec<u8>>,
    /// The channel is to be closed.
    is_closing: bool,
    /// The channel test keeps the channel open while no PDU is sent.
    is_kept: bool,
    in_flight: VecDeque<ChannelFrame>,
    events: VecDeque<Event>,
}

impl Channel {
    /// Creates a channel that is not set up yet; [`Channel::open`] or the first PDU sets it up.
    pub fn new(config: ChannelConfig) -> Self {
        Self {
            config,
            state: ChannelState::Idle,
            generation: 0,
            pending: None,
            is_closing: false,
            is_kept: true,
            in_flight: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Returns the channel's configuration.
    pub fn config(&self) -> &ChannelConfig {
        &self.config
    }

    /// Returns the identifier with which the ECU sends: the agreed one, or before that the one to be
    /// requested.
    pub fn receive_id(&self) -> CanId {
        match &self.state {
            ChannelState::Connected(connection) => connection.config().receive,
            _ => self.config.receive,
        }
    }

    /// Returns whether the channel is set up, so that a PDU is sent immediately.
    pub fn is_open(&self) -> bool {
        matches!(&self.state, ChannelState::Connected(connection) if connection.is_open())
    }

    /// Returns whether the channel is closed and has nothing left to send.
    pub fn is_idle(&self) -> bool {
        self.pending.is_none()
            && match &self.state {
                ChannelState::Idle => true,
                ChannelState::SettingUp(_) => false,
                ChannelState::Connected(connection) => connection.is_done(),
            }
    }

    /// Returns whether a PDU is being sent or waits for the set-up of the channel.
    pub fn is_sending(&self) -> bool {
        self.pending.is_some()
            || matches!(&self.state, ChannelState::Connected(connection) if connection.is_sending())
    }

    /// Returns whether a PDU is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        matches!(&self.state, ChannelState::Connected(connection) if connection.is_receiving())
    }

    /// Sets the channel up, which ends with [`Event::Opened`] or [`Event::Closed`]. An open channel stays
    /// open. While many events have not been read, no set-up begins.
    pub fn open(&mut self) {
        self.is_closing = false;
        if matches!(self.state, ChannelState::Idle) && self.events.len() < MAX_EVENTS {
            self.set_up();
        }
    }

    fn set_up(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.state = ChannelState::SettingUp(SetupExchange::new());
    }

    /// Disconnects. A PDU that is being sent fails.
    pub fn close(&mut self, now: Instant) {
        self.is_closing = true;
        let reason = CloseReason::Requested;
        match &mut self.state {
            ChannelState::Idle => {}
            // an ECU that answers late receives no parameters, and so drops the channel
            ChannelState::SettingUp(_) => self.give_up(reason),
            ChannelState::Connected(connection) => {
                connection.close();
                self.fail_pending(reason);
                self.settle(now);
            }
        }
    }

    /// Starts to send a PDU, which ends with [`Event::Sent`] or [`Event::SendFailed`].
    ///
    /// Sets the channel up first if necessary.
    ///
    /// # Errors
    ///
    /// Another PDU is being sent, many events have not been read, or the PDU is empty or longer than
    /// [`ChannelConfig::max_pdu`].
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        if self.is_sending() || self.events.len() >= MAX_EVENTS {
            return Err(SendError::Busy);
        }
        check(pdu, self.config.max_pdu)?;
        self.is_closing = false;
        match &mut self.state {
            ChannelState::Connected(connection) if connection.is_open() => return connection.send(now, pdu),
            ChannelState::Idle => self.set_up(),
            ChannelState::SettingUp(_) | ChannelState::Connected(_) => {}
        }
        self.pending = Some(pdu.to_vec());
        Ok(())
    }

    /// Abandons the PDU that is being sent, without an event. If a part of the PDU was sent, this closes the
    /// channel.
    pub fn abort_send(&mut self) {
        self.pending = None;
        if let ChannelState::Connected(connection) = &mut self.state {
            connection.abort_send();
            self.events.extend(std::iter::from_fn(|| connection.poll_event()));
        }
    }

    /// Returns the frame that disconnects the channel, if there is one, for a caller that drops the state
    /// machine without polling it any further.
    pub(crate) fn farewell(&self) -> Option<CanFrame> {
        match &self.state {
            ChannelState::Connected(connection) if !connection.is_done() => {
                Tpdu::Disconnect.encode(connection.config().transmit)
            }
            _ => None,
        }
    }

    /// Switches the channel test on or off, which keeps the channel open while no PDU is sent.
    ///
    /// Switching it off closes the channel, unless a PDU is being sent. The ECU drops a channel that is set
    /// up later after the last PDU.
    pub(crate) fn set_kept(&mut self, now: Instant, is_kept: bool) {
        self.is_kept = is_kept;
        if !is_kept && !self.is_sending() {
            self.close(now);
        }
    }

    /// Ends a set-up that has failed.
    fn give_up(&mut self, reason: CloseReason) {
        self.state = ChannelState::Idle;
        self.fail_pending(reason);
        self.events.push_back(Event::Closed { reason });
    }

    fn fail_pending(&mut self, reason: CloseReason) {
        if self.pending.take().is_some() {
            self.events.push_back(Event::SendFailed { reason });
        }
    }

    /// Takes a frame from the bus; returns whether the frame was for this channel.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        match &mut self.state {
            ChannelState::Connected(connection)
                if self.events.len() >= MAX_EVENTS && connection.config().receive == frame.id() =>
            {
                true
            }
            ChannelState::Connected(connection) => {
                let is_taken = connection.handle_frame(now, frame);
                if is_taken {
                    self.settle(now);
                }
                is_taken
            }
            ChannelState::SettingUp(_)
                if frame.is_data() && frame.id() == self.config.ecu.setup_response_id() =>
            {
                if let Some(message) = SetupMessage::decode(frame.data()) {
                    self.handle_setup(now, &message);
                }
                true
            }
            ChannelState::SettingUp(_) | ChannelState::Idle => false,
        }
    }

    fn handle_setup(&mut self, now: Instant, message: &SetupMessage) {
        let ChannelState::SettingUp(setup) = &mut self.state else { return };
        if !setup.has_asked() {
            return;
        }
        match message.opcode {
            SetupOpcode::Request => {}
            SetupOpcode::Positive => match message.transmit {
                // a channel there would send what other ECUs take for set-up messages
                _ if [message.transmit, message.receive].into_iter().flatten().any(is_setup_id) => {
                    tracing::debug!(ecu = %self.config.ecu, "the ECU names an identifier of set-up messages");
                }
                Some(transmit) => self.connect(now, transmit, message.receive),
                None => tracing::debug!(ecu = %self.config.ecu, "the ECU does not say where it listens"),
            },
            SetupOpcode::Negative(refusal) => {
                if let Some(reason) = setup.handle_refusal(now, refusal) {
                    self.give_up(reason);
                }
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
        self.state = ChannelState::Connected(Box::new(Connection::new(config, now)));
    }

    /// Forwards the connection's events, and passes the waiting PDU on once the connection is open.
    fn settle(&mut self, now: Instant) {
        let ChannelState::Connected(connection) = &mut self.state else { return };
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

    /// Removes a connection that is done, and sets up another one if a PDU waits.
    fn leave_if_done(&mut self) {
        if matches!(&self.state, ChannelState::Connected(connection) if connection.is_done()) {
            self.state = ChannelState::Idle;
            if self.pending.is_some() && !self.is_closing {
                self.set_up();
            }
        }
    }

    /// Handles every timer that has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            ChannelState::Idle => {}
            ChannelState::SettingUp(setup) => {
                if let Some(reason) = setup.handle_timeout(now) {
                    self.give_up(reason);
                }
            }
            ChannelState::Connected(connection) => {
                connection.handle_timeout(now);
                self.settle(now);
            }
        }
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Channel::handle_timeout`] is due, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match &self.state {
            ChannelState::Idle => None,
            ChannelState::SettingUp(setup) => setup.poll_timeout().map(|at| (at, Timer::Setup)),
            ChannelState::Connected(connection) => connection.poll_timeout(),
        }
    }

    /// Returns the memory of an incomplete PDU in bytes, the number of frames without an outcome, and that of
    /// waiting events.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize, usize) {
        let memory = match &self.state {
            ChannelState::Connected(connection) => connection.load().0,
            _ => 0,
        };
        (memory, self.in_flight.len(), self.events.len())
    }
}
