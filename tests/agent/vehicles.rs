//! The agent in every vehicle of the file. The cloud gets the VIN, and every exchange passes through the
//! relay.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use connector_operator::client::{Connection, Item};
use connector_sim::vehicle::catalogue::{EcuAddress, EcuRecord, VehicleRecord};
use connector_test_support::agent::{AgentSettings, Connector, Sandbox, TestAgent, bus, vehicle};
use connector_test_support::config::{configure, isotp};
use connector_test_support::data::catalogue;
use connector_test_support::soon;
use futures_util::future::{join_all, try_join_all};
use serde_json::Value;

/// The number of simultaneous vehicles: enough to keep two cores busy, and few enough that none waits too
/// long.
const AT_A_TIME: usize = 6;
/// The number of vehicles that may be late because no core was free.
const LATE: usize = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vehicles_vin_and_exchanges_are_right_through_the_relay() {
    let _alone = crate::BUSY.lock().await;
    let vehicles = catalogue().vehicles().to_vec();
    let count: usize = vehicles.iter().flat_map(VehicleRecord::nodes).map(|ecu| ecu.exchanges.len()).sum();
    assert!(vehicles.len() > 170 && count > 1000, "{} vehicles, {count} exchanges", vehicles.len());
    let (exchanges, failed) = drive_all(vehicles, AT_A_TIME).await;
    // with more work than cores, a simulated ECU answers later than a real one; alone, it must be in time
    let failures: Vec<_> = failed.iter().map(|(_, failure)| failure.as_str()).collect();
    assert!(failed.len() <= LATE, "{} vehicles failed:\n{}", failed.len(), failures.join("\n"));
    println!("driven again, alone: {failures:#?}");
    let late = failed.into_iter().map(|(record, _)| record).collect();
    let (late_exchanges, failed) = drive_all(late, 1).await;
    let failures: Vec<_> = failed.into_iter().map(|(_, failure)| failure).collect();
    assert!(failures.is_empty(), "{} vehicles failed:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(exchanges + late_exchanges, count);
}

/// Drives vehicles, each with its own connector; returns the number of exchanges, and the failures with their
/// reasons.
async fn drive_all(vehicles: Vec<VehicleRecord>, at_a_time: usize) -> (usize, Vec<(VehicleRecord, String)>) {
    let sandbox = Arc::new(Sandbox::start(vehicles.len()).await);
    let pairs = vehicles.into_iter().zip(sandbox.connectors.clone());
    let queue = Arc::new(Mutex::new(pairs.collect::<VecDeque<_>>()));
    let workers = (0..at_a_time).map(|_| {
        let (sandbox, queue) = (Arc::clone(&sandbox), Arc::clone(&queue));
        tokio::spawn(async move {
            let (mut exchanges, mut failed) = (0, Vec::new());
            loop {
                let next = queue.lock().unwrap().pop_front();
                let Some((record, connector)) = next else { return (exchanges, failed) };
                match drive(&sandbox, &record, &connector).await {
                    Ok(count) => exchanges += count,
                    Err(failure) => {
                        let failure = format!("{}: {failure}", record.platform);
                        failed.push((record, failure));
                    }
                }
            }
        })
    });
    let (mut exchanges, mut failed) = (0, Vec::new());
    for done in join_all(workers).await {
        let (count, some) = done.unwrap();
        exchanges += count;
        failed.extend(some);
    }
    (exchanges, failed)
}

/// Runs one vehicle from the start of the agent to its end; returns the number of exchanges.
async fn drive(sandbox: &Sandbox, record: &VehicleRecord, connector: &Connector) -> Result<usize, String> {
    let bus = bus();
    let vehicle = vehicle(record, &bus);
    let agent = TestAgent::start(sandbox, connector, &bus, AgentSettings::default());
    let vin = record.vin.as_ref().map(|vin| vin.as_str());
    check_vin(sandbox, connector, record).await?;

    let ticket = sandbox.ticket(connector, vin).await;
    let joined = soon("the connection", sandbox.operator.connect(ticket.connection().unwrap())).await;
    let connection = joined.map_err(|error| format!("joining: {error}"))?;
    if connection.joined().vin_number.as_deref() != vin {
        return Err(format!("opened with the VIN {:?}", connection.joined().vin_number));
    }
    configure(&connection).await;
    let nodes = record.nodes();
    let counts = try_join_all(nodes.iter().map(|ecu| exchange(&connection, ecu))).await?;
    sandbox.operator.complete(&ticket.id).await.map_err(|error| format!("completing: {error}"))?;
    agent.shut_down().await;
    match vehicle.anomalies().as_slice() {
        [] => Ok(counts.iter().sum()),
        anomalies => Err(format!("the ECUs detected {anomalies:?}")),
    }
}

/// Checks that the agent reads the VIN of the vehicle, and that the cloud then has it.
async fn check_vin(sandbox: &Sandbox, connector: &Connector, record: &VehicleRecord) -> Result<(), String> {
    let vin = record.vin.as_ref().map(|vin| vin.as_str());
    let mut portal = sandbox.portal(connector).await;
    portal.sees_online().await;
    let identified = sandbox.identify(connector).await;
    // the status with the VIN arrives before the answer
    let stored = sandbox.record(connector).await;
    for (reporter, reported_vin) in
        [("the agent", &identified["vin_number"]), ("the cloud", &stored["vin_number"])]
    {
        if *reported_vin != vin.map_or(Value::Null, Value::from) {
            return Err(format!(
                "{reporter} reports the VIN {reported_vin} instead of {vin:?}: {identified}"
            ));
        }
    }
    let is_sender = |(address, _): &(EcuAddress, _)| identified["address"] == address.response.to_string();
    match vin.is_none() || record.vin_exchanges.iter().any(is_sender) {
        true => Ok(()),
        false => Err(format!("the VIN comes from another ECU than in the file: {identified}")),
    }
}

/// All exchanges of one ECU, in the file's order.
async fn exchange(connection: &Connection, ecu: &EcuRecord) -> Result<usize, String> {
    let at = |text: String| format!("{} at {}: {text}", ecu.name, ecu.address);
    let channel = soon("the channel", connection.open_isotp(isotp(ecu.address))).await;
    let channel = channel.map_err(|error| at(error.to_string()))?;
    let expected_address = ecu.address.response.to_number();
    for exchange in &ecu.exchanges {
        let wrong = |text: String| at(format!("{:02X?}: {text}", exchange.request));
        let confirm = PduFlags { chained: false, confirm: true };
        channel.send(&exchange.request, confirm).await.map_err(|error| wrong(error.to_string()))?;
        let mut is_sent = false;
        loop {
            let received =
                soon("an answer", channel.recv()).await.map_err(|error| wrong(error.to_string()))?;
            match received.item {
                Item::Event { code: EventCode::Sent, .. } if !is_sent => is_sent = true,
                Item::Pdu { address, data } if is_sent && address == expected_address => {
                    if data == exchange.response {
                        break;
                    }
                    return Err(wrong(format!("{data:02X?} instead of {:02X?}", exchange.response)));
                }
                other => return Err(wrong(format!("{other:02X?}"))),
            }
        }
    }
    Ok(ecu.exchanges.len())
}
