//! The documented examples: requests are sent as they stand, and responses have exactly the documented fields and types.

use std::collections::BTreeMap;

use crate::cloud_support::{PRODUCT, Rig};
use connector_sim::cloud::ConnectorSeed;
use reqwest::Method;
use serde_json::{Value, json};

const EXAMPLES: &str = include_str!("../../fixtures/vendor/examples.json");
const UUID: &str = "6ec2911c-a09a-11ee-8c90-0242ac120002";
const VIN: &str = "JFL91010104391010";

/// A cloud whose data set has what the examples name.
pub(crate) async fn start() -> Rig {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/vendor/catalogue.json");
    Rig::start_with(|config| {
        config.catalogue = Some(fixtures.into());
        let seed = |id: i64, uuid: uuid::Uuid| {
            let mut seed = ConnectorSeed::new(uuid, "1234");
            seed.id = Some(id);
            seed
        };
        let mut other = seed(940_201_044, uuid::Uuid::new_v4());
        other.otp = Some("bafd50b7-7388-4eb1-8812-cbb5517faa2c".to_owned());
        config.connectors = vec![seed(910_101_043, UUID.parse().unwrap()), other];
    })
    .await
}

/// The fields that may be null, as the documents say.
const NULLABLE: [&str; 3] = [
    "GET /v1/products.result[].original_equipment_service_fee",
    "GET /v2/tickets/prepared-tickets.result[].vin",
    "GET /v2/tickets/prepared-tickets.result[].voucher_code",
];

/// Compares fields and types; the elements of a list all have the form of the example's first.
fn same_shape(path: &str, expected: &Value, actual: &Value, faults: &mut Vec<String>) {
    if actual.is_null() && NULLABLE.contains(&path) {
        return;
    }
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (name, value) in expected {
                match actual.get(name) {
                    Some(other) => same_shape(&format!("{path}.{name}"), value, other, faults),
                    None => faults.push(format!("{path}.{name} is missing")),
                }
            }
            for name in actual.keys().filter(|name| !expected.contains_key(*name)) {
                faults.push(format!("{path}.{name} is not documented"));
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if actual.is_empty() {
                faults.push(format!("{path} is empty, so that nothing is compared"));
            }
            for value in actual {
                if let Some(first) = expected.first() {
                    same_shape(&format!("{path}[]"), first, value, faults);
                }
            }
        }
        _ if std::mem::discriminant(expected) == std::mem::discriminant(actual) => {}
        _ => faults.push(format!("{path}: {expected} is documented, and {actual} was received")),
    }
}

/// Compares as [`same_shape`] does, but an empty list or object of the example is a part that the page left out.
fn same_outline(path: &str, expected: &Value, actual: &Value, faults: &mut Vec<String>) {
    let is_left_out = *expected == json!([]) || *expected == json!({});
    match (expected, actual) {
        _ if is_left_out && (actual.is_object() || actual.is_array()) => {}
        (Value::Object(expected), Value::Object(actual)) => {
            if !expected.keys().eq(actual.keys()) {
                faults.push(format!("{path}: {:?} and {:?}", expected.keys(), actual.keys()));
            }
            for (name, value) in expected {
                same_outline(&format!("{path}.{name}"), value, &actual[name], faults);
            }
        }
        (Value::Array(expected), Value::Array(actual)) if !actual.is_empty() => {
            actual.iter().for_each(|one| same_outline(&format!("{path}[]"), &expected[0], one, faults));
        }
        _ => same_shape(path, expected, actual, faults),
    }
}

/// Replaces `{name}` by its value.
fn filled(text: &str, values: &BTreeMap<String, String>) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

