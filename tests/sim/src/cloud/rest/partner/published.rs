//! Resources that only published pages describe: the service center, the customers' connectors, and the vehicles.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bodies::{List, PageQuery};
use crate::cloud::catalogue::{Catalogue, Group, Make, Model};
use crate::cloud::rest::api::{Call, Moment, Nothing};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Connector, Read as _};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PartnerServiceCenter")]
pub(super) struct ServiceCenterBody {
    state: String,
    schedule_ends_at: Option<Moment>,
    #[schemars(length(min = 1, max = 255))]
    schedule_reason: Option<String>,
}

pub(super) async fn service_center(
    call: Call<Nothing, Nothing, Nothing>,
) -> Result<Json<ServiceCenterBody>, ApiError> {
    let provider = &call.app.catalogue.service_provider;
    let is_scheduled = provider.state == "scheduled";
    let reason = Some(provider.message.chars().take(255).collect::<String>());
    Ok(Json(ServiceCenterBody {
        state: provider.state.clone(),
        schedule_ends_at: provider.state_end().filter(|_| is_scheduled).map(Moment),
        schedule_reason: reason.filter(|reason| is_scheduled && !reason.is_empty()),
    }))
}

/// The query of the list of connectors.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct ConnectorsQuery {
    #[serde(flatten)]
    page: PageQuery,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    assigned: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    customer_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 10))]
    kinds: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CustomersConnector")]
pub(super) struct ConnectorBody {
    id: Uuid,
    customer_id: Option<Uuid>,
    hardware_version: String,
    name: String,
    #[schemars(regex(pattern = r"^\d{5}$"))]
    pin: Option<String>,
    software_version: String,
    r#type: String,
}

impl ConnectorBody {
    fn of(catalogue: &Catalogue, connector: &Connector) -> Self {
        Self {
            id: connector.uuid,
            customer_id: Some(catalogue.customer.id),
            hardware_version: connector.hardware_version.to_string(),
            name: connector.id.to_string(),
            // the sandbox's pincodes have another form, and are no partner's business
            pin: None,
            software_version: connector.software_version.to_string(),
            r#type: "physical".to_owned(),
        }
    }
}

/// The connectors, all of which belong to the customer of the catalogue.
pub(super) async fn connectors(
    call: Call<Nothing, ConnectorsQuery, Nothing>,
) -> Result<Json<List<ConnectorBody, ConnectorsQuery>>, ApiError> {
    let (app, query) = (call.app, call.query);
    let mut connectors: Vec<Connector> = app.store.view()?.all()?;
    connectors.sort_by_key(|connector| connector.id);
    let bodies = connectors.iter().map(|connector| ConnectorBody::of(&app.catalogue, connector));
    let bodies = bodies.filter(|body| {
        query.assigned.is_none_or(|assigned| assigned == body.customer_id.is_some())
            && query.customer_id.is_none_or(|customer| body.customer_id == Some(customer))
            && query.name.as_ref().is_none_or(|name| *name == body.name)
            && query.kinds.as_ref().is_none_or(|kinds| kinds.contains(&body.r#type))
    });
    Ok(Json(List::page(bodies.collect(), query.page, query)))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PartnerModelGroup")]
pub(super) struct GroupBody {
    id: i64,
    enabled: bool,
    make_id: i64,
    name: String,
}

impl GroupBody {
    fn of((make, group): (&Make, &Group)) -> Self {
        Self { id: group.id, enabled: true, make_id: make.id, name: group.name.clone() }
    }
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct GroupsQuery {
    #[serde(flatten)]
    page: PageQuery,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    make_id: Option<i64>,
}

pub(super) async fn model_groups(
    call: Call<Nothing, GroupsQuery, Nothing>,
) -> Result<Json<List<GroupBody, GroupsQuery>>, ApiError> {
    let query = call.query;
    let bodies = call.app.catalogue.groups().map(GroupBody::of);
    let bodies = bodies.filter(|body| query.make_id.is_none_or(|make| body.make_id == make)).collect();
    Ok(Json(List::page(bodies, query.page, query)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct GroupId {
    #[serde(rename = "model-group-id")]
    id: i64,
}

pub(super) async fn model_group(call: Call<GroupId, Nothing, Nothing>) -> Result<Json<GroupBody>, ApiError> {
    let found = call.app.catalogue.groups().find(|(_, group)| group.id == call.path.id);
    Ok(Json(GroupBody::of(found.ok_or_else(|| ApiError::not_found("model group"))?)))
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct ModelsQuery {
    #[serde(flatten)]
    groups: GroupsQuery,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_group_id: Option<i64>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PartnerModel")]
pub(super) struct ModelBody {
    id: i64,
    enabled: bool,
    make_id: i64,
    name: String,
    manufactured_from: Option<String>,
    manufactured_till: Option<String>,
    model_group_id: i64,
}

pub(super) async fn models(
    call: Call<Nothing, ModelsQuery, Nothing>,
) -> Result<Json<List<ModelBody, ModelsQuery>>, ApiError> {
    let query = call.query;
    let body = |(make, group, model): (&Make, &Group, &Model)| ModelBody {
        id: model.id,
        enabled: true,
        make_id: make.id,
        name: model.name.clone(),
        manufactured_from: model.manufactured_from.clone(),
        manufactured_till: model.manufactured_to.clone(),
        model_group_id: group.id,
    };
    let bodies = call.app.catalogue.models().map(body).filter(|body| {
        query.groups.make_id.is_none_or(|make| body.make_id == make)
            && query.model_group_id.is_none_or(|group| body.model_group_id == group)
    });
    let bodies = bodies.collect();
    Ok(Json(List::page(bodies, query.groups.page, query)))
}
