//! The bodies that several operations of the customer API share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cloud::catalogue::{self, Catalogue, Vehicle};
use crate::cloud::hub::Hub;
use crate::cloud::pricing::{Discount, Money, Price};
use crate::cloud::store::{Connector, Ticket, TicketState};

/// Limit of a page.
const MAX_LIMIT: usize = 200;

/// The part of a list that a request asks for.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
pub(crate) struct Paging {
    #[serde(default)]
    #[schemars(range(min = 0))]
    offset: Option<i64>,
    #[serde(default)]
    #[schemars(range(min = 0, max = 200))]
    limit: Option<i64>,
}

impl Paging {
    /// The whole list, as far as one page goes.
    pub(crate) const FIRST: Self = Self { offset: None, limit: None };

    /// The page of a list.
    pub(crate) fn page<T>(self, all: Vec<T>) -> Page<T> {
        let offset = self.offset.unwrap_or(0);
        let limit = self.limit.map_or(MAX_LIMIT, |limit| usize::try_from(limit).unwrap_or(MAX_LIMIT));
        let total = all.len();
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        Page { result: all.into_iter().skip(skip).take(limit).collect(), total, offset, limit }
    }
}

/// A page of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub(crate) struct Page<T> {
    result: Vec<T>,
    total: usize,
    offset: i64,
    limit: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Connector")]
pub(crate) struct ConnectorBody {
    id: i64,
    uuid: Uuid,
    is_online: bool,
    has_wifi: bool,
    software_version: i64,
    hardware_version: i64,
    supports_doip: bool,
    /// Make, group, model and variant, with `#` between them; empty if the vehicle is not known.
    vehicle_path_string: String,
    /// Empty if no VIN was read.
    vin_number: String,
    product_description: String,
    hardware_type: String,
}

impl ConnectorBody {
    pub(crate) fn of(hub: &Hub, catalogue: &Catalogue, connector: &Connector) -> Self {
        let vin = connector.vin_number.map(|vin| vin.to_string());
        let path = connector.vehicle_path_string.clone();
        let found = vin.as_deref().and_then(|vin| catalogue.vehicle(vin));
        Self {
            id: connector.id,
            uuid: connector.uuid,
            is_online: hub.is_online(connector.id),
            has_wifi: connector.has_wifi,
            software_version: connector.software_version,
            hardware_version: connector.hardware_version,
            supports_doip: connector.supports_doip,
            vehicle_path_string: path.or_else(|| found.map(|vehicle| vehicle.path())).unwrap_or_default(),
            vin_number: vin.unwrap_or_default(),
            product_description: connector.product_description.clone(),
            hardware_type: connector.hardware_type.clone(),
        }
    }
}

impl Vehicle<'_> {
    /// Make, group, model and variant as one line.
    pub(crate) fn path(self) -> String {
        [&self.make.name, &self.group.name, &self.model.name, &self.variant.name]
            .map(String::as_str)
            .join("#")
    }
}

/// The number of a ticket's state. The documents show 1 for a new ticket and 7 for a historical one; the others are the
/// sandbox's.
pub(in crate::cloud) fn state_number(state: TicketState) -> i64 {
    match state {
        TicketState::Pending => 1,
        TicketState::InProgress => 2,
        TicketState::Outsourced => 3,
        TicketState::Cancelled => 6,
        TicketState::Closed => 7,
    }
}

/// A channel, as the customers' API names it: the ticket's number, and the channel's UUID.
pub(in crate::cloud) fn chat_id(ticket: &Ticket) -> String {
    format!("{}_{}", ticket.id, ticket.chat_id)
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Ticket")]
pub(crate) struct TicketBody {
    id: String,
    uuid: Uuid,
    vin: String,
    #[serde(rename = "vinNumber")]
    vin_number: String,
    vehicle_model_id: i64,
    vehicle_model_variant_id: i64,
    product_ids: Vec<Vec<i64>>,
    chat_id: String,
    connector_id: i64,
    state: i64,
}

impl From<&Ticket> for TicketBody {
    fn from(ticket: &Ticket) -> Self {
        let vin = ticket.vin_or_zeros();
        Self {
            id: ticket.id.to_string(),
            uuid: ticket.uuid,
            vin: vin.clone(),
            vin_number: vin,
            vehicle_model_id: ticket.vehicle_model_id.unwrap_or_default(),
            vehicle_model_variant_id: ticket.vehicle_model_variant_id.unwrap_or_default(),
            product_ids: vec![ticket.product_ids.clone()],
            chat_id: chat_id(ticket),
            connector_id: ticket.connector_id,
            state: state_number(ticket.state),
        }
    }
}

/// The older form of a price.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeprecatedPrice {
    price_original: f64,
    price_final: f64,
    partner_price: f64,
    contains_discount: bool,
    currency: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Product")]
pub(crate) struct ProductBody {
    id: i64,
    item_number: i64,
    name: String,
    internal_name: String,
    description: String,
    is_favorite: bool,
    is_unattended: bool,
    gross_price: Money,
    net_price: Money,
    total_discount: Discount,
    original_equipment_service_fee: Option<Money>,
    price: DeprecatedPrice,
}

/// The item number as in the examples, where it is a number.
pub(crate) fn item_number(product: &catalogue::Product) -> i64 {
    product.item_number.parse().unwrap_or(product.id)
}

impl ProductBody {
    pub(crate) fn of(catalogue: &Catalogue, product: &catalogue::Product, is_favorite: bool) -> Self {
        let price = Price::of(product);
        Self {
            id: product.id,
            item_number: item_number(product),
            name: product.name.clone(),
            internal_name: product.internal_name.clone(),
            description: product.description.clone(),
            is_favorite,
            is_unattended: product.is_unattended,
            gross_price: catalogue.money(price.gross),
            net_price: catalogue.money(price.net),
            total_discount: catalogue.discount(price.gross, price.net),
            original_equipment_service_fee: product
                .original_equipment_service_fee
                .map(|fee| catalogue.money(fee)),
            price: DeprecatedPrice {
                price_original: price.gross,
                price_final: price.net,
                partner_price: price.net,
                contains_discount: price.net < price.gross,
                currency: catalogue.currency.code.clone(),
            },
        }
    }
}
