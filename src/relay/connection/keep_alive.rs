//! Ignition and supply voltage: terminal 15, scans, and TesterPresent depend on them.

use std::time::Instant;

use super::RelayConnection;

impl RelayConnection {
    /// The ignition was switched, or can no longer be read.
    pub fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        self.ignition = ignition;
        self.settings.policy.with(|policy| policy.handle_ignition(ignition));
        for bus in &mut self.buses {
            bus.channels_mut().handle_ignition(now, ignition);
        }
        self.collect_scans();
        self.keep_alive.handle_ignition(now, ignition);
        self.update_keep_alive(now);
        self.collect_outputs(now);
    }

    /// The supply voltage, in volts; `None` if it cannot be measured.
    pub fn handle_voltage(&mut self, now: Instant, volts: Option<f32>) {
        self.keep_alive.handle_voltage(now, volts);
        self.settings.policy.with(|policy| policy.handle_voltage(now, volts));
        self.update_keep_alive(now);
        self.collect_outputs(now);
    }

    /// Stops or allows TesterPresent, as ignition, voltage and operator demand.
    pub(super) fn update_keep_alive(&mut self, now: Instant) {
        if !self.keep_alive.poll_change(now, self.transfers.until()) {
            return;
        }
        let stop = self.keep_alive.stopped();
        match stop {
            Some(stop) => tracing::info!("{}", stop.text()),
            None => tracing::info!("TesterPresent continues"),
        }
        self.buses.iter_mut().for_each(|bus| bus.channels_mut().set_keep_alive(now, stop));
    }
}
