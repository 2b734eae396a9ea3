//! Portal clients on the websocket, and their updates about a connector.

use std::time::Duration;

use crate::cloud_support::{Rig, Socket};
use serde_json::{Value, json};

fn status(rig: &Rig, vin: Value) -> Value {
    json!({
        "connector_id": rig.cloud.connector_uuid, "voltage": 12.6, "vin_number": vin, "round_trip_time": 23,
        "ignition": true, "connection_uuid": null,
        "buses": [{"bus_name": "HS", "state": "active", "load": 0.31}],
    })
}

#[tokio::test]
async fn a_subscriber_gets_a_connectors_state_immediately_and_on_every_change() {
    let rig = Rig::start().await;
    let mut portal = rig.socket(&rig.customer_token().await).await;
    let id = rig.cloud.connector_id;
    portal.ask("subscribeToConnector", "1", json!({"connector_id": id})).await;
    let first = portal.hear("subscribeToConnector").await;
    assert_eq!(first["request_id"], "1");
    assert_eq!(
        (&first["message"]["connector_id"], &first["message"]["is_online"]),
        (&json!(id), &json!(false))
    );

    let mut connector = rig.connector(json!([])).await;
    while portal.hear("subscribeToConnector").await["message"]["is_online"] != true {}
    connector.say("connectorStatusUpdate", status(&rig, json!("1C4PSBEH6L9016061"))).await;
    let update = loop {
        let update = portal.hear("subscribeToConnector").await;
        if update["message"]["vin_number"].is_string() {
            break update;
        }
    };
    assert_eq!((&update["message"]["voltage"], &update["message"]["ignition"]), (&json!(12.6), &json!(true)));
    assert_eq!(update["message"]["buses"][0]["bus_name"], "HS");
    drop(connector);
    while portal.hear("subscribeToConnector").await["message"]["is_online"] != false {}
    // the cloud keeps the VIN
    let token = rig.customer_token().await;
    let record = rig.get(&token, &format!("/v1/connectors/{id}")).await.expect(200);
    assert_eq!(record["vin_number"], "1C4PSBEH6L9016061");
}

#[tokio::test]
async fn a_connector_is_asked_for_reports_every_5_s_while_a_portal_subscribes() {
    let rig = Rig::start().await;
    let (id, token) = (rig.cloud.connector_id, rig.customer_token().await);
    let interval = |message: Value| message["message"]["interval_seconds"].as_u64().unwrap();
    let (mut first, mut second) = (rig.socket(&token).await, rig.socket(&token).await);
    first.ask("subscribeToConnector", "1", json!({"connector_id": id})).await;
    first.await_action("subscribeToConnector").await;
    // a connector that comes online while a portal subscribes
    let mut connector = rig.connector(json!([])).await;
    assert_eq!(interval(connector.hear("setReporting").await), 5);
    // only the end of the last subscription changes the interval again
    second.ask("subscribe-to-connector", "1", json!({"connector_id": id})).await;
    second.await_action("subscribe-to-connector").await;
    first.ask("unsubscribeFromConnector", "2", json!({"connector_id": id})).await;
    first.await_action("unsubscribeFromConnector").await;
    drop(second);
    assert_eq!(interval(connector.hear("setReporting").await), 60);
    first.ask("subscribeToConnector", "3", json!({"connector_id": id})).await;
    assert_eq!(interval(connector.hear("setReporting").await), 5);
}

#[tokio::test]
async fn partners_are_answered_in_their_spelling() {
    let rig = Rig::start().await;
    let mut partner = rig.operator().await;
    let uuid = rig.cloud.connector_uuid;
    partner.say("subscribe-to-connector", json!({"connector_id": uuid})).await;
    let update = partner.hear("subscribe-to-connector").await;
    let expected =
        json!({"connector_id": uuid, "voltage": null, "vin_number": null, "round_trip_time": null});
    assert_eq!(update["message"], expected);
}

