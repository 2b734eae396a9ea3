//! Board and vehicle: ignition, the call for attention, the VIN.

use connector_hal::board::BoardEvent;

use super::messages::CallForAttention;
use super::{Supervisor, now};
use crate::cloud::Chain;
use crate::relay::Envelope;
use crate::relay::session::CloseReason;
use crate::vin::VinReport;

impl Supervisor {
    pub(super) async fn handle_board(&mut self, event: BoardEvent) {
        match event {
            BoardEvent::Ignition(ignition) => {
                tracing::info!(?ignition, "the ignition changed");
                self.ignition = ignition;
                self.report_status();
                if self.ignition_watch.handle_ignition(ignition).is_some() {
                    self.read_vin().await;
                }
            }
            BoardEvent::Button if self.calls_for_attention => {
                self.end_call();
                let cloud = self.cloud.clone();
                tokio::spawn(async move {
                    if let Err(error) = cloud.dismiss_call_for_attention().await {
                        tracing::warn!("the call for attention could not be dismissed: {}", Chain(&error));
                    }
                });
            }
            BoardEvent::Button => {
                tracing::info!("the button was pressed: calling for attention");
                self.calls_for_attention = true;
                self.board.set_buzzer(true);
                if self.link.is_up() { self.send_call() } else { self.call_unsent = true }
            }
        }
    }

    pub(super) fn send_call(&mut self) {
        let message = CallForAttention { connector_id: self.uuid };
        self.send(&Envelope::new("callForAttention", &message));
    }

    pub(super) fn end_call(&mut self) {
        self.calls_for_attention = false;
        self.call_unsent = false;
        self.board.set_buzzer(false);
    }

    /// Has the VIN read, by the session where it has the buses.
    pub(super) async fn read_vin(&mut self) {
        let budget = self.config.vin.budget;
        let by_session =
            self.session.as_mut().is_some_and(|session| session.start_reading_vin(now(), budget));
        if !by_session && !self.vehicle.is_being_read {
            self.vehicle.is_being_read = true;
            self.watch.read().await;
        }
    }

    pub(super) fn handle_vin(&mut self, report: &VinReport) {
        if !report.conflict.is_empty() {
            tracing::warn!(ecus = report.conflict.len(), "the vehicle's ECUs tell different VINs");
            tracing::debug!(conflict = ?report.conflict);
        }
        let is_news = !self.vehicle.is_known || self.vehicle.vin != report.vin;
        self.vehicle.is_known = true;
        self.vehicle.vin = report.vin;
        tracing::info!(
            found = report.vin.is_some(),
            elapsed_ms = report.elapsed.as_millis() as u64,
            "read the VIN"
        );
        if let (Some(session), Some(before), Some(vin)) = (&mut self.session, self.session_vin, report.vin)
            && before != vin
        {
            tracing::warn!("another vehicle is at the connector; closing the connection");
            session.close(CloseReason::VehicleLost);
        }
        if is_news {
            self.report_status();
        }
        self.answer_waiting_for_vin(report);
    }
}
