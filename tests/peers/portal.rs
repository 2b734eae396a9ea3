//! Clients that know the documented APIs of the sandbox cloud alone: a portal and a partner with requests and websockets,
//! the documented bodies with one wrong field, and the fuzzer schemathesis.

use std::process::Output;
use std::time::Duration;

use connector_sim::cloud::ConnectorSeed;
use connector_test_support::agent::{Rig, Sandbox};
use connector_test_support::data::workspace;
use connector_test_support::peers::peer;
use tokio::process::Command;

/// Reached only if the peer hangs.
const HANG: Duration = Duration::from_secs(480);

/// Runs the peer, which must succeed; returns the text that it prints.
async fn run(command: &mut Command) -> String {
    let output = tokio::time::timeout(HANG, command.output()).await.expect("the peer hangs");
    let Output { status, stdout, stderr } = output.unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_and_a_partner_use_the_documented_apis_from_login_to_history() {
    let purpose = "the customer's and the partner's journey";
    let Some(mut command) = peer("portal_journey.py", purpose, "requests, websockets").await else { return };
    let rig = Rig::start("AUDI_A3_MK3").await;
    let stdout = run(command.arg(rig.sandbox.cloud.ready_line())).await;
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert!(last["checks"].as_u64().unwrap() > 20, "{stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_documented_body_with_one_wrong_field_is_refused_by_name() {
    let purpose = "the documented bodies, varied";
    let Some(mut command) = peer("documented_bodies.py", purpose, "requests").await else { return };
    let sandbox = Sandbox::start_with(0, |_| {}).await;
    let examples = workspace().join("tests/sim/fixtures/vendor/examples.json");
    let stdout = run(command.arg(sandbox.cloud.ready_line()).arg(examples)).await;
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert!(last["checks"].as_u64().unwrap() > 1000, "{stdout}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_gets_a_5xx_or_an_answer_outside_its_schema() {
    let purpose = "the fuzzer of the documented APIs";
    let Some(mut command) = peer("sandbox_api.py", purpose, "requests, schemathesis").await else { return };
    let sandbox = Sandbox::start_with(1, |config| {
        config.catalogue = Some(workspace().join("tests/sim/fixtures/vendor/catalogue.json"));
        let uuid = "6ec2911c-a09a-11ee-8c90-0242ac120002".parse().unwrap();
        config.connectors = vec![ConnectorSeed { id: Some(910_101_043), ..ConnectorSeed::new(uuid, "1234") }];
    })
    .await;
    let stdout = run(command.arg(sandbox.cloud.ready_line())).await;
    assert!(stdout.contains("Tested: 90") && stdout.contains("Tested: 45"), "{stdout}");
}
