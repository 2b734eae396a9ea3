//! What the catalogue has under a VIN or a number.

use uuid::Uuid;

use super::{Catalogue, Group, Make, Model, Product, Variant};

/// A variant of a vehicle, with all that it belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Vehicle<'a> {
    pub(crate) make: &'a Make,
    pub(crate) group: &'a Group,
    pub(crate) model: &'a Model,
    pub(crate) variant: &'a Variant,
}

/// The product as partners name it.
pub(crate) fn product_uuid(id: i64) -> Uuid {
    Uuid::from_u128(
        0x9706_0000_0000_4000_8000_0000_0000_0000 | u128::from(id.unsigned_abs() & 0xFFFF_FFFF_FFFF),
    )
}

impl Catalogue {
    /// The groups with their makes.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&Make, &Group)> {
        self.makes.iter().flat_map(|make| make.groups.iter().map(move |group| (make, group)))
    }

    /// The models with their groups and makes.
    pub(crate) fn models(&self) -> impl Iterator<Item = (&Make, &Group, &Model)> {
        self.groups().flat_map(|(make, group)| group.models.iter().map(move |model| (make, group, model)))
    }

    /// All variants.
    pub(crate) fn variants(&self) -> impl Iterator<Item = Vehicle<'_>> {
        self.models().flat_map(|(make, group, model)| {
            model.variants.iter().map(move |variant| Vehicle { make, group, model, variant })
        })
    }

    /// The vehicle with this VIN.
    pub(crate) fn vehicle(&self, vin: &str) -> Option<Vehicle<'_>> {
        let known = self.vehicles.iter().find(|known| known.vin.eq_ignore_ascii_case(vin))?;
        self.variant(known.model_variant_id)
    }

    /// The variant with this number.
    pub(crate) fn variant(&self, id: i64) -> Option<Vehicle<'_>> {
        self.variants().find(|vehicle| vehicle.variant.id == id)
    }

    /// Whether there is a model with this number.
    pub(crate) fn has_model(&self, id: i64) -> bool {
        self.models().any(|(_, _, model)| model.id == id)
    }

    /// The product with this number.
    pub(crate) fn product(&self, id: i64) -> Option<&Product> {
        self.products.iter().find(|product| product.id == id)
    }

    /// The product with this UUID.
    pub(crate) fn product_by_uuid(&self, uuid: Uuid) -> Option<&Product> {
        self.products.iter().find(|product| product_uuid(product.id) == uuid)
    }

    /// The products that are offered for a model.
    pub(crate) fn products_for(&self, model: i64) -> impl Iterator<Item = &Product> {
        self.products.iter().filter(move |product| {
            product.vehicle_model_ids.is_empty() || product.vehicle_model_ids.contains(&model)
        })
    }

    /// The products that are offered for a variant of a model; none, if the model has no such variant.
    pub(crate) fn products_for_variant(&self, model: i64, variant: i64) -> impl Iterator<Item = &Product> {
        let is_known = self.variant(variant).is_some_and(|vehicle| vehicle.model.id == model);
        self.products_for(model).filter(move |_| is_known)
    }

    /// The percentage of a voucher.
    pub(crate) fn voucher(&self, code: &str) -> Option<f64> {
        self.vouchers.iter().find(|voucher| voucher.code == code).map(|voucher| voucher.percent)
    }

    /// Finds references to what is not there.
    pub(super) fn check(&self) -> Result<(), String> {
        for vehicle in &self.vehicles {
            if self.variant(vehicle.model_variant_id).is_none() {
                return Err(format!(
                    "{}: there is no model variant {}",
                    vehicle.vin, vehicle.model_variant_id
                ));
            }
        }
        for product in &self.products {
            if !self.product_groups.iter().any(|group| group.id == product.product_group_id) {
                return Err(format!(
                    "product {}: there is no group {}",
                    product.id, product.product_group_id
                ));
            }
            let missing = |id: &&i64| !self.product_prerequisites.iter().any(|known| known.id == **id);
            if let Some(id) = product.prerequisite_ids.iter().find(missing) {
                return Err(format!("product {}: there is no prerequisite {id}", product.id));
            }
        }
        let provider = &self.service_provider;
        if let (Some(text), None) = (&provider.state_ends_at, provider.state_end()) {
            return Err(format!("state_ends_at: {text} is no date and time"));
        }
        for prepared in &self.prepared_tickets {
            if let Some(id) = prepared.product_ids.iter().find(|id| self.product(**id).is_none()) {
                return Err(format!("prepared ticket {}: there is no product {id}", prepared.id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vehicle_of_the_simulators_is_found_by_its_vin() {
        let catalogue = Catalogue::builtin();
        catalogue.check().unwrap();
        assert!(catalogue.vehicles.len() > 100);
        for known in &catalogue.vehicles {
            let vehicle = catalogue.vehicle(&known.vin).unwrap();
            assert_eq!(vehicle.variant.id, known.model_variant_id);
            assert!(catalogue.products_for(vehicle.model.id).count() > 0);
        }
        assert!(catalogue.vehicle(crate::vehicle::kline::DEFAULT_VIN).is_some(), "the one with a K-line");
        assert!(catalogue.vehicle("00000000000000001").is_none());
    }

    #[test]
    fn numbers_of_groups_and_makes_are_unique() {
        let catalogue = Catalogue::builtin();
        let mut groups: Vec<_> = catalogue.groups().map(|(_, group)| group.id).collect();
        let all = groups.len();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), all);
    }

    #[test]
    fn a_file_replaces_the_parts_that_it_has_and_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let load = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            Catalogue::load(&path)
        };
        let changed = load("a.toml", "[[vouchers]]\ncode = \"SUMMER\"\npercent = 5\n").unwrap();
        assert_eq!(changed.voucher("SUMMER"), Some(5.0));
        assert!(changed.vehicles.len() > 100, "the default");
        let changed = load("a.json", r#"{"vehicles": [{"vin": "X", "model_variant_id": 9999}]}"#);
        assert!(changed.unwrap_err().to_string().contains("there is no model variant 9999"));
        assert!(load("b.json", r#"{"wheels": 4}"#).is_err());
        assert!(load("c.json", "[]").is_err());
    }
}
