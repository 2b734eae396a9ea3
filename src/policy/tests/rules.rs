//! Rules of the configuration, consent, and what the state reports.

use super::*;

fn why(refusal: Option<PolicyRefusal>) -> Option<(u32, String)> {
    refusal.map(|refusal| (refusal.rule, refusal.why.to_string()))
}

#[test]
fn the_first_rule_that_matches_decides_instead_of_the_class() {
    let mut vehicle = Vehicle::new(
        r#"
        [[rule]]
        services = [0x2E]
        dids = [0xF190]
        require = ["never"]
        [[rule]]
        services = [0x2E]
        [[rule]]
        services = [0x31]
        routines = [0x0203]
        subfunctions = [1]
        require = ["engine-off"]
        [[rule]]
        data_prefix = "22 F1 86"
        require = ["ticket"]
        [[rule]]
        ids = [0x7E0]
        services = [0x11]
        require = ["ignition-on"]
        [[rule]]
        bus = "LS"
        require = ["never"]
        "#,
        false,
    );
    vehicle.drive(50.0);
    assert_eq!(why(vehicle.pdu(&[0x2E, 0xF1, 0x90, 1])), Some((1, "never allowed".into())));
    assert_eq!(
        vehicle.pdu(&[0x2E, 0xF1, 0x91, 1]),
        None,
        "rule 2 has no condition, though the vehicle moves"
    );
    assert_eq!(why(vehicle.pdu(&[0x31, 0x81, 0x02, 0x03])), Some((3, "engine unknown".into())));
    assert_eq!(why(vehicle.pdu(&[0x31, 0x02, 0x02, 0x03])), Some((0, "moving (50 km/h)".into())));
    vehicle.policy.handle_engine_speed(vehicle.now, 0.0);
    assert_eq!(vehicle.pdu(&[0x31, 0x01, 0x02, 0x03]), None);
    assert_eq!(why(vehicle.pdu(&[0x22, 0xF1, 0x86])), Some((4, "no ticket".into())));
    assert_eq!(why(vehicle.pdu(&[0x11, 0x01])), Some((5, "ignition unknown".into())));
    vehicle.policy.handle_ignition(Some(false));
    assert_eq!(why(vehicle.pdu(&[0x11, 0x01])), Some((5, "ignition off".into())));
    vehicle.policy.handle_ignition(Some(true));
    assert_eq!(vehicle.pdu(&[0x11, 0x01]), None);
    let other = Intent {
        bus: IntentBus { index: 1, name: "LS" },
        target: ecu(),
        what: What::OpenChannel(Framing::default()),
    };
    assert_eq!(
        why(vehicle.policy.refuses(vehicle.now, Stage::Arrival, &other)),
        Some((6, "never allowed".into()))
    );
    let this = Intent { bus: BUS, ..other };
    assert_eq!(vehicle.policy.refuses(vehicle.now, Stage::Arrival, &this), None);
}

#[test]
fn a_rule_of_an_ecu_matches_its_address_only() {
    let mut vehicle = Vehicle::new("rule = [{ targets = [0x1001, 0x33], require = [\"never\"] }]", false);
    let mut judge = |target| {
        let intent = Intent { bus: BUS, target, what: What::Pdu(&[0x22, 0xF1, 0x90], Framing::default()) };
        vehicle.policy.refuses(vehicle.now, Stage::Arrival, &intent).is_some()
    };
    assert!(judge(IntentTarget::Logical(0x1001)) && judge(IntentTarget::Address(0x33)));
    assert!(!judge(IntentTarget::Logical(0x1002)) && !judge(IntentTarget::None) && !judge(ecu()));
}

#[test]
fn an_unknown_speed_or_voltage_means_what_the_configuration_says() {
    let mut vehicle =
        Vehicle::new("facts = { unknown_speed = \"refuse\", unknown_voltage = \"refuse\" }", false);
    assert_eq!(why(vehicle.pdu(&[0x14, 0xFF, 0xFF, 0xFF])), Some((0, "speed unknown".into())));
    vehicle.stand();
    assert_eq!(vehicle.pdu(&[0x14, 0xFF, 0xFF, 0xFF]), None);
    assert_eq!(why(vehicle.pdu(&[0x34, 0, 0x44])), Some((0, "voltage unknown".into())));
    let mut vehicle = Vehicle::new("facts = { unknown_speed = \"consent\" }", true);
    assert_eq!(why(vehicle.pdu(&[0x14, 0xFF, 0xFF, 0xFF])), Some((0, "consent asked".into())));
    vehicle.pass(600);
    vehicle.policy.handle_button(vehicle.now, true);
    vehicle.policy.handle_button(vehicle.now, false);
    assert_eq!(vehicle.pdu(&[0x14, 0xFF, 0xFF, 0xFF]), None);
    vehicle.drive(20.0);
    assert!(vehicle.pdu(&[0x14, 0xFF, 0xFF, 0xFF]).is_some(), "consent does not make a moving vehicle stand");
}

