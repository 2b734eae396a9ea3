//! A node of the virtual bus: a controller with its error counters and queues.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::statistics::NodeStatistics;
use crate::bus::BusState;
use crate::can::events::EventQueue;
use crate::can::{CanCapabilities, CanEvent, CanFilter, CanFrame, CanSettings, FrameKind};

/// A controller with an error counter above this limit is error passive (ISO 11898-1, 12.1.4.2).
const PASSIVE_LIMIT: u16 = 127;
/// A controller with a transmit error counter above this limit is bus off.
const BUS_OFF_LIMIT: u16 = 255;
/// SocketCAN's error classes for a protocol violation and a bus error.
const ERROR_PROTOCOL: u32 = 0x8 | 0x80;
/// SocketCAN's error class for a missing acknowledgement.
const ERROR_ACK: u32 = 0x20;

/// An error that a node detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BusError {
    /// The frame was destroyed.
    Protocol,
    /// No node acknowledged the frame.
    NoAcknowledgement,
}

/// A frame in a node's transmit queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueuedFrame {
    pub frame: CanFrame,
    /// When the frame begins to take part in arbitration.
    pub ready_at: Instant,
    /// The frame fails at its turn and is not sent.
    pub doomed: bool,
}

pub(super) struct BusNode {
    pub capabilities: CanCapabilities,
    /// `None` while the node is off the bus.
    pub settings: Option<CanSettings>,
    pub state: BusState,
    pub transmit_errors: u16,
    pub receive_errors: u16,
    pub outgoing: VecDeque<QueuedFrame>,
    /// Changes with every configuration, to distinguish a frame on the wire from frames queued later.
    pub epoch: u32,
    pub events: EventQueue,
    pub filters: Vec<CanFilter>,
    pub wants_event: Option<Waker>,
    pub wants_room: Option<Waker>,
    pub statistics: NodeStatistics,
    /// How many of the node's next frames fail instead of being sent.
    pub fail_next: u32,
    /// When the last frame from or to this node ended, for [`BusNode::ready_at`].
    last_frame: Option<Instant>,
    /// The device was unplugged.
    pub unplugged: bool,
}

impl BusNode {
    pub(super) fn new(name: &str, capabilities: CanCapabilities, queue: usize) -> Self {
        Self {
            capabilities,
            settings: None,
            state: BusState::Active,
            transmit_errors: 0,
            receive_errors: 0,
            outgoing: VecDeque::new(),
            epoch: 0,
            events: EventQueue::new(queue),
            filters: Vec::new(),
            wants_event: None,
            wants_room: None,
            statistics: NodeStatistics { name: name.to_owned(), ..NodeStatistics::default() },
            fail_next: 0,
            last_frame: None,
            unplugged: false,
        }
    }

    /// The settings, if the node hears the bus.
    pub(super) fn listening(&self) -> Option<CanSettings> {
        self.settings.filter(|_| self.state != BusState::Off && !self.unplugged)
    }

    /// The settings, if the node acknowledges frames and flags errors.
    pub(super) fn participating(&self) -> Option<CanSettings> {
        self.listening().filter(|settings| !settings.listen_only)
    }

    /// Joins the bus with cleared counters and empty queues.
    pub(super) fn configure(&mut self, settings: CanSettings) {
        self.settings = Some(settings);
        self.epoch = self.epoch.wrapping_add(1);
        self.outgoing.clear();
        while self.events.pop().is_some() {}
        self.restart();
    }

    /// Leaves the bus and discards waiting frames and events.
    pub(super) fn leave(&mut self) {
        self.settings = None;
        self.epoch = self.epoch.wrapping_add(1);
        self.outgoing.clear();
        while self.events.pop().is_some() {}
        self.wake_sender();
    }

    pub(super) fn restart(&mut self) {
        self.transmit_errors = 0;
        self.receive_errors = 0;
        self.update_state();
        self.wake_sender();
    }

    /// When a frame enqueued at `now` begins to take part in arbitration. A timer of this granularity reports
    /// the end of a frame late; an answer to that frame counts as ready at the frame's end, so that bus time
    /// stays exact.
    fn ready_at(&self, now: Instant, granularity: Duration) -> Instant {
        let answered = self.last_frame.filter(|at| now.saturating_duration_since(*at) <= granularity);
        answered.map_or(now, |at| at.min(now))
    }

    /// Appends a frame to the transmit queue.
    pub(super) fn enqueue(&mut self, frame: CanFrame, now: Instant, granularity: Duration) {
        let doomed = self.fail_next > 0;
        self.fail_next = self.fail_next.saturating_sub(1);
        let ready_at = self.ready_at(now, granularity);
        if self.capabilities.confirms_transmission {
            self.outgoing.push_back(QueuedFrame { frame, ready_at, doomed });
            self.give_up_doomed(now);
        } else if doomed {
            self.report(CanEvent::TransmitFailed { at: now });
        } else {
            self.outgoing.push_back(QueuedFrame { frame, ready_at, doomed });
            self.report(CanEvent::Transmitted { at: now });
        }
    }

