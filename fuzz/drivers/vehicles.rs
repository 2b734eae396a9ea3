//! Reads any text as a catalogue of vehicles.

use connector_sim::vehicle::catalogue::Catalogue;

/// An accepted catalogue can be simulated. A rejected one comes with a text.
pub(super) fn drive(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Catalogue::parse(text) {
        Ok(catalogue) => catalogue.vehicles().iter().for_each(|vehicle| drop(vehicle.nodes())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
