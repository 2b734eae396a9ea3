//! Every operation that the documents and the published pages name, with its path.

use crate::cloud_support::Rig;
use reqwest::Method;

/// The operations of the customer API.
const CUSTOMER: [&str; 47] = [
    "GET /v1/connectors",
    "GET /v1/connectors/910101043",
    "GET /v2/connectors/6ec2911c-a09a-11ee-8c90-0242ac120002",
    "POST /v2/connectors/6ec2911c-a09a-11ee-8c90-0242ac120002/actions/dismiss-call-for-attention",
    "GET /v1/connectors/910101043/active-ticket",
    "GET /v1/product-groups",
    "GET /v1/product-bundles",
    "GET /v1/products",
    "POST /v1/favorite-products",
    "DELETE /v1/favorite-products/52351",
    "GET /v1/product-prerequisites",
    "POST /v1/tickets/100001/csat",
    "GET /v1/tickets/100001/notes",
    "GET /v1/historical-tickets",
    "GET /v1/historical-tickets/100001",
    "GET /v1/prepared-tickets",
    "POST /v1/tickets",
    "GET /v1/serviced-vehicles",
    "GET /v1/vehicles/search",
    "GET /v1/vehicles/makes",
    "GET /v1/vehicles/model-groups",
    "GET /v1/vehicles/model-groups/234",
    "GET /v1/vehicles/models",
    "GET /v1/vehicles/models/23423",
    "GET /v1/vehicles/model-variants",
    "GET /v1/vehicles/model-variants/34234",
    "POST /v1/cart/calculate-prices",
    "GET /v1/users/me",
    "GET /v1/employees",
    "POST /v1/employees",
    "GET /v1/employees/me",
    "PUT /v1/employees/me",
    "GET /v1/customers/me",
    "PUT /v1/customers/me",
    "GET /v1/branding/me",
    "GET /v1/service-center",
    "GET /v1/service-center/state",
    "POST /legacy/api/mobile/authentication/authenticate/forgot/password",
    "POST /v1/authenticate/pincode",
    "POST /v2/authenticate/pincode",
    "POST /v1/authenticate/otp",
    "POST /v1/translate",
    "POST /v1/channels/x/actions/send-control-message",
    "POST /v1/channel-attachments?channel_id=x",
    "GET /v1/channel-attachments?channel_id=x",
    "GET /v1/channels/x",
    "GET /v1/customer-wallet",
];

/// The operations of the partner API, those of published pages among them.
const PARTNER: [&str; 26] = [
    "POST /oauth2/token",
    "GET /v2/tickets/prepared-tickets",
    "POST /v2/tickets/prepared-tickets",
    "GET /v2/tickets/prepared-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "PUT /v2/tickets/prepared-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "DELETE /v2/tickets/prepared-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "GET /v2/tickets/in-progress-tickets",
    "GET /v2/tickets/in-progress-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "PUT /v2/tickets/in-progress-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "PATCH /v2/tickets/in-progress-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "GET /v2/tickets/pending-tickets",
    "GET /v2/tickets/pending-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "GET /v2/tickets/outsourced-tickets",
    "GET /v2/tickets/outsourced-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "GET /v2/tickets/closed-tickets",
    "GET /v2/tickets/closed-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "GET /v2/tickets/cancelled-tickets",
    "GET /v2/tickets/cancelled-tickets/6ec2911c-a09a-11ee-8c90-0242ac120099",
    "GET /v2/tickets/cancel-reasons",
    "GET /v2/tickets/service-center",
    "GET /v2/customers/connectors",
    "GET /v2/providers/providers",
    "GET /v2/providers/providers/05070000-0000-4000-8000-000000000001",
    "GET /v2/vehicles/model-groups",
    "GET /v2/vehicles/model-groups/234",
    "GET /v2/vehicles/models",
];

/// Resources that only published pages name, and that the sandbox does not have.
const NOT_SERVED: [&str; 15] = [
    "/v2/tickets/tickets",
    "/v2/tickets/outsources",
    "/v2/tickets/product-lines",
    "/v2/tickets/outsource-product-lines",
    "/v2/tickets/messenger-channel/messages",
    "/v2/customers/employees",
    "/v2/customers/customers",
    "/v2/customers/locations/x",
    "/v2/providers/employees",
    "/v2/product-catalog/outsource-applications",
    "/v2/product-catalog/applications",
    "/v2/product-catalog/services",
    "/v2/vehicles/makes/10",
    "/v2/system/events",
    "/v2/system/locales",
];

#[tokio::test]
async fn every_named_operation_has_its_path_and_method() {
    let rig = Rig::start().await;
    let mut missing = Vec::new();
    for row in CUSTOMER.iter().chain(&PARTNER) {
        let (method, path) = row.split_once(' ').unwrap();
        let answer = rig.answer(rig.request(Method::OPTIONS, path)).await;
        let allowed = answer.headers.get("access-control-allow-methods").map(|value| value.to_str().unwrap());
        let has_method =
            allowed.is_some_and(|allowed| allowed.split(',').any(|known| known.trim() == method));
        if answer.status != 200 || !has_method {
            missing.push(format!("{row}: {} {allowed:?}", answer.status));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    for path in NOT_SERVED {
        rig.answer(rig.request(Method::OPTIONS, path)).await.problem(404, "not-found");
    }
}

#[tokio::test]
async fn the_operations_of_published_pages_answer_with_their_fields() {
    let rig = Rig::start().await;
    let token = rig.operator_token().await;
    let connectors =
        rig.get(&token, "/v2/customers/connectors?type=physical&assigned=true").await.expect(200);
    assert_eq!(connectors["result"][0]["id"], rig.cloud.connector_uuid.to_string());
    assert_eq!(connectors["result"][0]["name"], rig.cloud.connector_id.to_string());
    for empty in
        ["type=virtual", "assigned=false", "name=1", "customer_id=6ec2911c-a09a-11ee-8c90-0242ac120099"]
    {
        let page = rig.get(&token, &format!("/v2/customers/connectors?{empty}")).await.expect(200);
        assert_eq!(page["total"], 0, "{empty}");
    }
    let group = rig.get(&token, "/v2/vehicles/model-groups/234").await.expect(200);
    assert_eq!((&group["id"], &group["enabled"]), (&234.into(), &true.into()));
    let of_make = format!("/v2/vehicles/model-groups?make_id={}&limit=1000", group["make_id"]);
    let groups = rig.get(&token, &of_make).await.expect(200);
    assert!(groups["result"].as_array().unwrap().contains(&group), "{groups}");
    let models = rig.get(&token, "/v2/vehicles/models?model_group_id=234").await.expect(200);
    assert!(models["result"].as_array().unwrap().iter().all(|model| model["model_group_id"] == 234));
    assert_ne!(models["total"], 0);
    assert_eq!(models["query"]["model_group_id"], 234);
    let provider = rig.get(&token, "/v2/providers/providers").await.expect(200)["result"][0].clone();
    let path = format!("/v2/providers/providers/{}", provider["id"].as_str().unwrap());
    assert_eq!(rig.get(&token, &path).await.expect(200), provider);
    let center = rig.get(&token, "/v2/tickets/service-center").await.expect(200);
    assert_eq!((&center["state"], &center["schedule_reason"]), (&"opened".into(), &serde_json::Value::Null));
    for path in
        ["/v2/vehicles/model-groups/424242", "/v2/providers/providers/6ec2911c-a09a-11ee-8c90-0242ac120099"]
    {
        rig.get(&token, path).await.problem(404, "not-found");
    }
}
