//! A request with several faults gets all of them in one answer.

use std::collections::BTreeSet;

use crate::cloud_support::{Answer, PRODUCT, Rig};
use reqwest::Method;
use serde_json::{Map, Value, json};

/// A UUID that names nothing.
const NEITHER: &str = "97a0e81d-d0ac-42ae-9195-a11732ad3299";
const VIN: &str = "JFL91010104391010";

/// The fields that the violations name, without their elements.
fn fields(answer: Answer) -> BTreeSet<String> {
    let body = answer.problem(400, "violations");
    let named = body["violations"].as_array().unwrap().iter().map(|one| one["field"].as_str().unwrap());
    named.map(|field| field.split('.').next().unwrap().to_owned()).collect()
}

/// Whether a schema, or one of its alternatives, has this type or is of any type.
fn takes(schema: &Value, wanted: &str) -> bool {
    if let Some(any) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
        return any.iter().any(|one| takes(one, wanted));
    }
    match &schema["type"] {
        Value::Null => true,
        Value::Array(types) => types.iter().any(|known| known == wanted),
        known => known == wanted,
    }
}

/// A value that the schema does not take.
fn wrong(schema: &Value) -> Value {
    if takes(schema, "object") { json!(7) } else { json!({}) }
}

/// The parameters of a part, with whether each is required and cannot be any text.
fn parameters<'a>(operation: &'a Value, part: &'a str) -> impl Iterator<Item = (&'a str, bool, bool)> {
    let all = operation["parameters"].as_array().into_iter().flatten();
    all.filter(move |parameter| parameter["in"] == part).map(|parameter| {
        let schema = &parameter["schema"];
        let is_text = takes(schema, "string") && schema.get("format").is_none();
        (parameter["name"].as_str().unwrap(), parameter["required"] == true, !is_text)
    })
}

#[tokio::test]
async fn every_operation_reports_all_faults_of_path_query_and_body_at_once() {
    let rig = Rig::start().await;
    let (mut with_body, mut compared) = (0, 0);
    for (api, token) in [("customer", rig.customer_token().await), ("partner", rig.operator_token().await)] {
        let description = rig.get("", &format!("/sandbox/openapi/{api}.json")).await.expect(200);
        let paths = description["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, operation)| (path, method, operation))
        });
        for (path, method, operation) in operations.filter(|(_, method, _)| *method != "options") {
            let (mut expected, mut filled) = (BTreeSet::new(), path.clone());
            for (name, _, is_typed) in parameters(operation, "path") {
                filled = filled.replace(&format!("{{{name}}}"), "x");
                expected.extend(is_typed.then(|| name.to_owned()));
            }
            let absent: Vec<_> = parameters(operation, "query")
                .filter(|(_, required, _)| *required)
                .map(|(name, ..)| name)
                .collect();
            expected.extend(absent.iter().map(|name| (*name).to_owned()));
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut bodies = Vec::new();
            if let Some(properties) = schema["properties"].as_object() {
                with_body += 1;
                let required = schema["required"].as_array().into_iter().flatten();
                let required: BTreeSet<_> = required.map(|name| name.as_str().unwrap().to_owned()).collect();
                let faulty = properties.iter().map(|(name, schema)| (name.clone(), wrong(schema)));
                let faulty: Map<String, Value> = faulty.collect();
                bodies.push((json!({}), required));
                let all = properties.keys().cloned().collect();
                bodies.push((Value::Object(faulty), all));
            } else {
                bodies.push((Value::Null, BTreeSet::new()));
            }
            for (body, wanted) in bodies {
                let wanted: BTreeSet<String> = wanted.union(&expected).cloned().collect();
                if wanted.is_empty() {
                    continue;
                }
                compared += 1;
                let answer = rig.send(method.clone(), &token, &filled, body.clone()).await;
                assert_eq!(fields(answer), wanted, "{method} {path} with {body}");
            }
        }
    }
    assert!(with_body >= 15 && compared >= 45, "{with_body} {compared}");
}

