//! The rules of the sandbox cloud's REST resources, beyond the forms of the examples.

use crate::cloud_support::{PRODUCT, Rig};
use connector_sim::cloud::ConnectorSeed;
use reqwest::Method;
use serde_json::{Value, json};

const VIN: &str = "1C4PSBEH6L9016061";
const OTHER_VIN: &str = "1C4WMJE62VY401544";
const PREPARED: &str = "/v2/tickets/prepared-tickets";

/// A complete ticket for the vehicle with [`VIN`].
async fn documented(rig: &Rig) -> Value {
    let token = rig.customer_token().await;
    let vehicle = rig.get(&token, &format!("/v1/vehicles/search?vin={VIN}")).await.expect(200);
    json!({
        "vin": VIN, "vehicle_model_id": vehicle["model"]["id"],
        "vehicle_model_variant_id": vehicle["model_variant"]["id"], "connector_id": rig.cloud.connector_id,
        "product_ids": [1], "metadata": {"vin_is_found_by_reader": true},
    })
}

fn prepared(rig: &Rig) -> Value {
    json!({
        "customer_id": rig.cloud.customer_id, "vehicle_model_id": 2, "vin": VIN, "voucher_code": "ABC123",
        "preparer_external_reference": "a b",
    })
}

#[tokio::test]
async fn every_unknown_resource_gives_a_problem_object() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    rig.get(&token, "/nowhere").await.problem(404, "not-found");
    rig.get(&token, "/v1/connectors/999999").await.problem(404, "not-found");
    rig.get(&token, "/v1/connectors/x").await.violates(&["connectorId"]);
    rig.get(&token, "/v1/connectors/%FF").await.problem(400, "bad-request");
    rig.get(&token, "/v2/connectors/5f3d760d").await.violates(&["connectorUUID"]);
    let delete = rig.request(Method::DELETE, "/v1/connectors").bearer_auth(&token);
    let answer = rig.answer(delete).await;
    assert!(answer.headers["allow"].to_str().unwrap().contains("GET"));
    answer.problem(405, "method-not-allowed");
    for socket in ["/sandbox/ws", "/wssprd"] {
        rig.get(&token, socket).await.problem(400, "bad-request");
    }
    let long = rig.request(Method::POST, "/v1/tickets").bearer_auth(&token).body(vec![b' '; 300_000]);
    rig.answer(long).await.problem(413, "body");
    for body in ["", "{", "[", "\"", "nul"] {
        let broken = rig.request(Method::POST, "/v1/tickets").bearer_auth(&token).body(body);
        rig.answer(broken).await.problem(400, "bad-request");
    }
    rig.post(&token, "/v1/tickets", json!([])).await.violates(&["body"]);
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
    let none = rig.get(&token, "/v1/connectors?limit=0").await.expect(200);
    assert_eq!((&none["result"], &none["total"]), (&json!([]), &json!(5)));
    rig.get(&token, "/v1/connectors?limit=201&offset=-1").await.violates(&["limit", "offset"]);
    rig.get(&token, "/v1/connectors?limit=many").await.violates(&["limit"]);
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
    let after = rig.get(&token, &format!("/v2/connectors/{uuid}")).await.expect(200);
    assert_eq!((&after["is_online"], &after["software_version"]), (&json!(true), &json!(2)));
    let own = rig.get(&token, &format!("/sandbox/v1/connectors/uuid/{uuid}")).await.expect(200);
    assert_eq!(own["agent_version"], "0.1.0");
    assert!(after.get("pincode").is_none() && own.get("pincode").is_none());
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
    rig.get(&token, &format!("/v2/connectors/{other}")).await.problem(403, "forbidden");
    let customer = rig.customer_token().await;
    let record = rig.get(&customer, &format!("/v2/connectors/{other}")).await.expect(200);
    let mut body = documented(&rig).await;
    body["connector_id"] = record["id"].clone();
    rig.post(&token, "/v1/tickets", body.clone()).await.problem(403, "forbidden");
    let ticket = rig.post(&customer, "/v1/tickets", body).await.expect(201);
    let id = ticket["id"].as_str().unwrap();
    rig.get(&token, &format!("/sandbox/v1/tickets/{id}")).await.problem(403, "forbidden");
    rig.get(&token, &format!("/v1/tickets/{id}/notes")).await.problem(403, "forbidden");
    let channel = ticket["chat_id"].as_str().unwrap();
    rig.get(&token, &format!("/v1/channels/{channel}")).await.problem(403, "forbidden");
}

