//! Whatever ends a channel or a connection, a script gets a status and a sentence, and does not hang.

use connector_operator::client::ConnectionSettings;

use super::dialogue::Dialogue;
use super::*;

/// The number of a gRPC status.
const FAILED_PRECONDITION: u64 = 9;
const ABORTED: u64 = 10;
const UNAVAILABLE: u64 = 14;

/// A script that has an open channel to the first ECU, and waits for a message.
async fn waiting() -> Option<(Rig, TestGateway, Value, Dialogue)> {
    let mut command = script("waits").await?;
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let job = with(job, json!({"ecus": known(&rig.record).0}));
    let mut script = Dialogue::start(&mut command, &job);
    assert_eq!(script.hears().await, json!("open"));
    Some((rig, gateway, job, script))
}

/// The script's stream has ended with this status and sentence, and its session has this state.
async fn ended(script: &mut Dialogue, status: u64, sentence: &str, state: &str) {
    let result = script.hears().await;
    assert_eq!((&result["status"], &result["state"]), (&json!(status), &json!(state)), "{result}");
    assert!(result["sentence"].as_str().unwrap().contains(sentence), "{result}");
}

async fn ticket(rig: &Rig) -> connector_operator::client::Ticket {
    rig.sandbox.operator.in_progress_tickets().await.unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_learns_that_another_operator_has_taken_the_connection_over() {
    let Some((rig, _gateway, _, mut script)) = waiting().await else { return };
    let connection = ticket(&rig).await.connection().unwrap();
    let settings = ConnectionSettings { take_over: true, ..ConnectionSettings::default() };
    let _other = rig.sandbox.operator.connect_with(connection, settings).await.unwrap();
    ended(&mut script, ABORTED, "another operator has taken the connection over", "failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_learns_that_the_ticket_is_over() {
    let Some((rig, _gateway, _, mut script)) = waiting().await else { return };
    rig.sandbox.operator.complete(&ticket(&rig).await.id).await.unwrap();
    ended(&mut script, UNAVAILABLE, "the other side closed the connection", "failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_learns_that_the_connector_was_switched_off() {
    let Some((rig, _gateway, _, mut script)) = waiting().await else { return };
    rig.agent.shut_down().await;
    ended(&mut script, UNAVAILABLE, "the connector was switched off", "failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_learns_that_the_connector_is_at_another_vehicle() {
    let Some((mut rig, _gateway, _, mut script)) = waiting().await else { return };
    rig.enter("HONDA_CIVIC").await;
    ended(&mut script, UNAVAILABLE, "the connector is at another vehicle", "failed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_off_ends_a_stream_and_leaves_the_session() {
    let Some((rig, _gateway, _, mut script)) = waiting().await else { return };
    rig.bus.force_bus_off("can0");
    ended(&mut script, UNAVAILABLE, "the bus is off", "active").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_with_another_bit_rate_is_refused_with_the_rate_in_use() {
    let Some(mut command) = script("wrong_bit_rate").await else { return };
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    rig.bus.set_load(0.3);
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let result = run_to_end(command.arg(job.to_string())).await;
    assert_eq!(result["status"], FAILED_PRECONDITION, "{result}");
    assert!(result["sentence"].as_str().unwrap().contains("500000 bit/s"), "{result}");
}
