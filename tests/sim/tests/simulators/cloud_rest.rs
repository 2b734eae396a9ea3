//! The sandbox cloud's REST resources.

use crate::cloud_support::Rig;
use connector_sim::cloud::ConnectorSeed;
use reqwest::Method;
use serde_json::{Value, json};

const VIN: &str = "1C4PSBEH6L9016061";
const OTHER_VIN: &str = "1C4WMJE62VY401544";

#[tokio::test]
async fn every_unknown_resource_gives_a_problem_object() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    rig.get(&token, "/nowhere").await.problem(404, "not-found");
    rig.get(&token, "/v1/connectors/999999").await.problem(404, "not-found");
    rig.get(&token, "/v1/connectors/x").await.violates(&["id"]);
    let delete = rig.request(Method::DELETE, "/v1/connectors").bearer_auth(&token);
    let answer = rig.answer(delete).await;
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
    answer.problem(405, "method-not-allowed");
    rig.get(&token, "/ws").await.problem(400, "bad-request");
    let long = rig.request(Method::POST, "/v1/tickets").bearer_auth(&token).body(vec![b' '; 300_000]);
    rig.answer(long).await.problem(413, "body");
}

#[tokio::test]
async fn connectors_are_listed_in_pages() {
    let seeds: Vec<_> = (0..5).map(|_| ConnectorSeed::new(uuid::Uuid::new_v4(), "4711")).collect();
    let rig = Rig::start_with(|config| config.connectors = seeds).await;
    let token = rig.customer_token().await;
    let all = rig.get(&token, "/v1/connectors").await.expect(200);
    assert_eq!((&all["total"], &all["offset"], &all["limit"]), (&json!(5), &json!(0), &json!(200)));
    let page = rig.get(&token, "/v1/connectors?offset=3&limit=1").await.expect(200);
    assert_eq!(page["result"], json!([all["result"][3]]));
    assert_eq!((&page["total"], &page["offset"], &page["limit"]), (&json!(5), &json!(3), &json!(1)));
    let beyond = rig.get(&token, "/v1/connectors?offset=9").await.expect(200);
    assert_eq!(beyond["result"], json!([]));
    rig.get(&token, "/v1/connectors?offset=-1&limit=201").await.violates(&["offset", "limit"]);
}

#[tokio::test]
async fn a_connector_is_described_by_the_file_and_its_hello() {
    let mut seed = ConnectorSeed::new(uuid::Uuid::new_v4(), "4711");
    seed.id = Some(77);
    seed.product_description = "Workshop 3".to_owned();
    let rig = Rig::start_with(|config| config.connectors = vec![seed]).await;
    let token = rig.connector_token().await;
    let before = rig.get(&token, "/v1/connectors/77").await.expect(200);
    assert_eq!(before["product_description"], "Workshop 3");
    assert_eq!((&before["is_online"], &before["software_version"]), (&json!(false), &json!(0)));
    let connector = rig.connector(json!([])).await;
    let uuid = rig.cloud.connector_uuid;
    let after = rig.get(&token, &format!("/v1/connectors/uuid/{uuid}")).await.expect(200);
    assert_eq!((&after["is_online"], &after["software_version"]), (&json!(true), &json!(2)));
    for field in [
        "id",
        "uuid",
        "has_wifi",
        "hardware_version",
        "supports_doip",
        "vehicle_path_string",
        "vin_number",
        "hardware_type",
    ] {
        assert!(after.get(field).is_some(), "{field}");
    }
    assert!(after.get("pincode").is_none());
    drop(connector);
    while rig.get(&token, "/v1/connectors/77").await.expect(200)["is_online"] == true {}
}

