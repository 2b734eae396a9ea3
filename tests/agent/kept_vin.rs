//! The VIN from before a restart.

use std::path::PathBuf;

use connector_agent::config::{Config, PowerConfig};
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBusExt as _, CanFrame, CanId};
use connector_test_support::agent::{AgentSettings, bus, vehicle};
use connector_test_support::{MILLISECOND, SECOND, data, soon};
use serde_json::json;

use super::scripted::Rig;

const VEHICLE: &str = "AUDI_A3_MK3";

async fn start(bus: &VirtualBus, settings: AgentSettings, state: PathBuf) -> Rig {
    Rig::start_on(bus, settings, |config: &mut Config| config.connector.state_directory = Some(state)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_ignition_off_a_restart_reports_the_kept_vin_and_asks_no_ecu() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("state");
    let bus = bus();
    let record = data::record(VEHICLE);
    let vehicle = vehicle(&record, &bus);
    let vin = record.vin.unwrap();

    let rig = start(&bus, AgentSettings::default(), path.clone()).await;
    let (mut websocket, _) = rig.online().await;
    let read = websocket.status(|status| status["vin_number"] == vin.as_str()).await;
    assert!(read["vin_age_seconds"].as_u64().is_some_and(|age| age < 60), "{read}");
    rig.agent.shut_down().await;
    vehicle.stop().await;

    let frames = bus.statistics().frames;
    let settings = AgentSettings { ignition_off: true, ..AgentSettings::default() };
    let rig = start(&bus, settings, path).await;
    let (mut websocket, _) = rig.online().await;
    let kept = websocket.status(|status| status["vin_number"] == vin.as_str()).await;
    assert!(kept["vin_age_seconds"].is_u64(), "{kept}");
    // several more reports, one a second, in which a reading would have begun
    websocket.ask("1", "setReporting", json!({"interval_seconds": 1})).await;
    for _ in 0..3 {
        websocket.status(|status| status["ignition"] == false).await;
    }
    assert_eq!(bus.statistics().frames, frames);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vin_that_cannot_be_read_again_is_still_reported_unless_the_adapter_was_gone() {
    let state = tempfile::tempdir().unwrap();
    let bus = bus();
    let record = data::record(VEHICLE);
    let vehicle = vehicle(&record, &bus);
    let vin = record.vin.unwrap();
    let rig = start(&bus, AgentSettings::default(), state.path().join("state")).await;
    let (mut websocket, _) = rig.online().await;
    websocket.status(|status| status["vin_number"] == vin.as_str()).await;
    // the ECUs fall asleep
    vehicle.stop().await;
    let identified = websocket.ask("1", "identifyVehicle", json!({})).await["message"].take();
    assert!(identified["vin_number"].is_null(), "{identified}");
    websocket.ask("2", "setReporting", json!({"interval_seconds": 1})).await;
    let status = websocket.status(|_| true).await;
    assert_eq!(status["vin_number"], vin.as_str(), "{status}");
    assert!(status["vin_age_seconds"].is_u64(), "{status}");
    bus.unplug("can0");
    websocket.status(|status| status["vin_number"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_a_bus_has_woken_asks_no_ecu() {
    let state = tempfile::tempdir().unwrap();
    let bus = bus();
    let mut node = bus.attach("a node of the vehicle");
    let _acknowledges = bus.attach("another node of the vehicle");
    let power = PowerConfig {
        sleep_below: Some(11.8.try_into().unwrap()),
        sleep_after: 300 * MILLISECOND,
        ..PowerConfig::default()
    };
    let settings = AgentSettings { power, ignition_off: true, ..AgentSettings::default() };
    let rig = start(&bus, settings, state.path().join("state")).await;
    let (mut websocket, _) = rig.online().await;
    rig.agent.board.set_voltage(Some(11.5));
    websocket.closed().await;
    rig.agent.board.set_ignition(None);
    let frame = CanFrame::new(CanId::standard(0x123).unwrap(), &[1]).unwrap();
    let (mut sent, mut online) = (0, std::pin::pin!(rig.online()));
    let (mut websocket, _) = loop {
        tokio::select! {
            online = &mut online => break online,
            // a bus that was silent for ten seconds wakes the agent
            () = tokio::time::sleep(11 * SECOND) => {
                soon("the frame", node.send(&frame)).await.unwrap();
                sent += 1;
            }
        }
    };
    // the voltage is still low: the agent reports and sleeps again
    websocket.closed().await;
    assert_eq!(bus.statistics().frames, sent, "all frames are the node's");
}
