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

/// The active ticket of this connector. Has a number, a UUID, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActiveTicket {
    /// The ticket's number, as text.
    pub number: Option<String>,
    /// The ticket's UUID.
    pub uuid: Option<Uuid>,
    /// The ticket's state, as the cloud spells it.
    pub state: Option<String>,
}

impl ActiveTicket {
    /// The ticket in an answer.
    ///
    /// Understands the documented form (`id` is text, `state` a number), the names of the websocket's ticket
    /// updates, and those of the partner's tickets, where `id` is a UUID.
    ///
    /// # Errors
    ///
    /// Returns an error for an answer that names no ticket. Such an answer does not mean that there is no ticket.
    pub(crate) fn from_json(value: &Value) -> Result<Self, NotATicket> {
        let text = |key: &str| match value.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let uuid = |key| text(key).and_then(|text| Uuid::try_parse(&text).ok());
        let number = |key| text(key).filter(|text| text.parse::<u64>().is_ok());
        let number = ["id", "ticket_id", "ticket_number"].into_iter().find_map(number);
        let uuid = ["uuid", "ticket_uuid", "id"].into_iter().find_map(uuid);
        if number.is_none() && uuid.is_none() {
            return Err(NotATicket);
        }
        Ok(Self { number, uuid, state: text("state") })
    }

    /// Whether this is another ticket than `ticket_id`, a number or a UUID. Without a name of the same kind, it counts
    /// as the same ticket.
    pub(crate) fn is_other_than(&self, ticket_id: &Value) -> bool {
        let wanted = match ticket_id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match Uuid::try_parse(&wanted) {
            Ok(wanted) => self.uuid.is_some_and(|uuid| uuid != wanted),
            Err(_) => self.number.as_ref().is_some_and(|number| *number != wanted),
        }
    }
}

/// An answer that should be the active ticket is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer is not a ticket")]
pub struct NotATicket;

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

    fn ticket(json: Value) -> ActiveTicket {
        ActiveTicket::from_json(&json).unwrap()
    }

    #[test]
    fn a_ticket_is_understood_in_the_documented_form() {
        let ticket = ticket(json!({
            "id": "3", "uuid": "abcb2f39-7620-401a-8dab-ec2f6075ed8a", "vin": "JFL91010104591010",
            "vinNumber": "JFL91010104591010", "vehicle_model_id": 23423, "vehicle_model_variant_id": 23423,
            "product_ids": [[324234]], "chat_id": "2349283_416e4c77-4fc0-40ca-b5a5-95a12c4e84e8",
            "connector_id": 990001234, "state": 1
        }));
        let expected = ActiveTicket {
            number: Some("3".to_owned()),
            uuid: Some("abcb2f39-7620-401a-8dab-ec2f6075ed8a".parse().unwrap()),
            state: Some("1".to_owned()),
        };
        assert_eq!(ticket, expected);
    }

    #[test]
    fn a_ticket_is_understood_in_either_spelling() {
        let uuid = "97a0760d-ade2-4a19-aea4-36e097678ae3";
        let update = ticket(json!({
            "id": 12, "ticket_id": 12, "ticket_uuid": uuid, "state": "in_progress", "connection_id": 5
        }));
        let expected = ActiveTicket {
            number: Some("12".to_owned()),
            uuid: Some(uuid.parse().unwrap()),
            state: Some("in_progress".to_owned()),
        };
        assert_eq!(update, expected);
        let partner = ticket(json!({"id": uuid, "ticket_number": 7440303, "connection_id": uuid}));
        assert_eq!((partner.uuid, partner.number.as_deref()), (expected.uuid, Some("7440303")));
    }

    #[test]
    fn an_answer_that_names_no_ticket_is_neither_a_ticket_nor_its_absence() {
        let nothing = [json!(null), json!({}), json!([])];
        let others = [json!(5), json!([{"id": "3"}]), json!({"x": 1}), json!({"result": []}), json!("3")];
        let nameless =
            [json!({"state": 7}), json!({"id": {}, "uuid": null}), json!({"uuid": "x", "state": 1})];
        for other in nothing.into_iter().chain(others).chain(nameless) {
            assert_eq!(ActiveTicket::from_json(&other), Err(NotATicket), "{other}");
        }
    }

    #[test]
    fn another_ticket_is_one_with_another_name_of_the_same_kind() {
        let uuid = "abcb2f39-7620-401a-8dab-ec2f6075ed8a";
        let both = ticket(json!({"id": "3", "uuid": uuid}));
        for same in [json!(3), json!("3"), json!(uuid), json!(uuid.to_uppercase())] {
            assert!(!both.is_other_than(&same), "{same}");
        }
        for other in [json!(4), json!("4"), json!("97a0760d-ade2-4a19-aea4-36e097678ae3")] {
            assert!(both.is_other_than(&other), "{other}");
        }
        assert!(!ticket(json!({"uuid": uuid})).is_other_than(&json!(4)));
        assert!(!ticket(json!({"id": 4})).is_other_than(&json!(uuid)));
    }
}
