//! What passes on a bus: frames without an outcome, events to report, the controller's state and the load. A
//! pure state machine.

use std::collections::VecDeque;
use std::time::Instant;

use super::filters::Filters;
use crate::bus::{BusState, BusStatus, LoadMeter};
use crate::can::events::EventQueue;
use crate::can::{CanEvent, CanFrame, CanId, CanSettings, FrameKind, WireLength};

/// How many frames may be without an outcome; sending waits beyond this number. They keep a bus at 500 kbit/s
/// busy for 15 ms, the time that this process may need to be woken.
const WINDOW: usize = 64;
/// How many received frames are kept unread; further frames are lost and counted. The number is that of a
/// second on a full bus at 500 kbit/s.
const EVENTS: usize = 4096;

/// SocketCAN's error classes (`linux/can/error.h`), and the controller problems in the second byte of detail.
const CLASS_CONTROLLER: u32 = 0x04;
const CLASS_BUS_OFF: u32 = 0x40;
const CLASS_RESTARTED: u32 = 0x100;
const CONTROLLER_PASSIVE: u8 = 0x10 | 0x20;
const CONTROLLER_ACTIVE: u8 = 0x40;

/// A message of a raw CAN socket.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketMessage {
    /// `None` if the bytes are not a valid frame.
    pub(super) frame: Option<CanFrame>,
    /// When the frame was on the bus.
    pub(super) at: Instant,
    /// The frame is the echo of a frame that this socket has sent.
    pub(super) is_echo: bool,
    /// How many messages the socket has dropped since its creation, modulo 2³², if the kernel says so.
    pub(super) dropped: Option<u32>,
}

/// A frame whose outcome has not been reported.
#[derive(Debug)]
struct UnconfirmedFrame {
    frame: CanFrame,
    /// The outcome, if it has to wait for those of older frames.
    outcome: Option<CanEvent>,
}

/// The traffic of one bus.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) filters: Filters,
    settings: Option<CanSettings>,
    unconfirmed: VecDeque<UnconfirmedFrame>,
    events: EventQueue,
    state: BusState,
    load: LoadMeter,
    /// The kernel's count of dropped frames, as last read.
    dropped: u32,
    /// The count has increased since the last echo.
    echoes_lost: bool,
    /// Outcomes do not wait for those of older frames.
    reports_overtaking: bool,
}

impl Traffic {
    pub(super) fn new(state: BusState, now: Instant) -> Self {
        Self {
            filters: Filters::default(),
            settings: None,
            unconfirmed: VecDeque::new(),
            events: EventQueue::new(EVENTS),
            state,
            load: LoadMeter::new(now),
            dropped: 0,
            echoes_lost: false,
            reports_overtaking: false,
        }
    }

    /// A new socket replaces the old one: frames without an outcome and unread events are forgotten.
    pub(super) fn handle_reopened(&mut self, state: BusState) {
        self.state = state;
        self.filters.forget_echoes();
        self.unconfirmed.clear();
        self.events = EventQueue::new(EVENTS);
        self.dropped = 0;
        self.echoes_lost = false;
    }

    /// The bus has these settings now.
    pub(super) fn handle_configured(&mut self, settings: CanSettings) {
        self.settings = Some(settings);
    }

    /// Whether the bus is set up to listen only.
    pub(super) fn is_listen_only(&self) -> bool {
        self.settings.is_some_and(|settings| settings.listen_only)
    }

    /// From now on, outcomes do not wait for those of older frames.
    pub(super) fn report_overtaking(&mut self) {
        self.reports_overtaking = true;
    }

    /// Whether a frame has no outcome yet.
    pub(super) fn has_unconfirmed(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    /// Whether another frame may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.unconfirmed.len() < WINDOW && self.state != BusState::Off && !self.events.is_full()
    }

    /// The state and the load.
    pub(super) fn status(&self, now: Instant) -> BusStatus {
        BusStatus { state: self.state, load: self.load.load(now) }
    }

    /// The socket has taken a frame.
    pub(super) fn handle_sent(&mut self, frame: &CanFrame) {
        self.unconfirmed.push_back(UnconfirmedFrame { frame: *frame, outcome: None });
    }

