//! The default catalogue, made from the vehicles of the simulators.

use connector_agent::protocol::vin::Vin;
use serde::Deserialize;
use uuid::Uuid;

use crate::vehicle::kline::DEFAULT_VIN;

use super::{
    Block, Catalogue, Currency, Customer, Group, KnownVehicle, Make, Model, Named, Phone, Prerequisite,
    PrerequisiteOption, Product, ProductBundle, ServiceProvider, Translation, Variant, Voucher,
};

/// The vehicles of the simulators.
const EMBEDDED: &str = include_str!("../../../../data/vehicles/vehicles.json");

/// What the examples of the vendor's documents name.
const EXAMPLES: &str = include_str!("../../../fixtures/vendor/catalogue.json");

/// The platform of the vehicle with a K-line, which is in no file.
const KLINE_PLATFORM: &str = "VOLKSWAGEN_GOLF_MK7";

#[derive(Deserialize)]
struct Entry {
    make: String,
    platform: String,
    vin: Option<Vin>,
}

/// The position of the element with this name, which is added if it is missing.
fn place<T>(list: &mut Vec<T>, is_it: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> Option<&mut T> {
    let index = list.iter().position(is_it).unwrap_or_else(|| {
        list.push(make());
        list.len() - 1
    });
    list.get_mut(index)
}

impl Catalogue {
    /// The catalogue that is built into the program.
    pub(crate) fn builtin() -> Self {
        let entries: Vec<Entry> = serde_json::from_str(EMBEDDED).unwrap_or_default();
        let (makes, vehicles) = vehicles(&entries);
        let mut catalogue = Self { currency: Currency::default(), makes, vehicles, ..Self::default() };
        catalogue.add_products();
        catalogue.add_prerequisites();
        catalogue.add_companies();
        catalogue.add_examples();
        catalogue
    }

    /// Adds what the examples of the documents name, so that they work with the default too.
    fn add_examples(&mut self) {
        let examples: Self = serde_json::from_str(EXAMPLES).unwrap_or_default();
        self.customer.id = examples.customer.id;
        for example in examples.makes {
            let same = |make: &Make| make.name.eq_ignore_ascii_case(&example.name);
            let Some(index) = self.makes.iter().position(same) else {
                self.makes.push(example);
                continue;
            };
            let number = self.makes.get(index).map(|make| make.id);
            // the make that has the example's number takes the other one
            let taken = self.makes.iter_mut().find(|make| make.id == example.id);
            if let (Some(taken), Some(number)) = (taken, number) {
                taken.id = number;
            }
            if let Some(make) = self.makes.get_mut(index) {
                make.id = example.id;
                make.groups.extend(example.groups);
            }
        }
        self.vehicles.extend(examples.vehicles);
        self.product_groups.extend(examples.product_groups);
        self.products.extend(examples.products);
        self.product_bundles.extend(examples.product_bundles);
        self.vouchers.extend(examples.vouchers);
        self.prepared_tickets.extend(examples.prepared_tickets);
    }

    fn add_products(&mut self) {
        self.product_groups = [(1, "Diagnosis"), (2, "Coding and programming")]
            .map(|(id, name)| Named { id, name: name.to_owned() })
            .to_vec();
        let product = |id: i64, name: &str, price: f64, group: i64| Product {
            id,
            item_number: (100_000 + id).to_string(),
            name: name.to_owned(),
            internal_name: name.to_owned(),
            description: format!("{name}, by a remote operator."),
            is_unattended: false,
            price,
            discount_percent: 0.0,
            original_equipment_service_fee: None,
            product_group_id: group,
            vehicle_model_ids: Vec::new(),
            prerequisite_ids: Vec::new(),
            is_favorite: false,
        };
        self.products = vec![
            Product { is_favorite: true, ..product(1, "Remote diagnostic support", 80.0, 1) },
            Product {
                is_unattended: true,
                discount_percent: 10.0,
                ..product(2, "Reading of all trouble codes", 25.0, 1)
            },
            Product {
                original_equipment_service_fee: Some(12.5),
                prerequisite_ids: vec![1, 2],
                ..product(3, "Programming of a control unit", 140.0, 2)
            },
            Product { prerequisite_ids: vec![1], ..product(4, "Tow bar coding", 100.0, 2) },
        ];
        self.product_bundles = vec![ProductBundle {
            id: Uuid::from_u128(0xb0d1_0000_0000_4000_8000_0000_0000_0001),
            product_group_id: 2,
            name: "New control unit".to_owned(),
            description: "Programming, and the trouble codes afterwards".to_owned(),
            reference: Uuid::from_u128(0xb0d1_0000_0000_4000_8000_0000_0000_0002),
            blocks: vec![
                Block { optional: false, product_ids: vec![vec![3]] },
                Block { optional: true, product_ids: vec![vec![2]] },
            ],
        }];
        self.vouchers = vec![Voucher { code: "SANDBOX".to_owned(), percent: 25.0 }];
    }

    fn add_prerequisites(&mut self) {
        self.product_prerequisites = vec![
            Prerequisite {
                id: 1,
                name: "Battery charger".to_owned(),
                description: "The voltage must not fall while a control unit is written.".to_owned(),
                question: "Is a battery charger connected?".to_owned(),
                required: true,
                options: ["true", "false"].iter().zip(1..).map(|(value, id)| option(id, value)).collect(),
            },
            Prerequisite {
                id: 2,
                name: "Part number".to_owned(),
                description: "The number on the new part.".to_owned(),
                question: "What is the part number of the new control unit?".to_owned(),
                required: false,
                options: Vec::new(),
            },
        ];
    }

    fn add_companies(&mut self) {
        self.customer = Customer {
            id: Uuid::from_u128(0xc057_0000_0000_4000_8000_0000_0000_0001),
            name: "Sandbox Garage".to_owned(),
            reference: 1,
            street: "Main Street".to_owned(),
            number: "7".to_owned(),
            postal_code: "6511AA".to_owned(),
            city: "Nijmegen".to_owned(),
            country: "NL".to_owned(),
            email_address: "garage@example.com".to_owned(),
            financial_email_address: "invoices@example.com".to_owned(),
            phone: Phone::Number(31_201_234_567),
            given_name: "Gerda".to_owned(),
            family_name: "Garage".to_owned(),
        };
        self.service_provider = ServiceProvider {
            id: 1,
            name: "Sandbox Provider".to_owned(),
            wallet_balance: "120".to_owned(),
            portal_url: "portal.example.com".to_owned(),
            logo: "/sandbox/logo.png".to_owned(),
            color: "#00aeef".to_owned(),
            background_color: "#ffffff".to_owned(),
            state: "opened".to_owned(),
            state_ends_at: Some("2099-12-31T23:59:59+0000".to_owned()),
            message: "The sandbox is open.".to_owned(),
            service_message: "This is a sandbox: its data is generated.".to_owned(),
        };
        let provider = |id: u128, name: &str| Named { id: Uuid::from_u128(id), name: name.to_owned() };
        self.outsource_providers =
            vec![provider(0x0507_0000_0000_4000_8000_0000_0000_0001, "Other Provider")];
        self.cancel_reasons =
            [(1, "Other"), (2, "Connector offline"), (3, "Wrong vehicle"), (4, "Not possible")]
                .map(|(id, name)| Named { id, name: name.to_owned() })
                .to_vec();
        self.locales = ["en-GB", "nl-NL", "de-DE", "fr-FR"].map(str::to_owned).to_vec();
        let phrase = |language: &str, original: &str, translated: &str| Translation {
            language: language.to_owned(),
            original: original.to_owned(),
            translated: translated.to_owned(),
        };
        self.dictionary = vec![
            phrase("de", "Hello world!", "Hallo Welt!"),
            phrase("nl", "Hello world!", "Hallo wereld!"),
            phrase("de", "The ticket is finished.", "Das Ticket ist fertig."),
        ];
    }
}

fn option(id: i64, value: &str) -> PrerequisiteOption {
    PrerequisiteOption { id, value: value.to_owned() }
}

/// Makes with their models, and the vehicles by VIN. Model and variant of a platform share its number.
fn vehicles(entries: &[Entry]) -> (Vec<Make>, Vec<KnownVehicle>) {
    let (mut makes, mut vehicles) = (Vec::<Make>::new(), Vec::new());
    let mut next_group = 1;
    for (id, entry) in (1..).zip(entries) {
        let name = entry.make.to_uppercase();
        let words: Vec<&str> = entry.platform.split('_').collect();
        let model: Vec<&str> = match words.as_slice() {
            [first, rest @ ..] if first.eq_ignore_ascii_case(&entry.make) && !rest.is_empty() => {
                rest.to_vec()
            }
            all => all.to_vec(),
        };
        let group_name = model.first().copied().unwrap_or_default();
        let make_id = i64::try_from(makes.len()).unwrap_or_default() + 1;
        let new_make = || Make { id: make_id, name: name.clone(), groups: Vec::new() };
        let Some(make) = place(&mut makes, |make| make.name == name, new_make) else { continue };
        let new_group = || Group { id: next_group, name: group_name.to_owned(), models: Vec::new() };
        let Some(group) = place(&mut make.groups, |group| group.name == group_name, new_group) else {
            continue;
        };
        next_group = next_group.max(group.id + 1);
        // the file has no years but in some names; the others are made up
        let year = words.iter().find(|word| word.len() == 4 && word.starts_with("20")).unwrap_or(&"2010");
        let manufactured_from = Some(format!("{year}-01-01"));
        let manufactured_to = Some("2030-12-31".to_owned());
        let variant = Variant {
            id,
            name: entry.platform.clone(),
            manufactured_from: manufactured_from.clone(),
            manufactured_to: manufactured_to.clone(),
            requires_doip: false,
        };
        group.models.push(Model {
            id,
            name: model.join(" "),
            manufactured_from,
            manufactured_to,
            requires_doip: false,
            variants: vec![variant],
        });
        if let Some(vin) = entry.vin {
            vehicles.push(KnownVehicle { vin: vin.to_string(), model_variant_id: id });
        }
        if entry.platform == KLINE_PLATFORM {
            vehicles.push(KnownVehicle { vin: DEFAULT_VIN.to_owned(), model_variant_id: id });
        }
    }
    (makes, vehicles)
}