#[tokio::test]
async fn roles_are_kept_apart() {
    let rig = Rig::start().await;
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let connector = rig.connector_token().await;
    for path in [PREPARED, "/v2/tickets/pending-tickets", "/v2/tickets/in-progress-tickets"] {
        rig.get(&customer, path).await.problem(403, "forbidden");
        rig.get(&connector, path).await.problem(403, "forbidden");
        rig.get(&operator, path).await.expect(200);
    }
    rig.post(&operator, "/v1/tickets", documented(&rig).await).await.problem(403, "forbidden");
}

#[tokio::test]
async fn a_connectors_token_creates_a_ticket_for_that_connector() {
    let rig = Rig::start().await;
    let token = rig.connector_token().await;
    let ticket = rig.post(&token, "/v1/tickets", documented(&rig).await).await.expect(201);
    for (field, value) in [("vin", json!(VIN)), ("vinNumber", json!(VIN)), ("state", json!(1))] {
        assert_eq!(ticket[field], value);
    }
    assert_eq!(
        (&ticket["connector_id"], &ticket["product_ids"]),
        (&json!(rig.cloud.connector_id), &json!([[1]]))
    );
    let path = format!("/v1/connectors/{}/active-ticket", rig.cloud.connector_id);
    assert_eq!(rig.get(&token, &path).await.expect(200), ticket);
    let own = format!("/sandbox/v1/tickets/{}", ticket["id"].as_str().unwrap());
    assert_eq!(rig.get(&token, &own).await.expect(200)["uuid"], ticket["uuid"]);
}

#[tokio::test]
async fn a_ticket_is_refused_for_each_kind_of_fault() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let post = |body: Value| rig.post(&token, "/v1/tickets", body);
    let required =
        ["connector_id", "metadata", "product_ids", "vehicle_model_id", "vehicle_model_variant_id", "vin"];
    let body = post(json!({})).await.problem(400, "violations");
    let mut named: Vec<_> =
        body["violations"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, required);
    let complete = documented(&rig).await;
    for (field, value) in [
        ("vin", json!(5)),
        ("vin", json!("IOQ")),
        ("vin", json!(null)),
        ("vehicle_model_id", json!("x")),
        ("vehicle_model_id", json!(424_242)),
        ("vehicle_model_variant_id", json!(1)),
        ("connector_id", json!(1.5)),
        ("connector_id", json!(424_242)),
        ("product_ids", json!(424_242)),
        ("product_ids", json!([424_242])),
        ("metadata", json!([])),
        ("prepared_ticket_id", json!(5)),
        ("prepared_ticket_id", json!(uuid::Uuid::new_v4())),
        ("reference", json!("r".repeat(256))),
        ("voucher", json!("NONE1")),
        ("confirmed_unattended_service", json!("maybe")),
        ("product_prerequisites", json!([{"definition_id": 424_242, "value": "x"}])),
    ] {
        let mut body = complete.clone();
        body[field] = value.clone();
        post(body).await.violates(&[field]);
    }
    // the answers that the products need, and the confirmation of an unattended one
    let mut body = complete.clone();
    body["product_ids"] = json!([3]);
    post(body.clone()).await.violates(&["product_prerequisites"]);
    body["product_prerequisites"] = json!([{"definition_id": 1, "value": "perhaps"}]);
    post(body).await.violates(&["product_prerequisites"]);
    let mut body = complete;
    body["product_ids"] = json!([2]);
    post(body.clone()).await.violates(&["confirmed_unattended_service"]);
    body["confirmed_unattended_service"] = json!(true);
    post(body).await.expect(201);
}

#[tokio::test]
async fn a_connector_with_a_pending_ticket_gets_no_other() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let ticket = rig.pending(None).await;
    rig.post(&token, "/v1/tickets", documented(&rig).await).await.problem(400, "pending-ticket");
    let cancel = json!({"transition": {"type": "cancel", "reason": "by mistake"}});
    let path = format!("/sandbox/v1/tickets/{}", ticket["id"]);
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
    rig.get(&token, "/v1/connectors/x/active-ticket").await.violates(&["connectorId"]);
    let first = rig.pending(None).await;
    let id = first["id"].to_string();
    assert_eq!(rig.get(&token, &path).await.expect(200)["id"], id);
    rig.join(&first).await;
    rig.pending(None).await;
    let active = rig.get(&token, &path).await.expect(200);
    assert_eq!((&active["id"], &active["state"]), (&json!(id), &json!(2)));
}

