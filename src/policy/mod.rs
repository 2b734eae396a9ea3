//! The policy beside the vehicle (SAE J3138): what may be sent to a vehicle, and when.
//!
//! [`Policy`] is a pure machine that reads no clock, file or bus. The methods `handle_*` give it facts, such as the
//! speed, and [`Policy::judge`] decides whether an [`Intent`] may be carried out. The tables of [`services`] give the
//! [`Class`] of an intent. The first matching rule of the configuration states the conditions that must hold; without
//! such a rule, the class states them.
//!
//! A verdict never waits. An operator whose intent was refused may try again when the facts have changed.

pub mod audit;
mod auditing;
mod class;
mod consent;
mod controls;
mod explain;
mod facts;
mod frames;
mod intent;
mod judge;
mod obd;
pub mod services;
mod settings;
mod shared;
mod state;
mod transfers;
mod turn;
mod verdict;
mod waiting;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

pub use class::{Class, Condition, Mode, Unknown};
pub use consent::{CannotAsk, ConsentEvent};
pub use controls::Return;
pub use explain::explain;
pub use facts::{AskedSource, Engine, VehicleMotion};
pub use intent::{Framing, Intent, IntentBus, IntentTarget, Stage, What};
pub use settings::{
    ByteOrder, ClassConditions, ConsentGiver, ConsentSettings, FactSettings, HexBytes, MAX_RULES,
    PolicySettings, Rule, SpeedFact, SpeedSignal,
};
pub use shared::{BusPolicy, ChannelPolicy, SharedPolicy};
pub use state::PolicyState;
pub use verdict::{PolicyRefusal, RuleNumber, Verdict, Why};

use audit::Audit;
use consent::Consent;
use controls::Controls;
use facts::Facts;
use frames::Frames;
use state::Reports;
use transfers::TransferGrants;
use waiting::SpeedWait;

/// How long the policy continues to ask for the speed after an intent needed it.
const SPEED_WANTED_FOR: Duration = Duration::from_secs(10);
/// The shortest interval between two questions for the speed.
const SPEED_PERIOD: Duration = Duration::from_secs(1);

/// Refusals of the same thing are logged not more often than this: an operator's tool may repeat one for every frame.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// The positive response to RequestTransferExit (ISO 14229-1, 15.5).
const TRANSFER_EXITED: u8 = 0x77;

