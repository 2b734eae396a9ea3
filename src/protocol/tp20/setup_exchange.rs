//! The set-up of a channel: one request after another, until the ECU accepts or refuses.

use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use super::{ChannelConfig, CloseReason, Refusal, SETUP_ID, SetupMessage};

/// Time the ECU has to answer a set-up request before the next one is sent. The value is a compromise: some
/// ECUs are behind a gateway, and an operator waits for all four requests, 1.4 s in total.
const SETUP_WAIT: Duration = Duration::from_millis(300);
/// The time in which the ECU must answer the last set-up request. It is longer than [`SETUP_WAIT`], because no further
/// request follows that the ECU could answer instead.
const LAST_SETUP_WAIT: Duration = Duration::from_millis(500);
/// Pause before a set-up request is repeated to an ECU that had no channel left. An ECU drops the channel of
/// an absent tester after about 1 s without a channel test; a shorter pause would only repeat the refusal.
const BUSY_PAUSE: Duration = Duration::from_millis(500);
/// Number of times a set-up request is repeated to such an ECU: for 2 s, twice the time after which the ECU
/// drops the channel of an absent tester.
const MAX_BUSY: u8 = 4;

/// The forms of set-up request, in the order in which they are tried.
///
/// Most ECUs choose the identifier on which they listen and expect the one with which to send. A few
/// understand only one of the other forms.
const FORMS: [SetupForm; 4] = [
    SetupForm { names_receive: false, names_transmit: true },
    SetupForm { names_receive: false, names_transmit: true },
    SetupForm { names_receive: true, names_transmit: true },
    SetupForm { names_receive: false, names_transmit: false },
];

/// Which identifiers a set-up request names: the one on which the ECU is to listen, the one with which it is
/// to send.
#[derive(Debug, Clone, Copy)]
struct SetupForm {
    names_receive: bool,
    names_transmit: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SetupStep {
    /// The request can be sent.
    Ready,
    /// The request has no outcome on the bus yet.
    InFlight,
    /// The ECU's answer is due by the deadline.
    Waiting { deadline: Instant },
    /// The ECU was busy; the request is repeated after the pause.
    Pausing { until: Instant },
}

/// One set-up of a channel.
#[derive(Debug)]
pub(super) struct SetupExchange {
    /// Index of the request's form in [`FORMS`].
    form: usize,
    busy: u8,
    step: SetupStep,
}

impl SetupExchange {
    pub(super) fn new() -> Self {
        Self { form: 0, busy: 0, step: SetupStep::Ready }
    }

    /// Returns whether a request was sent, so that an answer can be to it.
    pub(super) fn has_asked(&self) -> bool {
        (self.form, self.step) != (0, SetupStep::Ready)
    }

    /// Returns whether the last request has no outcome on the bus yet.
    pub(super) fn is_in_flight(&self) -> bool {
        self.step == SetupStep::InFlight
    }

    /// Returns the next set-up request, if one is due.
    pub(super) fn poll_transmit(&mut self, config: &ChannelConfig) -> Option<CanFrame> {
        if self.step != SetupStep::Ready {
            return None;
        }
        let SetupForm { names_receive, names_transmit } = *FORMS.get(self.form)?;
        let request = SetupMessage::request(
            config.ecu,
            names_receive.then_some(config.receive),
            names_transmit.then_some(config.receive),
            config.application_type,
        );
        self.step = SetupStep::InFlight;
        request.encode(SETUP_ID)
    }

    /// Takes note that the request was acknowledged on the bus.
    pub(super) fn handle_transmitted(&mut self, now: Instant) {
        if self.is_in_flight() {
            let wait = if self.is_last_form() { LAST_SETUP_WAIT } else { SETUP_WAIT };
            self.step = SetupStep::Waiting { deadline: now + wait };
        }
    }

    /// Takes a refusal of the ECU; returns why the set-up has failed, unless the ECU is to be asked again.
    pub(super) fn handle_refusal(&mut self, now: Instant, refusal: Refusal) -> Option<CloseReason> {
        let is_temporary = matches!(refusal, Refusal::ApplicationTypeNow | Refusal::Resources);
        if !is_temporary || self.busy >= MAX_BUSY {
            return Some(CloseReason::Refused(refusal));
        }
        self.busy += 1;
        self.step = SetupStep::Pausing { until: now + BUSY_PAUSE };
        None
    }

    /// Ends a wait or a pause that is over; returns why the set-up has failed, if it has.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<CloseReason> {
        match self.step {
            SetupStep::Waiting { deadline } if deadline <= now => {
                if self.is_last_form() {
                    return Some(CloseReason::SetupTimeout);
                }
                self.form += 1;
                self.step = SetupStep::Ready;
            }
            SetupStep::Pausing { until } if until <= now => self.step = SetupStep::Ready,
            _ => {}
        }
        None
    }

    /// Returns the time at which [`SetupExchange::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.step {
            SetupStep::Waiting { deadline: at } | SetupStep::Pausing { until: at } => Some(at),
            SetupStep::Ready | SetupStep::InFlight => None,
        }
    }

    fn is_last_form(&self) -> bool {
        self.form + 1 >= FORMS.len()
    }
}
