//! The price of a cart.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bodies::item_number;
use super::products::known_vehicle;
use crate::cloud::catalogue::{Catalogue, Product};
use crate::cloud::pricing::{Discount, Money, Price, Totals};
use crate::cloud::rest::api::{Call, Nothing};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::{ApiError, Violations};
use crate::cloud::rest::ticket_lifecycle::voucher_percent;
use crate::cloud::store::{PreparedTicket, Read as _};

#[derive(Deserialize, JsonSchema)]
pub(super) struct CartInput {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 64))]
    voucher: Optional<String>,
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
    #[serde(default)]
    #[schemars(length(equal = 17), pattern("^[a-zA-Z0-9]{17}$"))]
    #[expect(dead_code, reason = "checked, but without influence on the prices")]
    vin: Option<String>,
    #[serde(default)]
    prepared_ticket_id: Option<Uuid>,
    #[schemars(length(max = 100))]
    product_ids: Vec<i64>,
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

/// The products with these numbers; each that is not offered for the model is a violation. For an unknown model, each
/// that is not there.
pub(super) fn offered<'a>(
    catalogue: &'a Catalogue,
    ids: &[i64],
    model: i64,
    violations: &mut Violations,
) -> Vec<&'a Product> {
    let has_model = catalogue.has_model(model);
    let offered = |id: &i64| match has_model {
        true => catalogue.products_for(model).find(|product| product.id == *id),
        false => catalogue.product(*id),
    };
    let mut products = Vec::new();
    for id in ids {
        match offered(id) {
            Some(product) => products.push(product),
            None => violations.add("product_ids", format!("product {id} is not offered for the model")),
        }
    }
    products
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
    let (model, variant) = (body.vehicle_model_id, body.vehicle_model_variant_id);
    let mut violations = Violations::default();
    known_vehicle(catalogue, model, variant, &mut violations);
    let products = offered(catalogue, &body.product_ids, model, &mut violations);
    let view = call.app.store.view()?;
    let prepared: Option<PreparedTicket> = match body.prepared_ticket_id {
        Some(id) => view.get(id.as_bytes())?,
        None => None,
    };
    let is_known = body.prepared_ticket_id.is_none() || prepared.is_some();
    violations.check(is_known, "prepared_ticket_id", "there is no such prepared ticket");
    let own = prepared.as_ref().and_then(|prepared| prepared.voucher_code.as_deref());
    let voucher = body.voucher.0.as_deref().filter(|voucher| !voucher.is_empty()).or(own);
    let percent = voucher_percent(&view, catalogue, voucher, prepared.as_ref(), &mut violations)?;
    violations.finish()?;
    let sum = Price::sum(products.iter().copied());
    let reduced = sum.reduced(percent);
    Ok(Json(Cart {
        voucher: voucher.unwrap_or_default().to_owned(),
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
