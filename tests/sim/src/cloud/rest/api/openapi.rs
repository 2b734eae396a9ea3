//! The OpenAPI 3.1 description of a table of operations.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::input::Check;
use super::operation::{Access, Operation};

/// The names of an API.
pub(crate) struct Description {
    pub(crate) title: &'static str,
    pub(crate) text: &'static str,
    pub(crate) server: String,
}

/// The statuses of the errors that every operation may answer with.
const ERRORS: [(u16, &str); 10] = [
    (400, "The request is invalid."),
    (401, "The access token is missing, wrong or expired."),
    (403, "The token does not permit this."),
    (404, "There is no such resource."),
    (408, "The request took too long."),
    (409, "The state of the resource does not permit this."),
    (413, "The body is too long."),
    (429, "Too many attempts."),
    (500, "The sandbox failed."),
    (503, "The sandbox has reached a limit."),
];

/// The description of these operations.
pub(crate) fn describe(operations: &[Operation], description: &Description) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<crate::cloud::rest::problem::ProblemBody>().to_value();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let answer = (operation.answer)(&mut generator);
        let item = operation_object(operation, answer, &problem);
        paths.entry(operation.path).or_default().insert(operation.method.as_str().to_lowercase(), item);
    }
    let mut schemas = Value::Object(generator.take_definitions(true));
    if let Some(schemas) = schemas.as_object_mut() {
        schemas.values_mut().for_each(close);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": description.title, "version": "1", "description": description.text},
        "servers": [{"url": description.server}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    })
}

fn operation_object(operation: &Operation, answer: Option<Value>, problem: &Value) -> Value {
    let parameters: Vec<Value> = parameters(operation.checks.path.as_ref(), "path")
        .chain(parameters(operation.checks.query.as_ref(), "query"))
        .collect();
    let mut success = json!({"description": "Success."});
    if let (Some(schema), Some(success)) = (answer, success.as_object_mut()) {
        success.insert("content".to_owned(), json!({"application/json": {"schema": schema}}));
    }
    if !operation.headers.is_empty() {
        let headers: Map<String, Value> = operation
            .headers
            .iter()
            .map(|name| ((*name).to_owned(), json!({"required": true, "schema": {"type": "string"}})))
            .collect();
        if let Some(success) = success.as_object_mut() {
            success.insert("headers".to_owned(), Value::Object(headers));
        }
    }
    let mut responses = Map::from_iter([(operation.status.as_u16().to_string(), success)]);
    for (status, text) in ERRORS {
        let body = json!({"application/problem+json": {"schema": problem}});
        responses.insert(status.to_string(), json!({"description": text, "content": body}));
    }
    let mut object = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
        "x-path-is": operation.mark.name(),
    });
    let Some(fields) = object.as_object_mut() else { return object };
    if operation.access != Access::Public {
        fields.insert("security".to_owned(), json!([{"bearer": []}]));
    }
    if let Some(body) = &operation.checks.body {
        let content = json!({"application/json": {"schema": body.schema}});
        fields.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    object
}

/// A name made of method and path, such as `getV1Connectors`.
fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(operation.method.as_str().to_lowercase(), |mut id, word| {
        let (first, rest) = word.split_at(1);
        id.push_str(&first.to_uppercase());
        id.push_str(rest);
        id
    })
}

/// The properties of a schema as parameters.
fn parameters(check: Option<&Check>, place: &'static str) -> impl Iterator<Item = Value> {
    let schema = check.map(|check| check.schema.clone()).unwrap_or_default();
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    properties.into_iter().map(move |(name, schema)| {
        let is_required = place == "path" || required.iter().any(|known| known == name.as_str());
        let mut parameter = json!({"name": name, "in": place, "required": is_required, "schema": schema});
        if let Some(parameter) = parameter.as_object_mut()
            && schema.get("type").is_some_and(|kind| kind == "array")
        {
            // product_id=1,2,3
            parameter.insert("style".to_owned(), json!("form"));
            parameter.insert("explode".to_owned(), json!(false));
        }
        parameter
    })
}

/// Allows no other fields than those of the schema, in all objects below it.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.contains_key("properties") && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
        }
        Value::Array(elements) => elements.iter_mut().for_each(close),
        _ => {}
    }
}
