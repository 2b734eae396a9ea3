//! TesterPresent: when a channel sends it, and whether its ECU has left the default session.

use std::time::{Duration, Instant};

use crate::protocol::uds;

/// The time without a PDU after which TesterPresent is sent.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(2);

/// The time in which an ECU answers a TesterPresent: P2* with a margin, because an ECU may be busy.
const ANSWERED_WITHIN: Duration = Duration::from_millis(5500);

/// Why TesterPresent of a channel waits: other channels are in the middle of an exchange with its ECU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeepAliveHold {
    /// Whether it is not known until when.
    pub(crate) is_open_ended: bool,
    /// Until when at least.
    pub(crate) until: Option<Instant>,
}

impl KeepAliveHold {
    /// When TesterPresent that is due at `due` may be sent; `None` if that is not known.
    fn delay(self, due: Instant) -> Option<Instant> {
        (!self.is_open_ended).then(|| self.until.map_or(due, |until| due.max(until)))
    }
}

/// When a channel sends TesterPresent, and whether its ECU has left the default session.
#[derive(Debug)]
pub(super) struct KeepAlive {
    due: Option<Instant>,
    /// TesterPresent is stopped to save the battery.
    is_stopped: bool,
    /// The operator made the ECU leave its default session.
    has_left_default_session: bool,
    /// When the last TesterPresent was on the bus.
    last_sent: Option<Instant>,
}

impl KeepAlive {
    /// The state of a channel that has sent no PDU.
    pub(super) fn new(is_enabled: bool, now: Instant) -> Self {
        let due = is_enabled.then(|| now + KEEP_ALIVE_AFTER);
        Self { due, is_stopped: false, has_left_default_session: false, last_sent: None }
    }

    /// Whether the operator chose TesterPresent for this channel.
    pub(super) fn is_configured(&self) -> bool {
        self.due.is_some()
    }

    /// Allows or stops TesterPresent. Returns whether that is a change.
    pub(super) fn set_allowed(&mut self, now: Instant, is_allowed: bool) -> bool {
        let was_allowed = !std::mem::replace(&mut self.is_stopped, !is_allowed);
        if is_allowed && !was_allowed {
            self.postpone(now);
        }
        was_allowed != is_allowed
    }

    /// A PDU was sent, so that TesterPresent is due later.
    pub(super) fn postpone(&mut self, now: Instant) {
        if let Some(due) = &mut self.due {
            *due = now + KEEP_ALIVE_AFTER;
        }
    }

    /// TesterPresent was sent on the bus.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        self.last_sent = Some(now);
    }

    /// Whether an ECU may answer the last TesterPresent, although it asks for no answer.
    pub(super) fn expects_answer(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|at| now < at + ANSWERED_WITHIN)
    }

    /// Notes the diagnostic session that a PDU of the operator asks for.
    pub(super) fn handle_pdu(&mut self, pdu: &[u8]) {
        if let [uds::SESSION_CONTROL, session, ..] = pdu {
            let session = session & !uds::SUPPRESS_POSITIVE_RESPONSE;
            self.has_left_default_session = session != uds::DEFAULT_SESSION;
        }
    }

    /// Ends TesterPresent. Returns whether the ECU has left its default session.
    pub(super) fn end(&mut self) -> bool {
        self.due = None;
        std::mem::take(&mut self.has_left_default_session)
    }

    /// When TesterPresent is due, unless the transport is busy then.
    pub(super) fn poll_timeout(&self, hold: KeepAliveHold) -> Option<Instant> {
        self.due.filter(|_| !self.is_stopped).and_then(|due| hold.delay(due))
    }
}
