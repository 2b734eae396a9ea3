//! Types and bounds of requests, as the documents have them: neither stricter nor laxer.

use crate::cloud_support::Rig;
use reqwest::Method;
use serde_json::{Value, json};

/// A model and a variant of the default data, and their products.
const VEHICLE: &str = "vehicle_model_id=2&vehicle_model_variant_id=2";

fn ticket(rig: &Rig) -> Value {
    json!({
        "vin": "JFL91010104391010", "vehicle_model_id": 2, "vehicle_model_variant_id": 2,
        "connector_id": rig.cloud.connector_id, "product_ids": [1], "metadata": {},
    })
}

#[tokio::test]
async fn a_filter_for_what_is_not_there_gives_an_empty_page() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let nothing = uuid::Uuid::new_v4();
    for query in [
        format!("/v1/products?{VEHICLE}&product_group_id=99999"),
        format!("/v1/products?{VEHICLE}&product_bundle_id={nothing}"),
        "/v1/products?vehicle_model_id=99999&vehicle_model_variant_id=2".to_owned(),
        "/v1/product-groups?vehicle_model_id=99999&vehicle_model_variant_id=99999".to_owned(),
        "/v1/product-groups?vehicle_model_id=2&vehicle_model_variant_id=3".to_owned(),
        format!("/v1/product-bundles?{VEHICLE}&product_group_id=99999"),
        "/v1/product-bundles?vehicle_model_id=99999&vehicle_model_variant_id=99999".to_owned(),
        format!("/v1/product-prerequisites?{VEHICLE}&product_id=99999"),
        "/v1/product-prerequisites?vehicle_model_id=99999&vehicle_model_variant_id=9&product_id=3".to_owned(),
        "/v1/vehicles/model-groups?vehicle_make_id=99999".to_owned(),
        "/v1/vehicles/models?vehicle_model_group_id=99999".to_owned(),
        "/v1/vehicles/model-variants?vehicle_model_id=99999".to_owned(),
        "/v1/historical-tickets?vin=00000000000000001&connector_id=99999".to_owned(),
        "/v1/prepared-tickets?vin=x".to_owned(),
    ] {
        let page = rig.get(&token, &query).await.expect(200);
        assert_eq!((&page["result"], &page["total"]), (&json!([]), &json!(0)), "{query}");
    }
}

#[tokio::test]
async fn numbers_of_a_body_are_text_only_where_an_example_has_text() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let mut body = ticket(&rig);
    body["vehicle_model_id"] = json!("2");
    body["vehicle_model_variant_id"] = json!("2");
    for (field, value, violated) in [
        ("connector_id", json!(rig.cloud.connector_id.to_string()), "connector_id"),
        ("product_ids", json!(["1"]), "product_ids.0"),
    ] {
        let mut body = body.clone();
        body[field] = value;
        rig.post(&token, "/v1/tickets", body).await.violates(&[violated]);
    }
    rig.post(&token, "/v1/tickets", body).await.expect(201);
    let cart = json!({"vehicle_model_id": 2, "vehicle_model_variant_id": 2, "product_ids": [1]});
    for (field, value, violated) in [
        ("vehicle_model_id", json!("2"), "vehicle_model_id"),
        ("vehicle_model_variant_id", json!("2"), "vehicle_model_variant_id"),
        ("product_ids", json!(["1"]), "product_ids.0"),
    ] {
        let mut body = cart.clone();
        body[field] = value;
        rig.post(&token, "/v1/cart/calculate-prices", body).await.violates(&[violated]);
    }
    let otp = rig.request(Method::POST, "/v1/authenticate/otp").json(&json!({"otp": 839_201}));
    rig.answer(otp).await.violates(&["otp"]);
}

