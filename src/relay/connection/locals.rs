//! Muting what the connector sends to the vehicle on its own account (relay protocol, section 3).

use serde_json::json;

use super::RelayConnection;
use super::pending::BusesVinReading;
use super::vin_gate::VinObstacle;
use crate::protocol::problem::Problem;

impl RelayConnection {
    /// Whether nothing is sent to a bus on the connector's own account.
    pub(crate) fn is_muted(&self) -> bool {
        self.is_muted
    }

    /// Mutes the connector, or ends this. A reading of the VIN that is under way ends without a VIN; one that was left
    /// out is made up for afterwards.
    pub(super) fn set_muted(&mut self, is_muted: bool, request_id: &Option<String>) -> Result<(), Problem> {
        self.is_muted = is_muted;
        self.buses.iter_mut().for_each(|bus| bus.channels_mut().set_muted(is_muted));
        if is_muted {
            self.stop_reading_vin();
        }
        let action = if is_muted { "localsMuted" } else { "localsUnmuted" };
        let message = json!({"connection_uuid": self.connection_uuid()});
        self.reply(action, &message, request_id.clone());
        Ok(())
    }

    fn stop_reading_vin(&mut self) {
        let waiting = self.vin_waiting.take().map(|waiting| (waiting.since, waiting.budget));
        let reading = self.vin_reading.take().map(|reading| (reading.since, reading.budget));
        let Some((since, budget)) = reading.or(waiting) else { return };
        for bus in &mut self.buses {
            bus.channels_mut().stop_vin_reader();
            bus.channels_mut().take_vins();
        }
        self.has_left_out_vin = true;
        self.vin_reading = Some(BusesVinReading::ended(since, budget, VinObstacle::Muted));
    }
}
