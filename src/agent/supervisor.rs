//! The state of the agent's task.

use std::sync::Arc;
use std::time::Duration;

use connector_hal::board::Led;
use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};
use serde::Serialize;
use uuid::Uuid;

use super::active_connection::ActiveConnection;
use super::audit_log::AuditLog;
use super::background::Background;
use super::ending::Ending;
use super::kept_vin::{KeptVin, VinStore};
use super::led::{Buzzer, Indication};
use super::messages::{StatusUpdate, bounded_text, whole_milliseconds};
use super::notify::Notifier;
use super::power::PowerEvents;
use super::reporting::Reporting;
use super::return_pauses::ReturnPauses;
use super::setup::{Setup, SetupError};
use super::vehicle::Vehicle;
use super::vin_watch::{VinWatch, WatchStart};
use super::waiting::VinWaiters;
use crate::cloud::login::{Authenticator, LoginStore};
use crate::cloud::rest::Rest;
use crate::cloud::websocket::{CloudSocket, OutgoingMessage, SocketSettings};
use crate::cloud::{Cloud, CloudStatus};
use crate::policy::{Policy, SharedPolicy};
use crate::relay::wire::Envelope;
use crate::vehicle::wake_watch::WakeWatch;

/// The mechanic's call for attention.
#[derive(Default)]
pub(super) struct Attention {
    /// The button was pressed, and the call has not been dismissed.
    pub(super) is_calling: bool,
    /// The websocket was down when the button was pressed.
    pub(super) is_unsent: bool,
    /// The button is pressed.
    pub(super) is_pressed: bool,
}

/// The order in which the event sources are polled.
#[derive(Default)]
pub(super) struct PollOrder {
    pub(super) turn: u32,
    pub(super) is_connection_first: bool,
}

pub(super) struct Supervisor {
    pub(super) setup: Setup,
    pub(super) rng: fastrand::Rng,
    pub(super) socket: CloudSocket,
    pub(super) background: Background,
    pub(super) cloud_status: CloudStatus,
    pub(super) watch: VinWatch,
    pub(super) vehicle: Vehicle,
    pub(super) connection: Option<ActiveConnection>,
    /// A connection that ended while the websocket was down: the cloud does not know yet.
    pub(super) unreported_end: Option<Envelope>,
    pub(super) waiting_for_vin: VinWaiters,
    pub(super) power: PowerEvents,
    pub(super) ignition_watch: WakeWatch,
    /// The devices of the connection that have returned.
    pub(super) returns: ReturnPauses,
    pub(super) attention: Attention,
    pub(super) ending: Ending,
    /// What may be sent to the vehicle.
    pub(super) policy: SharedPolicy,
    pub(super) audit: AuditLog,
    pub(super) poll_order: PollOrder,
    pub(super) shown_led: Option<Led>,
    pub(super) buzzer: Buzzer,
    pub(super) reporting: Reporting,
    pub(super) deadline: Deadline,
    pub(super) notifier: Notifier,
}

impl Supervisor {
    /// An agent that starts. `kept_vin` is the VIN from before it slept.
    pub(super) fn new(
        mut setup: Setup,
        notifier: Notifier,
        start: WatchStart,
        kept_vin: Option<KeptVin>,
    ) -> Result<Self, SetupError> {
        let mut rng = fastrand::Rng::with_seed(setup.seed);
        let config = &setup.config;
        let rest = Arc::new(Rest::new(&config.cloud, config.connector.uuid, setup.dialer.clone())?);
        let store = LoginStore::new(config);
        let authenticator = Authenticator::resume(rest.clone(), setup.pincode.clone(), store, rng.u64(..));
        let cloud = Cloud::new(rest, authenticator.clone(), rng.u64(..));
        let background = Background::new(cloud, &authenticator, VinStore::new(config));
        let settings = SocketSettings::new(&config.cloud, config.relay.max_pdu);
        let socket = CloudSocket::new(settings, setup.dialer.clone(), authenticator, rng.u64(..));
        let ignition = setup.board.ignition();
        let policy = SharedPolicy::new(Policy::new(config.policy.clone(), config.board.button.is_some()));
        let hardware = setup.hardware.clone();
        let watch = VinWatch::spawn(hardware, config.vin_settings(), policy.clone(), ignition, start);
        let mut ignition_watch = WakeWatch::new(Duration::MAX, now());
        ignition_watch.handle_ignition(ignition);
        policy.with(|policy| policy.handle_ignition(ignition));
        Ok(Self {
            policy,
            audit: AuditLog::new(config),
            power: PowerEvents::new(config.power, ignition, now()),
            setup,
            rng,
            socket,
            background,
            cloud_status: CloudStatus::default(),
            watch,
            vehicle: Vehicle::new(start.reads_immediately(ignition), kept_vin),
            connection: None,
            unreported_end: None,
            waiting_for_vin: VinWaiters::default(),
            ignition_watch,
            returns: ReturnPauses::default(),
            attention: Attention::default(),
            ending: Ending::default(),
            poll_order: PollOrder::default(),
            shown_led: None,
            buzzer: Buzzer::default(),
            reporting: Reporting::new(now()),
            deadline: Deadline::new(TimerKind::Runtime),
            notifier,
        })
    }

    /// The connector's UUID.
    pub(super) fn uuid(&self) -> Uuid {
        self.setup.config.connector.uuid.get()
    }

    /// Sends a text message.
    pub(super) fn send(&mut self, envelope: &Envelope) {
        // while the websocket is down the message is lost; `handle_socket_up` reports the state again
        let _not_up = self.socket.send(OutgoingMessage::Text(bounded_text(envelope)));
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, action: &str, message: &impl Serialize, request_id: Option<String>) {
        self.send(&Envelope::new(action, message).in_reply_to(request_id));
    }

    /// Sends `connectorStatusUpdate`.
    pub(super) fn report_status(&mut self) {
        if !self.socket.takes_text() {
            return self.reporting.handle_unsent(now());
        }
        let voltage = self.setup.board.voltage();
        self.reporting.handle_report(now(), voltage);
        let connection = self.connection.as_ref();
        let (vin_number, vin_age) = self.vehicle.report(now());
        let update = StatusUpdate {
            connector_id: self.uuid(),
            voltage,
            vin_number,
            vin_age_seconds: vin_age.map(|age| age.as_secs()),
            round_trip_time: self.socket.round_trip_time().map(whole_milliseconds),
            ignition: self.power.ignition(),
            connection_uuid: connection.map(|connection| connection.relay.connection_uuid()),
            buses: connection.map(|connection| connection.relay.bus_reports()).unwrap_or_default(),
            policy: connection.map(|connection| connection.relay.policy_state(now())),
        };
        self.send(&Envelope::new("connectorStatusUpdate", &update));
    }

    /// Shows the agent's state on LED and buzzer and to the service manager, if it has changed.
    pub(super) fn show_state(&mut self) {
        let asks_for_consent = self.policy.with(|policy| policy.asking()).is_some();
        let indication = Indication {
            calls_for_attention: self.attention.is_calling,
            asks_for_consent,
            has_operator: self.connection.is_some(),
            cloud: self.cloud_status.state(),
        };
        let led = indication.led();
        if self.shown_led.replace(led) != Some(led) {
            self.setup.board.set_led(led);
            self.notifier.report_status(indication);
        }
        if let Some(on) = self.buzzer.poll(now(), indication) {
            self.setup.board.set_buzzer(on);
        }
    }
}