#[tokio::test]
async fn a_pending_ticket_is_joined_once() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let ticket = rig.pending(Some(VIN)).await;
    let pending = rig.get(&token, "/v2/tickets/pending-tickets").await.expect(200);
    assert_eq!((&pending["total"], &pending["query"]), (&json!(1), &json!({"limit": 25, "offset": 0})));
    assert_eq!(pending["result"][0]["id"], ticket["uuid"]);
    let path = format!("/sandbox/v2/tickets/pending-tickets/{}", ticket["uuid"].as_str().unwrap());
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
    let path = format!("/sandbox/v2/tickets/pending-tickets/{}", other["uuid"].as_str().unwrap());
    rig.patch(&token, &path, join.clone()).await.problem(409, "connector-busy");
    let nowhere = format!("/sandbox/v2/tickets/pending-tickets/{}", uuid::Uuid::new_v4());
    rig.patch(&token, &nowhere, join).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_ticket_in_progress_ends_once_in_each_way() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    for (kind, collection) in [("complete", "closed"), ("cancel", "cancelled"), ("outsource", "outsourced")] {
        let ticket = rig.join(&rig.pending(None).await).await;
        let answer = rig.transition(&ticket, kind).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        let location = answer.headers["location"].to_str().unwrap();
        assert_eq!(location, format!("/v2/tickets/{collection}-tickets/{}", ticket["id"].as_str().unwrap()));
        let ended = rig.get(&token, location).await.expect(200);
        assert_eq!(ended["ticket_number"], ticket["ticket_number"]);
        let list = rig.get(&token, &format!("/v2/tickets/{collection}-tickets")).await.expect(200);
        assert_eq!(list["result"], json!([ended]));
        rig.transition(&ticket, kind).await.problem(409, "ticket-state");
    }
    let listed = rig.get(&token, "/v2/tickets/in-progress-tickets").await.expect(200);
    assert_eq!(listed["total"], 0);
}

#[tokio::test]
async fn a_transition_is_refused_for_each_kind_of_fault() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let ticket = rig.join(&rig.pending(Some(VIN)).await).await;
    let path = format!("/v2/tickets/in-progress-tickets/{}", ticket["id"].as_str().unwrap());
    let patch = |transition: Value| rig.patch(&token, &path, json!({"transition": transition}));
    rig.patch(&token, &path, json!({})).await.violates(&["transition"]);
    for transition in [json!({}), json!({"type": "explode"}), json!({"type": "outsource", "product_ids": []})]
    {
        patch(transition).await.problem(400, "violations");
    }
    let provider = rig.get(&token, "/v2/providers/providers").await.expect(200)["result"][0]["id"].clone();
    let outsource = |product: &str, provider: &Value| {
        patch(json!({"type": "outsource", "product_ids": [product], "provider_id": provider}))
    };
    let nobody = json!(uuid::Uuid::new_v4());
    outsource(PRODUCT, &nobody).await.violates(&["transition.provider_id"]);
    outsource(nobody.as_str().unwrap(), &provider).await.violates(&["transition.product_ids"]);
    patch(json!({"type": "cancel", "cancel_reason_id": 99})).await.violates(&["transition.cancel_reason_id"]);
    let elsewhere = format!("/v2/tickets/in-progress-tickets/{}", uuid::Uuid::new_v4());
    let complete = json!({"transition": {"type": "complete"}});
    rig.patch(&token, &elsewhere, complete).await.problem(404, "not-found");
    let operator = json!({"operator_id": uuid::Uuid::new_v4()});
    let changed = rig.send(Method::PUT, &token, &path, operator.clone()).await.expect(200);
    assert_eq!(changed["operator_id"], operator["operator_id"]);
    rig.send(Method::PUT, &token, &path, json!({"operator_id": "desk 2"})).await.violates(&["operator_id"]);
}

