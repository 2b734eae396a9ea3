//! The ignition: terminal 15, scans, and TesterPresent depend on it.

use std::time::Instant;

use super::RelayConnection;

impl RelayConnection {
    /// The ignition was switched, or can no longer be read.
    pub fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        self.ignition = ignition;
        for bus in &mut self.buses {
            bus.channels_mut().handle_ignition(now, ignition);
        }
        self.collect_scans();
        if ignition == Some(false) {
            self.stop_keep_alive_at.get_or_insert(now + self.settings.limits.keep_alive_after_ignition_off);
        } else {
            self.stop_keep_alive_at = None;
            self.set_keep_alive(now, true);
        }
        self.collect_outputs(now);
    }

    pub(super) fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        if std::mem::replace(&mut self.has_stopped_keep_alive, !enabled) == enabled {
            tracing::info!(enabled, "TesterPresent is enabled or disabled by the ignition");
            self.buses.iter_mut().for_each(|bus| bus.channels_mut().set_keep_alive(now, enabled));
        }
    }
}
