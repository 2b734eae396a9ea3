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
    #[error("the person at the vehicle was asked before")]
    AskedBefore,
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
    pressed_since: Option<Instant>,
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
            pressed_since: None,
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
        if unattended && self.settings.by.contains(&ConsentGiver::Ticket) {
            for class in self.settings.unattended.clone() {
                self.give(now, class, Some(ConsentGiver::Ticket));
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

    /// Handles the vehicle's VIN. Another VIN ends every consent.
    pub(super) fn handle_vin(&mut self, vin: Option<&str>) {
        if self.vin.is_some() && vin.is_some() && self.vin.as_deref() != vin {
            self.end_all();
        }
        if let Some(vin) = vin {
            self.vin = Some(vin.to_owned());
        }
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
        let began = match (self.pressed_since, is_pressed) {
            (None, true) => {
                self.pressed_since = Some(now);
                return self.asking.is_some();
            }
            (Some(began), true) => {
                self.revoke_if_long(now, began);
                return self.asking.is_some();
            }
            (None, false) => return false,
            (Some(began), false) => began,
        };
        self.pressed_since = None;
        if self.revoke_if_long(now, began) {
            return true;
        }
        match self.asking {
            Some(asking) if began >= asking.since + READ_FIRST => {
                self.asking = None;
                self.give(now, asking.class, Some(ConsentGiver::Button));
                true
            }
            Some(_) => true,
            None => false,
        }
    }

    /// Revokes everything after a long press while a connection is open.
    fn revoke_if_long(&mut self, now: Instant, began: Instant) -> bool {
        if !self.is_open || now.saturating_duration_since(began) < LONG_PRESS {
            return false;
        }
        self.asking = None;
        self.given.clear();
        // one report for one press
        self.is_open = false;
        self.report(ConsentEvent::Revoked);
        true
    }

    pub(super) fn give(&mut self, now: Instant, class: Class, by: Option<ConsentGiver>) {
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
        if let Some(began) = self.pressed_since {
            self.revoke_if_long(now, began);
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
        let press = self.pressed_since.filter(|_| self.is_open).map(|began| began + LONG_PRESS);
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
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn asked() -> (Consent, Instant) {
        let start = Instant::now();
        let mut consent = Consent::new(ConsentSettings::default(), true);
        consent.handle_opened(start, false);
        assert_eq!(consent.ask(start, Class::Programming), Ok(Duration::from_secs(120)));
        (consent, start)
    }

    #[test]
    fn a_short_press_gives_consent_to_the_class_asked_for_until_its_end() {
        let (mut consent, start) = asked();
        assert!(consent.handle_button(at(start, 600), true));
        assert!(consent.handle_button(at(start, 900), false));
        assert!(consent.is_given(at(start, 900), Class::Programming));
        assert!(!consent.is_given(at(start, 900), Class::Bus));
        assert_eq!(consent.asking(), None);
        let end = at(start, 900) + Duration::from_secs(3600);
        assert_eq!(consent.poll_timeout(), Some(end));
        consent.handle_timeout(end);
        assert!(!consent.is_given(end, Class::Programming));
    }

    #[test]
    fn a_press_that_began_before_or_right_after_asking_does_not_count() {
        let (mut consent, start) = asked();
        consent.handle_button(at(start, 400), true);
        assert!(consent.handle_button(at(start, 700), false), "the press is not for anything else either");
        assert!(!consent.is_given(at(start, 700), Class::Programming));
        assert_eq!(consent.asking(), Some(Class::Programming));
    }

    #[test]
    fn a_long_press_revokes_all_at_any_time_and_before_the_button_is_released() {
        let (mut consent, start) = asked();
        consent.handle_button(at(start, 600), true);
        consent.handle_button(at(start, 700), false);
        consent.handle_button(at(start, 5000), true);
        assert_eq!(consent.poll_timeout(), Some(at(start, 8000)));
        consent.handle_timeout(at(start, 8000));
        consent.handle_button(at(start, 9000), false);
        assert!(!consent.is_given(at(start, 9000), Class::Programming));
        let events: Vec<_> = std::iter::from_fn(|| consent.poll_event()).collect();
        assert_eq!(
            events,
            [
                ConsentEvent::Asked(Class::Programming),
                ConsentEvent::Given(Class::Programming),
                ConsentEvent::Revoked
            ]
        );
    }

    #[test]
    fn asking_ends_after_two_minutes() {
        let (mut consent, start) = asked();
        consent.handle_timeout(at(start, 120_000));
        assert_eq!(consent.asking(), None);
        assert!(!consent.handle_button(at(start, 121_000), true), "the button calls for attention again");
        consent.handle_button(at(start, 121_100), false);
        assert!(!consent.is_given(at(start, 121_100), Class::Programming));
    }

    #[test]
    fn consent_ends_with_connection_vin_and_ignition_cycle() {
        type End = fn(&mut Consent);
        let ends: [End; 3] = [
            Consent::handle_closed,
            |consent| {
                consent.handle_vin(Some("WVWZZZ1KZAW000001"));
                consent.handle_vin(None);
                consent.handle_vin(Some("WVWZZZ1KZAW000002"));
            },
            |consent| {
                consent.handle_ignition(Some(false));
                consent.handle_ignition(None);
                consent.handle_ignition(Some(true));
            },
        ];
        for end in ends {
            let (mut consent, start) = asked();
            consent.handle_button(at(start, 600), true);
            consent.handle_button(at(start, 700), false);
            assert!(consent.is_given(at(start, 700), Class::Programming));
            end(&mut consent);
            assert!(!consent.is_given(at(start, 700), Class::Programming));
        }
    }

    #[test]
    fn a_ticket_with_unattended_service_gives_consent_to_the_configured_classes() {
        let start = Instant::now();
        let mut consent = Consent::new(ConsentSettings::default(), false);
        consent.handle_opened(start, true);
        assert!(consent.is_given(start, Class::Programming) && !consent.is_given(start, Class::Bus));
        let settings = ConsentSettings { by: vec![ConsentGiver::Button], ..ConsentSettings::default() };
        let mut consent = Consent::new(settings, false);
        consent.handle_opened(start, true);
        assert!(!consent.is_given(start, Class::Programming));
    }

    #[test]
    fn a_device_without_a_button_cannot_ask() {
        let start = Instant::now();
        let mut consent = Consent::new(ConsentSettings::default(), false);
        consent.handle_opened(start, false);
        assert_eq!(consent.ask(start, Class::Bus), Err(CannotAsk::NoButton));
        let mut consent = Consent::new(ConsentSettings::default(), true);
        assert_eq!(consent.ask(start, Class::Bus), Err(CannotAsk::NoConnection));
    }

    #[test]
    fn asking_again_for_the_same_class_keeps_the_end_of_asking() {
        let (mut consent, start) = asked();
        assert_eq!(consent.ask(at(start, 100_000), Class::Programming), Ok(Duration::from_secs(20)));
        assert_eq!(std::iter::from_fn(|| consent.poll_event()).count(), 1);
    }
}