async fn prepare(rig: &Rig, what: &str, values: &BTreeMap<String, String>) {
    let operator = rig.operator_token().await;
    match what {
        "product line" => {
            let path = format!("/sandbox/v2/tickets/prepared-tickets/{}/product-lines", values["prepared"]);
            let product = PRODUCT.replace("000000000001", &format!("{:012x}", 52351));
            rig.post(&operator, &path, json!({"product_id": product})).await.expect(204);
        }
        "join" => {
            rig.join(&json!({"uuid": values["uuid"]})).await;
        }
        "note" => {
            let path = format!("/sandbox/v1/tickets/{}/notes", values["ticket"]);
            rig.post(&operator, &path, json!({"value": "read the trouble codes"})).await.expect(201);
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn every_documented_example_is_accepted_and_answered_in_its_form() {
    play_every_example(start().await).await;
}

#[tokio::test]
async fn every_documented_example_works_with_the_default_data() {
    let rig = Rig::start().await;
    assert_eq!((rig.cloud.connector_id, rig.cloud.connector_uuid), (910_101_043, UUID.parse().unwrap()));
    play_every_example(rig).await;
}

async fn play_every_example(rig: Rig) {
    let steps: Vec<Value> = serde_json::from_str(EXAMPLES).unwrap();
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let (mut values, mut faults, mut connector) = (BTreeMap::new(), Vec::new(), None);
    for step in &steps {
        if step["do"] == "connector" {
            let mut socket = rig.connector(json!([])).await;
            let status =
                json!({"connector_id": UUID, "voltage": 12.6, "vin_number": VIN, "round_trip_time": 23});
            socket.say("connectorStatusUpdate", status).await;
            while rig.get(&customer, "/v1/connectors/910101043").await.expect(200)["vin_number"] == "" {}
            connector = Some(socket);
            continue;
        }
        if let Some(what) = step["do"].as_str() {
            prepare(&rig, what, &values).await;
            continue;
        }
        let operation = step["operation"].as_str().unwrap();
        let method = Method::from_bytes(operation.split(' ').next().unwrap().as_bytes()).unwrap();
        let mut request = rig.request(method, &filled(step["path"].as_str().unwrap(), &values));
        match step["as"].as_str().unwrap() {
            "customer" => request = request.bearer_auth(&customer),
            "operator" => request = request.bearer_auth(&operator),
            _ => {}
        }
        if step.get("request").is_some() {
            request = request.json(&step["request"]);
        }
        let answer = rig.answer(request).await;
        if json!(answer.status.as_u16()) != step["status"] {
            faults.push(format!("{operation}: {} {}", answer.status, answer.body));
            continue;
        }
        let body = answer.body;
        if step["collapsed"] == true {
            same_outline(operation, &step["response"], &body, &mut faults);
        } else if let Some(expected) = step.get("response") {
            same_shape(operation, expected, &body, &mut faults);
        } else if !body.as_str().is_some_and(str::is_empty) {
            faults.push(format!("{operation}: a body without documentation: {body}"));
        }
        for (name, pointer) in step["capture"].as_object().into_iter().flatten() {
            let value = body.pointer(pointer.as_str().unwrap()).unwrap();
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            values.insert(name.clone(), text);
        }
    }
    drop(connector);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn the_descriptions_have_every_documented_operation_with_its_mark() {
    let rig = start().await;
    let steps: Vec<Value> = serde_json::from_str(EXAMPLES).unwrap();
    let mut described = BTreeMap::new();
    for api in ["customer", "partner"] {
        let description = rig.get("", &format!("/sandbox/openapi/{api}.json")).await.expect(200);
        assert_eq!(description["openapi"], "3.1.0");
        for (path, item) in description["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "options")
            {
                let mark = operation["x-path-is"].as_str().unwrap().to_owned();
                described.insert(format!("{} {path}", method.to_uppercase()), mark);
            }
        }
    }
    let examples: Vec<_> = steps.iter().filter_map(|step| step["operation"].as_str()).collect();
    for operation in &examples {
        assert!(described.contains_key(*operation), "{operation} is not described");
    }
    let missing = described.keys().filter(|known| {
        let partners = ["tickets", "providers", "customers", "vehicles"];
        let is_partner = partners.iter().any(|topic| known.contains(&format!(" /v2/{topic}/")));
        !is_partner && !examples.contains(&known.as_str())
    });
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new(), "an operation has no example");
    let page = include_str!("../../../../docs/sandbox-cloud.md");
    for (operation, mark) in &described {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{operation}`:")));
        let row = row.unwrap_or_else(|| panic!("docs/sandbox-cloud.md lacks {operation}"));
        assert!(row.contains(&format!("| {mark} |")), "{row}");
    }
    assert_eq!(described["POST /v1/tickets"], "printed");
    assert_eq!(described["GET /v1/products"], "assumed");
    assert_eq!(described.values().filter(|mark| *mark == "printed").count(), 11);
}

#[tokio::test]
async fn options_is_answered_with_cors_headers_on_every_path_without_a_token() {
    let rig = Rig::start().await;
    for (path, methods) in [
        ("/v1/product-groups", "GET, OPTIONS"),
        ("/v1/tickets/7/notes", "GET, OPTIONS"),
        ("/v1/employees", "GET, POST, OPTIONS"),
        ("/v1/channel-attachments?channel_id=x", "POST, GET, OPTIONS"),
        ("/legacy/api/mobile/authentication/authenticate/forgot/password", "POST, OPTIONS"),
        ("/v2/tickets/in-progress-tickets/7", "GET, PUT, PATCH, OPTIONS"),
    ] {
        let answer = rig.answer(rig.request(Method::OPTIONS, path)).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["access-control-allow-methods"], methods, "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert!(answer.headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
    }
    let without = rig.answer(rig.request(Method::OPTIONS, "/v1/channel-attachments")).await;
    without.violates(&["channel_id"]);
    // a browser reads errors too
    let refused = rig.answer(rig.request(Method::GET, "/v1/employees")).await;
    assert_eq!(refused.headers["access-control-allow-origin"], "*");
    refused.problem(401, "unauthorized");
}

/// Sends a flat request.
async fn say(socket: &mut crate::cloud_support::Socket, request: Value) {
    socket.text(&request.to_string()).await;
}

#[tokio::test]
async fn the_documented_websocket_has_flat_requests_and_exactly_the_documented_fields() {
    let rig = start().await;
    let url = rig.cloud.portal_websocket_url.clone();
    let token = rig.customer_token().await;
    // the token is in the header or in the query
    let mut portal = rig.try_socket(&format!("{url}?access_token={token}"), None).await.unwrap();
    let mut partner = rig.try_socket(&url, Some(&rig.operator_token().await)).await.unwrap();
    let ticket = rig.pending(Some(VIN)).await;
    let uuid = rig.cloud.connector_uuid;

    say(&mut portal, json!({"action": "subscribeToConnector", "connector_id": 910_101_043})).await;
    let fields =
        json!({"connector_id": 910_101_043, "voltage": null, "vin_number": null, "round_trip_time": null});
    assert_eq!(portal.next().await, json!({"action": "subscribeToConnector", "message": fields}));
    say(&mut portal, json!({"action": "unsubscribeFromConnector", "connector_id": 910_101_043})).await;
    say(&mut portal, json!({"action": "subscribeToTicket", "ticket_id": ticket["id"]})).await;
    let update = portal.next().await;
    let example = json!({"action": "subscribeToTicket", "message": {
        "id": 4_723_423, "ticket_id": 4_723_423, "ticket_uuid": "x", "state": 1, "connection_id": 1_631_171_716_525_i64,
        "connection_uuid": null, "cancelled_reason": 0, "chat_state": 0, "vehicle_model_id": 1,
        "is_script_composition_running": false, "vehicle_model_variant_id": 1, "vin": VIN,
        "schedule": {"message": "x", "until": "x"},
    }});
    let mut faults = Vec::new();
    same_shape("ticket", &example, &update, &mut faults);

    say(&mut partner, json!({"action": "subscribe-to-connector", "connector_id": uuid})).await;
    let fields = json!({"connector_id": uuid, "voltage": null, "vin_number": null, "round_trip_time": null});
    assert_eq!(partner.next().await, json!({"action": "subscribe-to-connector", "message": fields}));
    say(&mut partner, json!({"action": "unsubscribe-from-connector", "connector_id": uuid})).await;

    let joined = rig.join(&ticket).await;
    while portal.next().await["message"]["connection_uuid"].is_null() {}
    say(&mut portal, json!({"action": "unsubscribeToTicket", "ticket_id": ticket["id"]})).await;
    let connection = joined["connection_uuid"].clone();
    say(&mut portal, json!({"action": "subscribeToConnection", "connection_uuid": connection})).await;
    let update = portal.await_action("subscribeToConnection").await;
    let fields = json!({"connection_uuid": connection, "script_ui_wss_url": null, "script_ui_available": 0,
        "is_autonomous": false});
    assert_eq!(update, json!({"action": "subscribeToConnection", "message": fields}));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn partners_get_the_events_to_which_they_have_subscribed() {
    let rig = start().await;
    let url = rig.cloud.portal_websocket_url.clone();
    let mut partner = rig.try_socket(&url, Some(&rig.operator_token().await)).await.unwrap();
    for event in ["tickets.ticket.created", "tickets.ticket.closed"] {
        say(&mut partner, json!({"action": "subscribe-to-event", "event_type": event})).await;
    }
    say(&mut partner, json!({"action": "subscribe-to-event", "event_type": "tickets.ticket.eaten"})).await;
    partner.refused(400, "violations", "subscribe-to-event").await;
    let ticket = rig.pending(Some(VIN)).await;
    let event = partner.hear("event-received").await;
    assert_eq!(event["event_type"], "tickets.ticket.created");
    assert_eq!(
        (event["event_id"].as_str().unwrap().len(), &event["message"]["ticket"]["id"]),
        (26, &ticket["uuid"])
    );
    say(&mut partner, json!({"action": "unsubscribe-from-event", "event_type": "tickets.ticket.created"}))
        .await;
    let joined = rig.join(&ticket).await;
    rig.transition(&joined, "complete").await;
    rig.pending(Some(VIN)).await;
    assert_eq!(partner.hear("event-received").await["event_type"], "tickets.ticket.closed");

    let mut portal = rig.try_socket(&url, Some(&rig.customer_token().await)).await.unwrap();
    say(&mut portal, json!({"action": "subscribe-to-event", "event_type": "tickets.ticket.created"})).await;
    portal.refused(404, "unknown-action", "subscribe-to-event").await;
    // the documented websocket relays nothing
    for request in ["{", "[]", "{}", r#"{"action": 5}"#, r#"{"action": "connectorHello", "message": {}}"#] {
        portal.text(request).await;
        let error = portal.hear("sandbox-error").await;
        assert!((400..500).contains(&error["message"]["status"].as_u64().unwrap()), "{error}");
    }
}

#[tokio::test]
async fn a_client_that_pings_as_the_agent_does_is_not_idle_for_a_gateway() {
    use std::time::Duration;
    let rig = Rig::start_with(|config| config.socket_idle = Some(Duration::from_secs(600))).await;
    let mut connector = rig.connector(json!([])).await;
    let url = |text: &str| text.to_owned();
    let agent = connector_agent::config::CloudConfig::new(
        url("https://example.com").try_into().unwrap(),
        url("wss://example.com").try_into().unwrap(),
    );
    tokio::time::pause();
    for _ in 0..60 {
        tokio::time::sleep(agent.idle_ping_interval).await;
        connector.ping().await;
        while !connector.raw().await.is_pong() {}
    }
    tokio::time::resume();
    connector
        .say("connectorStatusUpdate", json!({"connector_id": rig.cloud.connector_uuid, "vin_number": VIN}))
        .await;
    let token = rig.customer_token().await;
    let path = format!("/v1/connectors/{}", rig.cloud.connector_id);
    while rig.get(&token, &path).await.expect(200)["vin_number"] != VIN {}
}

#[tokio::test]
async fn a_gateways_limits_close_a_websocket_after_its_lifetime_or_when_it_is_idle() {
    use std::time::Duration;
    let limits = [(Some(7200), None, 7200), (Some(7200), Some(600), 600)];
    for (lifetime, idle, expected) in limits {
        let rig = Rig::start_with(|config| {
            config.socket_lifetime = lifetime.map(Duration::from_secs);
            config.socket_idle = idle.map(Duration::from_secs);
        })
        .await;
        let url = rig.cloud.portal_websocket_url.clone();
        let mut portal = rig.try_socket(&url, Some(&rig.customer_token().await)).await.unwrap();
        let ticket = rig.pending(None).await;
        say(&mut portal, json!({"action": "subscribeToTicket", "ticket_id": ticket["id"]})).await;
        portal.next().await;
        portal.patience = Duration::from_secs(8000);
        tokio::time::pause();
        let begin = tokio::time::Instant::now();
        // a client that only answers pings is idle
        let frame = portal.closed().await.unwrap();
        let seconds = begin.elapsed().as_secs();
        assert_eq!(u16::from(frame.code), 1001);
        assert!((expected - 2..=expected + 2).contains(&seconds), "{seconds}");
        tokio::time::resume();
    }
}
