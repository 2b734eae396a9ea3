//! Consent of the person at the vehicle, from the operator's request to the ECU, in virtual time.

use std::time::Duration;

use connector_hal::board::Led;
use connector_operator::client::Timing;
use connector_test_support::agent::{AgentSettings, Rig, Sandbox, closed};
use connector_test_support::config::{configure, isotp};
use connector_test_support::{MILLISECOND, SECOND, soon};
use serde_json::{Value, json};

use super::paused::{PROGRAMMING_SESSION, Paused, WRITE};

const VIN: &str = "WVWZZZ1KZAW000001";
const SHORT: Duration = Duration::from_millis(200);

/// A policy in which whatever changes an ECU needs consent.
fn consent_needed() -> Value {
    json!({"require": {"intrusive": ["consent"]}})
}

/// An agent with a button, and an open connection.
async fn opened() -> Paused {
    let mut paused = Paused::start(true, consent_needed()).await;
    paused.open().await;
    paused
}

impl Paused {
    async fn asks(&mut self) -> Value {
        let request = json!({"class": "intrusive", "text": "coding of the radio"});
        self.ask("requestConsent", request).await
    }

    /// Asks for consent, which the person at the vehicle gives.
    async fn agrees(&mut self) {
        self.asks().await;
        self.pass(SECOND).await;
        self.press(SHORT).await;
        self.state(has_consent).await.expect("the consent is reported when the button is released");
    }
}

fn has_consent(state: &Value) -> bool {
    state["consent"][0]["class"] == "intrusive"
}

fn has_none(state: &Value) -> bool {
    state["consent"] == json!([])
}

