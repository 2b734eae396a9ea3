//! Logins to the sandbox cloud, and the rights of tokens.

use std::time::Duration;

use crate::cloud_support::Rig;
use connector_sim::cloud::ConnectorSeed;
use reqwest::Method;
use serde_json::json;
use tokio_tungstenite::tungstenite;

#[tokio::test]
async fn a_connector_logs_in_with_its_pincode_as_text_or_number() {
    let uuid = uuid::Uuid::new_v4();
    let rig = Rig::start_with(|config| config.connectors = vec![ConnectorSeed::new(uuid, "4711")]).await;
    for pincode in [json!("4711"), json!(4711)] {
        let body = rig.pincode(pincode).await.expect(200);
        for token in ["id_token", "access_token", "refresh_token"] {
            assert!(body[token].as_str().is_some_and(|token| token.len() > 20), "{body}");
        }
        let token = body["access_token"].as_str().unwrap();
        let listed = rig.get(token, "/v1/connectors").await.expect(200);
        assert_eq!(listed["result"][0]["uuid"], uuid.to_string());
    }
}

#[tokio::test]
async fn the_deprecated_login_takes_the_connectors_number() {
    let rig = Rig::start().await;
    let body = json!({"connector_id": rig.cloud.connector_id, "pincode": rig.cloud.connector_pincode});
    let answer = rig.answer(rig.request(Method::POST, "/v1/authenticate/pincode").json(&body)).await;
    let body = answer.expect(200);
    rig.get(body["access_token"].as_str().unwrap(), "/v1/connectors").await.expect(200);
}

#[tokio::test]
async fn a_one_time_password_logs_in_once() {
    let rig = Rig::start_with(|config| {
        let mut seed = ConnectorSeed::new(uuid::Uuid::new_v4(), "4711");
        seed.otp = Some("839201".to_owned());
        config.connectors = vec![seed];
    })
    .await;
    for otp in [json!(rig.cloud.customer_otp), json!("839201")] {
        let request = || rig.request(Method::POST, "/v1/authenticate/otp").json(&json!({"otp": otp}));
        let body = rig.answer(request()).await.expect(200);
        rig.get(body["access_token"].as_str().unwrap(), "/v1/connectors").await.expect(200);
        rig.answer(request()).await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn a_used_one_time_password_of_the_file_stays_used_over_a_restart() {
    let mut seed = ConnectorSeed::new(uuid::Uuid::new_v4(), "4711");
    seed.otp = Some("839201".to_owned());
    let seeds = vec![seed];
    let rig = Rig::start_with(|config| config.connectors = seeds.clone()).await;
    let body = json!({"otp": "839201"});
    rig.answer(rig.request(Method::POST, "/v1/authenticate/otp").json(&body)).await.expect(200);
    let rig = rig.restart(|config| config.connectors = seeds.clone()).await;
    let answer = rig.answer(rig.request(Method::POST, "/v1/authenticate/otp").json(&body)).await;
    answer.problem(401, "unauthorized");
}

#[tokio::test]
async fn too_many_wrong_pincodes_lock_even_the_right_one_also_over_a_restart() {
    let rig = Rig::start().await;
    for _ in 0..4 {
        rig.pincode(json!("wrong")).await.problem(401, "unauthorized");
    }
    rig.pincode(json!("wrong")).await.problem(401, "unauthorized");
    let right = json!(rig.cloud.connector_pincode);
    let answer = rig.pincode(right.clone()).await;
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&seconds));
    answer.problem(429, "too-many-requests");
    let rig = rig.restart(|_| {}).await;
    assert_eq!(right, json!(rig.cloud.connector_pincode));
    rig.pincode(right).await.problem(429, "too-many-requests");
}

#[tokio::test]
async fn a_right_pincode_resets_the_count_of_wrong_ones() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        for _ in 0..4 {
            rig.pincode(json!("wrong")).await.problem(401, "unauthorized");
        }
        rig.connector_token().await;
    }
}

#[tokio::test]
async fn an_unknown_connector_looks_like_a_wrong_pincode() {
    let rig = Rig::start().await;
    let body = json!({"connector_uuid": uuid::Uuid::new_v4(), "pincode": "1234"});
    let answer = rig.answer(rig.request(Method::POST, "/v2/authenticate/pincode").json(&body)).await;
    let unknown = answer.problem(401, "unauthorized");
    assert_eq!(unknown, rig.pincode(json!("wrong")).await.problem(401, "unauthorized"));
}

#[tokio::test]
async fn a_login_names_every_field_that_is_wrong() {
    let rig = Rig::start().await;
    let post = |path: &str, body: serde_json::Value| rig.request(Method::POST, path).json(&body);
    let answer = rig.answer(post("/v2/authenticate/pincode", json!({"connector_uuid": "x"}))).await;
    answer.violates(&["connector_uuid", "pincode"]);
    rig.answer(post("/v1/authenticate/pincode", json!({"pincode": 1234}))).await.violates(&["connector_id"]);
    rig.answer(post("/v1/authenticate/pincode", json!({"pincode": 1.5}))).await.violates(&["pincode"]);
    rig.answer(post("/v1/authenticate/otp", json!({}))).await.violates(&["otp"]);
    rig.answer(post("/v1/authenticate/otp", json!([]))).await.violates(&["body"]);
    let broken = rig.request(Method::POST, "/v1/authenticate/otp").body("{\"otp\":");
    rig.answer(broken).await.problem(400, "bad-request");
}

