//! Vehicles by VIN, from a catalogue of real platforms with generated VINs.

use std::collections::BTreeMap;

use connector_agent::protocol::vin::Vin;
use serde::Deserialize;
use serde_json::{Value, json};

/// The vehicles of the simulators.
const EMBEDDED: &str = include_str!("../../../data/vehicles/vehicles.json");

#[derive(Deserialize)]
struct Entry {
    make: String,
    platform: String,
    vin: Option<Vin>,
}

/// Assigns numbers to names, in the order of their first appearance.
#[derive(Default)]
struct Numbers(BTreeMap<String, usize>);

impl Numbers {
    fn of(&mut self, name: &str) -> usize {
        let next = self.0.len() + 1;
        *self.0.entry(name.to_owned()).or_insert(next)
    }
}

/// The vehicle of each known VIN, and the make of each known manufacturer (the VIN's first three
/// characters).
pub(crate) struct VehicleCatalogue {
    by_vin: BTreeMap<Vin, Value>,
    by_manufacturer: BTreeMap<String, Value>,
}

impl VehicleCatalogue {
    /// The catalogue that is built into the program.
    pub(crate) fn embedded() -> Self {
        let entries: Vec<Entry> = serde_json::from_str(EMBEDDED).unwrap_or_default();
        let (mut makes, mut groups) = (Numbers::default(), Numbers::default());
        let mut catalogue = Self { by_vin: BTreeMap::new(), by_manufacturer: BTreeMap::new() };
        for (index, entry) in entries.iter().enumerate() {
            let make = json!({"id": makes.of(&entry.make), "name": entry.make.to_uppercase()});
            let words: Vec<&str> = entry.platform.split('_').collect();
            let model: Vec<&str> = match words.as_slice() {
                [first, rest @ ..] if first.eq_ignore_ascii_case(&entry.make) && !rest.is_empty() => {
                    rest.to_vec()
                }
                all => all.to_vec(),
            };
            let group = model.first().copied().unwrap_or_default();
            let Some(vin) = entry.vin else { continue };
            let vehicle = json!({
                "vin": vin,
                "make": &make,
                "model_group": {"id": groups.of(&format!("{} {group}", entry.make)), "name": group},
                "model": {"id": index + 1, "name": model.join(" "), "requires_doip": false},
                "model_variant": {"id": index + 1, "name": entry.platform},
            });
            let manufacturer: String = vin.as_str().chars().take(3).collect();
            catalogue.by_manufacturer.entry(manufacturer).or_insert_with(
                || json!({"make": make, "model_group": null, "model": null, "model_variant": null}),
            );
            catalogue.by_vin.insert(vin, vehicle);
        }
        catalogue
    }

    /// The vehicle with this VIN. For a VIN that is not in the catalogue, the make at most.
    pub(crate) fn find(&self, vin: Vin) -> Option<Value> {
        if let Some(vehicle) = self.by_vin.get(&vin) {
            return Some(vehicle.clone());
        }
        let manufacturer: String = vin.as_str().chars().take(3).collect();
        let mut vehicle = self.by_manufacturer.get(&manufacturer)?.clone();
        vehicle.as_object_mut()?.insert("vin".to_owned(), json!(vin));
        Some(vehicle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vehicle_of_the_file_is_found_by_its_vin() {
        let entries: Vec<Entry> = serde_json::from_str(EMBEDDED).unwrap();
        let catalogue = VehicleCatalogue::embedded();
        let mut found = 0;
        for vin in entries.iter().filter_map(|entry| entry.vin) {
            let vehicle = catalogue.find(vin).unwrap();
            assert_eq!(vehicle["vin"], vin.as_str());
            assert!(vehicle["model"]["id"].as_u64().unwrap() > 0);
            found += 1;
        }
        assert!(found > 100);
    }

    #[test]
    fn an_unknown_vin_of_a_known_manufacturer_gives_the_make_only() {
        let catalogue = VehicleCatalogue::embedded();
        let known = catalogue.by_vin.keys().next().unwrap().as_str().to_owned();
        let other: Vin = format!("{}00000000000000", &known[..3]).parse().unwrap();
        let vehicle = catalogue.find(other).unwrap();
        assert!(vehicle["make"]["name"].is_string());
        assert!(vehicle["model"].is_null());
        assert!(catalogue.find("00000000000000001".parse().unwrap()).is_none());
    }
}
