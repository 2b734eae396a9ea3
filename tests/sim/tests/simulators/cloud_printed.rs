//! What the documents print works with the default data, also when it is repeated.

use crate::cloud_support::{PRODUCT, Rig};
use reqwest::Method;
use serde_json::{Value, json};

const EXAMPLES: &str = include_str!("../../fixtures/vendor/examples.json");
const VIN: &str = "JFL91010104391010";
const PREPARED: &str = "/v2/tickets/prepared-tickets";

/// The body that a source prints for an operation.
fn printed(operation: &str, source: &str) -> Value {
    let steps: Vec<Value> = serde_json::from_str(EXAMPLES).unwrap();
    let is_it = |step: &&Value| {
        step["operation"] == operation && step["source"].as_str().is_some_and(|from| from.contains(source))
    };
    steps.iter().find(is_it).unwrap()["request"].clone()
}

/// Ends the ticket that the connector has, so that it can get another one.
async fn finish(rig: &Rig, ticket: &Value) {
    let joined = rig.join(ticket).await;
    assert_eq!(rig.transition(&joined, "complete").await.status, 303);
}

#[tokio::test]
async fn the_printed_logins_work_with_the_default_data() {
    let rig = Rig::start().await;
    for (operation, path) in [
        ("POST /v2/authenticate/pincode", "/v2/authenticate/pincode"),
        ("POST /v1/authenticate/pincode", "/v1/authenticate/pincode"),
        ("POST /v1/authenticate/otp", "/v1/authenticate/otp"),
    ] {
        let request = rig.request(Method::POST, path).json(&printed(operation, "S2"));
        let tokens = rig.answer(request).await.expect(200);
        let token = tokens["access_token"].as_str().unwrap();
        let own = rig.get(token, "/v1/connectors").await.expect(200);
        assert_eq!(own["total"], 1, "{path}");
        if path != "/v1/authenticate/pincode" {
            let ticket = rig.post(token, "/v1/tickets", printed("POST /v1/tickets", "S2")).await.expect(201);
            finish(&rig, &ticket).await;
        }
    }
}

#[tokio::test]
async fn a_connectors_file_brings_no_connector_of_the_documents() {
    let uuid = uuid::Uuid::new_v4();
    let rig = Rig::start_with(|config| {
        config.connectors = vec![connector_sim::cloud::ConnectorSeed::new(uuid, "4711")];
    })
    .await;
    let printed = printed("POST /v2/authenticate/pincode", "S2");
    let login = rig.request(Method::POST, "/v2/authenticate/pincode").json(&printed);
    rig.answer(login).await.problem(401, "unauthorized");
    let all = rig.get(&rig.customer_token().await, "/v1/connectors").await.expect(200);
    assert_eq!(all["total"], 1);
}

#[tokio::test]
async fn the_printed_cart_and_ticket_work_again_after_the_ticket_has_ended() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let cart = printed("POST /v1/cart/calculate-prices", "S2");
    let mut tickets = Vec::new();
    for source in ["S2", "S4", "S0"] {
        rig.post(&token, "/v1/cart/calculate-prices", cart.clone()).await.expect(200);
        let ticket = rig.post(&token, "/v1/tickets", printed("POST /v1/tickets", source)).await.expect(201);
        rig.post(&token, "/v1/cart/calculate-prices", cart.clone()).await.expect(200);
        finish(&rig, &ticket).await;
        tickets.push(ticket);
    }
    // the first one is the prepared ticket; the others have its content, and numbers of their own
    assert_eq!(tickets[0]["uuid"], cart["prepared_ticket_id"]);
    assert_ne!(tickets[1]["uuid"], tickets[0]["uuid"]);
    assert_ne!(tickets[2]["id"], tickets[1]["id"]);
}

#[tokio::test]
async fn a_prepared_ticket_that_was_picked_up_is_no_longer_prepared() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let before = rig.get(&operator, PREPARED).await.expect(200)["total"].as_i64().unwrap();
    let body = printed("POST /v1/tickets", "S2");
    let id = body["prepared_ticket_id"].as_str().unwrap().to_owned();
    rig.post(&customer, "/v1/tickets", body).await.expect(201);
    assert_eq!(rig.get(&operator, PREPARED).await.expect(200)["total"], before - 1);
    let path = format!("{PREPARED}/{id}");
    rig.get(&operator, &path).await.problem(404, "not-found");
    let delete = rig.request(Method::DELETE, &path).bearer_auth(&operator);
    rig.answer(delete).await.problem(404, "not-found");
    let replacement = printed("PUT /v2/tickets/prepared-tickets/{prepared-ticket-id}", "S1");
    rig.send(Method::PUT, &operator, &path, replacement).await.problem(404, "not-found");
    let line = format!("/sandbox{path}/product-lines");
    rig.post(&operator, &line, json!({"product_id": PRODUCT})).await.problem(404, "not-found");
}

#[tokio::test]
async fn the_printed_prepared_ticket_can_be_created_twice() {
    let rig = Rig::start().await;
    let operator = rig.operator_token().await;
    let body = printed("POST /v2/tickets/prepared-tickets", "S1");
    assert_eq!(body["vin"], "string");
    let first = rig.post(&operator, PREPARED, body.clone()).await.expect(201);
    let second = rig.post(&operator, PREPARED, body.clone()).await.expect(201);
    assert_ne!(first["id"], second["id"]);
    assert_eq!((&second["voucher_code"], &second["vin"]), (&json!("WQ4MM3"), &json!("string")));
    let path = format!("{PREPARED}/{}", second["id"].as_str().unwrap());
    assert_eq!(rig.send(Method::PUT, &operator, &path, body).await.expect(200), second);
}

