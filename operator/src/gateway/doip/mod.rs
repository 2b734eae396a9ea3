//! The gateway for DoIP tools: a DoIP entity that stands for the remote vehicle.
//!
//! The entity itself answers discovery, routing activation and alive checks, and acknowledges messages. Only
//! diagnostic messages cross the network, on one channel per pair of tester and ECU.

mod bridge;

use std::time::Instant;

use connector_agent::protocol::doip::{DiagnosticMessage, DiagnosticNackCode, Eid, LogicalAddress};
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::request::Switch;
use connector_hal::can::CanId;
use connector_hal::timer::{Deadline, TimerKind};
use serde_json::json;

use self::bridge::{DoipBridge, Pair};
use super::cover::CoverConfig;
use super::remote::{ChannelKind, Remote, RemoteEvent};
use crate::client::{CloseReason, Connection, functional_channel, isotp_channel};
use crate::doip_entity::{Entity, EntityConfig, Event, ListenConfig, Server, ServerAddresses};
use crate::ecu_address::EcuAddress;

/// The vehicle at the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteVehicle {
    /// A vehicle with a DoIP gateway, which receives all diagnostic messages.
    Doip {
        /// The remote gateway's logical address.
        gateway: LogicalAddress,
    },
    /// A vehicle with ECUs on CAN, which the entity presents at logical addresses.
    Can {
        /// The logical address of the first ECU. The other ECUs follow.
        first: u16,
        /// The ECUs.
        ecus: Vec<EcuAddress>,
        /// The functional identifier.
        functional: CanId,
    },
}

/// The settings of the entity, and the vehicle behind it.
#[derive(Debug, Clone)]
pub struct DoipGatewaySettings {
    /// The addresses that the entity listens on.
    pub listen: ListenConfig,
    /// The configuration of the entity.
    pub entity: EntityConfig,
    /// The configured name of the connector's bus.
    pub bus_name: String,
    /// The vehicle at the connector.
    pub vehicle: RemoteVehicle,
    /// Whether the connector keeps the ECUs' sessions alive while the tool's own TesterPresent is delayed.
    pub keep_alive: Switch,
    /// How the gateway covers the delay of the network.
    pub cover: CoverConfig,
}

impl DoipGatewaySettings {
    /// The settings of an entity with this logical address, which announces this VIN.
    pub fn new(
        listen: ListenConfig,
        bus_name: &str,
        address: LogicalAddress,
        vin: Option<&Vin>,
        vehicle: RemoteVehicle,
    ) -> Self {
        let [high, low] = address.get().to_be_bytes();
        // a locally administered EID, because this machine's MAC address is not the vehicle's
        let mut entity = EntityConfig::new(address, vin, Eid([0x02, 0x00, 0x00, 0x01, high, low]));
        match &vehicle {
            // the remote gateway knows its ECUs
            RemoteVehicle::Doip { .. } => entity.any_target = true,
            RemoteVehicle::Can { first, ecus, .. } => {
                entity.targets = (*first..).take(ecus.len()).map(LogicalAddress::new).collect();
            }
        }
        let (bus_name, keep_alive) = (bus_name.to_owned(), Switch::Enabled);
        Self { listen, entity, bus_name, vehicle, keep_alive, cover: CoverConfig::default() }
    }

    /// The connector's channel for the messages of a pair.
    fn channel(&self, pair: Pair) -> ChannelKind {
        let is_functional = pair.target.is_functional();
        let keep_alive = if is_functional { Switch::Disabled } else { self.keep_alive };
        match &self.vehicle {
            RemoteVehicle::Doip { gateway } => ChannelKind {
                name: "doip_channel",
                config: json!({
                    "bus_name": self.bus_name,
                    "gateway_id": gateway.get(),
                    "tester_id": pair.tester.get(),
                    "ecu_id": pair.target.get(),
                    "keep_alive": keep_alive,
                }),
            },
            RemoteVehicle::Can { first, ecus, functional } => {
                let config = if is_functional {
                    Some(functional_channel(&self.bus_name, *functional, ecus.iter().copied()))
                } else {
                    let place = pair.target.get().checked_sub(*first).map(usize::from);
                    let ecu = place.and_then(|place| ecus.get(place));
                    ecu.map(|ecu| {
                        isotp_channel(
                            &self.bus_name,
                            ecu.request,
                            Some(ecu.response),
                            ecu.extended,
                            keep_alive,
                        )
                    })
                };
                let config = serde_json::to_value(config).unwrap_or_default();
                ChannelKind { name: "isotp_channel", config }
            }
        }
    }

