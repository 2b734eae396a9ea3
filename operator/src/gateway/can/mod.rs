//! The gateway for CAN tools: presents the remote ECUs behind an SLCAN adapter on a pseudo-terminal.
//!
//! ISO-TP terminates on both sides: in the connector beside the vehicle, and here beside the tool, so that
//! flow control needs no round trip. Only whole PDUs cross the network.

mod bridge;
mod tool_bus;

use std::path::Path;
use std::time::Instant;

use connector_agent::protocol::isotp::FrameSize;
use connector_agent::relay::wire::request::Switch;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::{CanEvent, CanId};
use connector_hal::timer::{Deadline, TimerKind};
use serde_json::json;

use self::bridge::{CanBridge, CanBridgeConfig, Target};
use self::tool_bus::{ToolEnd, tool_bus};
use super::cover::CoverConfig;
use super::remote::{ChannelKind, Remote, RemoteEvent};
use crate::client::{CloseReason, Connection, functional_channel, isotp_channel};
use crate::ecu_address::EcuAddress;

/// The keys of functional channels start here; the keys of ECUs are below.
const FUNCTIONAL: u32 = 1 << 16;

/// The ECUs that a gateway presents, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanGatewaySettings {
    /// The ECUs.
    pub ecus: Vec<EcuAddress>,
    /// The functional identifiers.
    pub functional: Vec<CanId>,
    /// The configured name of the ECUs' bus.
    pub bus_name: String,
    /// Whether the gateway sends CAN FD frames to the tool.
    pub fd: bool,
    /// Whether the connector keeps the ECUs' sessions alive while the tool's own TesterPresent is delayed.
    pub keep_alive: Switch,
    /// How the gateway covers the delay of the network.
    pub cover: CoverConfig,
}

impl CanGatewaySettings {
    /// The eight ECUs of the OBD standard (ISO 15765-4, 10.3).
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

    /// The connector's channel for requests to a target.
    fn channel(&self, bridge: &CanBridge, target: Target) -> ChannelKind {
        let config = match target {
            Target::Ecu(number) => bridge.ecu(number).map(|ecu| {
                isotp_channel(&self.bus_name, ecu.request, Some(ecu.response), ecu.extended, self.keep_alive)
            }),
            Target::Functional(number) => bridge
                .functional(number)
                .map(|request| functional_channel(&self.bus_name, request, bridge.addresses())),
        };
        ChannelKind { name: "isotp_channel", config: serde_json::to_value(config).unwrap_or_default() }
    }

    fn bridge(&self) -> CanBridge {
        let frame_size = if self.fd { FrameSize::fd(64, true).ok() } else { None };
        CanBridge::new(CanBridgeConfig {
            ecus: self.ecus.clone(),
            functional: self.functional.clone(),
            frame_size: frame_size.unwrap_or(FrameSize::Classic),
            cover: self.cover,
        })
    }
}

/// An SLCAN adapter with the remote ECUs behind it. Dropping it removes the adapter.
pub struct CanGatewayServer {
    settings: CanGatewaySettings,
    adapter: SlcanAdapter,
    tool: ToolEnd,
}

impl CanGatewayServer {
    /// Creates the adapter, and a link to its device at `link`. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// The pseudo-terminal or the link could not be created.
    pub fn new(link: Option<&Path>, settings: CanGatewaySettings) -> std::io::Result<Self> {
        let (bus, tool) = tool_bus();
        Ok(Self { settings, adapter: SlcanAdapter::with_controller(link, bus)?, tool })
    }

    /// The device that the tool opens.
    pub fn device(&self) -> &Path {
        self.adapter.device()
    }

    /// The JSON line for scripts when the gateway is ready.
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

    /// Serves one tool after the other until the connection ends, and returns the reason. The bus must be
    /// configured.
    pub async fn run(self, connection: &Connection) -> CloseReason {
        let Self { settings, adapter: _adapter, mut tool } = self;
        let mut bridge = settings.bridge();
        let mut remote = Remote::new(connection);
        let mut deadline = Deadline::new(TimerKind::Precise);
        let mut outgoing = None;
        let mut visit = 0;
        loop {
            let now = Instant::now();
            pass_requests(&settings, &mut bridge, &mut remote, now);
            outgoing = outgoing.or_else(|| bridge.poll_frame(now));
            deadline.set(bridge.poll_timeout());
            tokio::select! {
                biased;
                event = remote.next() => match event {
                    Ok(event) => handle_remote(&mut bridge, event),
                    Err(reason) => return reason,
                },
                Ok(()) = tool.visit.changed() => {
                    visit = *tool.visit.borrow_and_update();
                    tracing::debug!(visit, "a tool joined or left the bus");
                    outgoing = None;
                    bridge.handle_reset();
                    remote.close_all();
                }
                Ok(room) = tool.to_tool.reserve(), if outgoing.is_some() => {
                    if let Some(frame) = outgoing.take() {
                        room.send(CanEvent::Received { frame, at: Instant::now() });
                    }
                }
                Some(frame) = tool.from_tool.recv() => {
                    if frame.visit == visit {
                        bridge.handle_frame(Instant::now(), &frame.frame);
                    }
                }
                () = deadline.expired() => bridge.handle_timeout(Instant::now()),
            }
        }
    }
}

/// Passes the tool's requests to the remote ECUs.
fn pass_requests(
    settings: &CanGatewaySettings,
    bridge: &mut CanBridge,
    remote: &mut Remote<'_>,
    now: Instant,
) {
    while let Some((target, pdu)) = bridge.poll_request() {
        if !remote.send(key(target), || settings.channel(bridge, target), pdu) {
            bridge.handle_failed(now, target);
        }
    }
}

fn handle_remote(bridge: &mut CanBridge, event: RemoteEvent) {
    let now = Instant::now();
    match event {
        RemoteEvent::Response { key, address, data } => {
            bridge.handle_response(now, target(key), address, &data);
        }
        RemoteEvent::Sent(key) => bridge.handle_sent(now, target(key)),
        RemoteEvent::Failed { key, why } => {
            tracing::info!(target = ?target(key), %why, "a request failed");
            bridge.handle_failed(now, target(key));
        }
        RemoteEvent::Link { up } => bridge.handle_link(now, up),
    }
}

/// The key of a target's channel.
fn key(target: Target) -> u32 {
    // there are at most a few dozen ECUs and functional identifiers
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