#[tokio::test]
async fn null_is_refused_where_the_documents_name_only_a_type() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    let cart = json!({"vehicle_model_id": 2, "vehicle_model_variant_id": 2, "product_ids": [1]});
    let employee = json!({"given_name": "A", "family_name": "B", "username": null});
    let made = rig.post(&token, "/v1/employees", employee.clone()).await.expect(201);
    let chat = rig.post(&token, "/v1/tickets", ticket(&rig)).await.expect(201)["chat_id"].clone();
    let own = format!("/v1/employees/{}", made["id"].as_str().unwrap());
    let attachments = format!("/v1/channel-attachments?channel_id={}", chat.as_str().unwrap());
    let (post, put) = (Method::POST, Method::PUT);
    let everything = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
    let company = "name street number postal_code city country email_address financial_email_address phone";
    let product = "id item_number name internal_name description is_favorite is_unattended gross_price net_price \
                   total_discount price";
    for (method, path, body, fields) in [
        (&post, "/v1/cart/calculate-prices", cart, everything(&["voucher"])),
        (
            &post,
            "/v1/tickets",
            ticket(&rig),
            everything(&["voucher", "reference", "confirmed_unattended_service", "product_prerequisites"]),
        ),
        (&post, "/v1/employees", employee.clone(), everything(&["correspondence_locale", "given_name"])),
        (&put, &own, employee, everything(&["correspondence_locale", "family_name"])),
        (&put, "/v1/customers/me", json!({}), company.split(' ').map(str::to_owned).collect()),
        (
            &post,
            "/v1/favorite-products",
            json!({"id": 1}),
            product.split_whitespace().map(str::to_owned).collect(),
        ),
        (&post, &attachments, json!({}), everything(&["file_name"])),
        (
            &post,
            "/v1/authenticate/pincode",
            json!({"connector_id": "1", "pincode": "1"}),
            everything(&["connector_id", "pincode"]),
        ),
        (
            &post,
            "/v2/authenticate/pincode",
            json!({"connector_uuid": "5f3d760d-ade2-4a19-aea4-36e097678ae3", "pincode": "1"}),
            everything(&["connector_uuid", "pincode"]),
        ),
        (&post, "/v1/authenticate/otp", json!({}), everything(&["otp"])),
    ] {
        for field in fields {
            let mut body = body.clone();
            body[&field] = Value::Null;
            let answer = rig.send(method.clone(), &token, path, body).await;
            assert_eq!(answer.status, 400, "{path} {field}: {}", answer.body);
            answer.violates(&[&field]);
        }
    }
    // and is accepted where they name it
    let employee = json!({"given_name": "A", "family_name": "B", "username": null, "enabled": null});
    rig.post(&token, "/v1/employees", employee).await.expect(201);
    let favorite = json!({"id": 1, "original_equipment_service_fee": null});
    rig.post(&token, "/v1/favorite-products", favorite).await.expect(201);
    let cart = json!({
        "vehicle_model_id": 2, "vehicle_model_variant_id": 2, "product_ids": [1], "vin": null,
        "prepared_ticket_id": null,
    });
    rig.post(&token, "/v1/cart/calculate-prices", cart).await.expect(200);
}

#[tokio::test]
async fn a_number_beyond_its_bits_is_a_violation_of_its_field() {
    let rig = Rig::start().await;
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let mut body = json!({
        "customer_id": rig.cloud.customer_id, "vin": null, "preparer_external_reference": "",
    });
    body["vehicle_model_id"] = json!(2.0_f64.powi(70));
    rig.post(&operator, "/v2/tickets/prepared-tickets", body).await.violates(&["vehicle_model_id"]);
    let query = format!("/v1/products?{VEHICLE}&product_group_id=2147483648");
    rig.get(&customer, &query).await.violates(&["product_group_id"]);
}

#[tokio::test]
async fn an_answer_without_a_number_is_left_out_and_not_null() {
    let rig = Rig::start().await;
    let token = rig.customer_token().await;
    for answer in [json!({"definition_id": null, "value": "x"}), json!({"definition_id": 1, "value": null})] {
        let mut body = ticket(&rig);
        body["product_prerequisites"] = json!([answer]);
        rig.post(&token, "/v1/tickets", body).await.problem(400, "violations");
    }
}

#[tokio::test]
async fn a_forgotten_password_takes_any_text_as_address() {
    let rig = Rig::start().await;
    let path = "/legacy/api/mobile/authentication/authenticate/forgot/password";
    let ask = |body: Value| rig.answer(rig.request(Method::POST, path).json(&body));
    assert_eq!(ask(json!({"email_address": "garage"})).await.expect(200), json!({"method": "SESSION"}));
    ask(json!({"email_address": null})).await.violates(&["email_address"]);
    ask(json!({})).await.violates(&["email_address"]);
}
