//! A portal and a partner that know the documents alone: requests and websockets against the sandbox cloud, with a
//! connector online in a vehicle.

use connector_test_support::agent::Rig;
use connector_test_support::peers::peer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_and_a_partner_use_the_documented_apis_from_login_to_history() {
    let purpose = "the customer's and the partner's journey";
    let Some(mut command) = peer("portal_journey.py", purpose, "requests, websockets").await else { return };
    let rig = Rig::start("AUDI_A3_MK3").await;
    let output = command.arg(rig.sandbox.cloud.ready_line()).output();
    let output =
        tokio::time::timeout(connector_test_support::HANG, output).await.expect("the peer hangs").unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    let last: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert!(last["checks"].as_u64().unwrap() > 20, "{stdout}");
}
