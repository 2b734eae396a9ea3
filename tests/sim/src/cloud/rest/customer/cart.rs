//! The price of a cart.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bodies::item_number;
use super::products::known_vehicle;
use crate::cloud::catalogue::{Catalogue, Product};
use crate::cloud::pricing::{Discount, Money, Price, Totals};
use crate::cloud::rest::api::{Call, LenientInteger, Nothing};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{PreparedTicket, Read};

/// The percentage of a prepared ticket's voucher.
const PREPARED_PERCENT: f64 = 10.0;

#[derive(Deserialize, JsonSchema)]
pub(super) struct CartInput {
    #[serde(default)]
    #[schemars(length(max = 64))]
    voucher: Option<String>,
    vehicle_model_id: LenientInteger,
    vehicle_model_variant_id: LenientInteger,
    #[serde(default)]
    #[schemars(length(equal = 17), pattern("^[a-zA-Z0-9]{17}$"))]
    #[expect(dead_code, reason = "checked, but without influence on the prices")]
    vin: Option<String>,
    #[serde(default)]
    prepared_ticket_id: Option<Uuid>,
    #[schemars(length(max = 100))]
    product_ids: Vec<LenientInteger>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct CartItem {
    description: String,
    product_id: i64,
    product_item_number: i64,
    product_name: String,
    product_internal_name: String,
    product_description: String,
    product_is_unattended: bool,
    gross_price: Money,
    net_price: Money,
    total_discount: Discount,
    original_equipment_service_fee: Money,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Cart {
    voucher: String,
    voucher_discount: Discount,
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
    needs_confirmation_for_unattended_service: bool,
    sub_total: Totals,
    voucher_sub_total: Totals,
    original_equipment_service_fee: Totals,
    total: Totals,
    items: Vec<CartItem>,
}

/// The percentage of a voucher: one of the catalogue, or that of a prepared ticket.
pub(super) fn voucher_percent(
    read: &impl Read,
    catalogue: &Catalogue,
    voucher: Option<&str>,
) -> Result<f64, ApiError> {
    let Some(voucher) = voucher.filter(|voucher| !voucher.is_empty()) else { return Ok(0.0) };
    if let Some(percent) = catalogue.voucher(voucher) {
        return Ok(percent);
    }
    let prepared: Vec<PreparedTicket> = read.all()?;
    if prepared.iter().any(|ticket| ticket.voucher_code.as_deref() == Some(voucher)) {
        return Ok(PREPARED_PERCENT);
    }
    Err(ApiError::violation("voucher", "there is no such voucher"))
}

/// The products with these numbers, which are offered for the model.
pub(super) fn offered<'a>(
    catalogue: &'a Catalogue,
    ids: &[i64],
    model: i64,
) -> Result<Vec<&'a Product>, ApiError> {
    let offered = |id: &i64| catalogue.products_for(model).find(|product| product.id == *id);
    ids.iter()
        .map(|id| {
            offered(id).ok_or_else(|| {
                ApiError::violation("product_ids", format!("product {id} is not offered for the model"))
            })
        })
        .collect()
}

fn item(catalogue: &Catalogue, product: &Product) -> CartItem {
    let price = Price::of(product);
    CartItem {
        description: product.description.clone(),
        product_id: product.id,
        product_item_number: item_number(product),
        product_name: product.name.clone(),
        product_internal_name: product.internal_name.clone(),
        product_description: product.description.clone(),
        product_is_unattended: product.is_unattended,
        gross_price: catalogue.money(price.gross),
        net_price: catalogue.money(price.net),
        total_discount: catalogue.discount(price.gross, price.net),
        original_equipment_service_fee: catalogue.money(price.fee),
    }
}

pub(super) async fn calculate(call: Call<Nothing, Nothing, CartInput>) -> Result<Json<Cart>, ApiError> {
    let (catalogue, body) = (&call.app.catalogue, &call.body);
    let (model, variant) = (body.vehicle_model_id.0, body.vehicle_model_variant_id.0);
    known_vehicle(catalogue, model, variant)?;
    let ids: Vec<i64> = body.product_ids.iter().map(|id| id.0).collect();
    let products = offered(catalogue, &ids, model)?;
    let view = call.app.store.view()?;
    if let Some(id) = body.prepared_ticket_id
        && view.get::<PreparedTicket>(id.as_bytes())?.is_none()
    {
        return Err(ApiError::violation("prepared_ticket_id", "there is no such prepared ticket"));
    }
    let percent = voucher_percent(&view, catalogue, body.voucher.as_deref())?;
    let sum = Price::sum(products.iter().copied());
    let reduced = sum.reduced(percent);
    Ok(Json(Cart {
        voucher: body.voucher.clone().unwrap_or_default(),
        voucher_discount: catalogue.discount(sum.net, reduced.net),
        vehicle_model_id: model,
        vehicle_model_variant_id: variant,
        needs_confirmation_for_unattended_service: products.iter().any(|product| product.is_unattended),
        sub_total: catalogue.totals(sum),
        voucher_sub_total: catalogue.totals(reduced),
        original_equipment_service_fee: catalogue.totals(sum.fee_alone()),
        total: catalogue.totals(reduced.with_fee()),
        items: products.into_iter().map(|product| item(catalogue, product)).collect(),
    }))
}
