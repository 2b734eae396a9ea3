//! Product groups, bundles, products, favourites and prerequisites.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::bodies::{Page, Paging, ProductBody};
use crate::cloud::catalogue::{Block, Catalogue, Product, ProductGroup};
use crate::cloud::rest::api::{Call, LenientText, Nothing, Null, Removed};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Favorite, Read, StoreError, number_key};

#[derive(Deserialize, JsonSchema)]
pub(super) struct OfVehicle {
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
}

pub(super) async fn groups(
    call: Call<Nothing, OfVehicle, Nothing>,
) -> Result<Json<Page<ProductGroup>>, ApiError> {
    let catalogue = &call.app.catalogue;
    known_vehicle(catalogue, call.query.vehicle_model_id, call.query.vehicle_model_variant_id)?;
    let mut groups = catalogue.product_groups.clone();
    groups.retain(|group| {
        catalogue
            .products_for(call.query.vehicle_model_id)
            .any(|product| product.product_group_id == group.id)
    });
    Ok(Json(Paging::FIRST.page(groups)))
}

/// Refuses a model that is not there, or a variant of another model.
pub(super) fn known_vehicle(catalogue: &Catalogue, model: i64, variant: i64) -> Result<(), ApiError> {
    if !catalogue.has_model(model) {
        return Err(ApiError::violation("vehicle_model_id", "there is no such model"));
    }
    match catalogue.variant(variant) {
        Some(vehicle) if vehicle.model.id == model => Ok(()),
        _ => Err(ApiError::violation("vehicle_model_variant_id", "the model has no such variant")),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct BundlesQuery {
    #[serde(default)]
    product_group_id: Option<i32>,
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProductBundle")]
pub(super) struct BundleBody {
    id: Uuid,
    product_group_id: i64,
    name: String,
    description: String,
    reference: Uuid,
    blocks: Vec<Block>,
}

pub(super) async fn bundles(
    call: Call<Nothing, BundlesQuery, Nothing>,
) -> Result<Json<Page<BundleBody>>, ApiError> {
    let (catalogue, query) = (&call.app.catalogue, &call.query);
    known_vehicle(catalogue, query.vehicle_model_id, query.vehicle_model_variant_id)?;
    let wanted = query.product_group_id.map(i64::from);
    let found = catalogue
        .product_bundles
        .iter()
        .filter(|bundle| wanted.is_none_or(|group| bundle.product_group_id == group))
        .map(|bundle| BundleBody {
            id: bundle.id,
            product_group_id: bundle.product_group_id,
            name: bundle.name.clone(),
            description: bundle.description.clone(),
            reference: bundle.reference,
            blocks: bundle.blocks.clone(),
        })
        .collect();
    Ok(Json(Paging::FIRST.page(found)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ProductsQuery {
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
    #[serde(default)]
    product_group_id: Option<i32>,
    #[serde(default)]
    product_bundle_id: Option<Uuid>,
    /// The documents do not print the name of this filter.
    #[serde(default)]
    is_favorite: Option<Flag>,
}

/// True or false, as a word or a number.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Flag {
    Word(bool),
    Number(#[schemars(range(min = 0, max = 1))] i64),
}

impl Flag {
    fn is_set(self) -> bool {
        matches!(self, Self::Word(true) | Self::Number(1..))
    }
}

/// Whether the product is a favourite: the customer's decision, otherwise the catalogue's.
pub(super) fn is_favorite(read: &impl Read, product: &Product) -> Result<bool, StoreError> {
    let decided: Option<Favorite> = read.get(&number_key(product.id))?;
    Ok(decided.map_or(product.is_favorite, |decided| decided.is_favorite))
}

/// Without a group or a bundle, the filter has the documented default: the favourites.
pub(super) async fn products(
    call: Call<Nothing, ProductsQuery, Nothing>,
) -> Result<Json<Page<ProductBody>>, ApiError> {
    let (catalogue, query) = (&call.app.catalogue, &call.query);
    if query.product_group_id.is_some() && query.product_bundle_id.is_some() {
        return Err(ApiError::violation("product_bundle_id", "cannot be combined with product_group_id"));
    }
    known_vehicle(catalogue, query.vehicle_model_id, query.vehicle_model_variant_id)?;
    let bundle = match query.product_bundle_id {
        Some(id) => {
            let found = catalogue.product_bundles.iter().find(|bundle| bundle.id == id);
            Some(found.ok_or_else(|| ApiError::violation("product_bundle_id", "there is no such bundle"))?)
        }
        None => None,
    };
    let is_narrowed = query.product_group_id.is_some() || bundle.is_some();
    let wanted = query.is_favorite.map(Flag::is_set).or((!is_narrowed).then_some(true));
    let view = call.app.store.view()?;
    let mut found = Vec::new();
    for product in catalogue.products_for(query.vehicle_model_id) {
        let is_favorite = is_favorite(&view, product)?;
        let is_in_group =
            query.product_group_id.is_none_or(|group| product.product_group_id == i64::from(group));
        let is_in_bundle = bundle.is_none_or(|bundle| {
            bundle.blocks.iter().any(|block| block.product_ids.iter().flatten().any(|id| *id == product.id))
        });
        if is_in_group && is_in_bundle && wanted.is_none_or(|wanted| wanted == is_favorite) {
            found.push(ProductBody::of(catalogue, product, is_favorite));
        }
    }
    Ok(Json(Paging::FIRST.page(found)))
}

/// A product, of which only the number counts.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the types of the documented fields are checked, and only the number is used")]
pub(super) struct FavoriteInput {
    #[serde(default)]
    id: Option<i64>,
    #[serde(default)]
    item_number: Option<LenientText>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    internal_name: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    is_favorite: Option<bool>,
    #[serde(default)]
    is_unattended: Option<bool>,
    #[serde(default)]
    gross_price: Option<Map<String, Value>>,
    #[serde(default)]
    net_price: Option<Map<String, Value>>,
    #[serde(default)]
    total_discount: Option<Map<String, Value>>,
    #[serde(default)]
    original_equipment_service_fee: Option<Map<String, Value>>,
    #[serde(default)]
    price: Option<Map<String, Value>>,
}

pub(super) async fn add_favorite(call: Call<Nothing, Nothing, FavoriteInput>) -> Result<Null, ApiError> {
    let product_id = call.body.id.ok_or_else(|| ApiError::violation("id", "is required"))?;
    if call.app.catalogue.product(product_id).is_none() {
        return Err(ApiError::violation("id", "there is no such product"));
    }
    let favorite = Favorite { product_id, is_favorite: true };
    call.app.store.change(move |change| change.put(&favorite)).await?;
    Ok(Null)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ProductId {
    #[schemars(with = "String")]
    id: LenientText,
}

pub(super) async fn remove_favorite(call: Call<ProductId, Nothing, Nothing>) -> Result<Removed, ApiError> {
    let known = call.path.id.0.parse().ok().and_then(|id| call.app.catalogue.product(id));
    let product_id = known.ok_or_else(|| ApiError::not_found("product"))?.id;
    let favorite = Favorite { product_id, is_favorite: false };
    call.app.store.change(move |change| change.put(&favorite)).await?;
    Ok(Removed)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PrerequisitesQuery {
    vehicle_model_variant_id: i32,
    vehicle_model_id: i64,
    #[schemars(length(min = 1, max = 100))]
    product_id: Vec<i64>,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct OptionBody {
    id: i64,
    #[serde(rename = "productPrerequisiteId")]
    product_prerequisite_id: i64,
    value: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ProductPrerequisite")]
pub(super) struct PrerequisiteBody {
    id: i64,
    name: String,
    description: String,
    question: String,
    required: bool,
    r#type: String,
    options: Vec<OptionBody>,
}

pub(super) async fn prerequisites(
    call: Call<Nothing, PrerequisitesQuery, Nothing>,
) -> Result<Json<Page<PrerequisiteBody>>, ApiError> {
    let (catalogue, query) = (&call.app.catalogue, &call.query);
    known_vehicle(catalogue, query.vehicle_model_id, i64::from(query.vehicle_model_variant_id))?;
    let is_asked = |id: i64| {
        let products = query.product_id.iter().filter_map(|id| catalogue.product(*id));
        products.flat_map(|product| &product.prerequisite_ids).any(|wanted| *wanted == id)
    };
    let found = catalogue.product_prerequisites.iter().filter(|known| is_asked(known.id)).map(|known| {
        let options = known.options.iter().map(|option| OptionBody {
            id: option.id,
            product_prerequisite_id: known.id,
            value: option.value.clone(),
        });
        PrerequisiteBody {
            id: known.id,
            name: known.name.clone(),
            description: known.description.clone(),
            question: known.question.clone(),
            required: known.required,
            r#type: "string".to_owned(),
            options: options.collect(),
        }
    });
    Ok(Json(Paging::FIRST.page(found.collect())))
}
