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
        if self.interruption != Some(Interruption::LinkLost) {
            self.interruption = Some(why);
        }
    }

    /// The websocket is back.
    ///
    /// An operator who has used the connection resumes it by `resumeConnection`. An operator who has not used
    /// it yet does not notice the interruption, so that the connection resumes here by itself.
    pub(crate) fn handle_link_back(&mut self, now: Instant) {
        if self.link.is_unused() {
            self.continue_link(now);
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
        self.handle_resumed(now);
    }

    /// The link is in use again.
    pub(super) fn handle_resumed(&mut self, now: Instant) {
        self.hold_until = None;
        self.interruption = None;
        self.operator.handle_heard(now);
    }
}
