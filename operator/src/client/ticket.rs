//! Tickets, as the cloud presents them to partners.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

/// A ticket, as the cloud presents it to partners.
#[derive(Debug, Clone, Deserialize)]
pub struct Ticket {
    /// The ticket's id.
    #[serde(deserialize_with = "text")]
    pub id: String,
    /// The ticket's number, for people.
    #[serde(default, deserialize_with = "optional_text")]
    pub ticket_number: Option<String>,
    /// `pending`, `in_progress`, …; the customers' API has a number.
    #[serde(default, deserialize_with = "optional_text")]
    pub state: Option<String>,
    /// The vehicle's VIN.
    #[serde(default)]
    pub vin: Option<String>,
    /// The connector in the vehicle.
    #[serde(default)]
    pub connector_uuid: Option<Uuid>,
    /// The number of the connector in the vehicle.
    #[serde(default, deserialize_with = "optional_text")]
    pub connector_id: Option<String>,
    /// The number of the vehicle's model in the catalogue.
    #[serde(default)]
    pub vehicle_model_id: Option<u32>,
    /// The number of the variant of the model.
    #[serde(default)]
    pub vehicle_model_variant_id: Option<u32>,
    /// The numbers of the ordered products.
    #[serde(default, deserialize_with = "numbers")]
    pub product_ids: Vec<u32>,
    /// When the ticket was created.
    #[serde(default)]
    pub created_at: Option<String>,
    /// The number of the ticket's connection, or its UUID if the cloud has no number.
    #[serde(default, deserialize_with = "optional_text")]
    pub connection_id: Option<String>,
    /// The UUID of the ticket's connection.
    #[serde(default)]
    pub connection_uuid: Option<Uuid>,
}

impl Ticket {
    /// The connection to join, once the ticket is in progress.
    pub fn connection(&self) -> Option<Uuid> {
        self.connection_uuid.or_else(|| self.connection_id.as_deref()?.parse().ok())
    }

    /// Whether `name` is the ticket's id or number.
    pub fn is_called(&self, name: &str) -> bool {
        self.id.eq_ignore_ascii_case(name) || self.ticket_number.as_deref() == Some(name)
    }
}

/// Reads an id, which is a number in some of the cloud's answers and a string in others.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    optional_text(deserializer)?.ok_or_else(|| serde::de::Error::custom("expected a string or a number"))
}

/// Reads a list of numbers. The documents print a list in the list, too.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    fn collect(value: &Value, numbers: &mut Vec<u32>) {
        match value {
            Value::Array(list) => list.iter().for_each(|value| collect(value, numbers)),
            value => numbers.extend(value.as_u64().and_then(|number| u32::try_from(number).ok())),
        }
    }
    let mut numbers = Vec::new();
    collect(&Value::deserialize(deserializer)?, &mut numbers);
    Ok(numbers)
}

fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}
