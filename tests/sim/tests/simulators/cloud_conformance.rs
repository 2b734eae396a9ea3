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
