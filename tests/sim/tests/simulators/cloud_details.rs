//! Rules of single resources that follow from a sentence or an example of the documents.

use crate::cloud_support::{PRODUCT, Rig};
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const VEHICLE: &str = "vehicle_model_id=2&vehicle_model_variant_id=2";
const VIN: &str = "JFL91010104391010";

async fn ids(rig: &Rig, token: &str, path: &str) -> Vec<Value> {
    let page = rig.get(token, path).await.expect(200);
    page["result"].as_array().unwrap().iter().map(|one| one["id"].clone()).collect()
}

#[tokio::test]
async fn favourites_are_the_default_of_every_list_of_products() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let bundle = ids(&rig, &token, &format!("/v1/product-bundles?{VEHICLE}")).await.remove(0);
    let of_bundle = format!("&product_bundle_id={}", bundle.as_str().unwrap());
    for (query, expected) in [
        ("", json!([1])),
        ("&product_group_id=1", json!([1])),
        (of_bundle.as_str(), json!([])),
        ("&product_group_id=1&is_favorite=true", json!([1])),
        ("&product_group_id=1&is_favorite=false", json!([2])),
        ("&product_group_id=1&is_favorite=0", json!([2])),
        ("&product_group_id=1&is_favorite=2", json!([1])),
        ("&product_group_id=1&is_favorite=-1", json!([1])),
    ] {
        let found = ids(&rig, &token, &format!("/v1/products?{VEHICLE}{query}")).await;
        assert_eq!(json!(found), expected, "{query}");
    }
    rig.get(&token, &format!("/v1/products?{VEHICLE}&is_favorite=maybe")).await.violates(&["is_favorite"]);
}

#[tokio::test]
async fn a_phone_number_comes_back_as_it_was_given() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    for (given, returned) in [
        (json!(31_651_226_913_i64), json!(31_651_226_913_i64)),
        (json!("31651226913"), json!(31_651_226_913_i64)),
        (json!("0651226913"), json!("0651226913")),
        (json!("+31 (6) 51-226913"), json!("+31 (6) 51-226913")),
        (json!("ask for John"), json!("ask for John")),
    ] {
        let changed = rig.send(Method::PUT, &token, "/v1/customers/me", json!({"phone": given})).await;
        assert_eq!(changed.expect(200)["phone"], returned);
        assert_eq!(rig.get(&token, "/v1/customers/me").await.expect(200)["phone"], returned);
    }
    let wrong = rig.send(Method::PUT, &token, "/v1/customers/me", json!({"phone": true})).await;
    wrong.violates(&["phone"]);
}

#[tokio::test]
async fn a_price_without_discount_has_a_discount_of_zero() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let zero = json!({"type": "percentual", "percentage": 0.0, "price":
        {"currency": "EUR", "value": 0.0, "localized_value": 0.0, "localized_currency": "EUR"}});
    let list = rig.get(&token, &format!("/v1/products?{VEHICLE}")).await.expect(200);
    assert_eq!(list["result"][0]["total_discount"], zero);
    assert_eq!(list["result"][0]["original_equipment_service_fee"], Value::Null, "none applies");
    let body = json!({"vehicle_model_id": 2, "vehicle_model_variant_id": 2, "product_ids": [1]});
    let cart = rig.post(&token, "/v1/cart/calculate-prices", body).await.expect(200);
    assert_eq!(cart["voucher_discount"], zero);
    assert_eq!(cart["items"][0]["total_discount"], zero);
    assert_eq!(cart["items"][0]["original_equipment_service_fee"]["value"], 0.0);
    for total in ["sub_total", "voucher_sub_total", "original_equipment_service_fee", "total"] {
        assert_eq!(cart[total]["total_discount"], zero, "{total}");
    }
}

#[tokio::test]
async fn bundles_have_the_products_that_the_vehicle_can_get() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let example = json!("5f3d760d-ade2-4a19-aea4-36e097678ae3");
    // the bundle of the documents is for other vehicles
    let found = ids(&rig, &token, &format!("/v1/product-bundles?{VEHICLE}")).await;
    assert!(!found.is_empty() && !found.contains(&example), "{found:?}");
    let path = "/v1/product-bundles?vehicle_model_id=284841&vehicle_model_variant_id=284841";
    assert!(ids(&rig, &token, path).await.contains(&example));
}

#[tokio::test]
async fn the_user_is_the_employee_and_its_times_are_those_of_rfc_3339() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let body = json!({"given_name": "Ada", "family_name": "Lovelace", "username": "ada@example.com"});
    let employee = rig.send(Method::PUT, &token, "/v1/employees/me", body).await.expect(200);
    let user = rig.get(&token, "/v1/users/me").await.expect(200);
    assert_eq!(
        (&user["first_name"], &user["last_name"], &user["id"]),
        (&json!("Ada"), &json!("Lovelace"), &employee["id"])
    );
    let until =
        user["service_provider"]["service_center"]["tickets_scheduler_active_until"].as_str().unwrap();
    OffsetDateTime::parse(until, &Rfc3339).unwrap();
    // the state of the service center is printed without a colon in the offset
    let state = rig.get(&token, "/v1/service-center/state").await.expect(200);
    assert_eq!(state["ends_at"], "2099-12-31T23:59:59+0000");
}

#[tokio::test]
async fn an_outsourced_ticket_has_not_ended_for_the_customer() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let body = json!({
        "vin": VIN, "vehicle_model_id": 284_841, "vehicle_model_variant_id": 284_841,
        "connector_id": rig.cloud.connector_id, "product_ids": [1], "metadata": {},
    });
    let made = rig.post(&token, "/v1/tickets", body.clone()).await.expect(201);
    let joined = rig.join(&made).await;
    assert_eq!(rig.transition(&joined, "outsource").await.status, 303, "{PRODUCT}");
    let one = format!("/v1/historical-tickets/{}", made["id"].as_str().unwrap());
    rig.get(&token, &one).await.problem(404, "not-found");
    for path in ["/v1/historical-tickets", "/v1/serviced-vehicles"] {
        assert_eq!(rig.get(&token, path).await.expect(200)["total"], 0, "{path}");
    }
    let made = rig.post(&token, "/v1/tickets", body).await.expect(201);
    rig.transition(&rig.join(&made).await, "cancel").await;
    assert_eq!(rig.get(&token, "/v1/historical-tickets").await.expect(200)["result"][0]["state"], 6);
}