#[tokio::test]
async fn the_printed_employee_can_be_added_and_changed_in_any_order() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    for _ in 0..2 {
        rig.post(&token, "/v1/employees", printed("POST /v1/employees", "S2")).await.expect(201);
        let body = printed("PUT /v1/employees/{employeeId}", "S2");
        rig.send(Method::PUT, &token, "/v1/employees/me", body).await.expect(200);
    }
}

#[tokio::test]
async fn the_queries_that_the_documents_print_find_something() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    for query in [
        "/v1/product-groups?vehicle_model_id=332423&vehicle_model_variant_id=332423",
        "/v1/product-bundles?product_group_id=2691&vehicle_model_id=332423&vehicle_model_variant_id=332423",
        "/v1/products?product_group_id=2691&vehicle_model_id=332423&vehicle_model_variant_id=332423&is_favorite=false",
        "/v1/product-prerequisites?vehicle_model_variant_id=1480&vehicle_model_id=332423\
         &product_id=100593,200593,300593",
        "/v1/prepared-tickets?vin=JFL91010104491010",
        "/v1/vehicles/model-groups?vehicle_make_id=2691",
        "/v1/vehicles/models?vehicle_model_group_id=2691",
        "/v1/vehicles/model-variants?vehicle_model_id=2691",
    ] {
        let page = rig.get(&token, query).await.expect(200);
        assert_ne!(page["result"], json!([]), "{query}");
    }
    rig.get(&token, "/v1/vehicles/search?vin=JFL91010104391010").await.expect(200);
    rig.get(&token, "/v1/historical-tickets?vin=JFL91010104491010&connector_id=910101043").await.expect(200);
}

#[tokio::test]
async fn a_vin_has_seventeen_characters_of_any_kind() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let mut body = printed("POST /v2/tickets/prepared-tickets", "S1");
    for vin in ["IOQ00000000000001", "00000000000000000", "jh4ka7630pc007649", "ÄÖÜ-4567 90123456"] {
        body["vin"] = json!(vin);
        assert_eq!(rig.post(&operator, PREPARED, body.clone()).await.expect(201)["vin"], vin);
    }
    let mut ticket = printed("POST /v1/tickets", "S2");
    ticket["vin"] = json!("IOQ00000000000001");
    let made = rig.post(&customer, "/v1/tickets", ticket.clone()).await.expect(201);
    assert_eq!((&made["vin"], &made["vinNumber"]), (&ticket["vin"], &ticket["vin"]));
    let joined = rig.join(&made).await;
    let path = format!("/v2/tickets/in-progress-tickets/{}", joined["id"].as_str().unwrap());
    assert_eq!(rig.get(&operator, &path).await.expect(200)["vin"], ticket["vin"]);
    for vin in ["1234567890123456", "123456789012345678", ""] {
        ticket["vin"] = json!(vin);
        rig.post(&customer, "/v1/tickets", ticket.clone()).await.violates(&["vin"]);
        body["vin"] = json!(vin);
        rig.post(&operator, PREPARED, body.clone()).await.violates(&["vin"]);
    }
}

#[tokio::test]
async fn the_voucher_of_a_prepared_ticket_gives_a_discount_from_cart_to_history() {
    let rig = Rig::start().await;
    let (operator, customer) = (rig.operator_token().await, rig.customer_token().await);
    let mut body = printed("POST /v2/tickets/prepared-tickets", "S1");
    (body["customer_id"], body["vin"]) = (json!(rig.cloud.customer_id), json!(VIN));
    let prepared = rig.post(&operator, PREPARED, body).await.expect(201);
    let line = format!("/sandbox{PREPARED}/{}/product-lines", prepared["id"].as_str().unwrap());
    rig.post(&operator, &line, json!({"product_id": PRODUCT})).await.expect(204);
    // product 1 twice: one line of the history
    let vehicle = json!({"vehicle_model_id": 284_841, "vehicle_model_variant_id": 284_841});
    let mut cart = vehicle.clone();
    cart["product_ids"] = json!([1, 1]);
    cart["prepared_ticket_id"] = prepared["id"].clone();
    let price = rig.post(&customer, "/v1/cart/calculate-prices", cart.clone()).await.expect(200);
    assert_eq!(
        (&price["voucher"], &price["voucher_discount"]["percentage"]),
        (&json!("WQ4MM3"), &json!(10.0))
    );
    assert_eq!(price["total"]["net_price"]["value"], 144.0);
    let mut ticket = cart;
    (ticket["vin"], ticket["connector_id"]) = (json!(VIN), json!(rig.cloud.connector_id));
    ticket["metadata"] = json!({});
    let made = rig.post(&customer, "/v1/tickets", ticket.clone()).await.expect(201);
    let joined = rig.join(&made).await;
    let path = format!("/v2/tickets/in-progress-tickets/{}", joined["id"].as_str().unwrap());
    assert_eq!(rig.get(&operator, &path).await.expect(200)["voucher_code"], "WQ4MM3");
    rig.transition(&joined, "complete").await;
    let path = format!("/v1/historical-tickets/{}", made["id"].as_str().unwrap());
    let history = rig.get(&customer, &path).await.expect(200);
    assert_eq!(history["voucher"], "WQ4MM3");
    assert_eq!(history["total"]["net_price"]["value"], 144.0, "{history}");
    let lines = history["product_lines"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["quantity"]), (1, &json!(2)));
    assert_eq!(lines[0]["gross_price"]["value"], 160.0);
    // the code is for a discount: the prepared ticket is picked up by its identifier alone
    let mut other = ticket;
    other.as_object_mut().unwrap().remove("prepared_ticket_id");
    other["voucher"] = json!("SANDBOX");
    let made = rig.post(&customer, "/v1/tickets", other).await.expect(201);
    assert_ne!(made["uuid"], prepared["id"]);
}
