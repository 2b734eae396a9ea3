//! Pages of lists, in the form of the customers and in that of the partners.

use serde_json::{Map, Value, json};

use crate::cloud::rest::extract::Parameters;
use crate::cloud::rest::fields::Fields;

/// A page of a list, in the customers' form.
pub(super) fn page<T>(all: &[T], offset: i64, limit: i64, view: impl Fn(&T) -> Value) -> Value {
    let (skip, take) = (usize::try_from(offset).unwrap_or(usize::MAX), usize::try_from(limit).unwrap_or(0));
    let result: Vec<Value> = all.iter().skip(skip).take(take).map(view).collect();
    json!({"result": result, "total": all.len(), "offset": offset, "limit": limit})
}

/// A page of a partner's list: the query and its result.
pub(super) fn partner_page(query: Map<String, Value>, paging: &Paging, found: &[Value]) -> Value {
    let result: Vec<&Value> = found.iter().skip(paging.offset).take(paging.limit).collect();
    json!({"query": query, "result": result, "total": found.len()})
}

/// The requested part of a partner's list.
pub(super) struct Paging {
    offset: usize,
    limit: usize,
}

impl Paging {
    /// Parses the partner API's paging: `limit` is 0…1000, by default 25. Adds both values to `query`.
    pub(super) fn parse(fields: &mut Fields, query: &mut Map<String, Value>) -> Self {
        let offset = fields.within("offset", 0, i64::MAX).unwrap_or(0);
        let limit = fields.within("limit", 0, 1000).unwrap_or(25);
        query.insert("offset".to_owned(), json!(offset));
        query.insert("limit".to_owned(), json!(limit));
        Self {
            offset: usize::try_from(offset).unwrap_or(usize::MAX),
            limit: usize::try_from(limit).unwrap_or(0),
        }
    }
}

/// The known parameters of the query, for the answer.
pub(super) fn asked(parameters: &Parameters, known: &[&str]) -> Map<String, Value> {
    let known = parameters.0.iter().filter(|(name, _)| known.contains(&name.as_str()));
    known.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}
