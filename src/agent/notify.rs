//! Reports the agent's state to systemd (`sd_notify`), if systemd asked for reports.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::led::Indication;
use crate::cloud::CloudState;

/// Reports to the service manager.
#[derive(Debug)]
pub(super) struct Notifier {
    /// The interval of the watchdog reports, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
}

impl Notifier {
    pub(super) fn from_environment(now: Instant) -> Self {
        // half of the limit, as sd_watchdog_enabled(3) recommends
        let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { watchdog: watchdog.map(|interval| (interval, now + interval)) }
    }

    fn notify(states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "cannot report to the service manager");
        }
    }

    pub(super) fn report_ready(&self) {
        Self::notify(&[NotifyState::Ready]);
    }

    pub(super) fn report_stopping(&self) {
        Self::notify(&[NotifyState::Stopping]);
    }

    pub(super) fn report_waiting(&self) {
        Self::notify(&[NotifyState::Status("about to end: waiting for the end of a download")]);
    }

    pub(super) fn report_sleeping(&self) {
        Self::notify(&[NotifyState::Status("asleep: the supply voltage is low")]);
    }

    pub(super) fn report_status(&self, indication: Indication) {
        let text = match (indication.cloud, indication.has_operator) {
            (CloudState::Online, true) => "online, an operator is connected",
            (CloudState::Online, false) => "online",
            (CloudState::Connecting, _) => "connecting",
            (CloudState::Unreachable, _) => "the cloud cannot be reached",
            (CloudState::LoginRejected, _) => "the cloud rejects UUID or pincode",
        };
        Self::notify(&[NotifyState::Status(text)]);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some((interval, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *interval;
            Self::notify(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }
}
