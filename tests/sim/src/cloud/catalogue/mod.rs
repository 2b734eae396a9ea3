//! The data set of the sandbox: vehicles, products, prices, and the companies around them.
//!
//! The default is made from the vehicles of the simulators, so that the VIN which a connector reads is found, and has what
//! the examples of the documents name. A file
//! replaces it, as JSON or TOML; `Catalogue` is its form.

mod builtin;
mod lookup;

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

pub(crate) use lookup::{Vehicle, product_uuid};

/// Why a catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file cannot be read.
    #[error("cannot read the catalogue {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a catalogue.
    #[error("{path} is not a catalogue: {reason}")]
    Form {
        /// The file.
        path: PathBuf,
        /// The fault and its place.
        reason: String,
    },
}

/// The data set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Catalogue {
    pub(crate) currency: Currency,
    pub(crate) makes: Vec<Make>,
    /// The vehicles that are found by their VIN.
    pub(crate) vehicles: Vec<KnownVehicle>,
    pub(crate) product_groups: Vec<Named<i64>>,
    pub(crate) products: Vec<Product>,
    pub(crate) product_bundles: Vec<ProductBundle>,
    pub(crate) product_prerequisites: Vec<Prerequisite>,
    pub(crate) vouchers: Vec<Voucher>,
    pub(crate) customer: Customer,
    pub(crate) service_provider: ServiceProvider,
    /// The partners to which tickets can be outsourced.
    pub(crate) outsource_providers: Vec<Named<Uuid>>,
    pub(crate) cancel_reasons: Vec<Named<i32>>,
    /// Tickets that are prepared at the first start.
    pub(crate) prepared_tickets: Vec<PreparedSeed>,
    /// The locales of employees.
    pub(crate) locales: Vec<String>,
    /// Text by language: the original, and its translation.
    pub(crate) dictionary: Vec<Translation>,
}

/// The currency of prices, and that of the customer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Currency {
    pub(crate) code: String,
    pub(crate) localized_code: String,
    /// The price of one unit of `code` in `localized_code`.
    pub(crate) rate: f64,
}

impl Default for Currency {
    fn default() -> Self {
        Self { code: "EUR".to_owned(), localized_code: "EUR".to_owned(), rate: 1.0 }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Make {
    pub(crate) id: i64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Group {
    pub(crate) id: i64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) models: Vec<Model>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Model {
    pub(crate) id: i64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) manufactured_from: Option<String>,
    #[serde(default)]
    pub(crate) manufactured_to: Option<String>,
    #[serde(default)]
    pub(crate) requires_doip: bool,
    #[serde(default)]
    pub(crate) variants: Vec<Variant>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) id: i64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) manufactured_from: Option<String>,
    #[serde(default)]
    pub(crate) manufactured_to: Option<String>,
    #[serde(default)]
    pub(crate) requires_doip: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KnownVehicle {
    pub(crate) vin: String,
    pub(crate) model_variant_id: i64,
}

/// What has nothing but an identifier and a name.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NamedBy{I}")]
pub(crate) struct Named<I> {
    pub(crate) id: I,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) item_number: String,
    pub(crate) name: String,
    pub(crate) internal_name: String,
    #[serde(default)]
    pub(crate) description: String,
    /// Whether no person works on it.
    #[serde(default)]
    pub(crate) is_unattended: bool,
    /// In units of the currency.
    pub(crate) price: f64,
    #[serde(default)]
    pub(crate) discount_percent: f64,
    #[serde(default)]
    pub(crate) original_equipment_service_fee: Option<f64>,
    pub(crate) product_group_id: i64,
    /// The models for which the product is offered; empty: all.
    #[serde(default)]
    pub(crate) vehicle_model_ids: Vec<i64>,
    #[serde(default)]
    pub(crate) prerequisite_ids: Vec<i64>,
    #[serde(default)]
    pub(crate) is_favorite: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProductBundle {
    pub(crate) id: Uuid,
    pub(crate) product_group_id: i64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) reference: Uuid,
    pub(crate) blocks: Vec<Block>,
}

