//! When the agent ends, if the process asks for it while a connection is open: a pure policy.

use std::time::{Duration, Instant};

use super::setup::Control;

/// How long an end waits for a download or upload to end. An ECU whose download is broken off may need a
/// workshop. The units give the agent 75 s (`TimeoutStopSec`).
const TRANSFER_TIME: Duration = Duration::from_secs(60);
/// How long an operator must have been silent for a new configuration to end the connection. A person may read
/// for minutes between two requests.
const OPERATOR_SILENCE: Duration = Duration::from_secs(300);

/// What an end of the agent would interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OpenWork {
    /// When the operator of the open connection was last heard of.
    pub(super) heard_at: Instant,
    /// Until when an ECU counts as being in the middle of a download or upload, if one is.
    pub(super) transfer_until: Option<Instant>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndStep {
    /// End the agent.
    End(Control),
    /// Close the connection first, whose operator has been silent.
    CloseConnection,
}

/// The end that the process has asked for.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// By when the agent shuts down.
    shutdown_by: Option<Instant>,
    is_restart_wanted: bool,
}

impl Ending {
    /// The process asks for an end. A second request to shut down waits for nothing.
    pub(super) fn handle_control(&mut self, now: Instant, control: Control) {
        match control {
            Control::Shutdown if self.shutdown_by.is_some() => self.shutdown_by = Some(now),
            Control::Shutdown => self.shutdown_by = Some(now + TRANSFER_TIME),
            Control::Restart => self.is_restart_wanted = true,
        }
    }

    /// The next step toward the end; `None` to continue. `work` describes the open connection, if there is one.
    pub(super) fn poll_step(&self, now: Instant, work: Option<OpenWork>) -> Option<EndStep> {
        let has_transfer = work.and_then(|work| work.transfer_until).is_some_and(|until| until > now);
        if let Some(by) = self.shutdown_by {
            let is_waiting = by > now && has_transfer;
            return (!is_waiting).then_some(EndStep::End(Control::Shutdown));
        }
        if !self.is_restart_wanted {
            return None;
        }
        let Some(work) = work else { return Some(EndStep::End(Control::Restart)) };
        let is_operator_gone = work.heard_at + OPERATOR_SILENCE <= now;
        (is_operator_gone && !has_transfer).then_some(EndStep::CloseConnection)
    }

    /// When [`Ending::poll_step`] may have something to do by itself.
    pub(super) fn poll_timeout(&self, work: Option<OpenWork>) -> Option<Instant> {
        let OpenWork { heard_at, transfer_until } = work?;
        if let Some(by) = self.shutdown_by {
            return Some(transfer_until.map_or(by, |until| until.min(by)));
        }
        let gone_at = heard_at + OPERATOR_SILENCE;
        let closes_at = transfer_until.map_or(gone_at, |until| until.max(gone_at));
        self.is_restart_wanted.then_some(closes_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SHUTDOWN: Option<EndStep> = Some(EndStep::End(Control::Shutdown));

    fn ending(now: Instant, control: Control) -> Ending {
        let mut ending = Ending::default();
        ending.handle_control(now, control);
        ending
    }

    fn work(now: Instant, transfer_until: Option<Instant>) -> Option<OpenWork> {
        Some(OpenWork { heard_at: now, transfer_until })
    }

    #[test]
    fn a_shutdown_waits_for_nothing_but_a_transfer() {
        let now = Instant::now();
        let ending = ending(now, Control::Shutdown);
        assert_eq!(ending.poll_step(now, None), SHUTDOWN);
        assert_eq!(ending.poll_step(now, work(now, None)), SHUTDOWN);
    }

    #[test]
    fn a_shutdown_waits_up_to_sixty_seconds_for_the_end_of_a_transfer() {
        let now = Instant::now();
        let ending = ending(now, Control::Shutdown);
        let long = work(now, Some(now + 90 * SECOND));
        assert_eq!(ending.poll_step(now + 59 * SECOND, long), None);
        assert_eq!(ending.poll_timeout(long), Some(now + 60 * SECOND));
        assert_eq!(ending.poll_step(now + 60 * SECOND, long), SHUTDOWN);
        let short = work(now, Some(now + 5 * SECOND));
        assert_eq!(ending.poll_timeout(short), Some(now + 5 * SECOND));
        assert_eq!(ending.poll_step(now + 5 * SECOND, short), SHUTDOWN);
    }

    #[test]
    fn a_second_request_to_shut_down_waits_for_nothing() {
        let now = Instant::now();
        let mut ending = ending(now, Control::Shutdown);
        ending.handle_control(now + SECOND, Control::Shutdown);
        assert_eq!(ending.poll_step(now + SECOND, work(now, Some(now + 60 * SECOND))), SHUTDOWN);
    }

    #[test]
    fn a_reload_waits_for_the_operator_but_not_for_one_who_is_gone() {
        let now = Instant::now();
        let ending = ending(now, Control::Restart);
        assert_eq!(ending.poll_step(now, None), Some(EndStep::End(Control::Restart)));
        let idle = work(now, None);
        assert_eq!(ending.poll_step(now + 299 * SECOND, idle), None);
        assert_eq!(ending.poll_timeout(idle), Some(now + 300 * SECOND));
        assert_eq!(ending.poll_step(now + 300 * SECOND, idle), Some(EndStep::CloseConnection));
        let busy = work(now, Some(now + 330 * SECOND));
        assert_eq!(ending.poll_step(now + 300 * SECOND, busy), None, "a transfer");
        assert_eq!(ending.poll_timeout(busy), Some(now + 330 * SECOND));
    }

    #[test]
    fn a_shutdown_during_a_wanted_reload_shuts_down() {
        let now = Instant::now();
        let mut ending = ending(now, Control::Restart);
        ending.handle_control(now, Control::Shutdown);
        ending.handle_control(now, Control::Restart);
        assert_eq!(ending.poll_step(now, None), SHUTDOWN);
        assert_eq!(Ending::default().poll_step(now, None), None);
    }
}