#[tokio::test]
async fn a_connector_sees_itself_only() {
    let seeds: Vec<_> = (0..2).map(|_| ConnectorSeed::new(uuid::Uuid::new_v4(), "4711")).collect();
    let other = seeds[1].uuid;
    let rig = Rig::start_with(|config| config.connectors = seeds).await;
    let token = rig.connector_token().await;
    assert_eq!(rig.get(&token, "/v1/connectors").await.expect(200)["total"], 1);
    rig.get(&token, &format!("/v1/connectors/uuid/{other}")).await.problem(403, "forbidden");
    let customer = rig.customer_token().await;
    let record = rig.get(&customer, &format!("/v1/connectors/uuid/{other}")).await.expect(200);
    let mut body = rig.ticket_body(None);
    body["connector_id"] = record["id"].clone();
    rig.post(&token, "/v1/tickets", body.clone()).await.problem(403, "forbidden");
    let ticket = rig.post(&customer, "/v1/tickets", body).await.expect(201);
    rig.get(&token, &format!("/v1/tickets/{}", ticket["id"])).await.problem(403, "forbidden");
    let channel = ticket["chat_id"].as_str().unwrap();
    rig.get(&token, &format!("/v1/channels/{channel}")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn roles_are_kept_apart() {
    let rig = Rig::start().await;
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let connector = rig.connector_token().await;
    for path in
        ["/v2/tickets/prepared-tickets", "/v2/tickets/pending-tickets", "/v2/tickets/in-progress-tickets"]
    {
        rig.get(&customer, path).await.problem(403, "forbidden");
        rig.get(&connector, path).await.problem(403, "forbidden");
        rig.get(&operator, path).await.expect(200);
    }
    rig.post(&operator, "/v1/tickets", rig.ticket_body(None)).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_connectors_token_creates_a_ticket_for_that_connector() {
    let rig = Rig::start().await;
    let token = rig.connector_token().await;
    let ticket = rig.post(&token, "/v1/tickets", rig.ticket_body(Some(VIN))).await.expect(201);
    for (field, value) in [("vin", json!(VIN)), ("vinNumber", json!(VIN)), ("state", json!("pending"))] {
        assert_eq!(ticket[field], value);
    }
    assert_eq!(ticket["connector_id"], rig.cloud.connector_id);
    assert!(ticket["id"].is_i64() && ticket["uuid"].is_string() && ticket["chat_id"].is_string());
    assert_eq!(rig.get(&token, &format!("/v1/tickets/{}", ticket["id"])).await.expect(200), ticket);
    assert_eq!(rig.get(&token, "/v1/tickets").await.expect(200)["result"], json!([ticket]));
}

#[tokio::test]
async fn a_ticket_is_refused_for_each_kind_of_fault() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let post = |body: Value| rig.post(&token, "/v1/tickets", body);
    post(json!({})).await.violates(&["vin", "vehicle_model_id", "connector_id", "product_ids"]);
    let wrong = json!({
        "vin": "IOQ", "vehicle_model_id": -1, "vehicle_model_variant_id": "x", "connector_id": 1.5,
        "product_ids": ["x"], "metadata": [], "prepared_ticket_id": 5, "reference": 5, "voucher": "lower",
        "confirmed_unattended_service": "maybe",
    });
    let fields = [
        "connector_id",
        "product_ids",
        "metadata",
        "vin",
        "vehicle_model_id",
        "vehicle_model_variant_id",
        "prepared_ticket_id",
        "reference",
        "voucher",
        "confirmed_unattended_service",
    ];
    post(wrong).await.violates(&fields);
    let with = |field: &str, value: Value| {
        let mut body = rig.ticket_body(None);
        body[field] = value;
        post(body)
    };
    with("connector_id", json!(424_242)).await.violates(&["connector_id"]);
    with("prepared_ticket_id", json!(uuid::Uuid::new_v4())).await.violates(&["prepared_ticket_id"]);
    with("voucher", json!("NONE1")).await.violates(&["voucher"]);
    with("metadata", json!({"vin_is_found_by_reader": 1}))
        .await
        .violates(&["metadata.vin_is_found_by_reader"]);
}

#[tokio::test]
async fn a_connector_with_a_pending_ticket_gets_no_other() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let ticket = rig.pending(None).await;
    rig.post(&token, "/v1/tickets", rig.ticket_body(None)).await.problem(400, "pending-ticket");
    let cancel = json!({"transition": {"type": "cancel", "reason": "by mistake"}});
    let path = format!("/v1/tickets/{}", ticket["id"]);
    assert_eq!(rig.patch(&token, &path, cancel.clone()).await.status, 303);
    let cancelled = rig.get(&token, &path).await.expect(200);
    assert_eq!(
        (&cancelled["state"], &cancelled["cancelled_reason"]),
        (&json!("cancelled"), &json!("by mistake"))
    );
    rig.patch(&token, &path, cancel).await.problem(409, "ticket-state");
    rig.patch(&token, &path, json!({"transition": {"type": "complete"}})).await.violates(&["type"]);
    rig.pending(None).await;
}

#[tokio::test]
async fn the_active_ticket_is_the_one_in_progress_or_else_the_pending_one() {
    let rig = Rig::start().await;
    let token = rig.connector_token().await;
    let path = format!("/v1/connectors/{}/active-ticket", rig.cloud.connector_uuid);
    rig.get(&token, &path).await.problem(404, "no-active-ticket");
    let first = rig.pending(None).await;
    assert_eq!(rig.get(&token, &path).await.expect(200), first);
    let joined = rig.join(&first).await;
    rig.pending(None).await;
    let active = rig.get(&token, &path).await.expect(200);
    assert_eq!((&active["id"], &active["state"]), (&first["id"], &json!("in_progress")));
    assert_eq!(active["connection_uuid"], joined["connection_uuid"]);
}

#[tokio::test]
async fn a_pending_ticket_is_joined_once() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let ticket = rig.pending(Some(VIN)).await;
    let pending = rig.get(&token, "/v2/tickets/pending-tickets").await.expect(200);
    assert_eq!((&pending["total"], &pending["query"]), (&json!(1), &json!({"limit": 25, "offset": 0})));
    assert_eq!(pending["result"][0]["id"], ticket["uuid"]);
    let path = format!("/v2/tickets/pending-tickets/{}", ticket["uuid"].as_str().unwrap());
    assert_eq!(rig.get(&token, &path).await.expect(200)["ticket_number"], ticket["id"]);
    rig.patch(&token, &path, json!({})).await.violates(&["transition"]);
    rig.patch(&token, &path, json!({"transition": {"type": "join"}})).await.violates(&["operator_id"]);
    let complete = json!({"transition": {"type": "complete", "operator_id": 1}});
    rig.patch(&token, &path, complete).await.violates(&["type"]);

    let joined = rig.join(&ticket).await;
    assert_eq!((&joined["state"], &joined["operator_id"]), (&json!("in_progress"), &json!("desk 1")));
    assert!(joined["connection_id"].is_i64() && joined["connection_uuid"].is_string());
    rig.get(&token, &path).await.problem(404, "not-found");
    let join = json!({"transition": {"type": "join", "operator_id": 1}});
    rig.patch(&token, &path, join.clone()).await.problem(409, "ticket-state");
    let other = rig.pending(None).await;
    let path = format!("/v2/tickets/pending-tickets/{}", other["uuid"].as_str().unwrap());
    rig.patch(&token, &path, join.clone()).await.problem(409, "connector-busy");
    let nowhere = format!("/v2/tickets/pending-tickets/{}", uuid::Uuid::new_v4());
    rig.patch(&token, &nowhere, join).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_ticket_in_progress_ends_once_in_each_way() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    for (kind, state) in [("complete", "closed"), ("cancel", "cancelled"), ("outsource", "outsourced")] {
        let ticket = rig.join(&rig.pending(None).await).await;
        let answer = rig.transition(&ticket, kind).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        let location = answer.headers["location"].to_str().unwrap();
        assert_eq!(rig.get(&token, location).await.expect(200)["state"], state);
        rig.transition(&ticket, kind).await.problem(409, "ticket-state");
    }
    let listed = rig.get(&token, "/v2/tickets/in-progress-tickets").await.expect(200);
    assert_eq!(listed["total"], 0);
}

