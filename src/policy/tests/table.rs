//! Every service of the tables in every state of the vehicle, against a table of its own.

use super::*;
use crate::policy::services::{DIAGNOSTICS, OBD};

/// SID by SID: the class that the standards' descriptions give, written a second time by hand.
const READ: [u8; 24] = [
    0x01, 0x02, 0x03, 0x05, 0x06, 0x07, 0x09, 0x0A, 0x12, 0x13, 0x17, 0x18, 0x19, 0x1A, 0x20, 0x21, 0x22,
    0x23, 0x24, 0x3E, 0x81, 0x82, 0x22, 0x22,
];
const SESSION: [u8; 3] = [0x10, 0x83, 0x87];
const PROGRAMMING: [u8; 6] = [0x34, 0x35, 0x36, 0x37, 0x38, 0xA5];

fn expected(id: u8) -> Class {
    match id {
        _ if READ.contains(&id) => Class::Read,
        _ if SESSION.contains(&id) => Class::Session,
        _ if PROGRAMMING.contains(&id) => Class::Programming,
        _ => Class::Intrusive,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Unknown,
    Standing,
    Driving,
    LostSpeed,
    WeakBattery,
    DrivingWithWeakBattery,
    /// Intrusive services and programming need consent. There is none, and no button by which a person could agree.
    WithoutConsent,
    /// The same with a button, by which the first refusal asks.
    Asking,
    Consent,
    DrivingWithConsent,
    ObservedDriving,
    OffDriving,
}

const STATES: [State; 12] = [
    State::Unknown,
    State::Standing,
    State::Driving,
    State::LostSpeed,
    State::WeakBattery,
    State::DrivingWithWeakBattery,
    State::WithoutConsent,
    State::Asking,
    State::Consent,
    State::DrivingWithConsent,
    State::ObservedDriving,
    State::OffDriving,
];

const NEEDS_CONSENT: &str = "require = { intrusive = [\"not-moving\", \"consent\"], \
                             programming = [\"not-moving\", \"voltage\", \"consent\"] }";

fn vehicle(state: State) -> Vehicle {
    let (settings, has_button) = match state {
        State::WithoutConsent => (NEEDS_CONSENT, false),
        State::Asking | State::Consent | State::DrivingWithConsent => (NEEDS_CONSENT, true),
        State::ObservedDriving => ("mode = \"observe\"", false),
        State::OffDriving => ("mode = \"off\"", false),
        _ => ("", false),
    };
    let mut vehicle = Vehicle::new(settings, has_button);
    vehicle.policy.handle_voltage(vehicle.now, Some(12.5));
    match state {
        State::Unknown => {}
        State::Standing | State::WithoutConsent | State::Asking => vehicle.stand(),
        State::Driving | State::ObservedDriving | State::OffDriving => vehicle.drive(50.0),
        State::Consent | State::DrivingWithConsent => {
            vehicle.stand();
            for class in [Class::Intrusive, Class::Programming] {
                vehicle.policy.handle_consent(vehicle.now, class);
            }
            vehicle.drive(if state == State::Consent { 0.0 } else { 50.0 });
        }
        State::LostSpeed => {
            vehicle.drive(50.0);
            vehicle.pass(5000);
        }
        State::WeakBattery => vehicle.policy.handle_voltage(vehicle.now, Some(11.6)),
        State::DrivingWithWeakBattery => {
            vehicle.policy.handle_voltage(vehicle.now, Some(11.6));
            vehicle.drive(50.0);
        }
    }
    vehicle
}

fn text(why: Option<PolicyRefusal>) -> Option<String> {
    why.map(|refusal| refusal.why.to_string())
}

#[test]
fn every_service_is_judged_by_its_class_in_every_state() {
    for service in OBD.iter().chain(&DIAGNOSTICS) {
        let request = [service.id, 0x33, 0x44, 0x55];
        for state in STATES {
            let refused = match state {
                State::Driving | State::DrivingWithWeakBattery | State::DrivingWithConsent => {
                    Some("moving (50 km/h)")
                }
                State::WithoutConsent => Some("consent needed"),
                State::Asking => Some("consent asked"),
                State::LostSpeed => Some("speed unknown since moving (50 km/h)"),
                _ => None,
            };
            let expected = match expected(service.id) {
                Class::Read | Class::Session => None,
                Class::Intrusive => refused,
                _ => refused.or((state == State::WeakBattery).then_some("11.6 V")),
            };
            let found = text(vehicle(state).pdu(&request));
            assert_eq!(found.as_deref(), expected, "{:02X} {} {state:?}", service.id, service.name);
        }
    }
}

#[test]
fn every_unknown_service_is_intrusive() {
    for id in 0..=u8::MAX {
        if OBD.iter().chain(&DIAGNOSTICS).any(|service| service.id == id) {
            continue;
        }
        assert_eq!(
            text(vehicle(State::Driving).pdu(&[id, 1, 2])).as_deref(),
            Some("moving (50 km/h)"),
            "{id:02X}"
        );
        assert_eq!(vehicle(State::Standing).pdu(&[id, 1, 2]), None, "{id:02X}");
    }
}

#[test]
fn keep_alive_and_the_way_back_are_allowed_in_every_state_and_by_every_rule() {
    for request in [&[0x3E, 0x00][..], &[0x3E, 0x80], &[0x10, 0x01], &[0x10, 0x81], &[0x20], &[0x82]] {
        for state in STATES {
            assert_eq!(vehicle(state).pdu(request), None, "{request:02X?} {state:?}");
        }
        let mut vehicle = Vehicle::new("rule = [{ require = [\"never\"] }]", false);
        assert_eq!(vehicle.pdu(request), None, "{request:02X?}");
        assert_eq!(vehicle.pdu(&[0x22, 0xF1, 0x90]).unwrap().rule, 1);
    }
}

#[test]
fn motion_refuses_what_begins_and_never_cuts_a_transfer() {
    let mut vehicle = vehicle(State::Standing);
    for request in [&[0x10, 0x02][..], &[0x34, 0, 0x44], &[0x36, 1, 0xAA]] {
        assert_eq!(vehicle.pdu(request), None);
    }
    vehicle.drive(12.4);
    vehicle.policy.handle_voltage(vehicle.now, Some(11.0));
    assert_eq!(vehicle.pdu(&[0x36, 2, 0xBB]), None);
    assert_eq!(vehicle.pdu(&[0x37]), None);
    let refusal = vehicle.pdu(&[0x34, 0, 0x44]).unwrap();
    assert_eq!(
        refusal.to_string(),
        "policy: moving (12 km/h): RequestDownload is refused; stop the vehicle and send again"
    );
    vehicle.policy.handle_response(vehicle.now, 0, ecu(), &[0x77]);
    vehicle.drive(12.4);
    assert!(vehicle.pdu(&[0x36, 3, 0xCC]).is_some(), "the transfer is over");
}

#[test]
fn what_is_under_control_is_returned_when_the_vehicle_moves() {
    let mut vehicle = vehicle(State::Standing);
    assert_eq!(vehicle.pdu(&[0x2F, 0x01, 0x02, 0x03, 0xFF]), None);
    vehicle.drive(2.0);
    assert_eq!(vehicle.policy.poll_return(), None);
    vehicle.drive(4.0);
    let returns: Vec<_> = std::iter::from_fn(|| vehicle.policy.poll_return()).collect();
    let requests: Vec<_> = returns.iter().map(|r| r.request().to_vec()).collect();
    assert_eq!(requests, [vec![0x2F, 0x01, 0x02, 0x00], vec![0x10, 0x01]]);
    assert!(returns.iter().all(|r| r.bus == 0 && r.target == ecu()));
}

#[test]
fn in_the_mode_observe_everything_is_allowed_and_counted() {
    let mut vehicle = Vehicle::new("mode = \"observe\"", false);
    vehicle.drive(50.0);
    assert_eq!(vehicle.pdu(&[0x34, 0, 0x44]), None);
    assert_eq!(vehicle.policy.state(vehicle.now).refused, 1, "once, though it is judged twice");
    let mut vehicle = Vehicle::new("mode = \"off\"", false);
    vehicle.drive(50.0);
    assert_eq!(vehicle.pdu(&[0x34, 0, 0x44]), None);
    assert_eq!(vehicle.policy.state(vehicle.now).refused, 0);
}
