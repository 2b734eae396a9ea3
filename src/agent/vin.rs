//! The times of reading the VIN, and the consequences of a new VIN.

use connector_hal::clock::now;

use super::supervisor::Supervisor;
use super::vehicle::Doubt;
use crate::relay::connection::VinTrigger;
use crate::vehicle::vin::VinReport;

impl Supervisor {
    /// Starts reading the VIN: by the connection if it has the buses, otherwise by the VIN watch.
    pub(super) async fn read_vin(&mut self, trigger: VinTrigger) {
        match trigger {
            VinTrigger::Vehicle => self.vehicle.handle_doubt(Doubt::Possible),
            VinTrigger::Returned => self.vehicle.handle_doubt(Doubt::Likely),
            VinTrigger::Request => {}
        }
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

    /// The VIN watch has read the VIN, with or without success.
    pub(super) fn handle_found_vin(&mut self, report: &VinReport, doubt: Option<Doubt>) {
        self.vehicle.is_being_read = false;
        if let Some(doubt) = doubt {
            self.vehicle.handle_doubt(doubt);
        }
        self.handle_vin(report);
    }

    /// A device of the connection has returned: the VIN is read, but not at each return of a loose adapter.
    pub(super) fn handle_device_return(&mut self) {
        self.vehicle.handle_doubt(Doubt::Likely);
        self.returns.handle_return();
        // not confirmed until it is read again
        self.report_vin_to_policy();
    }

    /// The VIN has been read, with or without success.
    pub(super) fn handle_vin(&mut self, report: &VinReport) {
        if !report.conflict.is_empty() {
            tracing::warn!(ecus = report.conflict.len(), "the vehicle's ECUs report different VINs");
            tracing::debug!(conflict = ?report.conflict);
        }
        let (was_known, before) = (self.vehicle.is_known, self.vehicle.report(now()).0);
        self.vehicle.handle_reading(now(), report.vin);
        if before.is_some() || report.vin.is_some() {
            self.background.keep_vin(self.vehicle.to_keep());
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
        self.report_vin_to_policy();
        if !was_known || before != self.vehicle.report(now()).0 {
            self.report_status();
        }
        self.answer_waiting_for_vin(report);
    }
}
