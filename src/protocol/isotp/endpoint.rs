//! The endpoint for one peer.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::CanFrame;

use super::frame::{FrameWriter, PaddingState};
use super::in_flight::{FrameOwner, InFlight};
use super::receiver::{Receiver, ReceiverConfig};
use super::sender::{Sender, SenderConfig};
use super::{Config, Event, NPdu, ReceiveFailure, SendError, SendFailure, Timer};

/// Number of waiting events from which frames of the bus are dropped. The caller takes the events after each
/// call, and one frame causes a few at most, so that only a caller that does not poll reaches this number.
const MAX_EVENTS: usize = 8;
/// Number of frames of abandoned transfers that may be without an outcome, besides those of the current
/// transfer. Twice as many as the relay puts into an adapter, so that the next transfer can start while the
/// adapter still holds all of them.
pub(super) const ABANDONED_FRAMES: usize = 16;

/// Exchanges PDUs with one peer by ISO-TP, in both directions simultaneously (ISO 15765-2).
///
/// An endpoint is a pure state machine: it does no I/O and reads no clock. Its methods fall into four groups:
///
/// - Getters such as [`is_sending`](Self::is_sending) have no effect.
/// - `handle_*` methods take what happened outside: a frame from the bus, the outcome of a sent frame, a
///   timeout.
/// - [`send`](Self::send) and [`abort_send`](Self::abort_send) start and end a transmission.
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
/// one. If several things happened while the caller was busy, report frames and outcomes first and the
/// timeout last, so that a busy process does not report a timeout for a frame that has arrived. `now` never
/// decreases from one call to the next.
///
/// # Example
///
/// Two endpoints in virtual time; the receiver asks for 10 ms between consecutive frames.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use connector_agent::protocol::isotp::{Addressing, Config, Endpoint, Event, SeparationTime};
/// use connector_hal::can::CanId;
///
/// /// Puts every frame of one endpoint onto the bus; returns whether there was one.
/// fn transmit(from: &mut Endpoint, to: &mut Endpoint, now: Instant) -> bool {
///     let mut is_active = false;
///     while let Some(frame) = from.poll_transmit(now) {
///         from.handle_transmitted(now);
///         to.handle_frame(now, &frame);
///         is_active = true;
///     }
///     is_active
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (request, response) = (CanId::try_from(0x7E0)?, CanId::try_from(0x7E8)?);
/// let mut tester = Endpoint::new(Config::new(Addressing::normal(request, response)));
/// let mut config = Config::new(Addressing::normal(response, request));
/// config.st_min = SeparationTime(10);
/// let mut ecu = Endpoint::new(config);
///
/// let mut now = Instant::now();
/// tester.send(now, &[0x36; 100])?;
///
/// let (mut received, mut elapsed) = (None, None);
/// loop {
///     while transmit(&mut tester, &mut ecu, now) | transmit(&mut ecu, &mut tester, now) {}
///     while let Some(event) = ecu.poll_event() {
///         if let Event::Received { pdu, .. } = event {
///             received = Some(pdu);
///         }
///     }
///     while let Some(event) = tester.poll_event() {
///         if let Event::Sent { elapsed: time } = event {
///             elapsed = Some(time);
///         }
///     }
///     let timeouts = [tester.poll_timeout(), ecu.poll_timeout()];
///     let Some((due, _timer)) = timeouts.into_iter().flatten().min_by_key(|(at, _)| *at) else { break };
///     now = due;
///     tester.handle_timeout(now);
///     ecu.handle_timeout(now);
/// }
///
/// assert_eq!(received, Some(vec![0x36; 100]));
/// // one first frame and 14 consecutive frames, with 13 separation times between the latter
/// assert_eq!(elapsed, Some(Duration::from_millis(130)));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    sender: Sender,
    receiver: Receiver,
    /// Number of the reception; outcomes of flow controls of earlier receptions are ignored.
    reception: u32,
    padding: PaddingState,
    in_flight: InFlight,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// Creates an idle endpoint.
    pub fn new(config: Config) -> Self {
        let addressing = config.addressing;
        let writer = FrameWriter {
            id: addressing.transmit_id(),
            address: addressing.transmit_address(),
            frame_size: config.frame_size,
        };
        let sender = Sender::new(SenderConfig {
            writer,
            timeouts: config.timeouts,
            max_pdu: config.max_pdu,
            max_wait_frames: config.max_wait_frames,
            window: config.window,
        });
        let receiver = ReceiverConfig {
            writer: Some(writer),
            timeouts: config.timeouts,
            block_size: config.block_size,
            st_min: config.st_min,
            max_pdu: config.max_pdu,
        };
        Self {
            sender,
            receiver: Receiver::new(receiver, addressing.receive_id()),
            reception: 0,
            padding: PaddingState::new(config.padding),
            in_flight: InFlight::new(config.window.max(1).saturating_add(ABANDONED_FRAMES)),
            events: VecDeque::new(),
            config,
        }
    }

    /// Returns the endpoint's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns whether a PDU is being sent.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Returns whether a segmented PDU is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receiver.is_receiving()
    }

    /// Starts to send a PDU, which ends with [`Event::Sent`] or [`Event::SendFailed`].
    ///
    /// # Errors
    ///
    /// Another PDU is being sent, many events have not been read, or the PDU is empty or longer than
    /// [`Config::max_pdu`].
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        // events that the caller does not read must not accumulate
        if self.events.len() >= MAX_EVENTS {
            return Err(SendError::Busy);
        }
        self.sender.send(now, pdu)
    }

    /// Abandons the PDU that is being sent, without an event.
    pub fn abort_send(&mut self) {
        self.sender.abort();
    }

    /// Takes a frame from the bus; returns whether the frame was for this endpoint.
    ///
    /// A frame that is unexpected in the current state is ignored (ISO 15765-2, 9.8.3).
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        if !self.config.addressing.accepts(frame) {
            return false;
        }
        if self.events.len() >= MAX_EVENTS {
            return true;
        }
        let address_bytes = self.config.addressing.receive_address_bytes();
        let n_pdu = match NPdu::decode(frame.data(), address_bytes) {
            Ok(n_pdu) => n_pdu,
            Err(error) => {
                tracing::trace!(%frame, %error, "frame ignored");
                return true;
            }
        };
        self.padding.observe(frame, &n_pdu, address_bytes);
        let address = frame.id();
        match n_pdu {
            NPdu::SingleFrame { data } => {
                self.events.extend(self.receiver.interrupt());
                self.events.push_back(Event::ReceptionStarted { address });
                self.events.push_back(Event::Received { address, pdu: data.to_vec() });
            }
            NPdu::FirstFrame { length, data } => {
                self.events.extend(self.receiver.interrupt());
                self.reception = self.reception.wrapping_add(1);
                self.events.push_back(Event::ReceptionStarted { address });
                self.events.extend(self.receiver.handle_first_frame(now, frame, length, data));
            }
            NPdu::ConsecutiveFrame { sequence_number, data } => {
                let used = address_bytes + 1 + self.receiver.left();
                let event = self.receiver.handle_consecutive_frame(now, sequence_number, data, frame.len());
                if matches!(event, Some(Event::Received { .. })) {
                    self.padding.observe_used(frame, used);
                }
                self.events.extend(event);
            }
            NPdu::FlowControl { status, block_size, st_min } => {
                self.events.extend(self.sender.handle_flow_control(now, status, block_size, st_min));
            }
        }
        true
    }

    /// Reports that another endpoint receives the PDU of this frame too, and sends flow control: an ECU must get only
    /// one.
    pub(crate) fn skip_flow_control(&mut self, now: Instant, frame: &CanFrame) {
        if self.config.addressing.accepts(frame) {
            self.receiver.skip_flow_control(now);
        }
    }

    /// Reports that the oldest frame without an outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        match self.in_flight.pop() {
            Some(FrameOwner::Sender(transfer)) if transfer == self.sender.transfer() => {
                self.events.extend(self.sender.handle_transmitted(now));
            }
            Some(FrameOwner::Receiver(reception)) if reception == self.reception => {
                self.receiver.handle_transmitted(now);
            }
            _ => {}
        }
    }

    /// Reports that the oldest frame without an outcome will not be sent, or with [`SendFailure::BusOff`]
    /// that none will.
    pub fn handle_transmit_failed(&mut self, _now: Instant, failure: SendFailure) {
        if failure == SendFailure::BusOff {
            self.in_flight.clear();
            self.events.extend(self.sender.fail(failure));
            if self.receiver.owes_flow_control() {
                self.events.extend(self.receiver.fail(ReceiveFailure::NotAcknowledged));
            }
            return;
        }
        match self.in_flight.pop() {
            Some(FrameOwner::Sender(transfer)) if transfer == self.sender.transfer() => {
                self.events.extend(self.sender.fail(failure));
            }
            Some(FrameOwner::Receiver(reception)) if reception == self.reception => {
                self.events.extend(self.receiver.fail(ReceiveFailure::NotAcknowledged));
            }
            _ => {}
        }
    }

    /// Handles every timer that has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.events.extend(self.receiver.handle_timeout(now));
        self.events.extend(self.sender.handle_timeout(now));
    }

    /// Returns the next frame to send, a flow control first. Each frame needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        let fill = self.padding.fill();
        if self.in_flight.has_room_for_flow_control()
            && let Some(frame) = self.receiver.poll_transmit(now, fill)
        {
            self.in_flight.push(FrameOwner::Receiver(self.reception));
            return Some(frame);
        }
        if !self.in_flight.has_room_for_data() {
            return None;
        }
        let frame = self.sender.poll_transmit(now, fill)?;
        self.in_flight.push(FrameOwner::Sender(self.sender.transfer()));
        Some(frame)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Endpoint::handle_timeout`] is due, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let timers = [self.receiver.poll_timeout(), self.sender.poll_timeout()];
        timers.into_iter().flatten().min_by_key(|&(deadline, _)| deadline)
    }

    /// Returns the memory that incomplete PDUs use, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.receiver.memory()
    }

    /// Returns the number of frames without an outcome and the number of waiting events.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.in_flight.len(), self.events.len())
    }
}
