//! The times of reading the VIN, and the consequences of a new VIN.

use connector_hal::clock::now;

use super::kept_vin::KeptVin;
use super::supervisor::Supervisor;
use crate::relay::connection::VinTrigger;
use crate::vehicle::vin::VinReport;

impl Supervisor {
    /// Starts reading the VIN: by the connection if it has the buses, otherwise by the VIN watch.
    pub(super) async fn read_vin(&mut self, trigger: VinTrigger) {
        let budget = self.setup.config.vin.budget;
        let is_read_by_connection = self
            .connection
            .as_mut()
            .is_some_and(|connection| connection.relay.start_reading_vin(now(), budget, trigger));
        if !is_read_by_connection && !self.vehicle.is_being_read {
            self.vehicle.is_being_read = true;
            self.watch.read(trigger == VinTrigger::Request).await;
        }
    }

    /// The VIN has been read, with or without success.
    pub(super) fn handle_vin(&mut self, report: &VinReport) {
        if !report.conflict.is_empty() {
            tracing::warn!(ecus = report.conflict.len(), "the vehicle's ECUs report different VINs");
            tracing::debug!(conflict = ?report.conflict);
        }
        let has_changed = !self.vehicle.is_known || self.vehicle.vin != report.vin;
        self.vehicle.handle_reading(now(), report.vin);
        if let Some(vin) = report.vin {
            self.background.keep_vin(KeptVin::read_now(vin));
        }
        tracing::info!(
            found = report.vin.is_some(),
            elapsed_ms = report.elapsed.as_millis() as u64,
            "read the VIN"
        );
        if let Some(connection) = &mut self.connection {
            match report.vin {
                Some(vin) => connection.handle_vin(vin),
                None => connection.relay.handle_no_vin(now()),
            }
        }
        if has_changed {
            self.report_status();
        }
        self.answer_waiting_for_vin(report);
    }
}
