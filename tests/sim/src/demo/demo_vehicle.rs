//! The vehicle of the demo: a vehicle on CAN, or one behind a DoIP gateway.

use std::sync::Arc;

use connector_agent::protocol::doip::LogicalAddress;
use connector_agent::relay::wire::request::{BusConfig, Switch};
use connector_hal::can::slcan::SlcanAdapter;
use serde_json::json;

use crate::vehicle::catalogue::EcuRecord;
use crate::vehicle::doip::{FIRST_ECU, GATEWAY};
use crate::vehicle::ecu::{EcuStatus, Image, Session};
use crate::vehicle::{DoipGateway, Vehicle};
use connector_operator::client::isotp_channel;
use connector_operator::client::{Channel, Connection};

/// The bit rate of the vehicle's bus, in bit/s.
pub(super) const BIT_RATE: u32 = 500_000;
/// The operator's name for the CAN bus.
pub(super) const CAN_BUS: &str = "HS";
const DOIP_BUS: &str = "ETH";
/// The tester's logical address, which the operator uses on DoIP.
const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);

/// The vehicle, and the device that connects it.
pub(super) enum DemoVehicle {
    /// ECUs on CAN, behind an SLCAN adapter.
    Can { adapter: SlcanAdapter, vehicle: Vehicle, data_bit_rate: Option<u32> },
    /// ECUs behind a gateway.
    Doip(DoipGateway),
}

/// The logical address of the ECU at index `place` of the vehicle's list.
fn logical_address(place: usize) -> LogicalAddress {
    let place = u16::try_from(place).unwrap_or(u16::MAX);
    LogicalAddress::new(FIRST_ECU.saturating_add(place))
}

impl DemoVehicle {
    /// Whether the vehicle is on classic CAN, for which the shortest time of a transfer can be calculated.
    pub(super) fn is_classic_can(&self) -> bool {
        matches!(self, Self::Can { data_bit_rate: None, .. })
    }

    /// The vehicle on CAN, if it is on CAN.
    pub(super) fn can_vehicle(&self) -> Option<&Vehicle> {
        match self {
            Self::Can { vehicle, .. } => Some(vehicle),
            Self::Doip(_) => None,
        }
    }

    /// The operator's configuration of the bus, and a description of the bus for people.
    pub(super) fn bus(&self) -> anyhow::Result<(BusConfig, String)> {
        let (bus, description) = match self {
            Self::Can { data_bit_rate, .. } => (
                json!({"bus_name": CAN_BUS, "can_bus": {"pin_plus": 6, "pin_min": 14, "can_protocol": "isotp",
                    "can_bit_rate": BIT_RATE, "transceiver": "high", "data_bit_rate": data_bit_rate}}),
                format!("the bus at pins 6 and 14, {}", can_name(*data_bit_rate)),
            ),
            Self::Doip(_) => (
                json!({"bus_name": DOIP_BUS, "doip_bus": {"doip_option": 2, "doip_network_configuration": 1}}),
                "Ethernet at pins 3 and 11".to_owned(),
            ),
        };
        Ok((serde_json::from_value(bus)?, description))
    }

    /// The name of the ECU at index `place`, for people.
    pub(super) fn name(&self, place: usize, ecu: &EcuRecord) -> String {
        match self {
            Self::Can { .. } => ecu.address.request.to_string(),
            Self::Doip(_) => logical_address(place).to_string(),
        }
    }

    /// Opens a channel to the ECU at index `place`.
    pub(super) async fn open(
        &self,
        connection: &Connection,
        place: usize,
        ecu: &EcuRecord,
        keep_alive: Switch,
    ) -> anyhow::Result<Channel> {
        let channel = match self {
            Self::Can { .. } => {
                let at = ecu.address;
                let config = isotp_channel(CAN_BUS, at.request, Some(at.response), at.extended, keep_alive);
                connection.open_isotp(config).await?
            }
            Self::Doip(_) => {
                let config = serde_json::from_value(json!({
                    "bus_name": DOIP_BUS, "gateway_id": GATEWAY.get(), "tester_id": TESTER.get(),
                    "ecu_id": logical_address(place).get(), "keep_alive": keep_alive,
                }))?;
                connection.open_channel(|open| open.doip_channel = Some(config)).await?
            }
        };
        Ok(channel)
    }

    fn statuses(&self) -> Vec<(String, EcuStatus)> {
        match self {
            Self::Can { vehicle, .. } => {
                let ecus = vehicle.ecus().iter();
                ecus.map(|ecu| (ecu.address.to_string(), ecu.status.borrow().clone())).collect()
            }
            Self::Doip(gateway) => {
                let ecus = gateway.ecus().iter();
                ecus.map(|ecu| (ecu.address.to_string(), ecu.status.borrow().clone())).collect()
            }
        }
    }

    /// The completed downloads into the memory of the ECU at index `place`, the newest last.
    pub(super) fn memory(&self, place: usize, ecu: &EcuRecord) -> Vec<Arc<Image>> {
        match self {
            Self::Can { vehicle, .. } => vehicle.memory(ecu.address),
            Self::Doip(gateway) => gateway.memory(logical_address(place)),
        }
    }

    /// The anomalies that ECUs have recorded, one line for each ECU.
    pub(super) fn anomalies(&self) -> Vec<String> {
        let strange = self.statuses().into_iter().filter(|(_, status)| !status.anomalies.is_empty());
        strange.map(|(ecu, status)| format!("{ecu} recorded anomalies: {:?}", status.anomalies)).collect()
    }

    /// The ECUs that are not in their default session.
    pub(super) fn left_in_session(&self) -> Vec<String> {
        let left = self.statuses().into_iter().filter(|(_, status)| status.session != Session::Default);
        left.map(|(ecu, _)| ecu).collect()
    }

    /// Stops the vehicle, and waits until it has stopped.
    pub(super) async fn stop(self) {
        match self {
            Self::Can { adapter, vehicle, .. } => {
                vehicle.stop().await;
                drop(adapter);
            }
            Self::Doip(gateway) => gateway.stop().await,
        }
    }
}

/// A description of the CAN bus for people.
pub(super) fn can_name(data_bit_rate: Option<u32>) -> String {
    let nominal = BIT_RATE / 1000;
    match data_bit_rate {
        Some(rate) => format!("CAN FD at {nominal} kbit/s and {} Mbit/s", rate / 1_000_000),
        None => format!("CAN at {nominal} kbit/s"),
    }
}