/// The policy of a connector.
#[derive(Debug)]
pub struct Policy {
    settings: PolicySettings,
    /// The conditions of each class, in the order of [`Class::ALL`].
    conditions: [Vec<Condition>; Class::ALL.len()],
    facts: Facts,
    consent: Consent,
    /// What has arrived, and what has gone out: frames are watched in both orders.
    arrived: Frames,
    sent: Frames,
    transfers: TransferGrants,
    controls: Controls,
    returns: Vec<Return>,
    has_ticket: bool,
    is_vin_confirmed: bool,
    speed_wanted: Option<Instant>,
    speed_asked: Option<Instant>,
    wait: SpeedWait,
    was_moving: bool,
    refused: u64,
    logged: Option<(Instant, &'static str)>,
    reports: Reports,
    audit: Audit,
}

impl Policy {
    /// Knows nothing about the vehicle yet. `has_button` says whether the device has a button that a person at the
    /// vehicle can press.
    pub fn new(mut settings: PolicySettings, has_button: bool) -> Self {
        for rule in &mut settings.rules {
            rule.require.sort_unstable();
        }
        let consent = Consent::new(settings.consent.clone(), has_button);
        let can_ask = consent.can_ask();
        let frames = || Frames::new(settings.facts.diagnostic_ids.clone());
        Self {
            conditions: Class::ALL.map(|class| settings.conditions(class, can_ask)),
            facts: Facts::new(settings.facts.clone()),
            consent,
            arrived: frames(),
            sent: frames(),
            transfers: TransferGrants::new(),
            controls: Controls::default(),
            returns: Vec::new(),
            has_ticket: false,
            is_vin_confirmed: false,
            speed_wanted: None,
            speed_asked: None,
            wait: SpeedWait::default(),
            was_moving: false,
            refused: 0,
            logged: None,
            reports: Reports::default(),
            audit: Audit::default(),
            settings,
        }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// The conditions of a class.
    pub fn conditions(&self, class: Class) -> &[Condition] {
        let index = Class::ALL.iter().position(|other| *other == class);
        index.and_then(|index| self.conditions.get(index)).map_or(&[], Vec::as_slice)
    }

    /// Handles a new connection of an operator. `unattended` says that its ticket confirms unattended service.
    pub fn handle_opened(&mut self, now: Instant, has_ticket: bool, unattended: bool) {
        self.handle_closed();
        self.update_audit(now);
        self.audit.connection = self.audit.next.take();
        self.has_ticket = has_ticket;
        self.consent.handle_opened(now, unattended);
        self.update_audit(now);
    }

    /// Handles the end of the connection: consents, transfers and controls end with it.
    pub fn handle_closed(&mut self) {
        self.consent.handle_closed();
        self.audit.is_closing = true;
        self.arrived.clear();
        self.sent.clear();
        self.transfers.clear();
        self.controls.clear();
        self.returns.clear();
        self.has_ticket = false;
        self.is_vin_confirmed = false;
        self.speed_wanted = None;
        self.wait = SpeedWait::default();
        self.refused = 0;
        self.reports = Reports::default();
    }

    /// Handles a frame that was heard on a bus.
    pub fn handle_heard_frame(&mut self, now: Instant, bus: IntentBus<'_>, frame: &CanFrame) {
        self.facts.handle_frame(now, bus.name, frame);
        if obd::is_answer_id(frame.id()) {
            self.handle_reported(now, obd::single_frame(frame.data()));
        }
        self.arrived.handle_heard(bus.index, frame);
        self.sent.handle_heard(bus.index, frame);
        self.check_motion(now);
    }

    /// Handles a response of an ECU to the operator, or to a question for the speed.
    pub fn handle_response(&mut self, now: Instant, bus: usize, target: IntentTarget, response: &[u8]) {
        if response.first() == Some(&TRANSFER_EXITED) {
            self.transfers.handle_ended(bus, target);
        }
        self.handle_reported(now, response);
    }

    /// Handles the speeds of vehicle and engine in a response to the operator or to the connector.
    fn handle_reported(&mut self, now: Instant, response: &[u8]) {
        match obd::reported(response) {
            Some(obd::Reported::Speed(source, kmh)) => self.handle_asked_speed(now, source, kmh),
            Some(obd::Reported::Engine(rpm)) => self.facts.handle_engine_speed(now, rpm),
            None => {}
        }
    }

    /// Whether this frame answers a question for the speed that was asked a moment ago.
    pub fn is_speed_answer(&self, now: Instant, frame: &CanFrame) -> bool {
        let is_awaited = self.speed_asked.is_some_and(|at| now.saturating_duration_since(at) < SPEED_PERIOD);
        is_awaited && obd::is_answer_id(frame.id()) && obd::is_answer(obd::single_frame(frame.data()))
    }

    /// Handles a chain of requests that broke: the ECU's transfer is over.
    pub fn handle_transfer_ended(&mut self, bus: usize, target: IntentTarget) {
        self.transfers.handle_ended(bus, target);
        self.audit.handle_broken(bus, target);
    }

    /// Handles the end of the last channel to an ECU. A transfer under way may go on by another channel.
    pub fn handle_channel_closed(&mut self, bus: usize, target: IntentTarget) {
        self.audit.handle_channel_closed(bus, target);
    }

    /// Handles a speed that the vehicle reported when asked, in km/h.
    pub fn handle_asked_speed(&mut self, now: Instant, source: AskedSource, kmh: f32) {
        self.facts.handle_asked_speed(now, source, kmh);
        self.check_motion(now);
    }

    /// Handles the engine's speed, in revolutions per minute.
    pub fn handle_engine_speed(&mut self, now: Instant, rpm: f32) {
        self.facts.handle_engine_speed(now, rpm);
    }

    /// Handles a measured voltage; `None` if it cannot be measured.
    pub fn handle_voltage(&mut self, now: Instant, volts: Option<f32>) {
        self.facts.handle_voltage(now, volts);
    }

    /// Handles the state of the ignition; `None` if it cannot be read.
    pub fn handle_ignition(&mut self, on: Option<bool>) {
        self.facts.handle_ignition(on);
        self.consent.handle_ignition(on);
    }

    /// Handles the vehicle's VIN, `None` if it is not known or no longer. `is_confirmed` says that it is that of the
    /// ticket.
    pub fn handle_vin(&mut self, vin: Option<&str>, is_confirmed: bool) {
        self.consent.handle_vin(vin);
        self.is_vin_confirmed = is_confirmed;
    }

    /// Handles press and release of the device's button. Returns whether the press belongs to consent, so that nothing
    /// else should use it; the return value at the release counts.
    pub fn handle_button(&mut self, now: Instant, is_pressed: bool) -> bool {
        self.consent.handle_button(now, is_pressed)
    }

    /// Handles a button that can no longer be read: a press whose end is not seen counts as none.
    pub fn handle_button_lost(&mut self) {
        self.consent.handle_button_lost();
    }

    /// Asks the person at the vehicle for consent. Returns for how long the person is asked.
    ///
    /// # Errors
    ///
    /// The device cannot ask, or no connection is open.
    pub fn request_consent(&mut self, now: Instant, class: Class) -> Result<Duration, CannotAsk> {
        self.consent.ask(now, class)
    }

    /// Handles consent that was given by other means than button and ticket: as an assumption, to explain the policy.
    pub fn handle_consent(&mut self, now: Instant, class: Class) {
        self.consent.grant(now, class, None);
    }

    /// The class for which the person at the vehicle is being asked, for LED and buzzer.
    pub fn asking(&self) -> Option<Class> {
        self.consent.asking()
    }

    /// Handles the passing of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.consent.handle_timeout(now);
        self.check_motion(now);
        self.update_audit(now);
    }

