//! The content of the REST resources.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use crate::config::Config;

/// The cloud's record of this connector. Contains the VIN: log it at DEBUG or below.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct ConnectorRecord {
    /// The cloud's number for the connector.
    pub id: Option<i64>,
    /// The connector's UUID.
    pub uuid: Option<Uuid>,
    /// Whether the cloud has a websocket to the connector.
    pub is_online: Option<bool>,
    /// Whether the connector has Wi-Fi.
    pub has_wifi: Option<bool>,
    /// The version of the device's software.
    #[serde(deserialize_with = "version")]
    pub software_version: Option<String>,
    /// The version of the hardware.
    #[serde(deserialize_with = "version")]
    pub hardware_version: Option<String>,
    /// The kind of hardware.
    pub hardware_type: Option<String>,
    /// Whether the connector supports DoIP.
    pub supports_doip: Option<bool>,
    /// A description of the vehicle.
    pub vehicle_path_string: Option<String>,
    /// The VIN last reported.
    pub vin_number: Option<String>,
    /// The name of the product.
    pub product_description: Option<String>,
}

/// A version, as a number or as text: the API's examples have numbers, its schema has text.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// The ticket in progress on this connector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActiveTicket {
    /// The ticket's number or UUID, as text.
    pub ticket_id: Option<String>,
    /// The ticket's state, as the cloud spells it.
    pub state: Option<String>,
    /// The operator's connection; `None` while no operator has joined.
    pub connection_uuid: Option<Uuid>,
}

impl ActiveTicket {
    /// The ticket in an answer; `None` for `null`, an empty object or an empty list.
    ///
    /// The content of the resource is not documented. This function understands the names of the ticket
    /// resources and those of the websocket's ticket updates.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let object = match value {
            Value::Array(tickets) => tickets.first()?.as_object()?,
            other => other.as_object()?,
        };
        let text = |key: &str| match object.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let uuid = |key| text(key).and_then(|text| Uuid::try_parse(&text).ok());
        let ticket = Self {
            ticket_id: text("ticket_id").or_else(|| text("ticket_uuid")).or_else(|| text("id")),
            state: text("state"),
            connection_uuid: uuid("connection_uuid").or_else(|| uuid("connection_id")),
        };
        (ticket != Self::default()).then_some(ticket)
    }

    /// Whether a connection may be open for the ticket: its state is "in progress", in any spelling, or
    /// missing.
    pub(crate) fn is_in_progress(&self) -> bool {
        let Some(state) = &self.state else { return true };
        let letters =
            state.chars().filter(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_lowercase());
        letters.eq("inprogress".chars())
    }
}

/// Describes each difference between the configuration and the cloud's record of this connector.
pub fn differences(config: &Config, record: &ConnectorRecord) -> Vec<String> {
    let connector = &config.connector;
    let pairs = [
        ("uuid", connector.uuid.to_string(), record.uuid.map(|uuid| uuid.to_string())),
        ("hardware_type", connector.hardware_type.clone(), record.hardware_type.clone()),
        ("hardware_version", connector.hardware_version.to_string(), record.hardware_version.clone()),
        ("software_version", connector.software_version.to_string(), record.software_version.clone()),
    ];
    let differs = |(key, here, there): (&str, String, Option<String>)| {
        let there = there?;
        (here != there)
            .then(|| format!("connector.{key} is {here} in the configuration, {there} in the cloud"))
    };
    pairs.into_iter().filter_map(differs).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{ApiUrl, WebsocketUrl};

    #[test]
    fn differences_are_described_and_missing_values_are_no_difference() {
        let uuid = "5f3d760d-ade2-4a19-aea4-36e097678ae3";
        let config = Config::new(
            uuid.parse().unwrap(),
            ApiUrl::try_from("https://example.com".to_owned()).unwrap(),
            WebsocketUrl::try_from("wss://example.com".to_owned()).unwrap(),
        );
        let record = |json| serde_json::from_value::<ConnectorRecord>(json).unwrap();
        let same = json!({"id": 7, "uuid": uuid, "hardware_version": 0, "software_version": "0", "new": []});
        assert_eq!(differences(&config, &record(same)), Vec::<String>::new());
        let other = json!({"uuid": uuid, "hardware_version": 3, "hardware_type": "wireless"});
        assert_eq!(
            differences(&config, &record(other)),
            [
                "connector.hardware_type is classic in the configuration, wireless in the cloud",
                "connector.hardware_version is 0 in the configuration, 3 in the cloud",
            ]
        );
        assert!(differences(&config, &ConnectorRecord::default()).is_empty());
    }

    #[test]
    fn a_ticket_is_understood_in_either_spelling() {
        let uuid = "97a0760d-ade2-4a19-aea4-36e097678ae3";
        let ticket = ActiveTicket::from_json(&json!({
            "id": 3, "ticket_id": 12, "state": "in_progress", "connection_id": 5, "connection_uuid": uuid
        }));
        let expected = ActiveTicket {
            ticket_id: Some("12".to_owned()),
            state: Some("in_progress".to_owned()),
            connection_uuid: Some(uuid.parse().unwrap()),
        };
        assert_eq!(ticket, Some(expected));
        let ticket = ActiveTicket::from_json(&json!({"id": uuid, "connection_id": uuid})).unwrap();
        assert_eq!(ticket.connection_uuid, Some(uuid.parse().unwrap()));
        for (state, is_in_progress) in [
            (json!("in_progress"), true),
            (json!("IN_PROGRESS"), true),
            (json!("in-progress"), true),
            (json!("InProgress"), true),
            (json!(null), true),
            (json!("pending"), false),
            (json!("completed"), false),
            (json!(""), false),
        ] {
            let ticket = ActiveTicket::from_json(&json!({"id": 3, "state": state})).unwrap();
            assert_eq!(ticket.is_in_progress(), is_in_progress, "{state}");
        }
        for nothing in [json!(null), json!({}), json!([]), json!(5), json!([1]), json!({"x": 1})] {
            assert_eq!(ActiveTicket::from_json(&nothing), None, "{nothing}");
        }
    }
}
