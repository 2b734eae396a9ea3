//! Any text, read as a file of vehicles.

use connector_sim::vehicle::catalogue::Catalogue;

/// A file that is accepted can be simulated; a file that is refused is refused with a reason.
pub fn drive(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Catalogue::parse(text) {
        Ok(catalogue) => catalogue.vehicles().iter().for_each(|vehicle| drop(vehicle.nodes())),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
