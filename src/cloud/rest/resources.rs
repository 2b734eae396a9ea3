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

/// The active ticket of this connector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ActiveTicket {
    /// The ticket's number, as text.
    pub number: Option<String>,
    /// The ticket's UUID.
    pub uuid: Option<Uuid>,
    /// The ticket's state, as the cloud spells it.
    pub state: Option<String>,
    /// The operator's connection; `None` if no operator has joined, or if the cloud does not name it.
    pub connection_uuid: Option<Uuid>,
}

impl ActiveTicket {
    /// The ticket in an answer; `None` for `null`, an empty object or an empty list.
    ///
    /// Understands the documented form (`id` is text, `state` a number), the names of the websocket's ticket
    /// updates, and those of the partner's tickets, where `id` is a UUID.
    ///
    /// # Errors
    ///
    /// Returns an error for an answer that is neither empty nor a ticket: it does not mean that there is no ticket.
    pub(crate) fn from_json(value: &Value) -> Result<Option<Self>, NotATicket> {
        let object = match value {
            Value::Null => return Ok(None),
            Value::Array(tickets) => match tickets.first() {
                None => return Ok(None),
                Some(first) => first.as_object(),
            },
            other => other.as_object(),
        };
        let object = object.ok_or(NotATicket)?;
        if object.is_empty() {
            return Ok(None);
        }
        let text = |key: &str| match object.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let uuid = |key| text(key).and_then(|text| Uuid::try_parse(&text).ok());
        let number = |key| text(key).filter(|text| text.parse::<u64>().is_ok());
        let ticket = Self {
            number: ["ticket_id", "id", "ticket_number"].into_iter().find_map(number),
            uuid: ["ticket_uuid", "uuid", "ticket_id", "id"].into_iter().find_map(uuid),
            state: text("state"),
            connection_uuid: uuid("connection_uuid").or_else(|| uuid("connection_id")),
        };
        if ticket == Self::default() { Err(NotATicket) } else { Ok(Some(ticket)) }
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
        ActiveTicket::from_json(&json).unwrap().unwrap()
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
            connection_uuid: None,
        };
        assert_eq!(ticket, expected);
    }

    #[test]
    fn a_ticket_is_understood_in_either_spelling() {
        let uuid = "97a0760d-ade2-4a19-aea4-36e097678ae3";
        let update = ticket(json!({
            "id": 3, "ticket_id": 12, "state": "in_progress", "connection_id": 5, "connection_uuid": uuid
        }));
        let expected = ActiveTicket {
            number: Some("12".to_owned()),
            uuid: None,
            state: Some("in_progress".to_owned()),
            connection_uuid: Some(uuid.parse().unwrap()),
        };
        assert_eq!(update, expected);
        let partner = ticket(json!({"id": uuid, "ticket_number": 7440303, "connection_id": uuid}));
        assert_eq!(partner.connection_uuid, Some(uuid.parse().unwrap()));
        assert_eq!((partner.uuid, partner.number.as_deref()), (partner.connection_uuid, Some("7440303")));
        for nothing in [json!(null), json!({}), json!([])] {
            assert_eq!(ActiveTicket::from_json(&nothing), Ok(None), "{nothing}");
        }
        for other in [json!(5), json!([1]), json!({"x": 1}), json!({"result": []}), json!("3")] {
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
        assert!(!ticket(json!({"state": 1})).is_other_than(&json!(4)));
    }
}