#[tokio::test]
async fn a_ticket_in_progress_can_be_corrected() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    let path = format!("/v2/tickets/in-progress-tickets/{}", ticket["id"].as_str().unwrap());
    let body = json!({"vin": OTHER_VIN, "vehicle_model_variant_id": null, "reference": "r"});
    let changed = rig.send(Method::PUT, &token, &path, body).await.expect(200);
    assert_eq!((&changed["vin"], &changed["reference"]), (&json!(OTHER_VIN), &json!("r")));
    assert_eq!(changed["vehicle_model_variant_id"], Value::Null);
    assert_eq!(changed["vehicle_model_id"], ticket["vehicle_model_id"]);
    assert_eq!(rig.get(&token, &path).await.expect(200), changed);
    rig.send(Method::PUT, &token, &path, json!({"vin": "x"})).await.violates(&["vin"]);
}

#[tokio::test]
async fn prepared_tickets_are_made_read_replaced_and_removed() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let base = "/v2/tickets/prepared-tickets";
    rig.post(&token, base, json!({})).await.violates(&["product_id"]);
    let wrong = json!({
        "product_id": 1, "vin": "x", "voucher_code": "toolong99", "customer_id": 0,
        "preparer_external_reference": "r".repeat(256),
    });
    let fields = ["customer_id", "vin", "preparer_external_reference", "voucher_code"];
    rig.post(&token, base, wrong).await.violates(&fields);

    let answer = rig.post(&token, base, json!({"product_id": 7, "vin": VIN, "voucher_code": "ABC123"})).await;
    let path = answer.headers["location"].to_str().unwrap().to_owned();
    let ticket = answer.expect(201);
    assert_eq!((&ticket["state"], &ticket["voucher_code"]), (&json!("prepared"), &json!("ABC123")));
    assert!(ticket["ticket_number"].is_i64());
    assert_eq!(rig.get(&token, &path).await.expect(200), ticket);
    let again = json!({"product_id": 7, "voucher_code": "ABC123"});
    rig.post(&token, base, again.clone()).await.violates(&["voucher_code"]);
    let replaced = rig.send(Method::PUT, &token, &path, again).await.expect(200);
    assert_eq!((&replaced["vin"], &replaced["id"]), (&Value::Null, &ticket["id"]));
    let delete = || rig.send(Method::DELETE, &token, &path, json!({}));
    delete().await.expect(204);
    delete().await.problem(404, "not-found");
    rig.get(&token, &path).await.problem(404, "not-found");
}

