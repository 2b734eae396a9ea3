//! Vehicles: by VIN, and from make to variant.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bodies::{Page, Paging};
use crate::cloud::catalogue::{Group, Make, Model, Named, Vehicle};
use crate::cloud::rest::api::{Call, Moment, Nothing};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Read as _, Ticket};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelGroup")]
pub(super) struct GroupBody {
    id: i64,
    name: String,
    vehicle_make_id: i64,
    vehicle_make_name: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub(super) struct ModelBody {
    id: i64,
    name: String,
    manufactured_from: Option<String>,
    manufactured_to: Option<String>,
    vehicle_model_group_id: i64,
    vehicle_model_group_name: String,
    vehicle_make_id: i64,
    vehicle_make_name: String,
    requires_doip: bool,
}

/// The fields of a model, and the model of the variant.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ModelVariant")]
pub(super) struct VariantBody {
    #[serde(flatten)]
    common: ModelBody,
    vehicle_model_id: i64,
    vehicle_model_name: String,
}

fn make_body(make: &Make) -> Named<i64> {
    Named { id: make.id, name: make.name.clone() }
}

fn group_body((make, group): (&Make, &Group)) -> GroupBody {
    GroupBody {
        id: group.id,
        name: group.name.clone(),
        vehicle_make_id: make.id,
        vehicle_make_name: make.name.clone(),
    }
}

fn model_body((make, group, model): (&Make, &Group, &Model)) -> ModelBody {
    ModelBody {
        id: model.id,
        name: model.name.clone(),
        manufactured_from: model.manufactured_from.clone(),
        manufactured_to: model.manufactured_to.clone(),
        vehicle_model_group_id: group.id,
        vehicle_model_group_name: group.name.clone(),
        vehicle_make_id: make.id,
        vehicle_make_name: make.name.clone(),
        requires_doip: model.requires_doip,
    }
}

fn variant_body(vehicle: Vehicle<'_>) -> VariantBody {
    let Vehicle { make, group, model, variant } = vehicle;
    VariantBody {
        common: ModelBody {
            id: variant.id,
            name: variant.name.clone(),
            manufactured_from: variant.manufactured_from.clone(),
            manufactured_to: variant.manufactured_to.clone(),
            requires_doip: variant.requires_doip || model.requires_doip,
            ..model_body((make, group, model))
        },
        vehicle_model_id: model.id,
        vehicle_model_name: model.name.clone(),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ByVin {
    #[schemars(length(min = 1, max = 64))]
    vin: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct FoundVehicle {
    make: Named<i64>,
    model_group: GroupBody,
    model: ModelBody,
    model_variant: VariantBody,
}

pub(super) async fn search(call: Call<Nothing, ByVin, Nothing>) -> Result<Json<FoundVehicle>, ApiError> {
    let vin = call.query.vin.trim();
    let vehicle = call.app.catalogue.vehicle(vin).ok_or_else(|| ApiError::not_found("vehicle"))?;
    let Vehicle { make, group, model, .. } = vehicle;
    Ok(Json(FoundVehicle {
        make: make_body(make),
        model_group: group_body((make, group)),
        model: model_body((make, group, model)),
        model_variant: variant_body(vehicle),
    }))
}

pub(super) async fn makes(call: Call<Nothing, Paging, Nothing>) -> Result<Json<Page<Named<i64>>>, ApiError> {
    Ok(Json(call.query.page(call.app.catalogue.makes.iter().map(make_body).collect())))
}

macro_rules! of_parent {
    ($name:ident, $field:ident) => {
        #[derive(Deserialize, JsonSchema)]
        pub(super) struct $name {
            $field: i32,
            #[serde(flatten)]
            paging: Paging,
        }
    };
}

of_parent!(OfMake, vehicle_make_id);
of_parent!(OfGroup, vehicle_model_group_id);
of_parent!(OfModel, vehicle_model_id);

pub(super) async fn groups(call: Call<Nothing, OfMake, Nothing>) -> Result<Json<Page<GroupBody>>, ApiError> {
    let wanted = i64::from(call.query.vehicle_make_id);
    let found = call.app.catalogue.groups().filter(|(make, _)| make.id == wanted).map(group_body).collect();
    Ok(Json(call.query.paging.page(found)))
}

pub(super) async fn models(call: Call<Nothing, OfGroup, Nothing>) -> Result<Json<Page<ModelBody>>, ApiError> {
    let wanted = i64::from(call.query.vehicle_model_group_id);
    let found =
        call.app.catalogue.models().filter(|(_, group, _)| group.id == wanted).map(model_body).collect();
    Ok(Json(call.query.paging.page(found)))
}

pub(super) async fn variants(
    call: Call<Nothing, OfModel, Nothing>,
) -> Result<Json<Page<VariantBody>>, ApiError> {
    let wanted = i64::from(call.query.vehicle_model_id);
    let found = call
        .app
        .catalogue
        .variants()
        .filter(|vehicle| vehicle.model.id == wanted)
        .map(variant_body)
        .collect();
    Ok(Json(call.query.paging.page(found)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct GroupId {
    #[serde(rename = "modelGroupId")]
    id: i64,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ModelId {
    #[serde(rename = "modelId")]
    id: i64,
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct VariantId {
    #[serde(rename = "modelVariantId")]
    id: i64,
}

pub(super) async fn group(call: Call<GroupId, Nothing, Nothing>) -> Result<Json<GroupBody>, ApiError> {
    let found = call.app.catalogue.groups().find(|(_, group)| group.id == call.path.id).map(group_body);
    found.map(Json).ok_or_else(|| ApiError::not_found("model group"))
}

pub(super) async fn model(call: Call<ModelId, Nothing, Nothing>) -> Result<Json<ModelBody>, ApiError> {
    let found = call.app.catalogue.models().find(|(_, _, model)| model.id == call.path.id).map(model_body);
    found.map(Json).ok_or_else(|| ApiError::not_found("model"))
}

pub(super) async fn variant(call: Call<VariantId, Nothing, Nothing>) -> Result<Json<VariantBody>, ApiError> {
    let found = call.app.catalogue.variant(call.path.id).map(variant_body);
    found.map(Json).ok_or_else(|| ApiError::not_found("model variant"))
}

#[derive(Serialize, JsonSchema)]
pub(super) struct ServicedVehicle {
    make_id: i64,
    make_name: String,
    model_group_id: i64,
    model_group_name: String,
    model_id: i64,
    model_name: String,
    model_variant_id: i64,
    model_variant_name: String,
    vin: String,
    last_serviced_at: Moment,
}

/// The vehicles of ended tickets, the latest first.
pub(super) async fn serviced(
    call: Call<Nothing, Paging, Nothing>,
) -> Result<Json<Page<ServicedVehicle>>, ApiError> {
    let mut tickets: Vec<Ticket> = call.app.store.view()?.all()?;
    tickets.retain(|ticket| {
        call.subject.sees(ticket.connector_id) && ticket.joined_at.is_some() && ticket.has_ended()
    });
    tickets.sort_by_key(|ticket| std::cmp::Reverse(ticket.closed_at));
    let mut found: Vec<ServicedVehicle> = Vec::new();
    for ticket in &tickets {
        let Some(last) = ticket.closed_at else { continue };
        let vin = ticket.vin_or_zeros();
        let Some(vehicle) = ticket.vehicle_model_variant_id.and_then(|id| call.app.catalogue.variant(id))
        else {
            continue;
        };
        if found.iter().any(|other| other.vin == vin && other.model_variant_id == vehicle.variant.id) {
            continue;
        }
        found.push(ServicedVehicle {
            make_id: vehicle.make.id,
            make_name: vehicle.make.name.clone(),
            model_group_id: vehicle.group.id,
            model_group_name: vehicle.group.name.clone(),
            model_id: vehicle.model.id,
            model_name: vehicle.model.name.clone(),
            model_variant_id: vehicle.variant.id,
            model_variant_name: vehicle.variant.name.clone(),
            vin,
            last_serviced_at: Moment(last),
        });
    }
    Ok(Json(call.query.page(found)))
}
