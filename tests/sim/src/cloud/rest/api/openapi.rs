//! The OpenAPI 3.1 description of a table of operations.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::input::Check;
use super::operation::{ATTACHMENTS, Access, Operation};

/// The names of an API.
pub(crate) struct Description {
    pub(crate) title: &'static str,
    pub(crate) text: &'static str,
    pub(crate) server: String,
}

/// The errors that the documents name for the customer API.
const DOCUMENTED: [(u16, &str); 4] = [
    (400, "The request is invalid."),
    (401, "The access token is missing, wrong or expired."),
    (FORBIDDEN, "The token does not permit this."),
    (500, "The sandbox failed."),
];
const FORBIDDEN: u16 = 403;
/// The operations whose documents do not name 403.
const WITHOUT_FORBIDDEN: [&str; 4] = [
    "/v1/historical-tickets",
    "/v1/historical-tickets/{historicalTicketId}",
    "/v1/prepared-tickets",
    "/v1/tickets",
];
/// The documents name 404 for this resource of the customer API alone.
const CHANNEL: &str = "/v1/channels/{channelId}";
const NOT_FOUND: u16 = 404;
/// Further errors of the customer API, which the description marks as the sandbox's own.
const OWN: [(u16, &str); 6] = [
    (NOT_FOUND, "There is no such resource."),
    (405, "The resource has no such method."),
    (408, "The request took too long."),
    (413, "The body is too long."),
    (429, "Too many attempts."),
    (503, "The sandbox has reached a limit."),
];
/// Marks what the documents do not print.
const OWN_MARK: &str = "x-sandbox";

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
        let path = paths.entry(operation.path).or_default();
        path.entry("options").or_insert_with(|| options_object(operation.path, &problem));
        path.insert(operation.method.as_str().to_lowercase(), item);
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
            "securitySchemes": security_schemes(&description.server),
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
    responses.extend(errors(operation, problem));
    let mut object = json!({
        "operationId": operation_id(operation),
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
        "x-path-is": operation.mark.name(),
    });
    let Some(fields) = object.as_object_mut() else { return object };
    let security = match operation.access {
        Access::Public => json!([]),
        Access::Token | Access::Customer => json!([{"OAuth2": []}]),
        // the documents name both; the token suffices for the sandbox
        Access::Partner => json!([{"OAuth2": [], "ApiKey": []}, {"OAuth2": []}]),
    };
    fields.insert("security".to_owned(), security);
    if let Some(body) = &operation.checks.body {
        let content = json!({"application/json": {"schema": body.schema}});
        fields.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
    }
    object
}

fn security_schemes(server: &str) -> Value {
    let flow = json!({"tokenUrl": format!("{server}/oauth2/token"), "scopes": {}});
    json!({
        "OAuth2": {"type": "oauth2", "flows": {"clientCredentials": flow}},
        "ApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key",
            "description": "The documents name no header. The sandbox does not check the key."},
    })
}

fn error(text: &str, problem: &Value) -> Value {
    json!({"description": text, "content": {"application/problem+json": {"schema": problem}}})
}

/// The errors of an operation: the documents of the partner API have one answer for all of them.
fn errors(operation: &Operation, problem: &Value) -> Map<String, Value> {
    if operation.access == Access::Partner {
        let all = error("An error occurred: its status and its problem object say which.", problem);
        return Map::from_iter([("default".to_owned(), all)]);
    }
    let mut errors = Map::new();
    for (status, text) in DOCUMENTED.into_iter().chain(OWN) {
        let is_own = match status {
            FORBIDDEN => WITHOUT_FORBIDDEN.contains(&operation.path),
            NOT_FOUND => operation.path != CHANNEL,
            _ => OWN.iter().any(|(own, _)| *own == status),
        };
        let mut error = error(text, problem);
        if let (true, Some(error)) = (is_own, error.as_object_mut()) {
            error.insert(OWN_MARK.to_owned(), Value::Bool(true));
        }
        errors.insert(status.to_string(), error);
    }
    errors
}

/// OPTIONS, which every path of the documents answers.
fn options_object(path: &str, problem: &Value) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let text = json!({"type": "string"});
    let mut parameters: Vec<Value> =
        names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": text})).collect();
    if path == ATTACHMENTS {
        parameters.push(json!({"name": "channel_id", "in": "query", "required": true, "schema": text}));
    }
    let header = json!({"required": true, "schema": text});
    let success = json!({"description": "Success.", "headers": {"Access-Control-Allow-Methods": header}});
    let mut responses = Map::from_iter([("200".to_owned(), success)]);
    for (status, text) in DOCUMENTED.into_iter().chain(OWN) {
        responses.insert(status.to_string(), error(text, problem));
    }
    json!({
        "operationId": name_of("options", path),
        "summary": "Says which methods pages of other origins may use.",
        "parameters": parameters,
        "responses": responses,
        "security": [],
        "x-path-is": "read",
    })
}

/// A name made of method and path, such as `getV1Connectors`.
fn operation_id(operation: &Operation) -> String {
    name_of(&operation.method.as_str().to_lowercase(), operation.path)
}

fn name_of(method: &str, path: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(method.to_owned(), |mut id, word| {
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
