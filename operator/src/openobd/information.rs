//! The services that inform: about the connector, the vehicle's ECUs, and the ticket.

use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::configuration::is_unknown_action;
use super::gateway::Live;
use super::proto::bus_configuration::BusDefinition;
use super::proto::connection_monitor_server::ConnectionMonitor;
use super::proto::ecu::EcuType;
use super::proto::product_info_server::ProductInfo;
use super::proto::ticket_info_server::TicketInfo;
use super::proto::vehicle_info_server::VehicleInfo;
use super::proto::{
    BusConfiguration, ConnectorInformation, DoipEcu, Ecu, EcuList, EmptyMessage, IsotpEcu, ProductDetails,
    ProductList, TicketDetails, Tp20Ecu, VehicleDetails,
};
use super::quality::Quality;
use super::services::{Responses, Service};
use crate::client::{LinkState, OperatorError};

/// How often the stream informs about the connector.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a sample of the round trip may take: as long as the stream's interval.
const PATIENCE: Duration = Duration::from_secs(1);
/// The tester's address on DoIP for an ECU in the list: ISO 13400-2, external diagnostic equipment.
const TESTER: u32 = 0x0E80;

/// The parts of `connectionQuality` that count here.
#[derive(Deserialize, Default)]
struct Measured {
    #[serde(default)]
    round_trip_time: Option<f64>,
    #[serde(default)]
    connected_since: Option<u64>,
}

async fn information(live: &Live, quality: &mut Quality) -> ConnectorInformation {
    let is_connected = *live.connection.state().borrow() == LinkState::Up;
    let mut measured = None;
    if is_connected {
        let asked = Instant::now();
        let message = json!({"connection_uuid": live.connection.uuid()});
        let answer = tokio::time::timeout(PATIENCE, live.connection.ask("connectionQuality", message)).await;
        measured = match answer {
            Ok(Ok(answer)) => Some(Measured::deserialize(answer).unwrap_or_default()),
            // the connector has answered, even though it is too old to know the round trip
            Ok(Err(error)) if is_unknown_action(&error) => Some(Measured::default()),
            Ok(Err(_)) | Err(_) => None,
        };
        let round_trip = measured.as_ref().map(|measured| {
            let known =
                measured.round_trip_time.map(|ms| Duration::from_secs_f64(ms.clamp(0.0, 1e6) / 1000.0));
            known.unwrap_or_else(|| asked.elapsed())
        });
        quality.add(round_trip);
    } else {
        quality.add(None);
    }
    let began = live.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    ConnectorInformation {
        connected: is_connected,
        connected_since: measured.and_then(|measured| measured.connected_since).unwrap_or(began),
        latency: quality.latency(),
        healthy: is_connected && quality.is_healthy(),
    }
}

#[tonic::async_trait]
impl ConnectionMonitor for Service {
    async fn get_connector_information(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<ConnectorInformation>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        Ok(Response::new(information(&live, &mut Quality::default()).await))
    }

    type openConnectorInformationStreamStream = Responses<ConnectorInformation>;

