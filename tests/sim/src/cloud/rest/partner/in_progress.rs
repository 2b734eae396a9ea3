//! Tickets in progress, and their ends.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::bodies::{List, PendingBody, TicketsQuery, operator_uuid, ticket_in_state, voucher};
use crate::cloud::catalogue::Catalogue;
use crate::cloud::hub::Changed;
use crate::cloud::rest::api::{Call, Moment, Nothing, SeeOther};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::{ApiError, Violations};
use crate::cloud::rest::ticket_lifecycle::{self, End};
use crate::cloud::store::{Read, Ticket, TicketState};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InProgressTicket")]
pub(super) struct InProgressBody {
    #[serde(flatten)]
    common: PendingBody,
    service_started_at: Moment,
    operator_id: Uuid,
    #[schemars(length(min = 4, max = 8))]
    voucher_code: Option<String>,
    outsourced: bool,
}

impl InProgressBody {
    fn of(catalogue: &Catalogue, ticket: &Ticket) -> Self {
        Self {
            common: PendingBody::of(catalogue, ticket),
            service_started_at: Moment(ticket.joined_at.unwrap_or(ticket.created_at)),
            operator_id: operator_uuid(ticket.operator_id.as_ref()),
            voucher_code: voucher(ticket),
            outsourced: ticket.outsourced_to.is_some(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct InProgressId {
    #[serde(rename = "in-progress-ticket-id")]
    id: Uuid,
}

impl InProgressId {
    fn find(&self, read: &impl Read) -> Result<Ticket, ApiError> {
        ticket_in_state(read, self.id, TicketState::InProgress, "ticket in progress")
    }
}

pub(super) async fn list(
    call: Call<Nothing, TicketsQuery, Nothing>,
) -> Result<Json<List<InProgressBody, TicketsQuery>>, ApiError> {
    List::in_state(&call.app, call.query, TicketState::InProgress, InProgressBody::of).map(Json)
}

pub(super) async fn one(
    call: Call<InProgressId, Nothing, Nothing>,
) -> Result<Json<InProgressBody>, ApiError> {
    let ticket = call.path.find(&call.app.store.view()?)?;
    Ok(Json(InProgressBody::of(&call.app.catalogue, &ticket)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct OperatorInput {
    operator_id: Uuid,
}

pub(super) async fn reassign(
    call: Call<InProgressId, Nothing, OperatorInput>,
) -> Result<Json<InProgressBody>, ApiError> {
    let Call { app, path, body, .. } = call;
    let stored = app.store.change(move |change| {
        let mut ticket = path.find(change)?;
        ticket.operator_id = Some(json!(body.operator_id));
        change.put(&ticket)?;
        Ok::<_, ApiError>(ticket)
    });
    let ticket = stored.await?;
    app.hub.changed(Changed::Ticket(ticket.id));
    Ok(Json(InProgressBody::of(&app.catalogue, &ticket)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct TransitionInput {
    transition: Transition,
}

/// The documents print the fields of `outsource` only.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Transition {
    Outsource {
        #[schemars(length(min = 1, max = 100))]
        product_ids: Vec<Uuid>,
        provider_id: Uuid,
        #[serde(default, skip_serializing_if = "Optional::is_none")]
        allow_customer_chat_write_access: Optional<bool>,
        #[serde(default, skip_serializing_if = "Optional::is_none")]
        share_customer_information: Optional<bool>,
    },
    Complete {},
    Cancel {
        #[serde(default)]
        cancel_reason_id: Option<i32>,
        /// The sandbox's own: the reason as text.
        #[serde(default, rename = "sandbox_reason")]
        #[schemars(length(max = 1000))]
        reason: Option<String>,
    },
}

impl Transition {
    /// The end that this transition means, if the catalogue knows what it names.
    fn end(self, catalogue: &Catalogue) -> Result<End, ApiError> {
        let mut violations = Violations::default();
        match self {
            Self::Complete {} => Ok(End::Complete),
            Self::Cancel { cancel_reason_id, reason } => {
                let known = |id: &i32| catalogue.cancel_reasons.iter().any(|known| known.id == *id);
                let is_known = cancel_reason_id.as_ref().is_none_or(known);
                violations.check(is_known, "transition.cancel_reason_id", "there is no such reason");
                violations.finish()?;
                Ok(End::Cancel(reason, cancel_reason_id))
            }
            Self::Outsource {
                product_ids,
                provider_id,
                allow_customer_chat_write_access,
                share_customer_information,
            } => {
                for id in product_ids.iter().filter(|id| catalogue.product_by_uuid(**id).is_none()) {
                    violations.add("transition.product_ids", format!("there is no product {id}"));
                }
                let is_known = catalogue.outsource_providers.iter().any(|known| known.id == provider_id);
                violations.check(is_known, "transition.provider_id", "there is no such provider");
                violations.finish()?;
                Ok(End::Outsource(Some(json!({
                    "provider_id": provider_id,
                    "outsource_ticket_id": Uuid::new_v4(),
                    "product_ids": product_ids,
                    "allow_customer_chat_write_access": allow_customer_chat_write_access,
                    "share_customer_information": share_customer_information,
                }))))
            }
        }
    }
}

pub(super) async fn transition(
    call: Call<InProgressId, Nothing, TransitionInput>,
) -> Result<SeeOther, ApiError> {
    let Call { app, path, body, .. } = call;
    let end = body.transition.end(&app.catalogue)?;
    let stored = app.store.change(move |change| {
        let ticket =
            change.by_uuid::<Ticket>(path.id)?.ok_or_else(|| ApiError::not_found("ticket in progress"))?;
        ticket_lifecycle::end(change, ticket, &[TicketState::InProgress], end)
    });
    let ticket = stored.await?;
    tracing::info!(ticket = ticket.id, state = ?ticket.state, "ticket ended");
    ticket_lifecycle::update_relay(&app, &ticket);
    let collection = match ticket.state {
        TicketState::Outsourced => "outsourced-tickets",
        TicketState::Cancelled => "cancelled-tickets",
        TicketState::Closed | TicketState::Pending | TicketState::InProgress => "closed-tickets",
    };
    Ok(SeeOther(format!("/v2/tickets/{collection}/{}", ticket.uuid)))
}