/// A part of a bundle.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Block {
    pub(crate) optional: bool,
    /// Lists of products, of which one is chosen.
    pub(crate) product_ids: Vec<Vec<i64>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prerequisite {
    pub(crate) id: i64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) question: String,
    #[serde(default)]
    pub(crate) required: bool,
    /// The values from which to choose; empty: any text.
    #[serde(default)]
    pub(crate) options: Vec<PrerequisiteOption>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrerequisiteOption {
    pub(crate) id: i64,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Voucher {
    pub(crate) code: String,
    pub(crate) percent: f64,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Customer {
    /// The customer as partners name it.
    pub(crate) id: Uuid,
    pub(crate) name: String,
    pub(crate) reference: i64,
    pub(crate) street: String,
    pub(crate) number: String,
    pub(crate) postal_code: String,
    pub(crate) city: String,
    pub(crate) country: String,
    pub(crate) email_address: String,
    pub(crate) financial_email_address: String,
    pub(crate) phone: Phone,
    pub(crate) given_name: String,
    pub(crate) family_name: String,
}

/// A phone number: a number as in the documented example, or text as in the documented type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Phone {
    Number(#[schemars(range(min = 0, max = 999_999_999_999_999_i64))] i64),
    Text(#[schemars(length(max = 255))] String),
}

impl Default for Phone {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl Phone {
    /// Digits as a number, as the example has them, unless a leading zero would be lost.
    pub(crate) fn plain(self) -> Self {
        match self {
            Self::Text(text)
                if (1..=15).contains(&text.len())
                    && !text.starts_with('0')
                    && text.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                text.parse().map_or(Self::Text(text), Self::Number)
            }
            other => other,
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServiceProvider {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) wallet_balance: String,
    pub(crate) portal_url: String,
    pub(crate) logo: String,
    pub(crate) color: String,
    pub(crate) background_color: String,
    /// `opened`, `closed` or `scheduled`.
    pub(crate) state: String,
    /// A date and time, whose offset may be written with or without a colon.
    pub(crate) state_ends_at: Option<String>,
    pub(crate) message: String,
    pub(crate) service_message: String,
}

impl ServiceProvider {
    /// The end of the state, if there is one in the form of a date and time.
    pub(crate) fn state_end(&self) -> Option<OffsetDateTime> {
        let text = self.state_ends_at.as_deref()?;
        // the documented example has no colon: +0200
        let (time, minutes) = text.split_at_checked(text.len().checked_sub(2)?)?;
        let with_colon = format!("{time}:{minutes}");
        OffsetDateTime::parse(text, &Rfc3339).or_else(|_| OffsetDateTime::parse(&with_colon, &Rfc3339)).ok()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PreparedSeed {
    pub(crate) id: Uuid,
    #[serde(default)]
    pub(crate) vin: Option<String>,
    pub(crate) vehicle_model_id: i64,
    #[serde(default)]
    pub(crate) vehicle_model_variant_id: Option<i64>,
    pub(crate) product_ids: Vec<i64>,
    #[serde(default)]
    pub(crate) preparer_external_reference: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Translation {
    pub(crate) language: String,
    pub(crate) original: String,
    pub(crate) translated: String,
}

impl Catalogue {
    /// Reads a catalogue; parts that the file leaves out are those of the default.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read, is no catalogue, or refers to what is not there.
    pub(crate) fn load(path: &Path) -> Result<Self, CatalogueError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CatalogueError::File { path: path.to_owned(), source })?;
        let form = |reason: String| CatalogueError::Form { path: path.to_owned(), reason };
        let is_toml = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
        let given: serde_json::Value = if is_toml {
            toml::from_str(&text).map_err(|error| form(error.to_string()))?
        } else {
            serde_json::from_str(&text).map_err(|error| form(error.to_string()))?
        };
        let mut all = serde_json::to_value(Self::builtin()).map_err(|error| form(error.to_string()))?;
        let (Some(all_parts), serde_json::Value::Object(given)) = (all.as_object_mut(), given) else {
            return Err(form("it is not a table".to_owned()));
        };
        all_parts.extend(given);
        let catalogue: Self = serde_json::from_value(all).map_err(|error| form(error.to_string()))?;
        catalogue.check().map_err(form)?;
        Ok(catalogue)
    }
}