#[tokio::test]
async fn a_refresh_token_is_valid_once_and_its_copy_revokes_the_login() {
    let rig = Rig::start().await;
    let login = rig.pincode(json!(rig.cloud.connector_pincode)).await.expect(200);
    let refresh = |token: String| {
        let rig = &rig;
        async move { rig.form(&[("grant_type", "refresh_token"), ("refresh_token", &token)]).await }
    };
    let first = login["refresh_token"].as_str().unwrap().to_owned();
    let body = refresh(first.clone()).await.expect(200);
    rig.get(body["access_token"].as_str().unwrap(), "/v1/connectors").await.expect(200);
    let second = body["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    let error = refresh(first).await.expect(400);
    assert_eq!(error["error"], "invalid_grant");
    let error = refresh(second).await.expect(400);
    assert_eq!(error["error"], "invalid_grant");
}

#[tokio::test]
async fn tokens_of_both_kinds_survive_a_restart() {
    let rig = Rig::start().await;
    let login = rig.pincode(json!(rig.cloud.connector_pincode)).await.expect(200);
    let rig = rig.restart(|_| {}).await;
    rig.get(login["access_token"].as_str().unwrap(), "/v1/connectors").await.expect(200);
    let refresh = login["refresh_token"].as_str().unwrap();
    rig.form(&[("grant_type", "refresh_token"), ("refresh_token", refresh)]).await.expect(200);
}

#[tokio::test]
async fn client_credentials_are_taken_from_the_header_or_the_form() {
    let rig = Rig::start().await;
    let operator = rig.cloud.operator.clone();
    let form = [("grant_type", "client_credentials"), ("scope", "partner")];
    let request = |secret: &str| {
        rig.request(Method::POST, "/oauth2/token")
            .basic_auth(&operator.client_id, Some(secret.to_owned()))
            .form(&form)
    };
    let answer = rig.answer(request(&operator.client_secret)).await;
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = answer.expect(200);
    assert_eq!(body["token_type"], "Bearer");
    assert_eq!(body["expires_in"], 3600);
    assert!(body["refresh_token"].is_null());
    rig.get(body["access_token"].as_str().unwrap(), "/v2/tickets/pending-tickets").await.expect(200);
    rig.operator_token().await;

    let answer = rig.answer(request("wrong")).await;
    assert!(answer.headers.contains_key("www-authenticate"));
    assert_eq!(answer.expect(401)["error"], "invalid_client");
}

#[tokio::test]
async fn the_token_endpoint_refuses_as_oauth_does() {
    let rig = Rig::start().await;
    let operator = rig.cloud.operator.clone();
    let client =
        [("client_id", operator.client_id.as_str()), ("client_secret", operator.client_secret.as_str())];
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[], "invalid_request"),
        (&[("grant_type", "password")], "unsupported_grant_type"),
        (&[("grant_type", "refresh_token")], "invalid_request"),
        (&[("grant_type", "refresh_token"), ("refresh_token", "x")], "invalid_grant"),
        (&[("grant_type", "client_credentials"), ("scope", "root")], "invalid_scope"),
    ];
    for (fields, error) in cases {
        let fields: Vec<_> = fields.iter().chain(&client).copied().collect();
        let body = rig.form(&fields).await.expect(400);
        assert_eq!(body["error"], error);
        assert!(body["error_description"].is_string());
    }
    let twice = [("grant_type", "refresh_token"), ("grant_type", "refresh_token")];
    assert_eq!(rig.form(&twice).await.expect(400)["error"], "invalid_request");
    assert_eq!(
        rig.form(&[("grant_type", "client_credentials")]).await.expect(401)["error"],
        "invalid_client"
    );
    let json = rig.request(Method::POST, "/oauth2/token").json(&json!({"grant_type": "refresh_token"}));
    assert_eq!(rig.answer(json).await.expect(400)["error"], "invalid_request");
}

#[tokio::test]
async fn without_a_valid_token_every_request_is_401() {
    let rig = Rig::start_with(|config| config.token_lifetime = Duration::ZERO).await;
    let answer = rig.answer(rig.request(Method::GET, "/v1/connectors")).await;
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    answer.problem(401, "unauthorized");
    rig.get("nonsense", "/v1/connectors").await.problem(401, "unauthorized");
    let expired = rig.connector_token().await;
    let problem = rig.get(&expired, "/v1/connectors").await.problem(401, "unauthorized");
    assert!(problem["detail"].as_str().unwrap().contains("expired"));
}

#[tokio::test]
async fn the_websocket_takes_the_token_from_the_header_or_the_query_and_nothing_else() {
    let rig = Rig::start().await;
    let token = rig.connector_token().await;
    let url = rig.cloud.websocket_url.clone();
    rig.try_socket(&url, Some(&token)).await.unwrap().close().await;
    rig.try_socket(&format!("{url}?access_token={token}"), None).await.unwrap().close().await;
    for refused in [rig.try_socket(&url, None).await, rig.try_socket(&url, Some("nonsense")).await] {
        match refused.err().unwrap() {
            tungstenite::Error::Http(response) => assert_eq!(response.status(), 401),
            other => panic!("{other}"),
        }
    }
}
