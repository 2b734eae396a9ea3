//! Checks the path, the query and the body of a request against the schema of the type that the handler takes.

use std::any::TypeId;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{ValidationError, Validator};
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::cloud::rest::problem::{MAX_VIOLATIONS, Violation};

/// Limit of a violation's text: validators quote the value.
const MAX_MESSAGE: usize = 200;

/// No path parameters, no query or no body.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

/// The schema of a part of a request, and its validator.
pub(super) struct Check {
    pub(super) schema: Value,
    validator: Option<Validator>,
}

/// Adds the bounds of an integer's bits, so that a number beyond them is a violation of its field.
fn bound(schema: &mut Schema) {
    let (least, most) = match schema.get("format").and_then(Value::as_str) {
        Some("int32") => (i64::from(i32::MIN), i64::from(i32::MAX)),
        Some("int64") => (i64::MIN, i64::MAX),
        _ => return,
    };
    for (name, limit) in [("minimum", least), ("maximum", most)] {
        if schema.get(name).is_none() {
            schema.insert(name.to_owned(), Value::from(limit));
        }
    }
}

impl Check {
    /// The check of this type; `None` for [`Nothing`].
    pub(super) fn of<T: JsonSchema + 'static>() -> Option<Self> {
        if TypeId::of::<T>() == TypeId::of::<Nothing>() {
            return None;
        }
        let settings = SchemaSettings::draft2020_12().for_deserialize().with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        });
        let settings = settings.with_transform(RecursiveTransform(bound));
        let schema = settings.into_generator().into_root_schema_for::<T>().to_value();
        let built = jsonschema::options().should_validate_formats(true).build(&schema);
        let validator = built.map_err(|error| tracing::error!("a schema is not valid: {error}")).ok();
        Some(Self { schema, validator })
    }

    /// All violations of a value.
    pub(super) fn violations(&self, value: &Value) -> Vec<Violation> {
        let errors = self.validator.iter().flat_map(|validator| validator.iter_errors(value));
        errors.flat_map(|error| violations(&error)).take(MAX_VIOLATIONS).collect()
    }

    /// Texts of a path or query as values of the types that the schema has.
    pub(super) fn typed(&self, pairs: impl Iterator<Item = (String, String)>) -> Value {
        let property = |name: &str| self.schema.pointer("/properties")?.get(name);
        let typed = pairs.map(|(name, text)| {
            let value = typed(property(&name), text);
            (name, value)
        });
        Value::Object(typed.collect::<Map<_, _>>())
    }
}

/// Whether the schema allows this type, itself or in one of its alternatives.
fn allows(schema: &Value, wanted: &str) -> bool {
    let is_type = match schema.get("type") {
        Some(Value::String(name)) => name == wanted,
        Some(Value::Array(names)) => names.iter().any(|name| name == wanted),
        _ => false,
    };
    is_type
        || schema
            .get("anyOf")
            .and_then(Value::as_array)
            .is_some_and(|any| any.iter().any(|one| allows(one, wanted)))
}

fn typed(schema: Option<&Value>, text: String) -> Value {
    let Some(schema) = schema else { return Value::String(text) };
    if allows(schema, "array") {
        let items = schema.get("items");
        let parts = text.split(',').filter(|part| !part.is_empty());
        return Value::Array(parts.map(|part| typed(items, part.to_owned())).collect());
    }
    if (allows(schema, "integer") || allows(schema, "number"))
        && let Ok(number) = text.parse::<i64>()
    {
        return Value::from(number);
    }
    if allows(schema, "boolean")
        && let Ok(truth) = text.parse::<bool>()
    {
        return Value::Bool(truth);
    }
    Value::String(text)
}

/// The violations in an error: of a value with alternatives, those of the alternative that is meant.
fn violations(error: &ValidationError<'_>) -> Vec<Violation> {
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return vec![violation(error)];
    };
    // neither a value of another type nor one with another tag
    let is_other = |inner: &ValidationError<'_>| match inner.kind() {
        ValidationErrorKind::Type { .. } => inner.instance_path() == error.instance_path(),
        kind => matches!(kind, ValidationErrorKind::Constant { .. }),
    };
    let mut meant = context.iter().filter(|errors| !errors.iter().any(is_other));
    let Some(first) = meant.next() else { return vec![violation(error)] };
    let mut found: Vec<Violation> = first.iter().flat_map(violations).collect();
    for other in meant {
        let other: Vec<Violation> = other.iter().flat_map(violations).collect();
        found.retain(|violation| other.contains(violation));
    }
    if found.is_empty() { vec![violation(error)] } else { found }
}

fn violation(error: &ValidationError<'_>) -> Violation {
    let mut field = error.instance_path().to_string().trim_start_matches('/').replace('/', ".");
    let mut message = error.to_string();
    if let ValidationErrorKind::Required { property } = error.kind() {
        let name = property.as_str().unwrap_or_default();
        field = if field.is_empty() { name.to_owned() } else { format!("{field}.{name}") };
        message = "is required".to_owned();
    }
    if field.is_empty() {
        field = "body".to_owned();
    }
    if message.len() > MAX_MESSAGE {
        let end = (0..=MAX_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
        message.truncate(end);
    }
    Violation { field, message }
}
