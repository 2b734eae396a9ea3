//! Tickets that have ended.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bodies::{Page, Paging, state_number};
use super::tickets::seen;
use crate::cloud::catalogue::{Catalogue, Product};
use crate::cloud::pricing::{Discount, Money, Price, Totals};
use crate::cloud::rest::api::{Call, Moment, Nothing};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Read as _, Ticket};

#[derive(Deserialize, JsonSchema)]
pub(super) struct HistoryQuery {
    #[serde(default)]
    #[schemars(length(max = 64))]
    vin: Option<String>,
    #[serde(default)]
    connector_id: Option<i64>,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct HistoricalId {
    #[serde(rename = "historicalTicketId")]
    id: i64,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct LineDiscount {
    product_id: i64,
    description: String,
    discount: Discount,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct HistoricalLine {
    product_id: i64,
    description: String,
    quantity: usize,
    gross_price: Money,
    net_price: Money,
    total_discount: Discount,
    original_equipment_service_fee: Money,
    discounts: Vec<LineDiscount>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "HistoricalTicket")]
pub(super) struct HistoricalBody {
    id: i64,
    connector_id: i64,
    state: i64,
    vin: String,
    /// In kilometres; the sandbox does not know it.
    odometer_reading: i64,
    reference: String,
    voucher: String,
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
    sub_total: Totals,
    total: Totals,
    original_equipment_service_fee: Totals,
    product_lines: Vec<HistoricalLine>,
    created_at: Moment,
    finished_at: Moment,
}

/// The products of a ticket, each with its quantity.
fn quantities<'a>(catalogue: &'a Catalogue, ticket: &Ticket) -> Vec<(&'a Product, usize)> {
    let mut found: Vec<(&Product, usize)> = Vec::new();
    for product in ticket.product_ids.iter().filter_map(|id| catalogue.product(*id)) {
        match found.iter_mut().find(|(known, _)| known.id == product.id) {
            Some((_, quantity)) => *quantity += 1,
            None => found.push((product, 1)),
        }
    }
    found
}

fn line(catalogue: &Catalogue, product: &Product, quantity: usize) -> HistoricalLine {
    let price = Price::sum(std::iter::repeat_n(product, quantity));
    let discount = catalogue.line_discount(price.gross, price.net);
    HistoricalLine {
        product_id: product.id,
        description: product.name.clone(),
        quantity,
        gross_price: catalogue.money(price.gross),
        net_price: catalogue.money(price.net),
        total_discount: catalogue.discount(price.gross, price.net),
        original_equipment_service_fee: catalogue.money(price.fee),
        discounts: vec![LineDiscount { product_id: product.id, description: product.name.clone(), discount }],
    }
}

fn body(catalogue: &Catalogue, ticket: &Ticket) -> HistoricalBody {
    let products = quantities(catalogue, ticket);
    let each = products.iter().flat_map(|(product, quantity)| std::iter::repeat_n(*product, *quantity));
    let sum = Price::sum(each);
    HistoricalBody {
        id: ticket.id,
        connector_id: ticket.connector_id,
        state: state_number(ticket.state),
        vin: ticket.vin_or_zeros(),
        odometer_reading: 0,
        reference: ticket.reference.clone().unwrap_or_default(),
        voucher: ticket.voucher.clone().unwrap_or_default(),
        vehicle_model_id: ticket.vehicle_model_id.unwrap_or_default(),
        vehicle_model_variant_id: ticket.vehicle_model_variant_id.unwrap_or_default(),
        sub_total: catalogue.totals(sum),
        total: catalogue.totals(sum.reduced(ticket.voucher_percent).with_fee()),
        original_equipment_service_fee: catalogue.totals(sum.fee_alone()),
        product_lines: products
            .into_iter()
            .map(|(product, quantity)| line(catalogue, product, quantity))
            .collect(),
        created_at: Moment(ticket.created_at),
        finished_at: Moment(ticket.closed_at.unwrap_or(ticket.created_at)),
    }
}

pub(super) async fn list(
    call: Call<Nothing, HistoryQuery, Nothing>,
) -> Result<Json<Page<HistoricalBody>>, ApiError> {
    let query = &call.query;
    let mut tickets: Vec<Ticket> = call.app.store.view()?.all()?;
    tickets.retain(|ticket| {
        ticket.has_ended()
            && call.subject.sees(ticket.connector_id)
            && query.connector_id.is_none_or(|id| ticket.connector_id == id)
            && query.vin.as_deref().is_none_or(|vin| ticket.has_vin(vin))
    });
    tickets.sort_by_key(|ticket| std::cmp::Reverse(ticket.closed_at));
    let bodies = tickets.iter().map(|ticket| body(&call.app.catalogue, ticket)).collect();
    Ok(Json(Paging::FIRST.page(bodies)))
}

pub(super) async fn one(
    call: Call<HistoricalId, Nothing, Nothing>,
) -> Result<Json<HistoricalBody>, ApiError> {
    let ticket = seen(&call.app.store.view()?, &call.subject, call.path.id)?;
    if !ticket.has_ended() {
        return Err(ApiError::not_found("historical ticket"));
    }
    Ok(Json(body(&call.app.catalogue, &ticket)))
}