#[tokio::test]
async fn updates_come_every_five_seconds_until_unsubscribed() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let ticket = rig.pending(None).await;
    let mut portal = rig.socket(&token).await;
    portal.say("subscribeToTicket", json!({"ticket_id": ticket["id"]})).await;
    portal.hear("subscribeToTicket").await;
    tokio::time::pause();
    portal.hear("subscribeToTicket").await;
    let begin = tokio::time::Instant::now();
    for _ in 0..3 {
        portal.hear("subscribeToTicket").await;
    }
    let took = begin.elapsed();
    assert!((Duration::from_millis(14_900)..Duration::from_secs(16)).contains(&took), "{took:?}");
    tokio::time::resume();
    portal.ask("unsubscribeToTicket", "2", json!({"ticket_id": ticket["id"]})).await;
    assert_eq!(portal.await_action("unsubscribeToTicket").await["request_id"], "2");
    rig.join(&ticket).await;
    portal.ask("subscribeToConnector", "3", json!({"connector_id": rig.cloud.connector_id})).await;
    portal.hear("subscribeToConnector").await;
}

#[tokio::test]
async fn a_ticket_is_followed_from_pending_to_its_end() {
    let rig = Rig::start().await;
    let token = rig.connector_token().await;
    let ticket = rig.post(&token, "/sandbox/v1/tickets", rig.ticket_body(None)).await.expect(201);
    let mut portal = rig.socket(&token).await;
    portal.say("subscribeToTicket", json!({"ticket_id": ticket["id"]})).await;
    let update = portal.hear("subscribeToTicket").await;
    for field in [
        "id",
        "ticket_id",
        "ticket_uuid",
        "state",
        "connection_id",
        "connection_uuid",
        "cancelled_reason",
        "chat_state",
        "vehicle_model_id",
        "vehicle_model_variant_id",
        "is_script_composition_running",
        "vin",
        "schedule",
    ] {
        assert!(update["message"].get(field).is_some(), "{field}");
    }
    assert_eq!(update["message"]["state"], "pending");
    let joined = rig.join(&ticket).await;
    let update = loop {
        let update = portal.hear("subscribeToTicket").await;
        if update["message"]["state"] == "in_progress" {
            break update;
        }
    };
    assert_eq!(update["message"]["connection_uuid"], joined["connection_uuid"]);

    portal.say("subscribeToConnection", json!({"connection_uuid": joined["connection_uuid"]})).await;
    let update = portal.await_action("subscribeToConnection").await;
    assert_eq!(
        (&update["message"]["state"], &update["message"]["ticket_id"]),
        (&json!("idle"), &ticket["id"])
    );
    rig.transition(&joined, "complete").await;
    while portal.await_action("subscribeToTicket").await["message"]["state"] != "closed" {}
}

#[tokio::test]
async fn a_missing_or_foreign_resource_cannot_be_subscribed_to() {
    use connector_sim::cloud::ConnectorSeed;
    let seeds: Vec<_> = (0..2).map(|_| ConnectorSeed::new(uuid::Uuid::new_v4(), "4711")).collect();
    let other = seeds[1].uuid;
    let rig = Rig::start_with(|config| config.connectors = seeds).await;
    let mut portal = rig.socket(&rig.connector_token().await).await;
    portal.say("subscribeToConnector", json!({"connector_id": 424_242})).await;
    portal.refused(404, "not-found", "subscribeToConnector").await;
    portal.say("subscribe-to-connector", json!({"connector_id": other})).await;
    portal.refused(403, "forbidden", "subscribe-to-connector").await;
    portal.say("subscribeToTicket", json!({})).await;
    portal.refused(400, "violations", "subscribeToTicket").await;
    portal.say("subscribeToConnection", json!({"connection_uuid": other})).await;
    portal.refused(404, "not-found", "subscribeToConnection").await;
}

#[tokio::test]
async fn the_connector_learns_that_its_call_for_attention_was_dismissed() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let path = format!("/sandbox/v1/connectors/uuid/{}", rig.cloud.connector_uuid);
    let dismiss = format!("/v2/connectors/{}/actions/dismiss-call-for-attention", rig.cloud.connector_uuid);
    let mut connector = rig.connector(json!([])).await;
    let call = json!({"connector_id": rig.cloud.connector_uuid});
    connector.say("callForAttention", call.clone()).await;
    while rig.get(&token, &path).await.expect(200)["call_for_attention"] != true {}
    rig.post(&token, &dismiss, json!({})).await.expect(204);
    connector.hear("dismissCallForAttention").await;
    assert_eq!(rig.get(&token, &path).await.expect(200)["call_for_attention"], false);

    // a dismissal during its absence reaches the connector once, when it is back
    connector.say("callForAttention", call).await;
    while rig.get(&token, &path).await.expect(200)["call_for_attention"] != true {}
    connector.close().await;
    while rig.get(&token, &path).await.expect(200)["is_online"] == true {}
    rig.post(&token, &dismiss, json!({})).await.expect(204);
    let mut connector = rig.connector(json!([])).await;
    connector.hear("dismissCallForAttention").await;
}