    /// The socket has received a message.
    pub(super) fn handle_message(&mut self, now: Instant, message: &SocketMessage) {
        if let Some(dropped) = message.dropped {
            self.handle_dropped(dropped);
        }
        let (Some(frame), at) = (message.frame, message.at) else { return };
        match frame.kind() {
            FrameKind::Error { classes } => self.handle_error(frame, classes, at),
            _ if message.is_echo => {
                self.account(now, &frame);
                self.handle_echo(&frame, at);
            }
            _ => {
                self.account(now, &frame);
                // other frames passed only because of an echo's filter
                if self.filters.pass(frame.id()) {
                    self.events.push(CanEvent::Received { frame, at });
                }
            }
        }
    }

    /// The oldest unread event.
    pub(super) fn poll_event(&mut self) -> Option<CanEvent> {
        self.events.pop()
    }

    fn handle_dropped(&mut self, dropped: u32) {
        let lost = dropped.wrapping_sub(self.dropped);
        self.dropped = dropped;
        if lost > 0 {
            self.echoes_lost = true;
            self.events.push(CanEvent::Lost(lost));
        }
    }

    fn account(&mut self, now: Instant, frame: &CanFrame) {
        if let Some(settings) = &self.settings {
            self.load.add(now, WireLength::of(frame).occupancy(settings));
        }
    }

    /// The echo of one of our frames has arrived. Controllers with several buffers send by identifier, not by
    /// age, so only the echo of a later frame with the same identifier proves that a frame was not sent.
    fn handle_echo(&mut self, echo: &CanFrame, at: Instant) {
        let is_waiting = |sent: &UnconfirmedFrame| sent.outcome.is_none();
        // an unexpected echo belongs to a frame that an earlier user left in the interface
        let place = self.unconfirmed.iter().position(|sent| is_waiting(sent) && sent.frame == *echo);
        let Some(place) = place else { return };
        let echoes_lost = std::mem::take(&mut self.echoes_lost);
        if self.reports_overtaking {
            return self.report_echo(place, echoes_lost, echo.id(), at);
        }
        for sent in self.unconfirmed.iter_mut().take(place).filter(|sent| is_waiting(sent)) {
            if echoes_lost {
                sent.outcome = Some(CanEvent::Transmitted { at });
            } else if sent.frame.id() == echo.id() {
                sent.outcome = Some(CanEvent::TransmitFailed { at });
            }
        }
        if let Some(sent) = self.unconfirmed.get_mut(place) {
            sent.outcome = Some(CanEvent::Transmitted { at });
        }
        while let Some(outcome) = self.unconfirmed.front().and_then(|sent| sent.outcome) {
            self.events.push(outcome);
            self.unconfirmed.pop_front();
        }
    }

    /// Reports the frame at this place as sent, and the older frames whose outcome its echo shows.
    fn report_echo(&mut self, place: usize, echoes_lost: bool, id: CanId, at: Instant) {
        let mut older = 0;
        for _ in 0..place {
            let shows = |sent: &UnconfirmedFrame| echoes_lost || sent.frame.id() == id;
            if self.unconfirmed.get(older).is_some_and(shows) {
                self.report_outcome(older, echoes_lost, at);
            } else {
                older += 1;
            }
        }
        self.report_outcome(older, true, at);
    }

    fn report_outcome(&mut self, older: usize, is_transmitted: bool, at: Instant) {
        self.unconfirmed.remove(older);
        self.events.push(match (older, is_transmitted) {
            (0, true) => CanEvent::Transmitted { at },
            (0, false) => CanEvent::TransmitFailed { at },
            _ => CanEvent::Overtaking { older, is_transmitted, at },
        });
    }

    fn handle_error(&mut self, frame: CanFrame, classes: u32, at: Instant) {
        self.events.push(CanEvent::Received { frame, at });
        let controller =
            frame.data().get(1).copied().filter(|_| classes & CLASS_CONTROLLER != 0).unwrap_or(0);
        if classes & CLASS_BUS_OFF != 0 {
            self.set_state(BusState::Off);
        } else if controller & CONTROLLER_PASSIVE != 0 {
            self.set_state(BusState::Passive);
        } else if classes & CLASS_RESTARTED != 0 || controller & CONTROLLER_ACTIVE != 0 {
            self.set_state(BusState::Active);
        }
    }

    fn set_state(&mut self, state: BusState) {
        if state == self.state {
            return;
        }
        self.state = state;
        if state == BusState::Off {
            self.unconfirmed.clear();
        }
        self.events.push(CanEvent::State(state));
    }
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
