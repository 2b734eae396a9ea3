//! Tests of asking and of the button.

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
    assert!(consent.handle_button(at(start, 9000), false), "the press does not call for attention");
    assert!(!consent.handle_button(at(start, 9500), true), "the next one does");
    assert!(!consent.handle_button(at(start, 9600), false));
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
    let ends: [End; 5] = [
        Consent::handle_closed,
        |consent| consent.handle_opened(Instant::now(), false),
        |consent| {
            consent.handle_vin(Some("WVWZZZ1KZAW000001"));
            consent.handle_vin(None);
        },
        |consent| {
            consent.handle_vin(Some("WVWZZZ1KZAW000001"));
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
fn consent_outlives_the_first_reading_of_the_vin_and_its_repetition() {
    let (mut consent, start) = asked();
    consent.handle_button(at(start, 600), true);
    consent.handle_button(at(start, 700), false);
    for _ in 0..2 {
        consent.handle_vin(Some("WVWZZZ1KZAW000001"));
        assert!(consent.is_given(at(start, 700), Class::Programming));
    }
}

#[test]
fn a_button_that_was_held_before_the_connection_opened_revokes_nothing() {
    let start = Instant::now();
    let mut consent = Consent::new(ConsentSettings::default(), true);
    consent.handle_button(start, true);
    consent.handle_opened(at(start, 5000), false);
    assert_eq!(consent.poll_timeout(), None);
    consent.handle_timeout(at(start, 9000));
    consent.ask(at(start, 9000), Class::Bus).unwrap();
    consent.handle_button(at(start, 9900), false);
    assert_eq!(consent.asking(), Some(Class::Bus), "the press began before asking");
    assert_eq!(std::iter::from_fn(|| consent.poll_event()).count(), 1);
}

#[test]
fn a_press_whose_end_is_not_seen_neither_agrees_nor_revokes() {
    let (mut consent, start) = asked();
    consent.handle_button(at(start, 600), true);
    consent.handle_button_lost();
    assert!(!consent.handle_button(at(start, 900), false));
    consent.handle_timeout(at(start, 5000));
    assert!(!consent.is_given(at(start, 900), Class::Programming));
    assert_eq!(consent.asking(), Some(Class::Programming));
}

#[test]
fn a_press_that_began_while_asking_is_used_up_when_asking_has_ended() {
    let (mut consent, start) = asked();
    consent.handle_button(at(start, 119_500), true);
    consent.handle_timeout(at(start, 120_000));
    assert!(consent.handle_button(at(start, 120_100), false));
    assert!(!consent.is_given(at(start, 120_100), Class::Programming));
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