    /// The next moment at which [`Self::handle_timeout`] or [`Self::poll_state`] has something to do.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let consent = self.consent.poll_timeout();
        let facts = self.facts.next_change(now);
        consent.into_iter().chain(facts).chain(self.audit.poll_timeout()).min()
    }

    /// Returns the next event of consent.
    pub fn poll_consent(&mut self) -> Option<ConsentEvent> {
        self.consent.poll_event()
    }

    /// Whether [`Self::poll_consent`] has an event.
    pub fn has_consent_event(&self) -> bool {
        self.consent.has_event()
    }

    /// Returns the next request that gives an input or output back to its ECU, because the vehicle moves.
    pub fn poll_return(&mut self) -> Option<Return> {
        (!self.returns.is_empty()).then(|| self.returns.remove(0))
    }

    /// When the vehicle should be asked for its speed. The caller asks only while no channel of the bus is busy.
    pub fn speed_due(&self, now: Instant) -> Option<Instant> {
        let wanted = self.speed_wanted.filter(|at| now.saturating_duration_since(*at) < SPEED_WANTED_FOR)?;
        let can_ask = self.askable_speeds() != (false, None);
        can_ask.then(|| self.speed_asked.map_or(wanted, |asked| wanted.max(asked + SPEED_PERIOD)))
    }

    /// Handles a question for the speed that is being asked.
    pub fn handle_speed_asked(&mut self, now: Instant) {
        self.speed_asked = Some(now);
        self.wait.handle_asked(now);
    }

    /// The sources of the speed that may be asked: OBD, and the data identifier by DoIP.
    pub fn askable_speeds(&self) -> (bool, Option<u16>) {
        self.settings.facts.askable_speeds()
    }

    /// Returns the state to report, if it has changed since the last report.
    pub fn poll_state(&mut self, now: Instant) -> Option<PolicyState> {
        let state = self.state(now);
        self.reports.poll(now, state)
    }

    /// Returns the present state.
    pub fn state(&self, now: Instant) -> PolicyState {
        PolicyState::new(now, self.settings.mode, &self.facts, &self.consent, self.refused)
    }

    /// Returns control of inputs and outputs when the vehicle begins to move.
    fn check_motion(&mut self, now: Instant) {
        let is_moving = matches!(self.facts.motion(now), VehicleMotion::Moving { .. });
        if is_moving && !self.was_moving && self.settings.mode == Mode::Enforce {
            self.returns = self.controls.take_returns();
        }
        self.was_moving = is_moving;
    }
}