    /// The logical address of the ECU that answered a pair's request; `address` is in the notation of the
    /// relay.
    fn source(&self, pair: Pair, address: u32) -> Option<LogicalAddress> {
        if !pair.target.is_functional() {
            return Some(pair.target);
        }
        match &self.vehicle {
            RemoteVehicle::Doip { .. } => LogicalAddress::try_from(address).ok(),
            RemoteVehicle::Can { first, ecus, .. } => {
                let response = CanId::try_from(address).ok()?;
                let place = ecus.iter().position(|ecu| ecu.response == response)?;
                first.checked_add(u16::try_from(place).ok()?).map(LogicalAddress::new)
            }
        }
    }
}

/// A DoIP entity with the remote vehicle behind it. Dropping it closes the sockets.
pub struct DoipGatewayServer {
    settings: DoipGatewaySettings,
    server: Server,
}

impl DoipGatewayServer {
    /// Binds the sockets. The entity announces itself when it runs.
    ///
    /// # Errors
    ///
    /// The address is in use, or does not belong to this machine.
    pub async fn bind(settings: DoipGatewaySettings) -> std::io::Result<Self> {
        let entity = settings.entity.clone();
        let server = Server::bind(&settings.listen, |now| Entity::new(entity, now)).await?;
        Ok(Self { settings, server })
    }

    /// The addresses that the entity listens on.
    pub fn addresses(&self) -> ServerAddresses {
        self.server.addresses()
    }

    /// The JSON line for scripts when the gateway is ready.
    pub fn ready(&self) -> serde_json::Value {
        let addresses = self.addresses();
        let announcement = self.settings.entity.announcement;
        let ecus: Vec<_> = match &self.settings.vehicle {
            RemoteVehicle::Doip { .. } => Vec::new(),
            RemoteVehicle::Can { first, ecus, .. } => (*first..)
                .zip(ecus)
                .map(|(address, ecu)| {
                    json!({"logical_address": LogicalAddress::new(address).to_string(), "can": ecu.to_string()})
                })
                .collect(),
        };
        json!({
            "gateway": "doip",
            "tcp": addresses.tcp,
            "udp": addresses.udp,
            "tls": addresses.tls,
            "announce_to": addresses.announce_to,
            "logical_address": announcement.address.to_string(),
            "vin": announcement.vin().ok().map(|vin| vin.as_str().to_owned()),
            "ecus": ecus,
        })
    }

    /// Serves tools until the connection ends, and returns the reason. The bus must be configured.
    pub async fn run(mut self, connection: &Connection) -> CloseReason {
        let mut bridge = DoipBridge::new(self.settings.cover);
        let mut remote = Remote::new(connection);
        let mut deadline = Deadline::new(TimerKind::Precise);
        loop {
            while let Some(message) = bridge.poll_response() {
                self.server.respond(message);
            }
            deadline.set(bridge.poll_timeout());
            tokio::select! {
                biased;
                event = remote.next() => match event {
                    Ok(event) => self.handle_remote(&mut bridge, event),
                    Err(reason) => return reason,
                },
                event = self.server.next() => match event {
                    Event::Diagnostic(message) => self.pass_request(&mut bridge, &mut remote, message),
                    Event::Activated { tester } => tracing::info!(%tester, "routing is activated"),
                    Event::Deactivated { tester } => {
                        tracing::info!(%tester, "the tool disconnected");
                        bridge.handle_gone(tester);
                        remote.close_where(|key| Pair::of(key).tester == tester);
                    }
                },
                () = deadline.expired() => bridge.handle_timeout(Instant::now()),
            }
        }
    }

    fn handle_remote(&self, bridge: &mut DoipBridge, event: RemoteEvent) {
        let now = Instant::now();
        match event {
            RemoteEvent::Response { key, address, data } => {
                let pair = Pair::of(key);
                match self.settings.source(pair, address) {
                    Some(source) => bridge.handle_response(now, pair, source, &data),
                    None => {
                        tracing::debug!(address, "discarding the response of an ECU without logical address")
                    }
                }
            }
            RemoteEvent::Sent(key) => bridge.handle_sent(now, Pair::of(key)),
            RemoteEvent::Failed { key, why } => {
                tracing::info!(target = %Pair::of(key).target, %why, "a request failed");
                bridge.handle_failed(Pair::of(key));
            }
            RemoteEvent::Link { up } => bridge.handle_link(now, up),
        }
    }

    /// Passes a tool's request to the remote ECU.
    fn pass_request(&mut self, bridge: &mut DoipBridge, remote: &mut Remote<'_>, message: DiagnosticMessage) {
        let pair = Pair { tester: message.source, target: message.target };
        let settings = &self.settings;
        if !bridge.handle_request(Instant::now(), pair, &message.data) {
            // without room for the pair, the gateway could not cover the ECU
            self.server.refuse(pair.tester, pair.target, DiagnosticNackCode::OutOfMemory);
        } else if !remote.send(pair.key(), || settings.channel(pair), message.data) {
            bridge.handle_failed(pair);
        }
    }
}
