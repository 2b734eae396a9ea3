//! The vehicles that are built into the program.

use anyhow::Context as _;

use crate::vehicle::catalogue::{Catalogue, VehicleRecord};

/// The file of vehicles.
const VEHICLES: &str = include_str!("../../../data/vehicles/vehicles.json");

/// The vehicle with this platform.
pub(crate) fn vehicle(platform: &str) -> anyhow::Result<VehicleRecord> {
    let catalogue = Catalogue::parse(VEHICLES).context("the file of vehicles")?;
    Ok(catalogue.find(platform)?.clone())
}