#[tokio::test]
async fn prepared_tickets_are_made_read_replaced_and_removed() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let body = rig.post(&token, PREPARED, json!({})).await.problem(400, "violations");
    assert_eq!(body["violations"].as_array().unwrap().len(), 4, "{body}");
    for (field, value) in [
        ("customer_id", json!(5)),
        ("vehicle_model_id", json!("x")),
        ("vehicle_model_id", json!(424_242)),
        ("vin", json!("x")),
        ("voucher_code", json!("TOOLONG99")),
        ("voucher_code", json!("lower")),
        ("preparer_external_reference", json!("r".repeat(256))),
    ] {
        let mut body = prepared(&rig);
        body[field] = value;
        rig.post(&token, PREPARED, body).await.violates(&[field]);
    }
    let ticket = rig.post(&token, PREPARED, prepared(&rig)).await.expect(201);
    let path = format!("{PREPARED}/{}", ticket["id"].as_str().unwrap());
    assert_eq!(rig.get(&token, &path).await.expect(200), ticket);
    let replacement = json!({
        "vehicle_model_id": 3, "vin": null, "voucher_code": null, "preparer_external_reference": "",
    });
    let replaced = rig.send(Method::PUT, &token, &path, replacement).await.expect(200);
    assert_eq!((&replaced["vin"], &replaced["id"]), (&Value::Null, &ticket["id"]));
    rig.send(
        Method::PUT,
        &token,
        &path,
        json!({"vehicle_model_id": 3, "vin": null, "preparer_external_reference": ""}),
    )
    .await
    .violates(&["voucher_code"]);
    let delete = || rig.answer(rig.request(Method::DELETE, &path).bearer_auth(&token));
    delete().await.expect(204);
    delete().await.problem(404, "not-found");
    rig.get(&token, &path).await.problem(404, "not-found");
}

#[tokio::test]
async fn prepared_tickets_are_found_by_every_filter() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    // those of the documented examples
    for id in ["ca09a970-6519-4280-b6a6-65727e2894e3", "497f6eca-6276-4993-bfeb-53cbbbba6f08"] {
        let path = format!("{PREPARED}/{id}");
        rig.answer(rig.request(Method::DELETE, &path).bearer_auth(&token)).await.expect(204);
    }
    let first = rig.post(&token, PREPARED, prepared(&rig)).await.expect(201);
    let path = format!("/sandbox{PREPARED}/{}/product-lines", first["id"].as_str().unwrap());
    rig.post(&token, &path, json!({"product_id": PRODUCT})).await.expect(204);
    let customer = uuid::Uuid::new_v4();
    let second = json!({
        "customer_id": customer, "vehicle_model_id": 3, "vin": null, "preparer_external_reference": "",
    });
    let second = rig.post(&token, PREPARED, second).await.expect(201);
    let number = second["ticket_number"].to_string();
    let cases = [
        (String::new(), vec![&first, &second]),
        (format!("vin={VIN}"), vec![&first]),
        ("vin=".to_owned(), vec![&second]),
        (format!("customer_id={customer}"), vec![&second]),
        ("preparer_external_reference=a%20b".to_owned(), vec![&first]),
        (format!("product_id={PRODUCT}"), vec![&first]),
        (format!("ticket_number={number}"), vec![&second]),
        ("created_after=2020-01-01T00:00:00Z".to_owned(), vec![&first, &second]),
        ("created_before=2020-01-01T00:00:00Z".to_owned(), vec![]),
        ("created_after=2999-01-01T00:00:00Z".to_owned(), vec![]),
    ];
    for (query, found) in cases {
        let list = rig.get(&token, &format!("{PREPARED}?{query}")).await.expect(200);
        assert_eq!(list["result"], json!(found), "{query}");
        assert_eq!(list["total"], found.len());
        assert_eq!(list["query"]["limit"], 25);
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            assert!(!list["query"][name].is_null(), "{name}={value} is not repeated: {list}");
        }
    }
    let page = rig.get(&token, &format!("{PREPARED}?limit=1&offset=1")).await.expect(200);
    assert_eq!((&page["result"], &page["total"]), (&json!([second]), &json!(2)));
    let none = rig.get(&token, &format!("{PREPARED}?limit=0")).await.expect(200);
    assert_eq!((&none["result"], &none["total"]), (&json!([]), &json!(2)));
    let wrong = rig.get(&token, &format!("{PREPARED}?created_after=yesterday&limit=1001&vin=x")).await;
    wrong.violates(&["created_after", "limit", "vin"]);
}

