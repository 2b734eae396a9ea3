//! One reading of the VIN, on all ports whose device can be opened.

use connector_hal::can::CanBus;

use crate::config::VinSettings;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::kline::LineToAsk;
use crate::vehicle::vin::{VehicleReading, read_vehicle};

/// Reads the VIN on all ports that can be opened. Returns the reading, and the index of the port of each of
/// its CAN buses.
pub(super) async fn read_ports(hardware: Hardware, settings: VinSettings) -> (Vec<usize>, VehicleReading) {
    let mut indices = Vec::new();
    let mut buses: Vec<Box<dyn CanBus>> = Vec::new();
    for (index, port) in hardware.can_ports.iter().enumerate() {
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
