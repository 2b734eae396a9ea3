//! The board: ignition, supply voltage, and the button of the call for attention and of consent.

use connector_hal::board::BoardEvent;
use connector_hal::clock::now;
use tokio::sync::mpsc;

use super::event_loop::{RunEnd, Woken};
use super::messages::CallForAttention;
use super::power::{PowerEvent, WakeCause, WakeCauses};
use super::setup::Control;
use super::sleep::{SleepEnd, Sleeper};
use super::supervisor::Supervisor;
use super::vin_watch::WatchStart;
use crate::policy::Policy;
use crate::relay::connection::{CloseReason, VinTrigger};
use crate::relay::wire::Envelope;

impl Supervisor {
    pub(super) fn handle_board(&mut self, event: BoardEvent) {
        match event {
            BoardEvent::Ignition(ignition) => self.power.handle_ignition(now(), ignition),
            BoardEvent::Button(Some(is_pressed)) => self.handle_button(is_pressed),
            BoardEvent::Button(None) => {
                self.attention.is_pressed = false;
                self.policy.with(Policy::handle_button_lost);
            }
        }
    }

    /// A press that belongs to consent does nothing else. Any other one starts or ends a call for attention, when the
    /// button is released: a long press, which revokes consent, would begin with a call otherwise.
    fn handle_button(&mut self, is_pressed: bool) {
        let is_answer = self.policy.with(|policy| policy.handle_button(now(), is_pressed));
        // the press that woke the agent began before
        let ends_press = std::mem::replace(&mut self.attention.is_pressed, is_pressed) && !is_pressed;
        if !ends_press || is_answer {
            return;
        }
        if self.attention.is_calling {
            self.end_call();
            self.background.dismiss_call_for_attention();
        } else {
            self.start_call();
        }
    }

    fn start_call(&mut self) {
        tracing::info!("the button was pressed: calling for attention");
        self.attention.is_calling = true;
        if self.socket.is_up() { self.send_call() } else { self.attention.is_unsent = true }
    }

    pub(super) fn send_call(&mut self) {
        let message = CallForAttention { connector_id: self.uuid() };
        self.send(&Envelope::new("callForAttention", &message));
    }

    pub(super) fn end_call(&mut self) {
        self.attention.is_calling = false;
        self.attention.is_unsent = false;
    }

    /// Checks ignition and supply voltage. Returns whether it is time to sleep.
    pub(super) async fn update_power(&mut self) -> bool {
        let now = now();
        if self.connection.as_mut().is_some_and(|connection| connection.take_activity()) {
            self.power.handle_activity(now);
        }
        self.power.handle_connection(now, self.connection.is_some());
        if self.power.wants_voltage(now) {
            let volts = self.setup.board.voltage();
            self.power.handle_voltage(now, volts);
            if let Some(connection) = &mut self.connection {
                connection.relay.handle_voltage(now, volts);
            }
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
        self.policy.with(|policy| policy.handle_ignition(ignition));
        if let Some(connection) = &mut self.connection {
            connection.relay.handle_ignition(now(), ignition);
        }
        self.watch.ignition(ignition).await;
        self.report_status();
        if self.ignition_watch.handle_ignition(ignition).is_some() {
            self.read_vin(VinTrigger::Vehicle).await;
        }
    }

    /// Goes offline, keeps every bus silent, and waits until there is a reason to wake.
    pub(super) async fn sleep(mut self, control: &mut mpsc::Receiver<Control>) -> RunEnd {
        let voltage = self.setup.board.voltage();
        tracing::info!(?voltage, "the supply voltage is low; going to sleep");
        self.report_status();
        self.shut_down(CloseReason::Policy).await;
        let Self { mut setup, mut rng, socket, background, mut watch, mut notifier, vehicle, .. } = self;
        // these hold the login, which ends with them and sends nothing more
        drop((socket, background));
        let sleeper = Sleeper {
            board: &mut *setup.board,
            watch: &mut watch,
            notifier: &mut notifier,
            causes: WakeCauses::new(&setup.config.power),
        };
        match sleeper.sleep(control).await {
            SleepEnd::Woken(cause) => {
                tracing::info!(?cause, "waking up");
                setup.seed = rng.u64(..);
                let is_bus = cause == WakeCause::Bus;
                let start = if is_bus { WatchStart::WokenByBus } else { WatchStart::Ordinary };
                RunEnd::Woken(Box::new(Woken { setup, notifier, start, kept_vin: vehicle.to_keep() }))
            }
            SleepEnd::Control(control) => {
                notifier.report_stopping();
                RunEnd::Control(control)
            }
        }
    }
}