#[tokio::test]
async fn prepared_tickets_are_found_by_every_filter() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let base = "/v2/tickets/prepared-tickets";
    let first =
        json!({"product_ids": [1, 2], "vin": VIN, "customer_id": 5, "preparer_external_reference": "a b"});
    let first = rig.post(&token, base, first).await.expect(201);
    let second = rig.post(&token, base, json!({"product_id": 3})).await.expect(201);
    let number = second["ticket_number"].to_string();
    let cases = [
        (String::new(), vec![&first, &second]),
        (format!("vin={VIN}"), vec![&first]),
        ("customer_id=5".to_owned(), vec![&first]),
        ("preparer_external_reference=a%20b".to_owned(), vec![&first]),
        ("product_id=2".to_owned(), vec![&first]),
        ("product_id=3".to_owned(), vec![&second]),
        (format!("ticket_number={number}"), vec![&second]),
        ("created_after=2020-01-01T00:00:00Z".to_owned(), vec![&first, &second]),
        ("created_before=2020-01-01T00:00:00Z".to_owned(), vec![]),
        ("created_after=2999-01-01T00:00:00Z".to_owned(), vec![]),
    ];
    for (query, found) in cases {
        let list = rig.get(&token, &format!("{base}?{query}")).await.expect(200);
        assert_eq!(list["result"], json!(found), "{query}");
        assert_eq!(list["total"], found.len());
        assert_eq!(list["query"]["limit"], 25);
    }
    let page = rig.get(&token, &format!("{base}?limit=1&offset=1&vin=")).await;
    page.violates(&["vin"]);
    let page = rig.get(&token, &format!("{base}?limit=1&offset=1")).await.expect(200);
    assert_eq!((&page["result"], &page["total"]), (&json!([second]), &json!(2)));
    let none = rig.get(&token, &format!("{base}?limit=0")).await.expect(200);
    assert_eq!((&none["result"], &none["total"]), (&json!([]), &json!(2)));
    let wrong = rig.get(&token, &format!("{base}?limit=1001&created_after=yesterday")).await;
    wrong.violates(&["created_after", "limit"]);
}

#[tokio::test]
async fn a_customer_claims_a_prepared_ticket_by_its_id_or_voucher() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    for by_voucher in [false, true] {
        let body = json!({"product_id": 7, "vin": VIN, "customer_id": rig.cloud.customer_id});
        let prepared = rig.post(&operator, "/v2/tickets/prepared-tickets", body).await.expect(201);
        let found = rig.get(&customer, &format!("/v1/prepared-tickets?vin={VIN}")).await.expect(200);
        assert_eq!(found["result"], json!([prepared]));
        let mut body = rig.ticket_body(Some(OTHER_VIN));
        if by_voucher {
            body["voucher"] = prepared["voucher_code"].clone();
        } else {
            body["prepared_ticket_id"] = prepared["id"].clone();
        }
        rig.post(&customer, "/v1/tickets", body.clone()).await.violates(&["vin"]);
        body["vin"] = Value::Null;
        let ticket = rig.post(&customer, "/v1/tickets", body).await.expect(201);
        assert_eq!((&ticket["uuid"], &ticket["id"]), (&prepared["id"], &prepared["ticket_number"]));
        assert_eq!(ticket["vin"], VIN);
        let found = rig.get(&customer, &format!("/v1/prepared-tickets?vin={VIN}")).await.expect(200);
        assert_eq!(found["total"], 0);
        let joined = rig.join(&ticket).await;
        rig.transition(&joined, "complete").await;
    }
    rig.get(&customer, "/v1/prepared-tickets").await.violates(&["vin"]);
}

