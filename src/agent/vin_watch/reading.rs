//! One reading of the VIN, on all ports whose device can be opened.

use connector_hal::can::CanBus;
use connector_hal::clock::now;

use crate::config::VinSettings;
use crate::policy::SharedPolicy;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::kline::LineToAsk;
use crate::vehicle::vin::{VehicleReading, read_vehicle};

/// Reads the VIN on all ports that can be opened. Returns the reading, and the index of the port of each of
/// its CAN buses.
pub(super) async fn read_ports(
    hardware: Hardware,
    settings: VinSettings,
    policy: SharedPolicy,
) -> (Vec<usize>, VehicleReading) {
    let mut indices = Vec::new();
    let mut buses: Vec<Box<dyn CanBus>> = Vec::new();
    let hardware = allowed(hardware, &policy);
    for (index, port) in hardware.can_ports.iter().enumerate() {
        if !policy.allows_vin(now(), port.name.as_deref()) {
            continue;
        }
        match (hardware.open_can)(&port.device).await {
            Ok(bus) => {
                buses.push(bus);
                indices.push(index);
            }
            Err(error) => tracing::warn!(%error, "cannot read the VIN from this CAN device"),
        }
    }
    (indices, read_vehicle(&hardware, buses, open_lines(&hardware), &settings).await)
}

/// The hardware without the K-lines and networks on which the policy forbids to read the VIN. CAN buses keep their index.
fn allowed(mut hardware: Hardware, policy: &SharedPolicy) -> Hardware {
    let klines = hardware.kline_ports.iter().filter(|port| policy.allows_vin(now(), port.name.as_deref()));
    let networks = hardware.doip_ports.iter().filter(|port| policy.allows_vin(now(), port.name.as_deref()));
    (hardware.kline_ports, hardware.doip_ports) = (klines.cloned().collect(), networks.cloned().collect());
    hardware
}

/// Opens the K-lines that can be opened. They are closed again after reading, since the agent does not listen
/// on them.
async fn open_lines(hardware: &Hardware) -> Vec<LineToAsk> {
    let mut lines = Vec::new();
    for port in hardware.kline_ports.iter() {
        match (hardware.open_kline)(&port.device).await {
            Ok(line) => lines.push(LineToAsk { line, bit_rates: port.bit_rates.clone() }),
            Err(error) => tracing::warn!(%error, "cannot read the VIN from this K-line"),
        }
    }
    lines
}
