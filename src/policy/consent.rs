//! Consent of the person at the vehicle: asking by LED and buzzer, and the device's button.
//!
//! Consent is bound to the connection, the VIN and the ignition cycle, and is lost with any of them.

use std::time::{Duration, Instant};

use super::class::Class;
use super::settings::{ConsentGiver, ConsentSettings};

/// A press counts only if it began this long after asking did: a hand that is on the button already has not agreed.
const READ_FIRST: Duration = Duration::from_millis(500);
/// A press this long means no, and revokes every consent.
const LONG_PRESS: Duration = Duration::from_secs(3);

/// What consent reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsentEvent {
    /// The person was asked for consent to a class.
    Asked(Class),
    /// The person agreed.
    Given(Class),
    /// The person did not answer in time.
    Unanswered(Class),
    /// The person said no: every consent is revoked, and the connection has to be closed.
    Revoked,
    /// Consent ended: its time is over, or the vehicle or the ignition changed.
    Ended(Class),
}

impl ConsentEvent {
    /// The class that the event is about; `None` for all classes.
    pub(super) const fn class(self) -> Option<Class> {
        match self {
            Self::Asked(class) | Self::Given(class) | Self::Unanswered(class) | Self::Ended(class) => {
                Some(class)
            }
            Self::Revoked => None,
        }
    }
}

/// Why the person at the vehicle cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotAsk {
    /// The device has no button, or the configuration does not let it give consent.
    #[error("this device has no button that gives consent")]
    NoButton,
    /// No connection is open.
    #[error("no connection is open")]
    NoConnection,
    /// The person was asked before, or is being asked for another class.
    #[error("the person at the vehicle is being asked for another class, or was asked before")]
    AskedBefore,
}

/// A press of the button that has not ended.
#[derive(Debug, Clone, Copy)]
struct Press {
    began: Instant,
    /// The press belongs to consent, and to nothing else.
    is_answer: bool,
}

#[derive(Debug, Clone, Copy)]
struct Asking {
    class: Class,
    since: Instant,
    until: Instant,
}

/// The consents of a connection.
#[derive(Debug)]
pub(super) struct Consent {
    settings: ConsentSettings,
    has_button: bool,
    is_open: bool,
    asking: Option<Asking>,
    given: Vec<(Class, Instant)>,
    /// The classes for which the person was asked because of a refusal.
    asked_first: Vec<Class>,
    press: Option<Press>,
    ignition: Option<bool>,
    vin: Option<String>,
    events: Vec<ConsentEvent>,
    /// The events that the audit has not seen, and what gave consent.
    unaudited: Vec<(ConsentEvent, Option<ConsentGiver>)>,
}

impl Consent {
    /// No consent is given.
    pub(super) fn new(settings: ConsentSettings, has_button: bool) -> Self {
        Self {
            settings,
            has_button,
            is_open: false,
            asking: None,
            given: Vec::new(),
            asked_first: Vec::new(),
            press: None,
            ignition: None,
            vin: None,
            events: Vec::new(),
            unaudited: Vec::new(),
        }
    }

    /// Whether the device can ask the person at the vehicle.
    pub(super) fn can_ask(&self) -> bool {
        self.has_button && self.settings.by.contains(&ConsentGiver::Button)
    }

    /// Handles a new connection. `unattended` says that its ticket confirms unattended service.
    pub(super) fn handle_opened(&mut self, now: Instant, unattended: bool) {
        self.handle_closed();
        self.is_open = true;
        self.vin = None;
        // a button that was held before, or that is stuck, says nothing about this connection
        self.press = None;
        if unattended && self.settings.by.contains(&ConsentGiver::Ticket) {
            for class in self.settings.unattended.clone() {
                self.grant(now, class, Some(ConsentGiver::Ticket));
            }
        }
    }

    /// Handles the end of the connection.
    pub(super) fn handle_closed(&mut self) {
        self.end_all();
        self.is_open = false;
        self.asking = None;
        self.asked_first.clear();
    }

    /// Handles the vehicle's VIN, `None` if it is not known or no longer. Another vehicle, or one that may be another,
    /// ends every consent.
    pub(super) fn handle_vin(&mut self, vin: Option<&str>) {
        if self.vin.as_deref() == vin {
            return;
        }
        if self.vin.is_some() {
            self.end_all();
        }
        self.vin = vin.map(str::to_owned);
    }

    /// Handles the ignition. A new ignition cycle ends every consent.
    pub(super) fn handle_ignition(&mut self, on: Option<bool>) {
        if self.ignition == Some(false) && on == Some(true) {
            self.end_all();
        }
        if on.is_some() {
            self.ignition = on;
        }
    }

    /// Asks the person at the vehicle, unless the person is being asked or has agreed already. Returns for how long.
    ///
    /// # Errors
    ///
    /// The device cannot ask, or no connection is open.
    pub(super) fn ask(&mut self, now: Instant, class: Class) -> Result<Duration, CannotAsk> {
        if !self.can_ask() {
            return Err(CannotAsk::NoButton);
        }
        if !self.is_open {
            return Err(CannotAsk::NoConnection);
        }
        if let Some(asking) = self.asking {
            return match asking.class == class {
                true => Ok(asking.until.saturating_duration_since(now)),
                false => Err(CannotAsk::AskedBefore),
            };
        }
        let until = now + self.settings.ask();
        self.asking = Some(Asking { class, since: now, until });
        self.report(ConsentEvent::Asked(class));
        Ok(self.settings.ask())
    }

