//! The policy in a session: the vehicle drives, and the operator sends.

mod audit;
mod frames;
mod judged;
mod returned;
mod speed;

use connector_agent::policy::PolicyState;
use connector_agent::relay::wire::codec::EventCode;
use connector_sim::vehicle::catalogue::VehicleRecord;
use connector_sim::vehicle::{Drive, Vehicle, VehicleConfig};
use serde_json::{Value, json};

use super::common::*;

/// WriteDataByIdentifier, an intrusive request, and its name in the refusal.
const WRITE: [u8; 4] = [0x2E, 0xF1, 0x90, 0x01];
const READ: [u8; 3] = [0x22, 0xF1, 0x90];
/// The text of the refusal of [`WRITE`] at 12 km/h.
const MOVING: &str =
    "policy: moving (12 km/h): WriteDataByIdentifier is refused; stop the vehicle and send again";

/// A policy whose only source of the speed is the brake controller's frame, with further settings.
fn by_signal(more: &Value) -> Value {
    let mut settings = more.clone();
    let signal = json!({"bus": "HS", "id": 0x3E9, "start": 8, "bits": 16, "scale": 0.01});
    settings["facts"]["speed"] = json!([signal]);
    settings
}

/// A brake controller that broadcasts the speed, and a node that acknowledges its frames.
struct Brakes {
    _vehicle: Vehicle,
    _node: Node,
}

/// The brake controller of a vehicle on the first bus.
fn brakes(rig: &Rig) -> (Drive, Brakes) {
    let record = VehicleRecord {
        make: "Volkswagen".to_owned(),
        platform: "BRAKES".to_owned(),
        vin: None,
        vin_exchanges: Vec::new(),
        ecus: Vec::new(),
    };
    let signal = "0x3E9:8:16:0.01".parse().unwrap();
    let config = VehicleConfig { speed_signal: Some(signal), ..VehicleConfig::new(record) };
    let node = Node::attach(&rig.buses[0]);
    (config.drive.clone(), Brakes { _vehicle: Vehicle::start(&config, &rig.buses[0]), _node: node })
}

/// A connection with bus "HS", a policy with these settings, and a vehicle that stands.
async fn standing(more: &Value) -> (Rig, Drive, Brakes) {
    let mut rig = Rig::with_policy(by_signal(more));
    let (drive, vehicle) = brakes(&rig);
    rig.configure_hs().await;
    rig.run(2500 * MILLISECOND).await;
    (rig, drive, vehicle)
}

/// Drives at this speed until the connector knows.
async fn set_speed(rig: &mut Rig, drive: &Drive, kmh: f32) {
    drive.set_speed(kmh);
    rig.run(if kmh > 0.0 { 50 * MILLISECOND } else { 2100 * MILLISECOND }).await;
}

/// The policy's state.
fn state(rig: &Rig) -> PolicyState {
    rig.policy.with(|policy| policy.state(now()))
}

/// The refusals on a channel: the numbers of the rules that decided.
fn refusals(rig: &Rig, channel: u16) -> Vec<u32> {
    let refused =
        |event: (EventCode, u16, u32)| (event.0 == EventCode::SendFailed && event.1 == 6).then_some(event.2);
    rig.events(channel).into_iter().filter_map(refused).collect()
}
