//! Telling systemd how it stands (`sd_notify`), where it asked for that.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::signal::Shown;
use crate::cloud::CloudState;

/// Tells the service manager that we are ready, alive, or about to end.
#[derive(Debug)]
pub(super) struct Notifier {
    /// How often to show that we are alive, and when next.
    watchdog: Option<(Duration, Instant)>,
}

impl Notifier {
    pub(super) fn from_environment(now: Instant) -> Self {
        // twice as often as the limit that was set, as sd_watchdog_enabled(3) advises
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { watchdog: watchdog.map(|interval| (interval, now + interval)) }
    }

    fn tell(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "the service manager could not be told");
        }
    }

    pub(super) fn ready(&self) {
        Self::tell(&[NotifyState::Ready]);
    }

    pub(super) fn stopping(&self) {
        Self::tell(&[NotifyState::Stopping]);
    }

    pub(super) fn sleeping(&self) {
        Self::tell(&[NotifyState::Status("asleep: the supply voltage is low")]);
    }

    pub(super) fn status(&self, shown: Shown) {
        let text = match (shown.cloud, shown.has_session) {
            (CloudState::Online, true) => "online, an operator is connected",
            (CloudState::Online, false) => "online",
            (CloudState::Connecting, _) => "connecting",
            (CloudState::Unreachable, _) => "the cloud cannot be reached",
            (CloudState::LoginRejected, _) => "the cloud rejects UUID or pincode",
        };
        Self::tell(&[NotifyState::Status(text)]);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((interval, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *interval;
            Self::tell(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }
}