#[tokio::test]
async fn a_customer_picks_up_a_prepared_ticket_by_its_id() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let find = || async { rig.get(&customer, &format!("/v1/prepared-tickets?vin={VIN}")).await.expect(200) };
    for _ in 0..2 {
        let made = rig.post(&operator, PREPARED, prepared(&rig)).await.expect(201);
        assert_eq!(find().await["total"], 0, "it has no product yet");
        let path = format!("/sandbox{PREPARED}/{}/product-lines", made["id"].as_str().unwrap());
        rig.post(&operator, &path, json!({"product_id": PRODUCT})).await.expect(204);
        let found = find().await;
        assert_eq!(found["result"][0]["id"], made["id"]);
        assert_eq!(found["result"][0]["product_lines"][0]["product_id"], 1);
        let mut body = documented(&rig).await;
        body["prepared_ticket_id"] = made["id"].clone();
        let mut other = body.clone();
        other["vin"] = json!(OTHER_VIN);
        rig.post(&customer, "/v1/tickets", other).await.violates(&["vin"]);
        let ticket = rig.post(&customer, "/v1/tickets", body).await.expect(201);
        assert_eq!(
            (&ticket["uuid"], &ticket["id"]),
            (&made["id"], &json!(made["ticket_number"].to_string()))
        );
        assert_eq!(find().await["total"], 0);
        let joined = rig.join(&ticket).await;
        rig.transition(&joined, "complete").await;
    }
    rig.get(&customer, "/v1/prepared-tickets").await.violates(&["vin"]);
}

#[tokio::test]
async fn a_ticket_prepared_for_another_customer_is_refused() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let mut body = prepared(&rig);
    body["customer_id"] = json!(uuid::Uuid::new_v4());
    rig.post(&operator, PREPARED, body).await.expect(201);
    let found = rig.get(&customer, &format!("/v1/prepared-tickets?vin={VIN}")).await.expect(200);
    assert_eq!(found["total"], 0);
    let mut body = documented(&rig).await;
    body["voucher"] = json!("ABC123");
    rig.post(&customer, "/v1/tickets", body).await.violates(&["voucher"]);
}

#[tokio::test]
async fn vehicles_are_found_by_vin_and_from_make_to_variant() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let get = |path: String| {
        let (rig, token) = (&rig, &token);
        async move { rig.get(token, &path).await.expect(200) }
    };
    let vehicle = get(format!("/v1/vehicles/search?vin={VIN}")).await;
    assert_eq!(vehicle["make"]["name"], "CHRYSLER");
    assert_eq!(vehicle["model_group"]["name"], "PACIFICA");
    let (make, group) = (&vehicle["make"]["id"], &vehicle["model_group"]["id"]);
    let groups = get(format!("/v1/vehicles/model-groups?vehicle_make_id={make}")).await;
    assert!(groups["result"].as_array().unwrap().contains(&vehicle["model_group"]));
    let models = get(format!("/v1/vehicles/models?vehicle_model_group_id={group}")).await;
    assert!(models["result"].as_array().unwrap().contains(&vehicle["model"]));
    let model = &vehicle["model"]["id"];
    let variants = get(format!("/v1/vehicles/model-variants?vehicle_model_id={model}")).await;
    assert_eq!(variants["result"], json!([vehicle["model_variant"]]));
    let offered =
        get(format!("/v1/product-groups?vehicle_model_id={model}&vehicle_model_variant_id={model}")).await;
    assert_eq!(offered["total"], 2);
    rig.get(&token, "/v1/vehicles/search?vin=00000000000000001").await.problem(404, "not-found");
    rig.get(&token, "/v1/vehicles/search").await.violates(&["vin"]);
    rig.get(&token, "/v1/vehicles/models").await.violates(&["vehicle_model_group_id"]);
    rig.get(&token, "/v1/vehicles/models/99999").await.problem(404, "not-found");
}