#[tokio::test]
async fn a_vehicle_is_identified_through_the_rest_api() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let path = format!("/sandbox/v1/connectors/uuid/{}/identify-vehicle", rig.cloud.connector_uuid);
    rig.post(&token, &path, json!({})).await.problem(503, "connector-offline");
    let mut connector = rig.connector(json!([])).await;
    let identified = json!({"vin_number": null, "source": null, "address": null, "elapsed_ms": 1500});
    let (answer, ()) = tokio::join!(rig.post(&token, &path, json!({})), async {
        let request = connector.hear("identifyVehicle").await;
        connector.reply(&request, "vehicleIdentified", identified.clone()).await;
    });
    assert_eq!(answer.expect(200), identified);
    let problem = json!({"type": "/problems/busy", "title": "Busy", "status": 409, "detail": "x"});
    let (answer, ()) = tokio::join!(rig.post(&token, &path, json!({})), async {
        let request = connector.hear("identifyVehicle").await;
        connector.reply(&request, "error", problem).await;
    });
    answer.problem(409, "busy");
}

#[tokio::test]
async fn a_control_message_pings_every_member_of_the_channel() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let mut connector = rig.connector(json!([])).await;
    let ticket = rig.pending(None).await;
    let mut portal = rig.socket(&token).await;
    portal.say("subscribeToTicket", json!({"ticket_id": ticket["id"]})).await;
    portal.hear("subscribeToTicket").await;
    let path = format!("/v1/channels/{}/actions/send-control-message", ticket["chat_id"].as_str().unwrap());
    rig.post(&token, &path, json!({})).await.expect(200);
    let ping = portal.await_action("ping").await;
    assert_eq!(ping["message"]["channel_id"], ticket["chat_id"]);
    assert!(connector.raw().await.is_ping());
}

/// How long the cloud keeps the link of a connector that has fallen silent, in seconds.
async fn silence(mut connector: Socket) -> u64 {
    connector.patience = Duration::from_secs(200);
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    connector.closed().await;
    begin.elapsed().as_secs()
}

#[tokio::test]
async fn an_idle_connector_that_falls_silent_is_dead_after_95_seconds() {
    let rig = Rig::start().await;
    let connector = rig.connector(json!([])).await;
    let seconds = silence(connector).await;
    assert!((94..=96).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_silent_connector_with_a_connection_is_dead_after_fifteen_seconds() {
    let rig = Rig::start().await;
    let mut connector = rig.connector(json!([])).await;
    let ticket = rig.join(&rig.pending(None).await).await;
    let request = connector.hear("openConnection").await;
    let opened = json!({"connection_uuid": ticket["connection_uuid"], "vin_number": null});
    connector.reply(&request, "connectionOpened", opened).await;
    let mut operator = rig.operator().await;
    operator.ask("joinConnection", "1", json!({"connection_uuid": ticket["connection_uuid"]})).await;
    operator.hear("connectionJoined").await;
    let seconds = silence(connector).await;
    assert!((14..=16).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_status_of_another_connector_or_without_a_vin_is_refused() {
    let rig = Rig::start().await;
    let mut connector = rig.connector(json!([])).await;
    for no_vin in ["NO VIN", "00000000000000000"] {
        connector.say("connectorStatusUpdate", status(&rig, json!(no_vin))).await;
        connector.refused(400, "violations", "connectorStatusUpdate").await;
    }
    let mut other = status(&rig, Value::Null);
    other["connector_id"] = json!(uuid::Uuid::new_v4());
    connector.say("connectorStatusUpdate", other).await;
    connector.refused(403, "forbidden", "connectorStatusUpdate").await;
}
