//! Product groups, bundles, products, favourites and prerequisites.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::bodies::{Page, Paging, ProductBody};
use crate::cloud::catalogue::{Block, Catalogue, Named, Product, ProductBundle};
use crate::cloud::rest::api::{Call, LenientText, Nothing, Null, Removed};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::{ApiError, Violations};
use crate::cloud::store::{Favorite, Read, StoreError, number_key};

#[derive(Deserialize, JsonSchema)]
pub(super) struct OfVehicle {
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
}

pub(super) async fn groups(
    call: Call<Nothing, OfVehicle, Nothing>,
) -> Result<Json<Page<Named<i64>>>, ApiError> {
    let catalogue = &call.app.catalogue;
    let (model, variant) = (call.query.vehicle_model_id, call.query.vehicle_model_variant_id);
    let mut groups = catalogue.product_groups.clone();
    groups.retain(|group| {
        catalogue.products_for_variant(model, variant).any(|product| product.product_group_id == group.id)
    });
    Ok(Json(Paging::FIRST.page(groups)))
}

/// Refuses a model that is not there, or a variant of another model, in the body of a request. A query for one finds
/// nothing.
pub(super) fn known_vehicle(catalogue: &Catalogue, model: i64, variant: i64, violations: &mut Violations) {
    let has_model = catalogue.has_model(model);
    violations.check(has_model, "vehicle_model_id", "there is no such model");
    // without its model, a variant that is there is not a second fault
    let is_known = catalogue.variant(variant).is_some_and(|vehicle| vehicle.model.id == model || !has_model);
    violations.check(is_known, "vehicle_model_variant_id", "the model has no such variant");
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

/// The blocks of a bundle with the products that are offered; `None` if a block that is not optional has none.
fn blocks(bundle: &ProductBundle, offered: &[i64]) -> Option<Vec<Block>> {
    let mut found = Vec::new();
    for block in &bundle.blocks {
        let lists = block
            .product_ids
            .iter()
            .map(|list| list.iter().copied().filter(|id| offered.contains(id)).collect::<Vec<_>>());
        let product_ids: Vec<_> = lists.filter(|list| !list.is_empty()).collect();
        if !product_ids.is_empty() {
            found.push(Block { optional: block.optional, product_ids });
        } else if !block.optional {
            return None;
        }
    }
    (!found.is_empty()).then_some(found)
}

pub(super) async fn bundles(
    call: Call<Nothing, BundlesQuery, Nothing>,
) -> Result<Json<Page<BundleBody>>, ApiError> {
    let (catalogue, query) = (&call.app.catalogue, &call.query);
    let wanted = query.product_group_id.map(i64::from);
    let offered: Vec<i64> = catalogue
        .products_for_variant(query.vehicle_model_id, query.vehicle_model_variant_id)
        .map(|product| product.id)
        .collect();
    let in_group = |bundle: &&ProductBundle| wanted.is_none_or(|group| bundle.product_group_id == group);
    let body = |bundle: &ProductBundle| {
        Some(BundleBody {
            id: bundle.id,
            product_group_id: bundle.product_group_id,
            name: bundle.name.clone(),
            description: bundle.description.clone(),
            reference: bundle.reference,
            blocks: blocks(bundle, &offered)?,
        })
    };
    let found = catalogue.product_bundles.iter().filter(in_group).filter_map(body).collect();
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

/// True or false, as a word or a number; every number but zero is true.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Flag {
    Word(bool),
    Number(i64),
}

impl Flag {
    fn is_set(self) -> bool {
        !matches!(self, Self::Word(false) | Self::Number(0))
    }
}

/// Whether the product is a favourite: the customer's decision, otherwise the catalogue's.
pub(super) fn is_favorite(read: &impl Read, product: &Product) -> Result<bool, StoreError> {
    let decided: Option<Favorite> = read.get(&number_key(product.id))?;
    Ok(decided.map_or(product.is_favorite, |decided| decided.is_favorite))
}

/// The favourites, unless the query asks for the others.
pub(super) async fn products(
    call: Call<Nothing, ProductsQuery, Nothing>,
) -> Result<Json<Page<ProductBody>>, ApiError> {
    let (catalogue, query) = (&call.app.catalogue, &call.query);
    if query.product_group_id.is_some() && query.product_bundle_id.is_some() {
        return Err(ApiError::violation("product_bundle_id", "cannot be combined with product_group_id"));
    }
    let of_bundle = |id: Uuid| {
        let bundle = catalogue.product_bundles.iter().find(|bundle| bundle.id == id);
        let blocks = bundle.map(|bundle| bundle.blocks.as_slice()).unwrap_or_default();
        blocks.iter().flat_map(|block| block.product_ids.iter().flatten().copied()).collect::<Vec<_>>()
    };
    let bundle = query.product_bundle_id.map(of_bundle);
    let wanted = query.is_favorite.is_none_or(Flag::is_set);
    let view = call.app.store.view()?;
    let mut found = Vec::new();
    for product in catalogue.products_for_variant(query.vehicle_model_id, query.vehicle_model_variant_id) {
        let is_favorite = is_favorite(&view, product)?;
        let is_in_group =
            query.product_group_id.is_none_or(|group| product.product_group_id == i64::from(group));
        let is_in_bundle = bundle.as_ref().is_none_or(|ids| ids.contains(&product.id));
        if is_in_group && is_in_bundle && wanted == is_favorite {
            found.push(ProductBody::of(catalogue, product, is_favorite));
        }
    }
    Ok(Json(Paging::FIRST.page(found)))
}

/// A product, of which only the number counts.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "the types of the documented fields are checked, and only the number is used")]
pub(super) struct FavoriteInput {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    id: Optional<i64>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    item_number: Optional<LenientText>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    name: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    internal_name: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    description: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    is_favorite: Optional<bool>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    is_unattended: Optional<bool>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    gross_price: Optional<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    net_price: Optional<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    total_discount: Optional<Map<String, Value>>,
    #[serde(default)]
    original_equipment_service_fee: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    price: Optional<Map<String, Value>>,
}

pub(super) async fn add_favorite(call: Call<Nothing, Nothing, FavoriteInput>) -> Result<Null, ApiError> {
    let product_id = call.body.id.0.ok_or_else(|| ApiError::violation("id", "is required"))?;
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
    let (model, variant) = (query.vehicle_model_id, i64::from(query.vehicle_model_variant_id));
    let is_asked = |id: i64| {
        catalogue
            .products_for_variant(model, variant)
            .filter(|product| query.product_id.contains(&product.id))
            .any(|product| product.prerequisite_ids.contains(&id))
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