/// The fields and the number of their violations.
fn counted(answer: Answer) -> Vec<(String, usize)> {
    let body = answer.problem(400, "violations");
    let mut counted: Vec<(String, usize)> = Vec::new();
    for violation in body["violations"].as_array().unwrap() {
        let field = violation["field"].as_str().unwrap();
        match counted.iter_mut().find(|(known, _)| known == field) {
            Some((_, count)) => *count += 1,
            None => counted.push((field.to_owned(), 1)),
        }
    }
    counted
}

fn expected(fields: &[(&str, usize)]) -> Vec<(String, usize)> {
    fields.iter().map(|(field, count)| ((*field).to_owned(), *count)).collect()
}

#[tokio::test]
async fn values_that_the_data_set_does_not_have_are_all_reported_at_once() {
    let rig = Rig::start().await;
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let nobody = "97a0e81d-d0ac-42ae-9195-a11732ad322a";
    let unknown = json!({
        "vehicle_model_id": 42_424_242, "vehicle_model_variant_id": 42_424_242, "product_ids": [42, 43],
        "voucher": "NEVER", "prepared_ticket_id": nobody,
    });
    let answer = rig.post(&customer, "/v1/cart/calculate-prices", unknown.clone()).await;
    let cart = [
        ("vehicle_model_id", 1),
        ("vehicle_model_variant_id", 1),
        ("product_ids", 2),
        ("prepared_ticket_id", 1),
        ("voucher", 1),
    ];
    assert_eq!(counted(answer), expected(&cart));

    let mut ticket = unknown;
    ticket["vin"] = json!(VIN);
    ticket["connector_id"] = json!(42);
    ticket["metadata"] = json!({"text": "x".repeat(20_000)});
    ticket["product_prerequisites"] =
        json!([{"definition_id": 42_424, "value": "x"}, {"definition_id": 42_425}]);
    let answer = rig.post(&customer, "/v1/tickets", ticket).await;
    let all = [
        ("vehicle_model_id", 1),
        ("vehicle_model_variant_id", 1),
        ("product_ids", 2),
        ("product_prerequisites", 2),
        ("metadata", 1),
        ("connector_id", 1),
        ("prepared_ticket_id", 1),
        ("voucher", 1),
    ];
    assert_eq!(counted(answer), expected(&all));

    let employee =
        json!({"given_name": "A", "family_name": "B", "username": null, "correspondence_locale": "tlh"});
    let answer = rig.send(Method::PUT, &customer, "/v1/employees/me", employee).await;
    assert_eq!(counted(answer), expected(&[("username", 1), ("correspondence_locale", 1)]));

    let outsource = json!({"transition": {"type": "outsource", "product_ids": [nobody, PRODUCT, NEITHER],
        "provider_id": nobody}});
    let path = format!("/v2/tickets/in-progress-tickets/{nobody}");
    let answer = rig.patch(&operator, &path, outsource).await;
    assert_eq!(counted(answer), expected(&[("transition.product_ids", 2), ("transition.provider_id", 1)]));
}

#[tokio::test]
async fn what_differs_from_a_prepared_ticket_is_reported_beside_the_other_faults() {
    let rig = Rig::start().await;
    let (customer, operator) = (rig.customer_token().await, rig.operator_token().await);
    let prepared = json!({
        "customer_id": "97a0e81d-d0ac-42ae-9195-a11732ad322a", "vehicle_model_id": 3, "vin": VIN,
        "voucher_code": null, "preparer_external_reference": "",
    });
    let prepared = rig.post(&operator, "/v2/tickets/prepared-tickets", prepared).await.expect(201);
    let mut ticket = rig.ticket_body(Some("JFL91010104391011"));
    ticket["prepared_ticket_id"] = prepared["id"].clone();
    ticket["voucher"] = json!("NEVER");
    let answer = rig.post(&customer, "/v1/tickets", ticket).await;
    assert_eq!(counted(answer), expected(&[("vin", 1), ("prepared_ticket_id", 1), ("voucher", 1)]));
}
