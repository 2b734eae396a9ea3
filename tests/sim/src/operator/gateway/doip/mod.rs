//! `connector-sim operator doip-gateway`: a DoIP entity that stands for the remote vehicle, for any DoIP tool.
//!
//! What is quick on a vehicle's network is answered here: discovery, routing activation, alive checks and
//! acknowledgements. Only diagnostic messages cross the network, each by a channel for its tester and its ECU.

pub mod core;

use std::time::Instant;

use connector_agent::protocol::doip::{DiagnosticMessage, DiagnosticNackCode, Eid, LogicalAddress};
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::request::Switch;
use connector_hal::can::CanId;
use connector_hal::timer::{Deadline, TimerKind};
use serde_json::json;

use self::core::{DoipBridge, Pair};
use super::cover::CoverConfig;
use super::remote::{ChannelKind, Remote, RemoteEvent};
use crate::doip::{Entity, EntityConfig, Event, ListenConfig, Server, ServerAddresses};
use crate::operator::client::{CloseReason, Connection};
use crate::operator::isotp;
use crate::vehicle::catalogue::EcuAddress;

/// What is behind the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteVehicle {
    /// A gateway on DoIP: whatever the tool asks for is passed on to it.
    Doip {
        /// The remote gateway's logical address.
        gateway: LogicalAddress,
    },
    /// ECUs on CAN: the tool finds them at these addresses.
    Can {
        /// The first one's logical address; the others follow it.
        first: u16,
        /// The ECUs.
        ecus: Vec<EcuAddress>,
        /// The identifier by which all of them are asked.
        functional: CanId,
    },
}

/// The entity that the tool finds, and what is behind it.
#[derive(Debug, Clone)]
pub struct DoipGatewaySettings {
    /// Where it listens.
    pub listen: ListenConfig,
    /// What it is like.
    pub entity: EntityConfig,
    /// The bus of the connector, as it was configured.
    pub bus_name: String,
    /// What is behind the connector.
    pub vehicle: RemoteVehicle,
    /// Whether the connector keeps the ECUs' sessions while the tool's own TesterPresent is held up.
    pub keep_alive: Switch,
    /// How the time that the network takes is covered.
    pub cover: CoverConfig,
}

impl DoipGatewaySettings {
    /// An entity at this address that announces this VIN.
    pub fn new(
        listen: ListenConfig,
        bus_name: &str,
        address: LogicalAddress,
        vin: Option<&Vin>,
        vehicle: RemoteVehicle,
    ) -> Self {
        let [high, low] = address.get().to_be_bytes();
        // locally administered, as the machine's own is not the vehicle's
        let mut entity = EntityConfig::new(address, vin, Eid([0x02, 0x00, 0x00, 0x01, high, low]));
        match &vehicle {
            // which ECUs there are, the remote gateway knows
            RemoteVehicle::Doip { .. } => entity.any_target = true,
            RemoteVehicle::Can { first, ecus, .. } => {
                entity.targets = (*first..).take(ecus.len()).map(LogicalAddress::new).collect();
            }
        }
        let (bus_name, keep_alive) = (bus_name.to_owned(), Switch::Enabled);
        Self { listen, entity, bus_name, vehicle, keep_alive, cover: CoverConfig::default() }
    }

    /// The channel of the connector that a pair's messages go by.
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
                    let mut config = isotp(&self.bus_name, *functional, None, None, keep_alive);
                    if !matches!(functional.raw(), 0x7DF | 0x18DB_33F1) {
                        config.response_ids = ecus.iter().map(|ecu| ecu.response.to_socketcan()).collect();
                    }
                    Some(config)
                } else {
                    let place = pair.target.get().checked_sub(*first).map(usize::from);
                    let ecu = place.and_then(|place| ecus.get(place));
                    ecu.map(|ecu| {
                        isotp(&self.bus_name, ecu.request, Some(ecu.response), ecu.extended, keep_alive)
                    })
                };
                let config = serde_json::to_value(config).unwrap_or_default();
                ChannelKind { name: "isotp_channel", config }
            }
        }
    }

    /// The logical address of who answered what a pair asked, as the relay writes addresses.
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

/// A DoIP entity with the remote vehicle behind it. Dropped, it is gone.
pub struct DoipGatewayServer {
    settings: DoipGatewaySettings,
    server: Server,
}

impl DoipGatewayServer {
    /// Binds the sockets; the entity announces itself as soon as it runs.
    ///
    /// # Errors
    ///
    /// An address that is in use, or not this machine's.
    pub async fn bind(settings: DoipGatewaySettings) -> std::io::Result<Self> {
        let entity = settings.entity.clone();
        let server = Server::bind(&settings.listen, |now| Entity::new(entity, now)).await?;
        Ok(Self { settings, server })
    }

    /// Where it listens.
    pub fn addresses(&self) -> ServerAddresses {
        self.server.addresses()
    }

    /// What scripts are told when it is ready.
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

    /// Serves tools until the connection is over, and says why it is. Its bus must be configured.
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
                event = remote.next() => {
                    let now = Instant::now();
                    match event {
                        Err(reason) => return reason,
                        Ok(RemoteEvent::Response { key, address, data }) => {
                            let pair = Pair::of(key);
                            match self.settings.source(pair, address) {
                                Some(source) => bridge.handle_response(now, pair, source, &data),
                                None => tracing::debug!(address, "a response of an ECU without logical address"),
                            }
                        }
                        Ok(RemoteEvent::Sent(key)) => bridge.handle_sent(now, Pair::of(key)),
                        Ok(RemoteEvent::Failed { key, why }) => {
                            tracing::info!(target = %Pair::of(key).target, %why, "a request failed");
                            bridge.handle_failed(Pair::of(key));
                        }
                        Ok(RemoteEvent::Link { up }) => bridge.handle_link(now, up),
                    }
                }
                event = self.server.next() => match event {
                    Event::Diagnostic(message) => self.pass_on(&mut bridge, &mut remote, message),
                    Event::Activated { tester } => tracing::info!(%tester, "routing is activated"),
                    Event::Deactivated { tester } => {
                        tracing::info!(%tester, "the tool has gone");
                        bridge.handle_gone(tester);
                        remote.close_where(|key| Pair::of(key).tester == tester);
                    }
                },
                () = deadline.expired() => bridge.handle_timeout(Instant::now()),
            }
        }
    }

    fn pass_on(&mut self, bridge: &mut DoipBridge, remote: &mut Remote<'_>, message: DiagnosticMessage) {
        let pair = Pair { tester: message.source, target: message.target };
        let settings = &self.settings;
        if !bridge.handle_request(Instant::now(), pair, &message.data) {
            // there is no room to remember it, and so to answer in the ECU's place
            self.server.refuse(pair.tester, pair.target, DiagnosticNackCode::OutOfMemory);
        } else if !remote.send(pair.key(), || settings.channel(pair), message.data) {
            bridge.handle_failed(pair);
        }
    }
}