#[test]
fn stationary_needs_a_fresh_speed_of_zero() {
    let mut vehicle = Vehicle::new("require = { intrusive = [\"stationary\"] }", false);
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "speed unknown".into())));
    vehicle.drive(0.0);
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "not stationary".into())));
    vehicle.stand();
    assert_eq!(vehicle.pdu(&[0x11, 1]), None);
    vehicle.pass(2000);
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "speed unknown".into())));
}

#[test]
fn a_person_is_asked_by_the_first_refusal_only_and_not_for_what_is_refused_anyway() {
    let mut vehicle = Vehicle::new("require = { intrusive = [\"consent\", \"not-moving\"] }", true);
    vehicle.drive(50.0);
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "moving (50 km/h)".into())));
    assert_eq!(vehicle.policy.asking(), None);
    vehicle.stand();
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "consent asked".into())));
    assert_eq!(vehicle.policy.asking(), Some(Class::Intrusive));
    vehicle.pass(120_000);
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "consent needed".into())), "no one answered");
    assert_eq!(vehicle.policy.asking(), None);
    vehicle.policy.request_consent(vehicle.now, Class::Intrusive).unwrap();
    assert_eq!(why(vehicle.pdu(&[0x11, 1])), Some((0, "consent asked".into())));
    vehicle.pass(1000);
    vehicle.policy.handle_button(vehicle.now, true);
    vehicle.policy.handle_button(vehicle.now, false);
    assert_eq!(vehicle.pdu(&[0x11, 1]), None);
    vehicle.policy.handle_closed();
    vehicle.policy.handle_opened(vehicle.now, true, false);
    assert!(vehicle.pdu(&[0x11, 1]).is_some(), "consent is bound to the connection");
}

#[test]
fn raw_frames_need_consent_where_the_device_can_ask_only() {
    let data = [0xAA, 1, 2, 3];
    assert_eq!(Vehicle::new("", false).frame(standard(0x123), &data), None);
    assert_eq!(why(Vehicle::new("", true).frame(standard(0x123), &data)), Some((0, "consent asked".into())));
    let toml = "consent = { by = [\"ticket\"] }";
    assert_eq!(Vehicle::new(toml, true).frame(standard(0x123), &data), None);
}

#[test]
fn a_scan_needs_a_vehicle_that_does_not_move_and_reading_the_vin_nothing() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.drive(50.0);
    let mut judge = |what| {
        let intent = Intent { bus: BUS, target: IntentTarget::None, what };
        why(vehicle.policy.refuses(vehicle.now, Stage::Arrival, &intent))
    };
    assert_eq!(judge(What::Scan), Some((0, "moving (50 km/h)".into())));
    assert_eq!(judge(What::ReadVin), None);
    assert_eq!(judge(What::KeepAlive), None);
    assert_eq!(judge(What::ConfigureBus), None);
}

#[test]
fn the_speed_is_asked_for_on_demand_and_at_most_once_a_second() {
    let mut vehicle = Vehicle::new("", false);
    assert_eq!(vehicle.policy.speed_due(vehicle.now), None);
    assert_eq!(vehicle.pdu(&[0x22, 0xF1, 0x90]), None);
    assert_eq!(vehicle.policy.speed_due(vehicle.now), None, "reading needs no speed");
    assert_eq!(vehicle.pdu(&[0x14, 0xFF, 0xFF, 0xFF]), None);
    let mut asked = 0;
    for _ in 0..200 {
        if vehicle.policy.speed_due(vehicle.now).is_some_and(|at| at <= vehicle.now) {
            vehicle.policy.handle_speed_asked(vehicle.now);
            asked += 1;
        }
        vehicle.pass(100);
    }
    assert_eq!(asked, 10, "for ten seconds");
}