#[tokio::test]
async fn products_are_narrowed_by_group_bundle_and_favourites() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let vehicle = "vehicle_model_id=2&vehicle_model_variant_id=2";
    let ids = |query: String| {
        let (rig, token) = (&rig, &token);
        async move {
            let page = rig.get(token, &format!("/v1/products?{vehicle}{query}")).await.expect(200);
            page["result"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["id"].as_i64().unwrap())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(ids(String::new()).await, [1], "the favourites");
    assert_eq!(ids("&product_group_id=1".to_owned()).await, [1]);
    assert_eq!(ids("&product_group_id=1&is_favorite=false".to_owned()).await, [2]);
    assert_eq!(ids("&is_favorite=0".to_owned()).await, [2, 3, 4]);
    let bundles = rig.get(&token, &format!("/v1/product-bundles?{vehicle}")).await.expect(200);
    let bundle = bundles["result"][0]["id"].as_str().unwrap();
    assert_eq!(ids(format!("&product_bundle_id={bundle}&is_favorite=0")).await, [2, 3]);
    let both = format!("/v1/products?{vehicle}&product_group_id=1&product_bundle_id={bundle}");
    rig.get(&token, &both).await.violates(&["product_bundle_id"]);
    rig.post(&token, "/v1/favorite-products", json!({"id": 4})).await.expect(201);
    let delete = |id: &str| {
        rig.answer(rig.request(Method::DELETE, &format!("/v1/favorite-products/{id}")).bearer_auth(&token))
    };
    delete("1").await.expect(204);
    delete("99").await.problem(404, "not-found");
    assert_eq!(ids(String::new()).await, [4]);
    rig.post(&token, "/v1/favorite-products", json!({})).await.violates(&["id"]);
    let asked = |products: &str| format!("/v1/product-prerequisites?{vehicle}&product_id={products}");
    assert_eq!(rig.get(&token, &asked("1,3")).await.expect(200)["total"], 2);
    rig.get(&token, &asked("")).await.violates(&["product_id"]);
    rig.get(&token, &asked("1,x")).await.violates(&["product_id.1"]);
}

#[tokio::test]
async fn prices_have_discounts_vouchers_and_fees() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let body = json!({
        "vehicle_model_id": 2, "vehicle_model_variant_id": 2, "product_ids": [2, 3], "voucher": "SANDBOX",
    });
    let cart = rig.post(&token, "/v1/cart/calculate-prices", body.clone()).await.expect(200);
    let net = |total: &str| cart[total]["net_price"]["value"].as_f64().unwrap();
    assert_eq!((net("sub_total"), net("voucher_sub_total"), net("total")), (162.5, 121.88, 134.38));
    assert_eq!(cart["needs_confirmation_for_unattended_service"], true);
    for (field, value) in [
        ("voucher", json!("NONE")),
        ("vin", json!("x")),
        ("product_ids", json!([99])),
        ("vehicle_model_variant_id", json!(3)),
        ("prepared_ticket_id", json!(uuid::Uuid::new_v4())),
    ] {
        let mut body = body.clone();
        body[field] = value;
        let answer = rig.post(&token, "/v1/cart/calculate-prices", body).await;
        let problem = answer.problem(400, "violations");
        assert_eq!(problem["violations"][0]["field"], field);
    }
}

#[tokio::test]
async fn employees_have_user_names_that_stay_set() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let john = json!({"given_name": "John", "family_name": "Smith", "username": "john@example.com"});
    let made = rig.post(&token, "/v1/employees", john.clone()).await.expect(201);
    let path = format!("/v1/employees/{}", made["id"].as_str().unwrap());
    let change = |field: &str, value: Value| {
        let mut body = john.clone();
        body[field] = value;
        rig.send(Method::PUT, &token, &path, body)
    };
    change("username", Value::Null).await.violates(&["username"]);
    change("username", json!("nobody")).await.violates(&["username"]);
    change("correspondence_locale", json!("xx-XX")).await.violates(&["correspondence_locale"]);
    change("given_name", json!("x".repeat(256))).await.violates(&["given_name"]);
    assert_eq!(change("enabled", json!(false)).await.expect(200)["enabled"], false);
    rig.get(&token, "/v1/employees/nobody").await.problem(404, "not-found");
    let missing = json!({"given_name": "A", "family_name": "B"});
    rig.post(&token, "/v1/employees", missing).await.violates(&["username"]);
}