    fn give_up_doomed(&mut self, at: Instant) {
        while self.outgoing.front().is_some_and(|outgoing| outgoing.doomed) {
            self.outgoing.pop_front();
            self.report(CanEvent::TransmitFailed { at });
        }
    }

    /// Processes the acknowledgement of the first frame of the transmit queue.
    pub(super) fn handle_transmitted(&mut self, at: Instant) {
        self.outgoing.pop_front();
        self.last_frame = Some(at);
        self.statistics.sent += 1;
        self.transmit_errors = self.transmit_errors.saturating_sub(1);
        self.update_state();
        if self.capabilities.confirms_transmission {
            self.report(CanEvent::Transmitted { at });
        }
        self.give_up_doomed(at);
        self.wake_sender();
    }

    /// Receives a frame of another node or of the background traffic.
    pub(super) fn handle_received(&mut self, frame: CanFrame, background: bool, at: Instant) {
        if !background {
            self.last_frame = Some(at);
        }
        // ISO 11898-1: a receiver leaves error passive with a counter below the limit
        self.receive_errors = self.receive_errors.saturating_sub(1).min(PASSIVE_LIMIT - 8);
        self.update_state();
        if self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(frame.id())) {
            self.statistics.received += 1;
            self.report(CanEvent::Received { frame, at });
        }
    }

    /// Processes an error as a transmitter: increases the counter and reports an error frame as SocketCAN
    /// does.
    pub(super) fn handle_transmit_error(&mut self, error: BusError, at: Instant) {
        self.statistics.failed_attempts += 1;
        // a missing acknowledgement does not increase a passive node's counter: a lone node never becomes bus
        // off
        if error == BusError::Protocol || self.transmit_errors <= PASSIVE_LIMIT {
            self.transmit_errors = self.transmit_errors.saturating_add(8);
        }
        self.report_error(error, at);
        self.update_state();
    }

    /// Processes an error as a receiver; `counts` is added to the receive error counter.
    pub(super) fn handle_receive_error(&mut self, counts: u16, at: Instant) {
        self.receive_errors = self.receive_errors.saturating_add(counts).min(PASSIVE_LIMIT + 9);
        self.report_error(BusError::Protocol, at);
        self.update_state();
    }

    pub(super) fn force_bus_off(&mut self) {
        self.transmit_errors = BUS_OFF_LIMIT + 1;
        self.update_state();
    }

    fn report_error(&mut self, error: BusError, at: Instant) {
        self.statistics.errors_seen += 1;
        let classes = match error {
            BusError::Protocol => ERROR_PROTOCOL,
            BusError::NoAcknowledgement => ERROR_ACK,
        };
        let count = |errors: u16| errors.min(255) as u8;
        let detail = [0, 0, 0, 0, 0, 0, count(self.transmit_errors), count(self.receive_errors)];
        self.report(CanEvent::Received { frame: CanFrame::new_error(classes, detail), at });
    }

    fn update_state(&mut self) {
        let state = if self.transmit_errors > BUS_OFF_LIMIT {
            BusState::Off
        } else if self.transmit_errors > PASSIVE_LIMIT || self.receive_errors > PASSIVE_LIMIT {
            BusState::Passive
        } else {
            BusState::Active
        };
        if state == self.state {
            return;
        }
        self.state = state;
        if state == BusState::Off {
            self.outgoing.clear();
            self.epoch = self.epoch.wrapping_add(1);
        }
        self.report(CanEvent::State(state));
    }

    fn report(&mut self, event: CanEvent) {
        self.events.push(event);
        self.wake_receiver();
    }

    pub(super) fn wake_receiver(&mut self) {
        if let Some(waker) = self.wants_event.take() {
            waker.wake();
        }
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(waker) = self.wants_room.take() {
            waker.wake();
        }
    }
}

/// Whether a receiver with these settings understands a frame of the sender: same bit rates, and CAN FD if
/// needed.
pub(super) fn understands(receiver: &CanSettings, sender: &CanSettings, frame: &CanFrame) -> bool {
    let format = match frame.kind() {
        FrameKind::Fd(flags) if flags.bit_rate_switch => {
            receiver.data_bit_rate.is_some() && receiver.data_bit_rate == sender.data_bit_rate
        }
        FrameKind::Fd(_) => receiver.data_bit_rate.is_some(),
        _ => true,
    };
    format && is_same_rate(receiver.bit_rate, sender.bit_rate)
}

/// Whether two nominal bit rates are equal within the tolerance of oscillators, 0.5 % (ISO 11898-1, 11.3).
pub(super) fn is_same_rate(one: u32, other: u32) -> bool {
    u64::from(one.abs_diff(other)) * 200 <= u64::from(one)
}