#[test]
fn the_state_is_reported_when_it_changes_and_numbers_alone_once_a_second() {
    let mut vehicle = Vehicle::new("", false);
    assert_eq!(vehicle.policy.poll_state(vehicle.now), None, "nothing is known");
    vehicle.drive(50.0);
    let state = vehicle.policy.poll_state(vehicle.now).unwrap();
    assert_eq!((state.motion, state.speed_kmh), ("moving", Some(50)));
    let mut reports = 0;
    for step in 0_u8..30 {
        vehicle.drive(50.0 + f32::from(step));
        vehicle.policy.handle_voltage(vehicle.now, Some(12.0 + f32::from(step) / 100.0));
        reports += u32::from(vehicle.policy.poll_state(vehicle.now).is_some());
        vehicle.pass(100);
    }
    assert_eq!(reports, 2);
    vehicle.pass(2000);
    assert_eq!(vehicle.policy.poll_state(vehicle.now).unwrap().motion, "unknown");
}

#[test]
fn the_policy_is_explained_in_words() {
    let text = explain(
        &settings("rule = [{ services = [0x2F], bus = \"HS\", require = [\"stationary\", \"consent\"] }]"),
        true,
    )
    .join("\n");
    assert!(
        text.contains("Rule 1: service 2F, bus HS needs a speed of 0 for two seconds and consent."),
        "{text}"
    );
    assert!(text.contains(
        "Programming an ECU (programming) needs a vehicle that does not move and a sufficient voltage."
    ));
    assert!(text.contains(
        "A raw frame that is no diagnostics (bus) needs a vehicle that does not move and consent."
    ));
    assert!(text.contains("Reading (read) is always allowed."));
    assert!(explain(&settings("mode = \"off\""), true).join(" ").contains("is off"));
}

#[test]
fn settings_with_unknown_words_are_refused() {
    for toml in [
        "mode = \"strict\"",
        "require = { reading = [] }",
        "require = { read = [\"standing\"] }",
        "facts = { speeds = [] }",
        "rule = [{ service = [1] }]",
        "rule = [{ data_prefix = \"2\" }]",
        "rule = [{ data_prefix = \"xx\" }]",
        "rule = [{ data_prefix = \"\" }]",
        "rule = [{ services = [256] }]",
    ] {
        assert!(toml::from_str::<PolicySettings>(toml).is_err(), "{toml}");
    }
}

#[test]
fn speeds_in_responses_count_whoever_asked_for_them() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.hear(0x7E8, &[0x03, 0x41, 0x0D, 40, 0, 0, 0, 0]);
    assert_eq!(vehicle.policy.state(vehicle.now).speed_kmh, Some(40));
    vehicle.hear(0x7E8, &[0x04, 0x41, 0x0C, 0x0C, 0x80]);
    assert_eq!(vehicle.policy.state(vehicle.now).engine, Engine::On);
    vehicle.policy.handle_response(vehicle.now, 0, IntentTarget::Logical(0x1001), &[0x62, 0xF4, 0x0D, 60]);
    assert_eq!(vehicle.policy.state(vehicle.now).speed_kmh, Some(60));
    let mut other = Vehicle::new("", false);
    for (id, data) in
        [(0x123, &[0x03, 0x41, 0x0D, 40][..]), (0x7E8, &[0x03, 0x41, 0x0E, 40]), (0x7E8, &[0x02, 0x41, 0x0D])]
    {
        other.hear(id, data);
        assert_eq!(other.policy.state(other.now).speed_kmh, None, "{data:02X?}");
    }
}

#[test]
fn a_rule_about_a_bus_counts_for_scans_and_for_the_connectors_own_reading() {
    let rule = "rule = [{ bus = \"HS\", require = [\"never\"] }]";
    let shared = SharedPolicy::new(Policy::new(settings(rule), false));
    assert!(!shared.allows_vin(Instant::now(), Some("HS")));
    assert!(shared.allows_vin(Instant::now(), Some("LS")) && shared.allows_vin(Instant::now(), None));
    let mut vehicle = Vehicle::new(rule, false);
    let intent = Intent { bus: BUS, target: IntentTarget::None, what: What::Scan };
    assert_eq!(
        why(vehicle.policy.refuses(vehicle.now, Stage::Arrival, &intent)),
        Some((1, "never allowed".into()))
    );
    let shared = SharedPolicy::new(Policy::new(settings("require = { read = [\"never\"] }"), false));
    assert!(!shared.allows_vin(Instant::now(), Some("HS")));
}
