//! Board and vehicle: ignition, the call for attention, the VIN.

use connector_hal::board::BoardEvent;

use tokio::sync::mpsc;

use super::messages::CallForAttention;
use super::power::{PowerEvent, SleepWatch};
use super::sleep::{Sleeper, Woken};
use super::{Control, Ended, Setup, Supervisor, now};
use crate::cloud::rest::Chain;
use crate::relay::connection::{CloseReason, Session};
use crate::relay::wire::Envelope;
use crate::vehicle::vin::VinReport;

impl Supervisor {
    pub(super) fn handle_board(&mut self, event: BoardEvent) {
        match event {
            BoardEvent::Ignition(ignition) => self.power.handle_ignition(now(), ignition),
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

    /// Looks at ignition and voltage; whether it is time to sleep.
    pub(super) async fn attend_power(&mut self) -> bool {
        let now = now();
        let relayed = self.session.as_ref().map_or(0, Session::pdus_relayed);
        if std::mem::replace(&mut self.pdus_relayed, relayed) != relayed {
            self.power.handle_activity(now);
        }
        if self.power.wants_voltage(now) {
            self.power.handle_voltage(now, self.board.voltage());
        }
        while let Some(event) = self.power.poll_event(now) {
            match event {
                PowerEvent::Ignition(ignition) => self.handle_ignition(ignition).await,
                PowerEvent::Sleep => return true,
            }
        }
        false
    }

    async fn handle_ignition(&mut self, ignition: Option<bool>) {
        tracing::info!(?ignition, "the ignition changed");
        if let Some(session) = &mut self.session {
            session.handle_ignition(now(), ignition);
        }
        self.watch.ignition(ignition).await;
        self.report_status();
        if self.ignition_watch.handle_ignition(ignition).is_some() {
            self.read_vin().await;
        }
    }

    /// Tells the cloud, then leaves it and every bus in peace until there is a reason to wake.
    pub(super) async fn sleep(mut self, control: &mut mpsc::Receiver<Control>) -> Ended {
        tracing::info!(voltage = ?self.board.voltage(), "the supply voltage is low; going to sleep");
        self.report_status();
        self.shut_down(CloseReason::Policy).await;
        let Self {
            config,
            pincode,
            hardware,
            mut board,
            link,
            cloud,
            mut watch,
            mut notifier,
            tls,
            mut rng,
            ..
        } = self;
        // with them the login ends, and whatever it would have sent
        drop((link, cloud));
        let sleeper = Sleeper {
            board: &mut *board,
            watch: &mut watch,
            notifier: &mut notifier,
            power: SleepWatch::new(&config.power),
        };
        match sleeper.sleep(control).await {
            Woken::By(cause) => {
                tracing::info!(?cause, "waking up");
                let seed = rng.u64(..);
                Ended::Woken(Box::new((Setup { config, pincode, hardware, board, tls, seed }, notifier)))
            }
            Woken::Told(control) => {
                notifier.stopping();
                Ended::Told(control)
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
        if let (Some(session), Some(vin)) = (&mut self.session, report.vin)
            && *self.session_vin.get_or_insert(vin) != vin
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
