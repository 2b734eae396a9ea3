//! The services that configure the connector's buses, and terminal 15.

use std::sync::Arc;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::ProblemKind;
use connector_agent::relay::wire::request::BusConfig;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::gateway::Live;
use super::mapping;
use super::proto::bus_configuration::BusDefinition;
use super::proto::config_server::Config;
use super::proto::terminal15_server::Terminal15;
use super::proto::{
    BusConfiguration, Configuration, ConfiguredChannel, EmptyMessage, Terminal15Message, Terminal15State,
};
use super::services::{Responses, Service, empty};
use super::status::status_of_event;
use crate::client::{Channel, Item, OperatorError};

/// How many buses a client may configure: far more than a vehicle has.
const MAX_BUSES: usize = 64;
/// How many changes of terminal 15 may wait for a client.
const WAITING: usize = 16;

/// The configuration for `configureBuses`.
fn bus_config(bus: &BusConfiguration) -> Result<BusConfig, Status> {
    let mut other = match mapping::bus(bus)? {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    };
    other.remove("bus_name");
    Ok(BusConfig { bus_name: bus.bus_name.clone(), other, ..BusConfig::default() })
}

/// Adds a bus. A later bus with the same pins replaces an earlier one.
fn add(buses: &mut Vec<BusConfiguration>, bus: BusConfiguration) -> Result<(), Status> {
    buses.retain(|earlier| !mapping::same_pins(earlier, &bus));
    buses.push(bus);
    if buses.len() > MAX_BUSES {
        return Err(Status::invalid_argument(format!("more than {MAX_BUSES} buses")));
    }
    Ok(())
}

/// Whether a connector, or the cloud before it, does not know a request of the relay protocol.
pub(super) fn is_unknown_action(error: &OperatorError) -> bool {
    error
        .problem()
        .is_some_and(|problem: &Problem| ProblemKind::of(problem) == Some(ProblemKind::UnknownAction))
}

impl Service {
    async fn mute<T: Sync>(
        &self,
        request: &Request<T>,
        action: &'static str,
    ) -> Result<Response<EmptyMessage>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        match live.connection.ask(action, json!({"connection_uuid": live.connection.uuid()})).await {
            Ok(_) => {}
            // the client mutes at the start of a session, whatever connector it has
            Err(error) if is_unknown_action(&error) => {
                tracing::warn!(session = %live.id, "the connector is too old for {action}, and goes on as before");
            }
            Err(error) => return Err(error.into()),
        }
        empty()
    }
}

#[tonic::async_trait]
impl Config for Service {
    async fn configure_bus(
        &self,
        request: Request<Streaming<BusConfiguration>>,
    ) -> Result<Response<EmptyMessage>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let mut inbound = request.into_inner();
        let mut wanted = Vec::new();
        while let Some(bus) = inbound.message().await? {
            add(&mut wanted, bus)?;
        }
        let configs = wanted.iter().map(bus_config).collect::<Result<Vec<_>, _>>()?;
        let mut buses = live.buses.lock().await;
        // channels stay open if nothing changes
        if *buses != wanted {
            buses.clear();
            let configured = live.connection.configure_buses(configs).await;
            live.forget_channels();
            live.configurations.send_modify(|count| *count += 1);
            configured?;
            *buses = wanted;
        }
        empty()
    }

    async fn get_configuration(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<Configuration>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        let buses = live.buses.lock().await.clone();
        let channels = live.open_channels().into_iter();
        let channels =
            channels.map(|channel| ConfiguredChannel { channel_definition: Some(channel) }).collect();
        Ok(Response::new(Configuration { buses, channels }))
    }

    async fn mute_locals(&self, request: Request<EmptyMessage>) -> Result<Response<EmptyMessage>, Status> {
        self.mute(&request, "muteLocals").await
    }

    async fn unmute_locals(&self, request: Request<EmptyMessage>) -> Result<Response<EmptyMessage>, Status> {
        self.mute(&request, "unmuteLocals").await
    }
}

async fn open_terminal15(live: &Live, configurations: &mut watch::Receiver<u64>) -> Result<Channel, Status> {
    let buses = live.buses.lock().await;
    configurations.mark_unchanged();
    let is_terminal15 =
        |bus: &&BusConfiguration| matches!(bus.bus_definition, Some(BusDefinition::Terminal15Bus(_)));
    let bus = buses.iter().find(is_terminal15).ok_or_else(|| {
        Status::failed_precondition("no bus with terminal15_bus is configured; add one with configureBus")
    })?;
    Ok(live.open(("terminal15_channel", json!({"bus_name": bus.bus_name})), None).await?)
}

async fn watch_terminal15(
    live: &Live,
    out: &mpsc::Sender<Result<Terminal15Message, Status>>,
    slot: &mut Option<Channel>,
) -> Result<(), Status> {
    let mut configurations = live.configurations.subscribe();
    let mut channel = slot.insert(open_terminal15(live, &mut configurations).await?);
    let mut last = None;
    loop {
        let item = tokio::select! {
            received = channel.recv() => received?.item,
            Ok(()) = configurations.changed() => {
                channel = slot.insert(open_terminal15(live, &mut configurations).await?);
                continue;
            }
        };
        if let Some(status) = status_of_event(&item) {
            return Err(status);
        }
        let Item::Terminal15(state) = item else { continue };
        if last.replace(state) == Some(state) {
            continue;
        }
        let state = match state {
            Some(true) => Terminal15State::StateOn,
            Some(false) => Terminal15State::StateOff,
            None => Terminal15State::StateUndefined,
        };
        if out.send(Ok(Terminal15Message { state: Some(state as i32) })).await.is_err() {
            return Ok(());
        }
    }
}

#[tonic::async_trait]
impl Terminal15 for Service {
    type openTerminal15StreamStream = Responses<Terminal15Message>;

    async fn open_terminal15_stream(
        &self,
        request: Request<EmptyMessage>,
    ) -> Result<Response<Self::openTerminal15StreamStream>, Status> {
        let live: Arc<Live> = self.gateway.enter(request.metadata())?;
        let (out, stream) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut open = None;
            let ended = tokio::select! {
                over = live.over() => over,
                () = out.closed() => Ok(()),
                watched = watch_terminal15(&live, &out, &mut open) => watched,
            };
            if let Some(channel) = open {
                live.close(channel).await;
            }
            if let Err(status) = ended {
                let _the_client_has_gone = out.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