    async fn open_connector_information_stream(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<Self::openConnectorInformationStreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            let monitoring = async {
                let mut quality = Quality::default();
                let mut due = tokio::time::interval(INTERVAL);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    due.tick().await;
                    if out.send(Ok(information(&live, &mut quality).await)).await.is_err() {
                        return;
                    }
                }
            };
            let ended = tokio::select! {
                over = live.over() => over,
                () = monitoring => Ok(()),
            };
            if let Err(status) = ended {
                let _the_client_has_gone = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// An ECU of `ecusFound`.
#[derive(Deserialize)]
struct Found {
    request_id: u32,
    response_id: u32,
    #[serde(default)]
    extended_request_address: Option<u32>,
    #[serde(default)]
    extended_response_address: Option<u32>,
    #[serde(default)]
    logical_address: Option<u32>,
    #[serde(default)]
    gateway_id: Option<u32>,
}

/// The ECU with its whole bus.
fn ecu(bus: &BusConfiguration, found: Found) -> Option<Ecu> {
    let ecu_type = match (bus.bus_definition.as_ref()?, found.logical_address) {
        (BusDefinition::CanBus(can_bus), Some(logical_address)) => {
            EcuType::Tp20Ecu(Tp20Ecu { can_bus: Some(*can_bus), logical_address })
        }
        (BusDefinition::CanBus(can_bus), None) => EcuType::IsotpEcu(IsotpEcu {
            can_bus: Some(*can_bus),
            request_id: found.request_id,
            response_id: found.response_id,
            extended_request_address: found.extended_request_address,
            extended_response_address: found.extended_response_address,
        }),
        (BusDefinition::DoipBus(doip_bus), _) => EcuType::DoipEcu(DoipEcu {
            doip_bus: Some(*doip_bus),
            gateway_id: found.gateway_id.unwrap_or(found.request_id),
            tester_id: TESTER,
            ecu_id: found.request_id,
        }),
        _ => return None,
    };
    Some(Ecu { ecu_type: Some(ecu_type) })
}

async fn scan(live: &Live, bus: &BusConfiguration) -> Result<Vec<Ecu>, OperatorError> {
    let message = json!({"connection_uuid": live.connection.uuid(), "bus_name": bus.bus_name});
    let mut answer = live.connection.ask("scanEcus", message).await?;
    let invalid =
        |error: serde_json::Error| OperatorError::Answer { what: "scanEcus", detail: error.to_string() };
    let found = answer.get_mut("ecus").map(Value::take).unwrap_or_default();
    let found: Vec<Found> = serde_json::from_value(found).map_err(invalid)?;
    Ok(found.into_iter().filter_map(|found| ecu(bus, found)).collect())
}

#[tonic::async_trait]
impl VehicleInfo for Service {
    async fn get_ecu_list(&self, request: Request<EmptyMessage>) -> Result<Response<EcuList>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let buses = live.buses.lock().await.clone();
        let can_be_scanned = |bus: &&BusConfiguration| {
            matches!(bus.bus_definition, Some(BusDefinition::CanBus(_) | BusDefinition::DoipBus(_)))
        };
        let buses: Vec<_> = buses.iter().filter(can_be_scanned).collect();
        if buses.is_empty() {
            let sentence = "no CAN or DoIP bus is configured, and ECUs on a K-line cannot be searched for";
            return Err(Status::failed_precondition(sentence));
        }
        let mut ecus = Vec::new();
        for bus in buses {
            ecus.extend(scan(&live, bus).await?);
        }
        Ok(Response::new(EcuList { ecus }))
    }

    async fn get_vehicle_details(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<VehicleDetails>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let joined = &live.connection.joined().vin_number;
        let vin = live.ticket.vin.clone().or_else(|| joined.clone()).unwrap_or_default();
        let name = match vin.as_str() {
            "" => String::new(),
            vin => live.operator.vehicle_name(vin).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the cloud does not name the vehicle");
                String::new()
            }),
        };
        let tecdoc_id = live.ticket.vehicle_model_id.unwrap_or_default();
        Ok(Response::new(VehicleDetails { name, tecdoc_id, vin }))
    }
}

#[tonic::async_trait]
impl ProductInfo for Service {
    async fn get_product_list(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<ProductList>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let names = match live.ticket.vehicle_model_id {
            Some(model) if !live.ticket.product_ids.is_empty() => {
                live.operator.product_names(model, live.ticket.vehicle_model_variant_id).await.unwrap_or_else(
                    |error| {
                        tracing::warn!(%error, "the cloud does not name the ticket's products");
                        Default::default()
                    },
                )
            }
            _ => Default::default(),
        };
        let details = |number: &u32| ProductDetails {
            number: *number,
            name: names.get(number).cloned().unwrap_or_default(),
        };
        let products = live.ticket.product_ids.iter().map(details).collect();
        Ok(Response::new(ProductList { products }))
    }
}

#[tonic::async_trait]
impl TicketInfo for Service {
    async fn get_ticket_details(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<TicketDetails>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let number = live.ticket.ticket_number.as_deref().and_then(|number| number.parse().ok());
        Ok(Response::new(TicketDetails { number: number.unwrap_or_default(), id: live.ticket.id.clone() }))
    }
}