#[tokio::test]
async fn attachments_are_uploaded_to_a_presigned_address_and_read_back() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let ticket = rig.post(&token, "/v1/tickets", documented(&rig).await).await.expect(201);
    let chat = ticket["chat_id"].as_str().unwrap();
    assert_eq!(rig.get(&token, &format!("/v1/channels/{chat}")).await.expect(200)["state"], "open");

    let attachments = format!("/v1/channel-attachments?channel_id={chat}");
    rig.post(&token, &attachments, json!({"file_name": ""})).await.violates(&["file_name"]);
    rig.post(&token, "/v1/channel-attachments", json!({})).await.violates(&["channel_id"]);
    let made = rig.post(&token, &attachments, json!({"file_name": "../../log.txt"})).await;
    let url = made.headers["sandbox-upload-url"].to_str().unwrap().to_owned();
    let made = made.expect(201);
    assert_eq!(made["file_name"], ".._.._log.txt");
    let content = vec![0xA5; 1_000_000];
    let put = |url: &str, content: Vec<u8>| rig.answer(rig.request(Method::PUT, url).body(content));
    put(&url, content.clone()).await.expect(204);
    let reference = made["file_reference"].as_str().unwrap();
    let found = rig.get(&token, &format!("{attachments}&file_reference={reference}")).await;
    let download = found.headers["sandbox-download-url"].to_str().unwrap().to_owned();
    assert_eq!(found.expect(200), made);
    let response = rig.request(Method::GET, &download).bearer_auth(&token).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap(), content);
    rig.get(&token, &format!("{attachments}&file_reference=x")).await.problem(404, "not-found");

    put(&url, vec![0; 10 * 1024 * 1024 + 1]).await.problem(413, "body");
    put(&url.replace("signature=", "signature=x"), vec![1]).await.problem(403, "forbidden");
    let (path, query) = url.split_once('?').unwrap();
    let later = query.replacen("expires=", "expires=9", 1);
    put(&format!("{path}?{later}"), vec![1]).await.problem(403, "forbidden");
    put(path, vec![1]).await.violates(&["expires", "signature"]);
    for unknown in ["x", "7_x", "bbe8aa76-a4bb-46f6-a785-df8e831cc459"] {
        rig.get(&token, &format!("/v1/channels/{unknown}")).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn a_text_without_translation_comes_back_with_a_note() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let translate = |text: &str| {
        let body = json!({"message": {"original": text}, "target_language": "de"});
        rig.post(&token, "/v1/translate", body)
    };
    assert_eq!(translate("Hello world!").await.expect(201)["message"]["translated"], "Hallo Welt!");
    let other = translate("Good morning").await.expect(201);
    assert!(other["message"]["translated"].as_str().unwrap().contains("no translation"), "{other}");
    rig.post(&token, "/v1/translate", json!({})).await.problem(400, "violations");
}

#[tokio::test]
async fn everything_survives_a_restart() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let made = rig.post(&operator, PREPARED, prepared(&rig)).await.expect(201);
    let joined = rig.join(&rig.pending(Some(VIN)).await).await;
    let pending = rig.pending(None).await;
    rig.send(Method::PUT, &customer, "/v1/customers/me", json!({"city": "Utrecht"})).await.expect(200);
    let connector = (rig.cloud.connector_uuid, rig.cloud.connector_pincode.clone());

    let rig = rig.restart(|_| {}).await;
    assert_eq!((rig.cloud.connector_uuid, rig.cloud.connector_pincode.clone()), connector);
    let path = format!("{PREPARED}/{}", made["id"].as_str().unwrap());
    assert_eq!(rig.get(&operator, &path).await.expect(200), made);
    let path = format!("/sandbox/v2/tickets/{}", joined["id"].as_str().unwrap());
    assert_eq!(rig.get(&operator, &path).await.expect(200), joined);
    let path = format!("/sandbox/v1/tickets/{}", pending["id"]);
    assert_eq!(rig.get(&customer, &path).await.expect(200), pending);
    assert_eq!(rig.get(&customer, "/v1/customers/me").await.expect(200)["city"], "Utrecht");
    let mut next = prepared(&rig);
    next["voucher_code"] = Value::Null;
    let next = rig.post(&operator, PREPARED, next).await.expect(201);
    assert!(next["ticket_number"].as_i64() > pending["id"].as_i64());
}

#[tokio::test]
async fn a_refused_request_leaves_its_connection_open_for_the_next_one() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let rig = Rig::start().await;
    let mut stream = rig.stream().await;
    // a body that comes after the head, to a method, a path and a resource that refuse without it
    for (line, length) in [
        ("PATCH /v1/connectors", 100_000),
        ("POST /nowhere", 100_000),
        ("POST /v1/tickets", 100_000),
        ("GET /sandbox/v1/tickets", 100_000),
        // longer than a body may be
        ("POST /v1/tickets", 1_000_000),
        ("PUT /sandbox/v1/uploads/x", 11_000_000),
    ] {
        let head = format!("{line} HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&vec![b' '; length]).await.unwrap();
        let mut answer = Vec::new();
        // each answer is one JSON object
        while !answer.ends_with(b"}") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{line}: the connection was closed");
        }
        assert!(answer.starts_with(b"HTTP/1.1 4"), "{line}");
    }
}
