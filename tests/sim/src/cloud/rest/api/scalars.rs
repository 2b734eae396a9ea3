//! Values that the documents allow in several forms.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A whole number, or its digits as text: the schema has numbers, some examples have text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LenientInteger(pub(crate) i64);

impl<'de> Deserialize<'de> for LenientInteger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(i64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for LenientInteger {
    fn schema_name() -> Cow<'static, str> {
        "LenientInteger".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // eighteen digits are always within 64 bits
        json_schema!({"type": ["integer", "string"], "minimum": i64::MIN, "maximum": i64::MAX,
            "pattern": "^-?[0-9]{1,18}$"})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// Text, or a whole number, as pincodes and item numbers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LenientText(pub(crate) String);

impl<'de> Deserialize<'de> for LenientText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text,
        }))
    }
}

impl JsonSchema for LenientText {
    fn schema_name() -> Cow<'static, str> {
        "LenientText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "integer"], "minimum": 0, "maximum": u64::MAX, "minLength": 1, "maxLength": 64})
    }

    fn inline_schema() -> bool {
        true
    }
}

/// A date and time (RFC 3339).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) OffsetDateTime);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.format(&Rfc3339).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Self).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }

    fn inline_schema() -> bool {
        true
    }
}
