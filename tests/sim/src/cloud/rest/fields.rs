//! Reads the fields of a request, from JSON or a query, and collects all violations.

use std::collections::BTreeMap;

use connector_agent::protocol::vin::Vin;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::problem::{ApiError, Violations};

/// Limit of a text field without its own limit.
const MAX_TEXT: usize = 1024;
/// Limit of a list's length.
const MAX_LIST: usize = 100;

/// The fields of one request.
///
/// Every getter records a violation and returns `None` if the field is invalid. A field that is absent or
/// null is `None` without a violation. Numbers may be text, because queries have only text.
pub(crate) struct Fields {
    values: Map<String, Value>,
    violations: Violations,
}

impl Fields {
    /// The fields of a JSON body.
    pub(crate) fn of(body: Map<String, Value>) -> Self {
        Self { values: body, violations: Violations::default() }
    }

    /// The parameters of a query.
    pub(crate) fn of_query(query: &BTreeMap<String, String>) -> Self {
        Self::of(query.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect())
    }

    /// Records a violation of a field.
    pub(crate) fn violation(&mut self, field: &str, message: impl Into<String>) {
        self.violations.add(field, message);
    }

    /// Returns all violations as one error.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        self.violations.finish()
    }

    /// Records a violation if the field is absent; null is present.
    pub(crate) fn require(&mut self, field: &str) {
        if !self.has(field) {
            self.violation(field, "is required");
        }
    }

    /// Whether the field is present, null or not.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.values.contains_key(field)
    }

    /// The field's value, if it is not null.
    pub(crate) fn value(&self, field: &str) -> Option<&Value> {
        self.values.get(field).filter(|value| !value.is_null())
    }

    /// The value. Records a violation if the field is absent or null.
    pub(crate) fn needed<T>(
        &mut self,
        field: &str,
        get: impl FnOnce(&mut Self, &str) -> Option<T>,
    ) -> Option<T> {
        if self.value(field).is_none() {
            self.violation(field, "is required");
            return None;
        }
        get(self, field)
    }

    fn parsed<T>(
        &mut self,
        field: &str,
        message: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.value(field)?);
        if parsed.is_none() {
            self.violation(field, message);
        }
        parsed
    }

    /// A whole number of 64 bits.
    pub(crate) fn integer(&mut self, field: &str) -> Option<i64> {
        self.parsed(field, "must be a whole number", integer)
    }

    /// A number that is at least 1.
    pub(crate) fn id(&mut self, field: &str) -> Option<i64> {
        self.parsed(field, "must be a whole number above 0", |value| integer(value).filter(|id| *id > 0))
    }

    /// A whole number within bounds.
    pub(crate) fn within(&mut self, field: &str, least: i64, most: i64) -> Option<i64> {
        let message = format!("must be a whole number from {least} to {most}");
        self.parsed(field, &message, |value| integer(value).filter(|number| (least..=most).contains(number)))
    }

    /// Text of at most `longest` characters.
    pub(crate) fn text(&mut self, field: &str, longest: usize) -> Option<String> {
        let message = format!("must be text of at most {longest} characters");
        self.parsed(field, &message, |value| {
            value.as_str().filter(|text| text.chars().count() <= longest).map(str::to_owned)
        })
    }

    /// Text of at most `longest` characters that is not blank.
    pub(crate) fn name(&mut self, field: &str, longest: usize) -> Option<String> {
        let text = self.text(field, longest)?;
        if text.trim().is_empty() {
            self.violation(field, "must not be empty");
            return None;
        }
        Some(text)
    }

    /// A UUID.
    pub(crate) fn uuid(&mut self, field: &str) -> Option<Uuid> {
        self.parsed(field, "must be a UUID", |value| value.as_str()?.parse().ok())
    }

    /// A VIN.
    pub(crate) fn vin(&mut self, field: &str) -> Option<Vin> {
        let parsed = match self.value(field)? {
            Value::String(text) => text.parse::<Vin>().map_err(|error| error.to_string()),
            _ => Err("must be text".to_owned()),
        };
        parsed.map_err(|message| self.violation(field, message)).ok()
    }

    /// True or false.
    pub(crate) fn boolean(&mut self, field: &str) -> Option<bool> {
        self.parsed(field, "must be true or false", |value| match value {
            Value::String(text) => text.parse().ok(),
            value => value.as_bool(),
        })
    }

    /// A date and time (RFC 3339).
    pub(crate) fn moment(&mut self, field: &str) -> Option<OffsetDateTime> {
        self.parsed(field, "must be a date and time as in 2026-11-02T10:20:30Z", |value| {
            OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()
        })
    }

    /// A list of ids.
    pub(crate) fn ids(&mut self, field: &str) -> Option<Vec<i64>> {
        let message = format!("must be a list of at most {MAX_LIST} whole numbers above 0");
        self.parsed(field, &message, |value| {
            let list = value.as_array().filter(|list| list.len() <= MAX_LIST)?;
            list.iter().map(|element| integer(element).filter(|id| *id > 0)).collect()
        })
    }

    /// An object.
    pub(crate) fn object(&mut self, field: &str) -> Option<Map<String, Value>> {
        self.parsed(field, "must be an object", |value| value.as_object().cloned())
    }

    /// An id that may be text or a number.
    pub(crate) fn name_or_number(&mut self, field: &str) -> Option<Value> {
        self.parsed(field, "must be text or a number, and not empty", |value| match value {
            Value::String(text) if !text.trim().is_empty() && text.len() <= MAX_TEXT => Some(value.clone()),
            Value::Number(_) => Some(value.clone()),
            _ => None,
        })
    }

    /// A voucher code: four to eight of A–Z and 0–9.
    pub(crate) fn voucher(&mut self, field: &str) -> Option<String> {
        self.parsed(field, "must be 4 to 8 characters of A-Z and 0-9", |value| {
            let text = value.as_str().filter(|text| (4..=8).contains(&text.len()))?;
            let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            text.bytes().all(allowed).then(|| text.to_owned())
        })
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(body: Value) -> Fields {
        Fields::of(body.as_object().unwrap().clone())
    }

    #[test]
    fn all_invalid_fields_are_reported_together() {
        let mut fields = fields(json!({"vin": "SHORT", "id": 0, "voucher": "abc", "ids": [1, "x"]}));
        assert_eq!(fields.vin("vin"), None);
        assert_eq!(fields.id("id"), None);
        assert_eq!(fields.voucher("voucher"), None);
        assert_eq!(fields.ids("ids"), None);
        assert_eq!(fields.needed("missing", Fields::uuid), None);
        let error = serde_json::to_value(fields.finish().unwrap_err().contents()).unwrap();
        assert_eq!(error["type"], "/problems/violations");
        let named: Vec<_> =
            error["violations"].as_array().unwrap().iter().map(|v| v["field"].clone()).collect();
        assert_eq!(named, ["vin", "id", "voucher", "ids", "missing"]);
    }

    #[test]
    fn a_placeholder_is_not_a_vin() {
        let mut fields = fields(json!({"a": "00000000000000000", "b": "00000000000000001"}));
        assert_eq!(fields.vin("a"), None);
        assert_eq!(fields.vin("b"), "00000000000000001".parse().ok());
        let error = serde_json::to_value(fields.finish().unwrap_err().contents()).unwrap();
        assert_eq!(error["violations"][0]["message"], "the VIN is a placeholder");
    }

    #[test]
    fn null_satisfies_a_required_field_without_a_value() {
        let mut fields = fields(json!({"vin": null}));
        fields.require("vin");
        assert_eq!(fields.vin("vin"), None);
        assert!(fields.finish().is_ok());
    }
}
