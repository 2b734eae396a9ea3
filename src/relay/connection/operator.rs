//! Operators who leave, come back, or are silent. A connection without its operator is held, as after a lost link.

use std::time::Instant;

use super::RelayConnection;
use super::operator_watch::Interruption;

impl RelayConnection {
    /// The websocket is lost. The connection is held for [`super::RelaySettings::hold`]; its buses and channels keep
    /// running.
    pub fn interrupt(&mut self, now: Instant) {
        self.interrupt_by(now, Interruption::LinkLost);
    }

    fn interrupt_by(&mut self, now: Instant, why: Interruption) {
        self.link.interrupt();
        self.texts.clear();
        self.hold_until.get_or_insert(now + self.settings.hold);
        match (self.interruption, why) {
            // the operator may still be gone when the link is back
            (Some(gone), Interruption::LinkLost) if gone != Interruption::LinkLost => {
                self.gone_before_loss = Some(gone);
            }
            (Some(Interruption::LinkLost), gone) if gone != Interruption::LinkLost => {
                self.gone_before_loss = Some(gone);
                return;
            }
            _ => {}
        }
        self.interruption = Some(why);
    }

    /// The websocket is back.
    ///
    /// An operator who has used the connection resumes it by `resumeConnection`. An operator who has not used
    /// it yet does not notice the interruption, so that the connection resumes here by itself, unless the operator was gone
    /// before.
    pub(crate) fn handle_link_back(&mut self, now: Instant) {
        if !self.link.is_unused() {
            return;
        }
        match self.gone_before_loss.take() {
            Some(gone) => self.interruption = Some(gone),
            None => self.continue_link(now),
        }
    }

    /// The cloud reports that the operator has left.
    pub(super) fn handle_operator_left(&mut self, now: Instant) {
        tracing::info!(hold = ?self.settings.hold, "the operator has left; holding the connection");
        self.interrupt_by(now, Interruption::OperatorLeft);
    }

    /// The cloud reports that an operator has joined. After a lost link, the operator still has to resume.
    pub(super) fn handle_operator_joined(&mut self, now: Instant) {
        self.operator.handle_heard(now);
        self.gone_before_loss = None;
        if self.interruption.is_some_and(|why| why != Interruption::LinkLost) {
            tracing::info!("an operator has joined; the connection continues");
            self.continue_link(now);
        }
    }

    /// The operator has sent something.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        self.operator.handle_heard(now);
        if self.interruption == Some(Interruption::OperatorSilent) {
            tracing::info!("the operator is back; the connection continues");
            self.continue_link(now);
        }
    }

    /// Holds the connection if nothing was heard of the operator for too long.
    pub(super) fn check_operator(&mut self, now: Instant) {
        if self.operator_gone_at().is_some_and(|at| at <= now) {
            let silent_for = now.saturating_duration_since(self.operator.heard_at());
            tracing::warn!(?silent_for, hold = ?self.settings.hold, "the operator is silent; holding the connection");
            self.interrupt_by(now, Interruption::OperatorSilent);
        }
    }

    /// When the operator counts as gone; `None` while the connection is held anyway.
    pub(super) fn operator_gone_at(&self) -> Option<Instant> {
        let is_watched = self.interruption.is_none() && self.closed.is_none();
        is_watched.then(|| self.operator.gone_at())
    }

    /// Ends an interruption in which no message was lost: what the operator has not acknowledged is sent again.
    fn continue_link(&mut self, now: Instant) {
        self.link.resume_unacknowledged(now);
        self.handle_resumed();
    }

    /// The link is in use again.
    pub(super) fn handle_resumed(&mut self) {
        self.hold_until = None;
        self.interruption = None;
        self.gone_before_loss = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::policy::SharedPolicy;
    use crate::relay::connection::{CloseReason, RelaySettings};
    use crate::relay::limits::RelayLimits;
    use crate::relay::wire::Envelope;
    use crate::relay::wire::request::Request;
    use crate::vehicle::hardware::Hardware;

    const SECOND: Duration = Duration::from_secs(1);

    /// A connection that no operator has used, held for 30 s.
    fn unused(now: Instant) -> RelayConnection {
        let settings = RelaySettings {
            connection_uuid: Uuid::nil(),
            hold: 30 * SECOND,
            limits: RelayLimits::default(),
            hardware: Hardware::at_pins([3, 11], 1),
            policy: SharedPolicy::default(),
        };
        RelayConnection::new(settings, now)
    }

    fn notify(connection: &mut RelayConnection, now: Instant, action: &str) {
        let envelope = Envelope::new(action, &json!({"connection_uuid": Uuid::nil()}));
        connection.handle_request(now, Request::parse(&envelope).unwrap(), None);
    }

    #[test]
    fn an_operator_who_has_left_stays_away_when_the_link_drops_and_returns() {
        let start = Instant::now();
        for is_down_first in [false, true] {
            let mut connection = unused(start);
            if is_down_first {
                connection.interrupt(start);
                notify(&mut connection, start + SECOND, "operatorLeft");
            } else {
                notify(&mut connection, start, "operatorLeft");
                connection.interrupt(start + SECOND);
            }
            connection.handle_link_back(start + 2 * SECOND);
            connection.handle_timeout(start + 29 * SECOND);
            assert_eq!(connection.closed(), None);
            connection.handle_timeout(start + 31 * SECOND);
            assert_eq!(connection.closed(), Some(CloseReason::LinkLost), "{is_down_first}");
        }
    }

    #[test]
    fn an_operator_who_joins_after_the_link_has_dropped_and_returned_continues() {
        let start = Instant::now();
        for is_down in [false, true] {
            let mut connection = unused(start);
            notify(&mut connection, start, "operatorLeft");
            connection.interrupt(start + SECOND);
            if is_down {
                notify(&mut connection, start + 2 * SECOND, "operatorJoined");
            }
            connection.handle_link_back(start + 3 * SECOND);
            if !is_down {
                notify(&mut connection, start + 4 * SECOND, "operatorJoined");
            }
            connection.handle_timeout(start + 60 * SECOND);
            assert_eq!((connection.closed(), connection.hold_until), (None, None), "{is_down}");
        }
    }

    #[test]
    fn a_link_that_drops_and_returns_is_no_sign_of_the_operator() {
        let start = Instant::now();
        let mut connection = unused(start);
        for minute in 1..16 {
            connection.interrupt(start + minute * 60 * SECOND - SECOND);
            connection.handle_link_back(start + minute * 60 * SECOND);
            connection.handle_timeout(start + minute * 60 * SECOND);
        }
        connection.interrupt(start + 910 * SECOND);
        connection.handle_link_back(start + 911 * SECOND);
        connection.handle_timeout(start + 935 * SECOND);
        assert_eq!(connection.closed(), Some(CloseReason::LinkLost));
    }
}
