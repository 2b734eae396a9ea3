//! `connector-sim operator can-gateway`: the remote ECUs on an SLCAN pseudo-terminal, for any CAN tool.
//!
//! ISO-TP ends on both sides: in the connector beside the vehicle, and here beside the tool, whose flow controls are
//! answered at once. Only whole PDUs cross the network.

pub mod core;
mod tool_bus;

use std::path::Path;
use std::time::Instant;

use connector_agent::protocol::isotp::FrameSize;
use connector_agent::relay::wire::request::Switch;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::{CanEvent, CanId};
use connector_hal::timer::{Deadline, TimerKind};
use serde_json::json;

use self::core::{CanGateway, CanGatewayConfig, Target};
use self::tool_bus::{ToolEnd, tool_bus};
use super::cover::CoverConfig;
use super::remote::{ChannelKind, Remote, RemoteEvent};
use crate::operator::client::{CloseReason, Connection};
use crate::operator::isotp;
use crate::vehicle::catalogue::EcuAddress;

/// Functional channels have these keys, ECUs those below.
const FUNCTIONAL: u32 = 1 << 16;

/// Which ECUs a gateway shows, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanGatewaySettings {
    /// The ECUs.
    pub ecus: Vec<EcuAddress>,
    /// The identifiers by which all of them are asked.
    pub functional: Vec<CanId>,
    /// The bus that they are on, as it was configured.
    pub bus_name: String,
    /// Whether the tool may be sent CAN FD frames.
    pub fd: bool,
    /// Whether the connector keeps the ECUs' sessions while the tool's own TesterPresent is held up.
    pub keep_alive: Switch,
    /// How the time that the network takes is covered.
    pub cover: CoverConfig,
}

impl CanGatewaySettings {
    /// The eight ECUs that the OBD standard gives identifiers (ISO 15765-4, 10.3).
    pub fn obd(bus_name: &str) -> Self {
        let ecu = |number: u32| EcuAddress {
            request: CanId::standard_truncated(0x7E0 + number),
            response: CanId::standard_truncated(0x7E8 + number),
            extended: None,
        };
        Self {
            ecus: (0..8).map(ecu).collect(),
            functional: vec![CanId::standard_truncated(0x7DF), CanId::extended_truncated(0x18DB_33F1)],
            bus_name: bus_name.to_owned(),
            fd: false,
            keep_alive: Switch::Enabled,
            cover: CoverConfig::default(),
        }
    }

    /// The channel of the connector that a request goes by.
    fn channel(&self, core: &CanGateway, target: Target) -> ChannelKind {
        let config = match target {
            Target::Ecu(number) => core.ecu(number).map(|ecu| {
                isotp(&self.bus_name, ecu.request, Some(ecu.response), ecu.extended, self.keep_alive)
            }),
            Target::Functional(number) => core.functional(number).map(|request| {
                let mut config = isotp(&self.bus_name, request, None, None, Switch::Disabled);
                // OBD's own are known to the connector
                if !matches!(request.raw(), 0x7DF | 0x18DB_33F1) {
                    config.response_ids = core.responses().map(CanId::to_socketcan).collect();
                }
                config
            }),
        };
        ChannelKind { name: "isotp_channel", config: serde_json::to_value(config).unwrap_or_default() }
    }
}

/// An SLCAN adapter with the remote ECUs behind it. Dropped, it is gone.
pub struct CanGatewayServer {
    settings: CanGatewaySettings,
    adapter: SlcanAdapter,
    tool: ToolEnd,
}

impl CanGatewayServer {
    /// Makes the adapter, and a link to its device at `link`. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The pseudo-terminal or the link cannot be made.
    pub fn new(link: Option<&Path>, settings: CanGatewaySettings) -> std::io::Result<Self> {
        let (bus, tool) = tool_bus();
        Ok(Self { settings, adapter: SlcanAdapter::with_controller(link, bus)?, tool })
    }

    /// The device for the tool to open.
    pub fn device(&self) -> &Path {
        self.adapter.device()
    }

    /// What scripts are told when it is ready.
    pub fn ready(&self, slcan: &Path, vin: Option<&str>) -> serde_json::Value {
        let ecu = |ecu: &EcuAddress| {
            json!({
                "request_id": ecu.request.to_string(),
                "response_id": ecu.response.to_string(),
                "extended_address": ecu.extended.map(|byte| format!("0x{byte:02X}")),
            })
        };
        let functional: Vec<String> = self.settings.functional.iter().map(CanId::to_string).collect();
        let ecus: Vec<_> = self.settings.ecus.iter().map(ecu).collect();
        json!({"gateway": "can", "slcan": slcan, "vin": vin, "ecus": ecus, "functional": functional})
    }

    /// Serves one tool after the other until the connection is over, and says why it is. Its bus must be configured.
    pub async fn run(mut self, connection: &Connection) -> CloseReason {
        let frame_size = if self.settings.fd { FrameSize::fd(64, true).ok() } else { None };
        let mut core = CanGateway::new(CanGatewayConfig {
            ecus: self.settings.ecus.clone(),
            functional: self.settings.functional.clone(),
            frame_size: frame_size.unwrap_or(FrameSize::Classic),
            cover: self.settings.cover,
        });
        let mut remote = Remote::new(connection);
        let mut deadline = Deadline::new(TimerKind::Precise);
        let mut outgoing = None;
        let mut visit = 0;
        loop {
            let now = Instant::now();
            while let Some((target, pdu)) = core.poll_request() {
                if !remote.send(key(target), || self.settings.channel(&core, target), pdu) {
                    core.handle_failed(now, target);
                }
            }
            outgoing = outgoing.or_else(|| core.poll_frame(now));
            deadline.set(core.poll_timeout());
            tokio::select! {
                biased;
                event = remote.next() => {
                    let now = Instant::now();
                    match event {
                        Err(reason) => return reason,
                        Ok(RemoteEvent::Response { key, address, data }) => {
                            core.handle_response(now, target(key), address, &data);
                        }
                        Ok(RemoteEvent::Sent(key)) => core.handle_sent(now, target(key)),
                        Ok(RemoteEvent::Failed { key, why }) => {
                            tracing::info!(target = ?target(key), %why, "a request failed");
                            core.handle_failed(now, target(key));
                        }
                        Ok(RemoteEvent::Link { up }) => core.handle_link(now, up),
                    }
                }
                Ok(()) = self.tool.visit.changed() => {
                    visit = *self.tool.visit.borrow_and_update();
                    tracing::debug!(visit, "a tool has come, or gone");
                    outgoing = None;
                    core.handle_reset();
                    remote.close_all();
                }
                Ok(room) = self.tool.to_tool.reserve(), if outgoing.is_some() => {
                    if let Some(frame) = outgoing.take() {
                        room.send(CanEvent::Received { frame, at: Instant::now() });
                    }
                }
                Some(frame) = self.tool.from_tool.recv() => {
                    if frame.visit == visit {
                        core.handle_frame(Instant::now(), &frame.frame);
                    }
                }
                () = deadline.expired() => core.handle_timeout(Instant::now()),
            }
        }
    }
}

fn key(target: Target) -> u32 {
    // neither has more than a few dozen
    match target {
        Target::Ecu(number) => number as u32,
        Target::Functional(number) => FUNCTIONAL + number as u32,
    }
}

fn target(key: u32) -> Target {
    match key.checked_sub(FUNCTIONAL) {
        Some(number) => Target::Functional(number as usize),
        None => Target::Ecu(key as usize),
    }
}