#[tokio::test(start_paused = true)]
async fn consent_is_asked_for_by_led_and_buzzer_and_given_by_a_short_press() {
    let mut paused = opened().await;
    let idle = paused.led();
    let asked = paused.asks().await;
    assert_eq!((&asked["action"], &asked["message"]["seconds"]), (&json!("consentRequested"), &json!(120)));
    assert!(paused.state(|state| state["asking"] == "intrusive").await.is_some());
    assert!(matches!(paused.led(), Led::Flashes { count: 3, .. }), "{:?}", paused.led());
    let mut heard = String::new();
    for _ in 0..60 {
        heard.push(if paused.sounds() { '#' } else { '.' });
        paused.pass(100 * MILLISECOND).await;
    }
    let beeps = heard.split('.').filter(|beep| !beep.is_empty()).count();
    assert_eq!((beeps, heard.contains("##..##")), (4, true), "{heard}");

    paused.send_write().await;
    assert_eq!(paused.writes, [[0_u8; 0]; 0]);
    assert!(paused.refusals[0].starts_with("policy: consent asked"), "{:?}", paused.refusals);
    paused.press(SHORT).await;
    let state = paused.state(has_consent).await.expect("reported when the button is released");
    assert!(state["consent"][0]["until"].is_string(), "{state}");
    assert_eq!((paused.led(), paused.sounds()), (idle, false), "neither asking nor calling");
    paused.send_write().await;
    assert_eq!(paused.writes, [WRITE.to_vec()]);
    paused.press(SHORT).await;
    assert!(paused.heard(|text| text["action"] == "callForAttention").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_press_right_after_asking_began_is_no_consent_and_no_call() {
    let mut paused = opened().await;
    paused.asks().await;
    paused.press(SHORT).await;
    assert!(paused.state(has_consent).await.is_none());
    assert!(matches!(paused.led(), Led::Flashes { count: 3, .. }), "still asking, not calling");
    paused.send_write().await;
    assert!(paused.writes.is_empty());
    paused.pass(300 * MILLISECOND).await;
    paused.press(SHORT).await;
    assert!(paused.state(has_consent).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_press_asking_ends_after_two_minutes_and_the_button_calls_again() {
    let mut paused = opened().await;
    let idle = paused.led();
    paused.asks().await;
    paused.pass(119 * SECOND).await;
    assert!(matches!(paused.led(), Led::Flashes { .. }));
    paused.pass(SECOND).await;
    assert!(paused.state(|state| state["asking"].is_null() && has_none(state)).await.is_some());
    assert_eq!(paused.led(), idle);
    paused.press(SHORT).await;
    assert!(paused.heard(|text| text["action"] == "callForAttention").await.is_some());
    paused.send_write().await;
    assert!(paused.writes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_long_press_closes_the_connection_with_policy_before_it_ends() {
    let mut paused = opened().await;
    paused.agrees().await;
    let connection = paused.led();
    paused.rig.agent.board.set_button(Some(true));
    paused.turns().await;
    paused.pass(2900 * MILLISECOND).await;
    assert!(paused.heard(|text| text["action"] == "connectionClosed").await.is_none());
    paused.pass(100 * MILLISECOND).await;
    let closed = paused.heard(|text| text["action"] == "connectionClosed").await.expect("closed after 3 s");
    assert_eq!(closed["message"]["reason"], "policy");
    paused.rig.agent.board.set_button(Some(false));
    assert!(paused.heard(|text| text["action"] == "callForAttention").await.is_none());
    assert_ne!(paused.led(), connection);
    assert_eq!(paused.led(), Led::On, "online, without a connection and without a call");
    paused.open().await;
    paused.send_write().await;
    assert!(paused.writes.is_empty(), "the new connection has no consent");
}

#[tokio::test(start_paused = true)]
async fn a_long_press_without_a_connection_calls_for_attention() {
    let mut paused = Paused::start(true, consent_needed()).await;
    paused.press(4 * SECOND).await;
    assert!(paused.heard(|text| text["action"] == "callForAttention").await.is_some());
    assert!(paused.sounds());
}

#[tokio::test(start_paused = true)]
async fn consent_ends_with_the_ignition_cycle_and_is_reported() {
    let mut paused = opened().await;
    paused.agrees().await;
    paused.switch_ignition(false).await;
    paused.send_write().await;
    assert_eq!(paused.writes.len(), 1, "the ignition off does not end consent");
    paused.switch_ignition(true).await;
    assert!(paused.state(has_none).await.is_some());
    paused.send_write().await;
    assert_eq!((paused.writes.len(), paused.refusals.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn consent_ends_with_the_connection() {
    let mut paused = opened().await;
    paused.agrees().await;
    let closed = paused.ask("closeConnection", json!({})).await;
    assert_eq!(closed["action"], "connectionClosed", "{closed}");
    paused.open().await;
    paused.send_write().await;
    assert!(paused.writes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_device_without_a_button_answers_a_request_for_consent_with_501() {
    let mut paused = Paused::start(false, consent_needed()).await;
    paused.open().await;
    let refused = paused.asks().await;
    assert_eq!((&refused["action"], &refused["message"]["status"]), (&json!("error"), &json!(501)));
    assert_eq!(refused["message"]["in_reply_to"], "requestConsent", "{refused}");
}

#[tokio::test(start_paused = true)]
async fn while_one_class_is_asked_for_a_request_for_another_one_is_busy() {
    let mut paused = opened().await;
    paused.asks().await;
    let busy = paused.ask("requestConsent", json!({"class": "programming"})).await;
    assert_eq!(busy["message"]["type"], "/problems/busy", "{busy}");
    paused.pass(SECOND).await;
    let again = paused.asks().await;
    assert_eq!(again["message"]["seconds"], 119, "the same class keeps its time: {again}");
}

#[tokio::test(start_paused = true)]
async fn connection_opened_and_the_status_name_the_policy() {
    let mut paused = Paused::start(true, consent_needed()).await;
    paused.rig.agent.board.set_voltage(Some(12.1));
    let opened = paused.open().await;
    let policy = &opened["policy"];
    assert_eq!((&policy["mode"], &policy["require"]["intrusive"]), (&json!("enforce"), &json!(["consent"])));
    assert_eq!(policy["require"]["read"], json!([]));
    paused.agrees().await;
    paused.pass(2 * SECOND).await;
    let status = paused.hears("a status", |text| text["action"] == "connectorStatusUpdate").await;
    let status = &status["message"]["policy"];
    assert_eq!((&status["mode"], &status["voltage"]), (&json!("enforce"), &json!(12.1)), "{status}");
    assert!(has_consent(status), "{status}");
    paused.ask("closeConnection", json!({})).await;
    let is_later = |text: &Value| {
        text["action"] == "connectorStatusUpdate" && text["message"]["connection_uuid"].is_null()
    };
    let status = paused.hears("a status without a connection", is_later).await;
    assert_eq!(status["message"]["policy"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn the_status_has_the_same_object_as_policy_state() {
    let mut paused = opened().await;
    paused.send_write().await;
    let mut state = paused.state(|state| state["refused"] == 1).await.unwrap();
    state.as_object_mut().unwrap().remove("connection_uuid").unwrap();
    let status = paused.hears("a status", |text| {
        text["action"] == "connectorStatusUpdate" && text["message"]["policy"]["refused"] == 1
    });
    assert_eq!(status.await["message"]["policy"], state);
}

#[tokio::test(start_paused = true)]
async fn ignition_and_voltage_from_before_the_connection_count() {
    let mut paused = Paused::start(true, json!({"require": {"intrusive": ["ignition-on", "voltage"]}})).await;
    paused.rig.agent.board.set_voltage(Some(11.5));
    paused.switch_ignition(false).await;
    paused.pass(6 * SECOND).await;
    // a voltage that was low suffices again after five seconds
    paused.rig.agent.board.set_voltage(Some(12.6));
    paused.open().await;
    paused.send_write().await;
    assert!(paused.refusals[0].starts_with("policy: ignition off"), "{:?}", paused.refusals);
    paused.switch_ignition(true).await;
    paused.send_write().await;
    assert!(paused.refusals[1].contains("12.6 V"), "{:?}", paused.refusals);
    paused.pass(7 * SECOND).await;
    paused.send_write().await;
    assert_eq!(paused.writes, [WRITE.to_vec()]);
    paused.rig.agent.board.set_voltage(Some(11.4));
    paused.pass(SECOND).await;
    paused.send_write().await;
    assert!(paused.refusals[2].contains("11.4 V"), "{:?}", paused.refusals);
}

#[tokio::test(start_paused = true)]
async fn a_weak_battery_refuses_programming_until_the_voltage_has_been_back_for_five_seconds() {
    let mut paused = Paused::start(false, json!({})).await;
    paused.rig.agent.board.set_voltage(Some(11.4));
    paused.open().await;
    paused.send(&PROGRAMMING_SESSION).await;
    let sentence = "policy: 11.4 V: programmingSession is refused; connect a charger and send again";
    assert_eq!(paused.refusals, [sentence]);
    paused.send_write().await;
    assert_eq!(paused.writes, [WRITE.to_vec()], "only programming needs the voltage");
    // within the hysteresis of 0.3 V
    paused.rig.agent.board.set_voltage(Some(12.2));
    paused.pass(10 * SECOND).await;
    paused.send(&PROGRAMMING_SESSION).await;
    assert!(paused.refusals[1].starts_with("policy: 12.2 V: "), "{:?}", paused.refusals);
    paused.rig.agent.board.set_voltage(Some(12.5));
    paused.pass(3 * SECOND).await;
    paused.send(&PROGRAMMING_SESSION).await;
    assert_eq!((paused.writes.len(), paused.refusals.len()), (1, 3), "{:?}", paused.refusals);
    paused.pass(4 * SECOND).await;
    paused.send(&PROGRAMMING_SESSION).await;
    assert_eq!(paused.writes, [WRITE.to_vec(), PROGRAMMING_SESSION.to_vec()], "{:?}", paused.refusals);
}

#[tokio::test(start_paused = true)]
async fn the_vin_counts_as_confirmed_when_the_vehicle_has_reported_that_of_the_ticket() {
    let mut paused = Paused::start(true, json!({"require": {"intrusive": ["vin-confirmed"]}})).await;
    paused.open_for(Some(VIN)).await;
    paused.send_write().await;
    assert_eq!((paused.writes.len(), paused.refusals.len()), (0, 1));
    paused.vin = Some(VIN);
    let identified = paused.ask("identifyVehicle", json!({})).await;
    assert_eq!(identified["message"]["vin_number"], VIN, "{identified}");
    paused.send_write().await;
    assert_eq!(paused.writes.len(), 1);
    // a known VIN, and a connection that is meant for any vehicle
    for (wanted, writes, refusals) in [(Some(VIN), 2, 1), (None, 2, 2)] {
        paused.ask("closeConnection", json!({})).await;
        paused.open_for(wanted).await;
        paused.send_write().await;
        assert_eq!((paused.writes.len(), paused.refusals.len()), (writes, refusals));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_with_confirmed_unattended_service_gives_consent_to_programming() {
    let policy = serde_json::from_value(json!({"require": {"programming": ["consent"]}})).unwrap();
    let settings = AgentSettings { policy: Some(policy), ..AgentSettings::default() };
    let rig = Rig::start_in(Sandbox::start(1).await, "AUDI_A3_MK3", settings).await;
    for confirmed in [false, true] {
        let pending = rig.sandbox.pending_with(&rig.connector, rig.vin(), confirmed).await;
        let ticket = rig.sandbox.operator.join(&pending, "desk 1").await.unwrap();
        let connection = rig.join(ticket.connection().unwrap()).await;
        configure(&connection).await;
        let channel = soon("the channel", connection.open_isotp(isotp(rig.ecu()))).await.unwrap();
        let entered = soon("the answer", channel.request(&[0x10, 0x02], &Timing::default())).await;
        assert_eq!(entered.is_ok(), confirmed, "{entered:?}");
        rig.sandbox.operator.complete(&ticket.id).await.unwrap();
        closed(&connection).await;
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_the_policy_refuses_are_answered_with_403() {
    let rules = json!([{"ids": [0x7E1], "require": ["never"]}]);
    let mut paused = Paused::start(true, json!({"require": {"scan": ["never"]}, "rule": rules})).await;
    paused.open().await;
    let channel = paused.open_channel(0x7E1).await;
    let scan = paused.ask("scanEcus", json!({"bus_name": "HS", "vehicle_stands": true})).await;
    paused.ask("closeConnection", json!({})).await;
    for refused in [channel, scan] {
        assert_eq!(refused["message"]["status"], 403, "{refused}");
        assert_eq!(refused["message"]["type"], "/problems/refused-by-policy", "{refused}");
        assert!(refused["message"]["detail"].as_str().unwrap().starts_with("policy: "), "{refused}");
    }
    let rules = json!([{"require": ["never"]}]);
    let mut paused = Paused::start(true, json!({"rule": rules})).await;
    let (_, refused) = paused.open_with_bus(None).await;
    assert_eq!(refused["message"]["type"], "/problems/refused-by-policy", "{refused}");
    assert_eq!(
        (&refused["message"]["status"], &refused["message"]["in_reply_to"]),
        (&json!(403), &json!("configureBuses"))
    );
}
