//! What the documents say about browsers, tokens, statuses and the form of websocket messages.

use std::collections::BTreeSet;

use crate::cloud_support::{Rig, Socket};
use reqwest::Method;
use serde_json::{Value, json};

const VIN: &str = "JFL91010104391010";

/// Sends a flat request.
async fn say(socket: &mut Socket, request: Value) {
    socket.text(&request.to_string()).await;
}

/// The documented websocket of a token.
async fn documented(rig: &Rig, token: &str) -> Socket {
    rig.try_socket(&rig.cloud.portal_websocket_url, Some(token)).await.unwrap()
}

#[tokio::test]
async fn the_same_client_gets_the_same_token_again_and_a_plain_oauth_error() {
    let rig = Rig::start().await;
    let first = rig.operator_token().await;
    assert_eq!(rig.operator_token().await, first);
    assert_ne!(rig.customer_token().await, first);
    rig.cloud.expire_tokens();
    let second = rig.operator_token().await;
    assert_ne!(second, first);
    rig.get(&second, "/v1/connectors").await.expect(200);
    let error = rig.form(&[("grant_type", "password")]).await.expect(400);
    let names: Vec<_> = error.as_object().unwrap().keys().collect();
    assert_eq!(names, ["error", "error_description"], "{error}");
}

#[tokio::test]
async fn a_missing_or_wrong_name_in_a_websocket_message_is_a_violation() {
    let rig = Rig::start().await;
    let mut customer = documented(&rig, &rig.customer_token().await).await;
    let mut partner = documented(&rig, &rig.operator_token().await).await;
    let uuid = rig.cloud.connector_uuid;
    let customers = [
        (json!({"action": "subscribeToConnector"}), "connector_id"),
        (json!({"action": "subscribeToConnector", "connector_id": uuid}), "connector_id"),
        (json!({"action": "subscribeToConnector", "connector_id": "910101043"}), "connector_id"),
        (json!({"action": "subscribeToConnector", "connector_id": null}), "connector_id"),
        (json!({"action": "subscribeToConnector", "connector_id": 1.5}), "connector_id"),
        (json!({"action": "unsubscribeToTicket"}), "ticket_id"),
        (json!({"action": "subscribeToTicket", "ticket_id": uuid}), "ticket_id"),
        (json!({"action": "subscribeToConnection", "connection_uuid": 7}), "connection_uuid"),
    ];
    let partners = [
        (json!({"action": "subscribe-to-connector", "connector_id": rig.cloud.connector_id}), "connector_id"),
        (json!({"action": "subscribe-to-event"}), "event_type"),
        (json!({"action": "subscribe-to-event", "event_type": 7}), "event_type"),
    ];
    for (socket, requests) in [(&mut customer, customers.as_slice()), (&mut partner, &partners)] {
        for (request, field) in requests {
            say(socket, request.clone()).await;
            let action = request["action"].as_str().unwrap();
            let error = socket.refused(400, "violations", action).await;
            assert_eq!(error["action"], "sandbox-error", "the documents have no errors");
            assert_eq!(error["message"]["violations"][0]["field"], *field, "{error}");
        }
    }
    say(&mut customer, json!({"action": "subscribeToConnector", "connector_id": 424_242})).await;
    customer.refused(404, "not-found", "subscribeToConnector").await;
}

#[tokio::test]
async fn each_role_has_the_documented_actions_in_its_own_spelling_alone() {
    let rig = Rig::start().await;
    let ticket = rig.pending(Some(VIN)).await;
    let mut customer = documented(&rig, &rig.customer_token().await).await;
    let mut partner = documented(&rig, &rig.operator_token().await).await;
    let (id, uuid) = (rig.cloud.connector_id, rig.cloud.connector_uuid);
    let for_customers = [
        json!({"action": "subscribe-to-connector", "connector_id": uuid}),
        json!({"action": "subscribe-to-event", "event_type": "tickets.ticket.created"}),
        json!({"action": "unsubscribeToConnector", "connector_id": id}),
        json!({"action": "unsubscribeFromTicket", "ticket_id": ticket["id"]}),
        json!({"action": "unsubscribeFromConnection", "connection_uuid": uuid}),
        json!({"action": "connectorHello"}),
    ];
    let for_partners = [
        json!({"action": "subscribeToConnector", "connector_id": id}),
        json!({"action": "subscribeToTicket", "ticket_id": ticket["id"]}),
        json!({"action": "unsubscribe-to-connector", "connector_id": uuid}),
        json!({"action": "joinConnection", "connection_uuid": uuid}),
    ];
    for (socket, requests) in [(&mut customer, for_customers.as_slice()), (&mut partner, &for_partners)] {
        for request in requests {
            say(socket, request.clone()).await;
            socket.refused(404, "unknown-action", request["action"].as_str().unwrap()).await;
        }
    }
}

#[tokio::test]
async fn a_refusal_quotes_no_long_action_and_an_oversized_message_closes_with_1009() {
    let rig = Rig::start().await;
    let mut customer = documented(&rig, &rig.customer_token().await).await;
    say(&mut customer, json!({"action": "x".repeat(100_000)})).await;
    customer.refused(404, "unknown-action", &"x".repeat(64)).await;
    customer.text(&"x".repeat(300 * 1024)).await;
    assert_eq!(customer.hear("sandbox-error").await["message"]["type"], "/problems/too-long");
    // the cloud stops reading in the middle of the message
    let _cut_off = customer.try_text(&"x".repeat(3 * 1024 * 1024)).await;
    assert_eq!(customer.closed().await.map(|frame| u16::from(frame.code)), Some(1009));
}

#[tokio::test]
async fn events_from_before_a_subscription_are_not_reported() {
    let rig = Rig::start().await;
    let mut partner = documented(&rig, &rig.operator_token().await).await;
    rig.join(&rig.pending(Some(VIN)).await).await;
    say(&mut partner, json!({"action": "subscribe-to-event", "event_type": "tickets.ticket.joined"})).await;
    say(&mut partner, json!({"action": "subscribe-to-event", "event_type": "tickets.ticket.created"})).await;
    // the answer shows that the subscriptions are there
    say(&mut partner, json!({"action": "subscribe-to-event"})).await;
    partner.refused(400, "violations", "subscribe-to-event").await;
    let ticket = rig.pending(Some(VIN)).await;
    let event = partner.hear("event-received").await;
    assert_eq!(event["message"]["ticket"]["id"], ticket["uuid"]);
}
