//! The files below `tests/data`.

use std::path::{Path, PathBuf};

use connector_sim::vehicle::VehicleConfig;
use connector_sim::vehicle::catalogue::{Catalogue, VehicleRecord};

/// The candump log of the flash of an ECU.
pub const FLASH_LOG: &str = include_str!("../../data/recordings/ecu-flash.candump.log");
/// The recorded messages of a DoIP gateway.
pub const DOIP_LOG: &str = include_str!("../../data/recordings/doip-gateway.txt");

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

/// The path of a file below `tests/data`.
pub fn file(name: &str) -> PathBuf {
    workspace().join("tests/data").join(name)
}

/// The path of the file of vehicles.
pub fn vehicles_file() -> String {
    file("vehicles/vehicles.json").to_str().unwrap().to_owned()
}

pub fn catalogue() -> Catalogue {
    Catalogue::load(vehicles_file().as_ref()).unwrap_or_else(|error| panic!("{error}"))
}

/// The vehicle of this platform.
pub fn record(platform: &str) -> VehicleRecord {
    catalogue().find(platform).unwrap().clone()
}

/// The vehicle that most tests use.
pub fn golf() -> VehicleConfig {
    VehicleConfig::new(record("VOLKSWAGEN_GOLF_MK7"))
}
