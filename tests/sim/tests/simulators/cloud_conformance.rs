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
async fn pages_of_other_origins_may_read_every_answer_and_its_headers() {
    let rig = Rig::start().await;
    let customer = rig.customer_token().await;
    let long = "x".repeat(300 * 1024);
    let ticket = rig.pending(None).await;
    let path = format!("/v1/channel-attachments?channel_id={}", ticket["chat_id"].as_str().unwrap());
    let announced = rig.post(&customer, &path, json!({"file_name": "a.txt"})).await;
    let upload = announced.headers["sandbox-upload-url"].to_str().unwrap().to_owned();
    let requests = [
        (200, rig.request(Method::GET, "/v1/connectors").bearer_auth(&customer)),
        (401, rig.request(Method::GET, "/v1/connectors")),
        (403, rig.request(Method::GET, "/v2/tickets/prepared-tickets").bearer_auth(&customer)),
        (404, rig.request(Method::GET, "/nowhere")),
        (405, rig.request(Method::DELETE, "/v1/connectors").bearer_auth(&customer)),
        (413, rig.request(Method::POST, "/v1/translate").bearer_auth(&customer).body(long.clone())),
        (401, rig.request(Method::POST, "/oauth2/token").form(&[("grant_type", "client_credentials")])),
        (413, rig.request(Method::POST, "/oauth2/token").body(long)),
        (405, rig.request(Method::GET, "/oauth2/token")),
        (204, rig.request(Method::PUT, &upload).body("text")),
        (403, rig.request(Method::PUT, &upload.replace("signature=", "signature=x")).body("text")),
        (404, rig.request(Method::GET, "/sandbox/v1/tickets/424242").bearer_auth(&customer)),
    ];
    for (status, request) in requests {
        let answer = rig.answer(request).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let header = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("access-control-allow-origin").as_deref(), Some("*"), "{status} {}", answer.body);
        let exposed = header("access-control-expose-headers").unwrap();
        for name in ["location", "retry-after", "www-authenticate", "allow", "sandbox-upload-url"] {
            assert!(exposed.split(", ").any(|known| known == name), "{name} of {exposed}");
        }
        if status == 405 {
            assert!(header("allow").unwrap().contains("OPTIONS"));
            answer.problem(405, "method-not-allowed");
        }
    }
}

#[tokio::test]
async fn browsers_may_ask_for_the_token_and_for_the_sandboxs_own_resources() {
    let rig = Rig::start().await;
    for (path, method) in [
        ("/oauth2/token", "POST"),
        ("/sandbox/v1/uploads/97a0e81d-d0ac-42ae-9195-a11732ad322a?expires=1&signature=x", "PUT"),
        ("/sandbox/v1/channels/x/attachments/y", "GET"),
        ("/sandbox/v1/tickets", "POST"),
        ("/sandbox/openapi/customer.json", "GET"),
    ] {
        let request = rig.request(Method::OPTIONS, path).header("access-control-request-method", method);
        let answer = rig.answer(request.header("origin", "https://portal.example")).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let allowed = answer.headers["access-control-allow-methods"].to_str().unwrap();
        assert!(allowed.contains(method) && allowed.contains("OPTIONS"), "{path}: {allowed}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("content-type"));
    }
}

#[tokio::test]
async fn the_violations_of_path_query_and_body_come_together() {
    let rig = Rig::start().await;
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let reassign = "/v2/tickets/in-progress-tickets/7";
    let answer = rig.send(Method::PUT, &operator, reassign, json!({"operator_id": 5})).await;
    answer.violates(&["in-progress-ticket-id", "operator_id"]);
    let attach = "/v1/channel-attachments";
    rig.post(&customer, attach, json!({"file_name": 5})).await.violates(&["channel_id", "file_name"]);
    let broken = rig.request(Method::POST, attach).bearer_auth(&customer).body("{");
    rig.answer(broken).await.violates(&["channel_id", "body"]);
    // the alternative that the type names
    for (transition, fields) in [
        (json!({"type": "outsource"}), ["product_ids", "provider_id"].as_slice()),
        (
            json!({"type": "outsource", "product_ids": ["x"], "provider_id": 5}),
            &["product_ids.0", "provider_id"],
        ),
        (json!({"provider_id": 5}), &["type"]),
        (json!({"type": "cancel", "cancel_reason_id": "x"}), &["cancel_reason_id"]),
    ] {
        let answer = rig.patch(&operator, reassign, json!({"transition": transition})).await;
        let fields = fields.iter().map(|field| format!("transition.{field}"));
        let fields: Vec<_> = std::iter::once("in-progress-ticket-id".to_owned()).chain(fields).collect();
        answer.violates(&fields.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_conflict_in_the_customer_api_is_a_documented_400() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let ticket = rig.join(&rig.pending(None).await).await;
    let channel = rig.get(&token, &format!("/sandbox/v1/tickets/{}", ticket["id"].as_str().unwrap())).await;
    let channel = channel.expect(200)["chat_id"].clone();
    rig.transition(&ticket, "complete").await;
    let path = format!("/v1/channel-attachments?channel_id={}", channel.as_str().unwrap());
    rig.post(&token, &path, json!({"file_name": "a.txt"})).await.problem(400, "channel-closed");
}

#[tokio::test]
async fn the_descriptions_name_the_documented_statuses_security_and_options() {
    let rig = Rig::start().await;
    for (api, security) in [
        ("customer", json!([{"OAuth2": []}])),
        ("partner", json!([{"OAuth2": [], "ApiKey": []}, {"OAuth2": []}])),
    ] {
        let description = rig.get("", &format!("/sandbox/openapi/{api}.json")).await.expect(200);
        assert_eq!(description["components"]["securitySchemes"]["ApiKey"]["type"], "apiKey");
        for (path, item) in description["paths"].as_object().unwrap() {
            let options = &item["options"];
            assert_eq!((&options["security"], options["responses"]["200"].is_object()), (&json!([]), true));
            for (method, operation) in item.as_object().unwrap() {
                let is_public = operation["security"] == json!([]);
                assert!(is_public || operation["security"] == security, "{method} {path}");
                let responses = operation["responses"].as_object().unwrap();
                if api == "partner" && method != "options" {
                    assert!(responses.len() == 2 && responses.contains_key("default"), "{method} {path}");
                    continue;
                }
                let documented: BTreeSet<&str> = responses
                    .iter()
                    .filter(|(_, response)| response["x-sandbox"] != true)
                    .map(|(status, _)| status.as_str())
                    .filter(|status| !status.starts_with('2'))
                    .collect();
                if method != "options" {
                    let mut expected = BTreeSet::from(["400", "401", "403", "500"]);
                    if path.contains("historical") || path.contains("prepared") || path == "/v1/tickets" {
                        expected.remove("403");
                    }
                    if path == "/v1/channels/{channelId}" {
                        expected.insert("404");
                    }
                    assert_eq!(documented, expected, "{method} {path}");
                }
                assert!(responses.contains_key("405") && !responses.contains_key("409"), "{method} {path}");
            }
        }
        let channel_id = &description["paths"]["/v1/channel-attachments"]["options"]["parameters"];
        assert!(api == "partner" || channel_id[0]["name"] == "channel_id");
    }
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