#[tokio::test]
async fn a_ticket_prepared_for_another_customer_is_refused() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let body = json!({"product_id": 7, "vin": VIN, "customer_id": rig.cloud.customer_id + 1});
    let prepared = rig.post(&operator, "/v2/tickets/prepared-tickets", body).await.expect(201);
    let found = rig.get(&customer, &format!("/v1/prepared-tickets?vin={VIN}")).await.expect(200);
    assert_eq!(found["total"], 0);
    let mut body = rig.ticket_body(None);
    body["voucher"] = prepared["voucher_code"].clone();
    rig.post(&customer, "/v1/tickets", body).await.violates(&["voucher"]);
}

#[tokio::test]
async fn vehicles_are_found_by_vin() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let vehicle = rig.get(&token, &format!("/v1/vehicles/search?vin={VIN}")).await.expect(200);
    assert_eq!(vehicle["make"]["name"], "CHRYSLER");
    assert_eq!(vehicle["model_group"]["name"], "PACIFICA");
    assert_eq!(vehicle["model"]["requires_doip"], false);
    assert!(vehicle["model_variant"]["id"].is_i64());
    rig.get(&token, "/v1/vehicles/search?vin=00000000000000001").await.problem(404, "not-found");
    rig.get(&token, "/v1/vehicles/search?vin=00000000000000000").await.violates(&["vin"]);
    rig.get(&token, "/v1/vehicles/search?vin=x").await.violates(&["vin"]);
    rig.get(&token, "/v1/vehicles/search").await.violates(&["vin"]);
}

#[tokio::test]
async fn attachments_are_uploaded_to_a_presigned_address_and_read_back() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let ticket = rig.pending(None).await;
    let channel = format!("/v1/channels/{}", ticket["chat_id"].as_str().unwrap());
    let body = rig.get(&token, &channel).await.expect(200);
    assert_eq!(body["state"], "open");
    assert!(body["arn"].as_str().unwrap().ends_with(ticket["chat_id"].as_str().unwrap()));

    let attachments = format!("{channel}/attachments");
    rig.post(&token, &attachments, json!({"file_name": " "})).await.violates(&["file_name"]);
    let made = rig.post(&token, &attachments, json!({"file_name": "../../log.txt"})).await.expect(201);
    let url = made["upload_url"].as_str().unwrap();
    let content = vec![0xA5; 1_000_000];
    let put = |url: &str, content: Vec<u8>| rig.answer(rig.request(Method::PUT, url).body(content));
    put(url, content.clone()).await.expect(204);
    let file = format!("{attachments}/{}", made["file_reference"].as_str().unwrap());
    let response = rig.request(Method::GET, &file).bearer_auth(&token).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), content);
    let listed = rig.get(&token, &attachments).await.expect(200);
    assert_eq!(listed["result"][0]["size"], 1_000_000);

    put(url, vec![0; 10 * 1024 * 1024 + 1]).await.problem(413, "body");
    let forged = url.replace("signature=", "signature=x");
    put(&forged, vec![1]).await.problem(403, "forbidden");
    let (path, query) = url.split_once('?').unwrap();
    let later = query.replacen("expires=", "expires=9", 1);
    put(&format!("{path}?{later}"), vec![1]).await.problem(403, "forbidden");
    put(path, vec![1]).await.violates(&["expires", "signature"]);
    let unknown = format!("/v1/channels/{}", uuid::Uuid::new_v4());
    rig.get(&token, &unknown).await.problem(404, "not-found");
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let rig = Rig::start().await;
    let operator = rig.operator_token().await;
    let prepared = json!({"product_id": 7, "vin": VIN});
    let prepared = rig.post(&operator, "/v2/tickets/prepared-tickets", prepared).await.expect(201);
    let joined = rig.join(&rig.pending(Some(VIN)).await).await;
    let pending = rig.pending(None).await;
    let connector = (rig.cloud.connector_uuid, rig.cloud.connector_pincode.clone());

    let rig = rig.restart(|_| {}).await;
    assert_eq!((rig.cloud.connector_uuid, rig.cloud.connector_pincode.clone()), connector);
    let path = format!("/v2/tickets/prepared-tickets/{}", prepared["id"].as_str().unwrap());
    assert_eq!(rig.get(&operator, &path).await.expect(200), prepared);
    let path = format!("/v2/tickets/in-progress-tickets/{}", joined["id"].as_str().unwrap());
    assert_eq!(rig.get(&operator, &path).await.expect(200), joined);
    let path = format!("/v1/tickets/{}", pending["id"]);
    let customer = rig.customer_token().await;
    assert_eq!(rig.get(&customer, &path).await.expect(200), pending);
    let next =
        rig.post(&operator, "/v2/tickets/prepared-tickets", json!({"product_id": 7})).await.expect(201);
    assert!(next["ticket_number"].as_i64() > pending["id"].as_i64());
}
