//! New tickets, prepared ones, notes, and the customer's satisfaction.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::bodies::{Page, Paging, TicketBody};
use super::cart::offered;
use super::products::known_vehicle;
use crate::cloud::catalogue::{Catalogue, Product};
use crate::cloud::rest::api::{Call, LenientInteger, Moment, Nothing, Null};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::{ApiError, Violations};
use crate::cloud::rest::ticket_lifecycle::{self, NewTicket};
use crate::cloud::store::{Csat, Note, PreparedTicket, PrerequisiteAnswer, Read, Subject, Ticket};

/// Limit of `metadata`, in bytes of JSON.
const MAX_METADATA: usize = 16 * 1024;

#[derive(Deserialize, JsonSchema)]
pub(super) struct TicketInput {
    #[schemars(length(equal = 17))]
    vin: String,
    vehicle_model_id: LenientInteger,
    vehicle_model_variant_id: LenientInteger,
    connector_id: i64,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 64))]
    voucher: Optional<String>,
    #[schemars(length(max = 100))]
    product_ids: Vec<i64>,
    #[serde(default)]
    #[schemars(length(max = 100))]
    product_prerequisites: Vec<PrerequisiteAnswer>,
    metadata: Map<String, Value>,
    #[serde(default)]
    prepared_ticket_id: Option<Uuid>,
    #[serde(default)]
    #[schemars(length(max = 255))]
    reference: String,
    #[serde(default)]
    confirmed_unattended_service: bool,
}

/// Checks the answers to the prerequisites of these products.
fn check_prerequisites(
    catalogue: &Catalogue,
    products: &[&Product],
    answers: &[PrerequisiteAnswer],
    violations: &mut Violations,
) {
    const FIELD: &str = "product_prerequisites";
    for answer in answers {
        let Some(id) = answer.definition_id else { continue };
        let known = catalogue.product_prerequisites.iter().find(|known| known.id == id);
        let Some(known) = known else {
            violations.add(FIELD, format!("there is no prerequisite {id}"));
            continue;
        };
        let is_chosen = |value: &String| known.options.iter().any(|option| option.value == *value);
        let is_answered = known.options.is_empty() || answer.value.as_ref().is_some_and(is_chosen);
        violations.check(is_answered, FIELD, format!("{}: choose one of the options", known.name));
    }
    for id in products.iter().flat_map(|product| &product.prerequisite_ids) {
        let required = catalogue.product_prerequisites.iter().find(|known| known.id == *id && known.required);
        let answers_it =
            |answer: &PrerequisiteAnswer| answer.definition_id == Some(*id) && answer.value.is_some();
        if let Some(required) = required
            && !answers.iter().any(answers_it)
        {
            violations.add(FIELD, format!("{} needs an answer", required.name));
        }
    }
}

