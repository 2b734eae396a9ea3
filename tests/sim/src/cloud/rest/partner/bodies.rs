//! The forms of lists and identifiers in the partner API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::cloud::app::App;
use crate::cloud::catalogue::Catalogue;
use crate::cloud::random;
use crate::cloud::rest::api::Moment;
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Read, Ticket, TicketState};

/// Default of `limit`.
fn default_limit() -> i32 {
    25
}

/// The query of a list without filters, and the part of the other ones that chooses the page.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub(super) struct PageQuery {
    #[serde(default = "default_limit")]
    #[schemars(range(min = 0, max = 1000))]
    pub(super) limit: i32,
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub(super) offset: i64,
}

/// The query of a list of tickets, which the answer repeats with its defaults.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct TicketsQuery {
    #[serde(flatten)]
    pub(super) page: PageQuery,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ticket_number: Option<i64>,
}

/// The query of the list of prepared tickets.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct PreparedQuery {
    #[serde(flatten)]
    pub(super) page: PageQuery,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_after: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created_before: Option<Moment>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) customer_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) preparer_external_reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) product_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ticket_number: Option<i64>,
    /// Given but empty: tickets without a VIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(.{17})?$"))]
    pub(super) vin: Option<String>,
}

/// A list: the query, the page and the number of all.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ListOf{T}")]
pub(super) struct List<T, Q> {
    query: Q,
    result: Vec<T>,
    total: usize,
}

impl<T, Q> List<T, Q> {
    pub(super) fn page(all: Vec<T>, page: PageQuery, query: Q) -> Self {
        let total = all.len();
        let skip = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let take = usize::try_from(page.limit).unwrap_or(0);
        Self { query, result: all.into_iter().skip(skip).take(take).collect(), total }
    }
}

impl<T> List<T, TicketsQuery> {
    /// The tickets in a state that the query asks for.
    pub(super) fn in_state(
        app: &App,
        query: TicketsQuery,
        state: TicketState,
        body: impl Fn(&Catalogue, &Ticket) -> T,
    ) -> Result<Self, ApiError> {
        let mut tickets: Vec<Ticket> = app.store.view()?.all()?;
        tickets.retain(|ticket| {
            ticket.state == state && query.ticket_number.is_none_or(|number| ticket.id == number)
        });
        let bodies = tickets.iter().map(|ticket| body(&app.catalogue, ticket)).collect();
        Ok(Self::page(bodies, query.page, query))
    }
}

/// The ticket with this UUID, if it is in this state.
pub(super) fn ticket_in_state(
    read: &impl Read,
    id: Uuid,
    state: TicketState,
    what: &str,
) -> Result<Ticket, ApiError> {
    let found = read.by_uuid::<Ticket>(id)?.filter(|ticket| ticket.state == state);
    found.ok_or_else(|| ApiError::not_found(what))
}

/// The fields that the tickets of all collections have.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PendingTicket")]
pub(super) struct PendingBody {
    id: Uuid,
    created_at: Moment,
    customer_id: Uuid,
    ticket_number: i64,
    vehicle_model_id: i64,
    #[schemars(length(equal = 17))]
    vin: String,
    connection_id: Option<Uuid>,
}

impl PendingBody {
    pub(super) fn of(catalogue: &Catalogue, ticket: &Ticket) -> Self {
        Self {
            id: ticket.uuid,
            created_at: Moment(ticket.created_at),
            customer_id: catalogue.customer.id,
            ticket_number: ticket.id,
            vehicle_model_id: ticket.vehicle_model_id.unwrap_or_default(),
            vin: ticket.vin_or_zeros(),
            connection_id: ticket.connection_uuid,
        }
    }
}

/// The operator of a ticket: the given UUID, or one that is made from the given name.
pub(in crate::cloud) fn operator_uuid(operator_id: Option<&Value>) -> Uuid {
    let text = match operator_id {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => return Uuid::nil(),
    };
    text.parse().unwrap_or_else(|_| {
        let hash = random::sha256(text.as_bytes());
        let first = hash.first_chunk::<16>().copied().unwrap_or_default();
        uuid::Builder::from_random_bytes(first).into_uuid()
    })
}

/// The voucher of a ticket, if it has the form that partners see.
pub(super) fn voucher(ticket: &Ticket) -> Option<String> {
    let has_form = |code: &String| {
        (4..=8).contains(&code.len())
            && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    ticket.voucher.clone().filter(has_form)
}