    /// Asks the person at the vehicle because of a refusal: once in a connection for each class.
    ///
    /// # Errors
    ///
    /// The device cannot ask, no connection is open, or the person was asked before.
    pub(super) fn ask_first(&mut self, now: Instant, class: Class) -> Result<(), CannotAsk> {
        if self.asked_first.contains(&class) || self.asking.is_some() {
            return Err(CannotAsk::AskedBefore);
        }
        self.ask(now, class)?;
        self.asked_first.push(class);
        Ok(())
    }

    /// Handles the device's button. Returns whether the press belongs to consent, so that nothing else should use it.
    pub(super) fn handle_button(&mut self, now: Instant, is_pressed: bool) -> bool {
        let Some(press) = self.press else {
            let is_answer = self.asking.is_some();
            self.press = is_pressed.then_some(Press { began: now, is_answer });
            return is_pressed && is_answer;
        };
        let is_answer = self.revoke_if_long(now, press) || press.is_answer || self.asking.is_some();
        self.press = is_pressed.then_some(Press { is_answer, ..press });
        if !is_pressed
            && let Some(asking) = self.asking
            && press.began >= asking.since + READ_FIRST
        {
            self.asking = None;
            self.grant(now, asking.class, Some(ConsentGiver::Button));
        }
        is_answer
    }

    /// Forgets a press whose end cannot be seen: a broken button neither agrees nor revokes.
    pub(super) fn handle_button_lost(&mut self) {
        self.press = None;
    }

    /// Revokes everything after a long press while a connection is open.
    fn revoke_if_long(&mut self, now: Instant, press: Press) -> bool {
        if !self.is_open || now.saturating_duration_since(press.began) < LONG_PRESS {
            return false;
        }
        self.asking = None;
        self.given.clear();
        // one report for one press
        self.is_open = false;
        self.press = Some(Press { is_answer: true, ..press });
        self.report(ConsentEvent::Revoked);
        true
    }

    pub(super) fn grant(&mut self, now: Instant, class: Class, by: Option<ConsentGiver>) {
        self.given.retain(|(given, _)| *given != class);
        self.given.push((class, now + self.settings.ttl()));
        self.report_by(ConsentEvent::Given(class), by);
    }

    fn end_all(&mut self) {
        for (class, _) in std::mem::take(&mut self.given) {
            self.report(ConsentEvent::Ended(class));
        }
    }

    /// Handles the passing of time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let Some(press) = self.press {
            self.revoke_if_long(now, press);
        }
        if let Some(asking) = self.asking
            && asking.until <= now
        {
            self.asking = None;
            self.report(ConsentEvent::Unanswered(asking.class));
        }
        while let Some(index) = self.given.iter().position(|(_, until)| *until <= now) {
            let (class, _) = self.given.remove(index);
            self.report(ConsentEvent::Ended(class));
        }
    }

    /// The next moment at which [`Self::handle_timeout`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let press = self.press.filter(|_| self.is_open).map(|press| press.began + LONG_PRESS);
        let asking = self.asking.map(|asking| asking.until);
        let given = self.given.iter().map(|(_, until)| *until).min();
        press.into_iter().chain(asking).chain(given).min()
    }

    fn report(&mut self, event: ConsentEvent) {
        self.report_by(event, None);
    }

    fn report_by(&mut self, event: ConsentEvent, by: Option<ConsentGiver>) {
        self.events.push(event);
        self.unaudited.push((event, by));
    }

    /// Whether [`Self::poll_unaudited`] has an event.
    pub(super) fn has_unaudited(&self) -> bool {
        !self.unaudited.is_empty()
    }

    /// Returns the next event for the audit. The policy takes each soon after it has happened.
    pub(super) fn poll_unaudited(&mut self) -> Option<(ConsentEvent, Option<ConsentGiver>)> {
        (!self.unaudited.is_empty()).then(|| self.unaudited.remove(0))
    }

    /// Returns the next event.
    pub(super) fn poll_event(&mut self) -> Option<ConsentEvent> {
        (!self.events.is_empty()).then(|| self.events.remove(0))
    }

    /// Whether [`Self::poll_event`] has an event.
    pub(super) fn has_event(&self) -> bool {
        !self.events.is_empty()
    }

    /// Whether the person at the vehicle, or the ticket, has agreed to this class.
    pub(super) fn is_given(&self, now: Instant, class: Class) -> bool {
        self.given.iter().any(|(given, until)| *given == class && *until > now)
    }

    /// The class for which the person is being asked.
    pub(super) fn asking(&self) -> Option<Class> {
        self.asking.map(|asking| asking.class)
    }

    /// All consents and their ends.
    pub(super) fn given(&self) -> &[(Class, Instant)] {
        &self.given
    }
}

#[cfg(test)]
#[path = "tests/consent.rs"]
mod tests;