pub(super) async fn create(call: Call<Nothing, Nothing, TicketInput>) -> Result<Json<TicketBody>, ApiError> {
    let Call { app, subject, body, .. } = call;
    let (model, variant) = (body.vehicle_model_id.0, body.vehicle_model_variant_id.0);
    let mut violations = Violations::default();
    known_vehicle(&app.catalogue, model, variant, &mut violations);
    let products = offered(&app.catalogue, &body.product_ids, model, &mut violations);
    check_prerequisites(&app.catalogue, &products, &body.product_prerequisites, &mut violations);
    let is_confirmed =
        body.confirmed_unattended_service || !products.iter().any(|product| product.is_unattended);
    violations.check(is_confirmed, "confirmed_unattended_service", "a product is unattended");
    let fits = serde_json::to_vec(&body.metadata).is_ok_and(|json| json.len() <= MAX_METADATA);
    violations.check(fits, "metadata", format!("has more than {MAX_METADATA} bytes"));
    let voucher = body.voucher.0.filter(|voucher| !voucher.is_empty());
    let new = NewTicket {
        vin: Some(body.vin),
        vehicle_model_id: Some(model),
        vehicle_model_variant_id: Some(variant),
        connector_id: body.connector_id,
        product_ids: body.product_ids,
        product_prerequisites: body.product_prerequisites,
        metadata: body.metadata,
        prepared_ticket_id: body.prepared_ticket_id,
        reference: Some(body.reference),
        voucher,
        confirmed_unattended_service: Some(body.confirmed_unattended_service),
    };
    let catalogue = app.catalogue.clone();
    let ticket = app.store.change(move |change| new.create(change, &subject, &catalogue, violations)).await?;
    tracing::info!(ticket = ticket.id, connector_id = ticket.connector_id, "ticket pending");
    ticket_lifecycle::update_relay(&app, &ticket);
    Ok(Json(TicketBody::from(&ticket)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PreparedQuery {
    #[schemars(length(min = 1, max = 64))]
    vin: String,
    #[serde(flatten)]
    paging: Paging,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ProductLine {
    product_id: i64,
    name: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CustomerPreparedTicket")]
pub(super) struct PreparedBody {
    id: Uuid,
    vin: String,
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
    product_lines: Vec<ProductLine>,
}

/// The tickets that are prepared for the customer and this VIN, and have a product.
pub(super) async fn prepared(
    call: Call<Nothing, PreparedQuery, Nothing>,
) -> Result<Json<Page<PreparedBody>>, ApiError> {
    let (catalogue, query) = (&call.app.catalogue, &call.query);
    let mut tickets: Vec<PreparedTicket> = call.app.store.view()?.all()?;
    tickets.retain(|ticket| {
        !ticket.is_picked_up
            && ticket.vin.as_deref().is_some_and(|vin| vin.eq_ignore_ascii_case(&query.vin))
            && ticket.customer_id == catalogue.customer.id
            && !ticket.product_ids.is_empty()
    });
    tickets.sort_by_key(|ticket| ticket.ticket_number);
    let line = |id: &i64| ProductLine {
        product_id: *id,
        name: catalogue.product(*id).map(|product| product.name.clone()).unwrap_or_default(),
    };
    let variant_of = |model: i64| {
        catalogue.variants().find(|vehicle| vehicle.model.id == model).map(|vehicle| vehicle.variant.id)
    };
    let bodies = tickets.iter().map(|ticket| PreparedBody {
        id: ticket.id,
        vin: ticket.vin.clone().unwrap_or_default(),
        vehicle_model_id: ticket.vehicle_model_id,
        // partners name the model only
        vehicle_model_variant_id: ticket
            .vehicle_model_variant_id
            .or_else(|| variant_of(ticket.vehicle_model_id))
            .unwrap_or_default(),
        product_lines: ticket.product_ids.iter().map(line).collect(),
    });
    Ok(Json(query.paging.page(bodies.collect())))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct TicketId {
    #[serde(rename = "ticketId")]
    id: i64,
}

/// The ticket, if it exists and the caller may see it.
pub(super) fn seen(read: &impl Read, caller: &Subject, id: i64) -> Result<Ticket, ApiError> {
    let ticket = read.ticket(id)?.ok_or_else(|| ApiError::not_found("ticket"))?;
    if caller.sees(ticket.connector_id) {
        Ok(ticket)
    } else {
        Err(ApiError::forbidden("The ticket is on another connector."))
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Note")]
pub(super) struct NoteBody {
    id: Uuid,
    ticket_id: i64,
    value: String,
    created_at: Moment,
    updated_at: Moment,
}

pub(super) async fn notes(call: Call<TicketId, Nothing, Nothing>) -> Result<Json<Page<NoteBody>>, ApiError> {
    let view = call.app.store.view()?;
    let ticket = seen(&view, &call.subject, call.path.id)?;
    let mut notes: Vec<Note> = view.all()?;
    notes.retain(|note| note.ticket_id == ticket.id);
    notes.sort_by_key(|note| note.created_at);
    let bodies = notes.into_iter().map(|note| NoteBody {
        id: note.id,
        ticket_id: note.ticket_id,
        value: note.value,
        created_at: Moment(note.created_at),
        updated_at: Moment(note.updated_at),
    });
    Ok(Json(Paging::FIRST.page(bodies.collect())))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct CsatInput {
    #[schemars(range(min = -1.0, max = 1.0))]
    score: f64,
    /// A score without a comment leaves the earlier comment; null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schemars(length(max = 4000), with = "Option<String>")]
    comment: Option<Option<String>>,
}

/// A field that was given, perhaps as null.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl CsatInput {
    /// The satisfaction after this input.
    fn on_top_of(self, earlier: Option<Csat>) -> Csat {
        let comment = self.comment.unwrap_or_else(|| earlier.and_then(|earlier| earlier.comment));
        Csat { score: self.score, comment }
    }
}

pub(super) async fn csat(call: Call<TicketId, Nothing, CsatInput>) -> Result<Null, ApiError> {
    let Call { app, subject, path, body, .. } = call;
    let stored = app.store.change(move |change| {
        let mut ticket = seen(change, &subject, path.id)?;
        ticket.csat = Some(body.on_top_of(ticket.csat.take()));
        Ok::<_, ApiError>(change.put(&ticket)?)
    });
    stored.await?;
    Ok(Null)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_score_without_a_comment_keeps_the_earlier_comment() {
        let input = |body: Value| serde_json::from_value::<CsatInput>(body).unwrap();
        let csat = |score: f64, comment: Option<&str>| Csat { score, comment: comment.map(str::to_owned) };
        let first = input(json!({"score": 1, "comment": "friendly"})).on_top_of(None);
        assert_eq!(first, csat(1.0, Some("friendly")));
        let second = input(json!({"score": -0.5})).on_top_of(Some(first));
        assert_eq!(second, csat(-0.5, Some("friendly")));
        assert_eq!(input(json!({"score": 0, "comment": null})).on_top_of(Some(second)), csat(0.0, None));
    }
}
