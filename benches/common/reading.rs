//! One reading of a simulated vehicle's VIN in virtual time.

use std::time::Duration;

use connector_agent::config::VinSettings;
use connector_agent::vehicle::vin::read;
use connector_hal::can::CanBus;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_sim::vehicle::catalogue::VehicleRecord;
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use tokio::runtime::{Builder, Runtime};

/// Reads the VIN once, and returns the time on the bus.
pub(crate) async fn read_once(record: &VehicleRecord, bit_rate: u32, load: f32) -> Duration {
    let bus = VirtualBus::new(VirtualBusConfig { bit_rate, load, ..VirtualBusConfig::default() });
    let _vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
    let adapter: Box<dyn CanBus> = Box::new(bus.attach_adapter("can0", VirtualBus::full_capabilities()));
    let reading = read(vec![adapter], &VinSettings::default()).await;
    assert_eq!(reading.report.vin, record.vin, "{}", record.platform);
    reading.report.elapsed
}

/// A runtime whose clock stands still while the program computes.
pub(crate) fn virtual_time() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().start_paused(true).build()
}
