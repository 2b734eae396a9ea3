//! The subcommands `can-gateway` and `doip-gateway`.

use std::fmt::Display;
use std::time::Duration;

use connector_agent::print_line;
use connector_agent::protocol::doip::{LogicalAddress, ProtocolVersion};
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::request::{BusConfig, Switch};
use connector_hal::can::CanId;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::args::{CanGatewayArgs, CoverArgs, DoipGatewayArgs, Over};
use super::failure::{Failure, FailureKind};
use crate::client::{CloseReason, Connection, Vehicle};
use crate::doip_entity::ListenConfig;
use crate::doip_entity::tls::EntityTls;
use crate::gateway::can::{CanGatewayServer, CanGatewaySettings};
use crate::gateway::cover::CoverConfig;
use crate::gateway::doip::{DoipGatewayServer, DoipGatewaySettings, RemoteVehicle};

/// The entity's logical address if neither the arguments nor the connector give one.
const DEFAULT_ENTITY: LogicalAddress = LogicalAddress::new(0x4010);
/// The name of a DoIP bus.
const ETHERNET: &str = "ETH";

/// Serves CAN tools until interrupted, or until the connection ends. The bus is already configured.
pub(super) async fn can_gateway(
    connection: &Connection,
    args: &CanGatewayArgs,
    bus: &str,
    fd: bool,
    ecu_p2: Duration,
) -> Result<(), Failure> {
    let mut settings = CanGatewaySettings::obd(bus);
    settings.fd = fd;
    settings.cover = cover(&args.cover, ecu_p2);
    settings.keep_alive = keep_alive(&args.cover);
    if !args.ecu.is_empty() {
        settings.ecus.clone_from(&args.ecu);
    }
    for id in &args.functional_id {
        if !settings.functional.contains(id) {
            settings.functional.push(*id);
        }
    }
    let server = CanGatewayServer::new(Some(&args.slcan), settings).map_err(|error| {
        local(format!("cannot create the SLCAN adapter at {}", args.slcan.display()), error)
    })?;
    print_line!("{}", server.ready(&args.slcan, connection.joined().vin_number.as_deref()));
    until_interrupted(server.run(connection)).await
}

/// Serves DoIP tools until interrupted, or until the connection ends. `can` is the bus of a vehicle on CAN.
pub(super) async fn doip_gateway(
    connection: &Connection,
    args: &DoipGatewayArgs,
    can: BusConfig,
    ecu_p2: Duration,
) -> Result<(), Failure> {
    let bus = match args.over {
        Over::Can => can,
        Over::Doip => doip_bus(args)?,
    };
    let bus_name = bus.bus_name.clone();
    connection.configure_buses(vec![bus]).await?;
    // if the vehicle announced itself, the connector knows the VIN before the session
    let found = connection.identify_vehicle().await?;
    let vin = connection.joined().vin_number.as_deref().or(found.vin_number.as_deref());
    let vin = vin.and_then(|vin| vin.parse::<Vin>().ok());
    let address = args.gateway_id.or_else(|| announced_address(&found)).unwrap_or(DEFAULT_ENTITY);
    let vehicle = match args.over {
        Over::Doip => RemoteVehicle::Doip { gateway: address },
        Over::Can => vehicle_on_can(args, &bus_name, address),
    };
    let mut settings = DoipGatewaySettings::new(listen(args)?, &bus_name, address, vin.as_ref(), vehicle);
    settings.entity.version = ProtocolVersion::from(args.doip_version);
    settings.cover = cover(&args.cover, ecu_p2);
    settings.keep_alive = keep_alive(&args.cover);
    let server = DoipGatewayServer::bind(settings)
        .await
        .map_err(|error| local(format!("cannot serve DoIP at {}", args.listen), error))?;
    print_line!("{}", server.ready());
    until_interrupted(server.run(connection)).await
}

/// A failure to create something on this machine.
fn local(what: String, error: impl Display) -> Failure {
    let advice = "choose another path or address, and check that no other program uses it";
    Failure::new(FailureKind::Local, format!("{what}: {error}"), advice)
}

fn cover(args: &CoverArgs, ecu_p2: Duration) -> CoverConfig {
    let milliseconds = |number: u32| Duration::from_millis(u64::from(number));
    CoverConfig {
        p2: milliseconds(args.tool_p2_ms),
        p2_star: milliseconds(args.tool_p2_star_ms),
        ecu_p2,
        ..CoverConfig::default()
    }
}

fn keep_alive(args: &CoverArgs) -> Switch {
    if args.no_keep_alive { Switch::Disabled } else { Switch::Enabled }
}

fn doip_bus(args: &DoipGatewayArgs) -> Result<BusConfig, Failure> {
    let doip_bus = json!({
        "doip_option": args.doip_option,
        "doip_network_configuration": args.network_configuration,
    });
    let bus = serde_json::from_value(json!({"bus_name": ETHERNET, "doip_bus": doip_bus}));
    bus.map_err(|error| local("the options of the DoIP bus are not valid".to_owned(), error))
}

/// The ECUs on CAN, at the logical addresses after the entity's own.
fn vehicle_on_can(args: &DoipGatewayArgs, bus_name: &str, entity: LogicalAddress) -> RemoteVehicle {
    let obd = CanGatewaySettings::obd(bus_name);
    let ecus = if args.ecu.is_empty() { obd.ecus } else { args.ecu.clone() };
    let is_extended = ecus.iter().any(|ecu| ecu.request.is_extended());
    let functional = obd.functional.into_iter().find(|id| id.is_extended() == is_extended);
    RemoteVehicle::Can {
        first: entity.get().saturating_add(1),
        ecus,
        functional: functional.unwrap_or(CanId::standard_truncated(0x7DF)),
    }
}

/// The logical address of the gateway that announced the VIN to the connector.
fn announced_address(found: &Vehicle) -> Option<LogicalAddress> {
    if found.source.as_deref() != Some("doip") {
        return None;
    }
    let number = match found.address.as_ref()? {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok()?,
        Value::String(text) => u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?,
        _ => return None,
    };
    LogicalAddress::try_from(number).ok()
}

fn listen(args: &DoipGatewayArgs) -> Result<ListenConfig, Failure> {
    let mut listen = ListenConfig::new(args.listen);
    listen.udp_port = args.udp_port;
    listen.announce_to = args.announce_to;
    if let Some(port) = args.tls_port {
        let tls = EntityTls::self_signed(&["localhost".to_owned(), args.listen.ip().to_string()])
            .map_err(|error| local("cannot serve TLS".to_owned(), error))?;
        if let Some(file) = &args.tls_certificate {
            std::fs::write(file, &tls.certificate)
                .map_err(|error| local(format!("cannot write {}", file.display()), error))?;
        }
        listen.tls = Some((port, tls.config));
    }
    Ok(listen)
}

/// Serves until SIGTERM or SIGINT, or until the connection ends, which is a failure.
async fn until_interrupted(serving: impl Future<Output = CloseReason>) -> Result<(), Failure> {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return Err(Failure::from(serving.await));
    };
    tokio::select! {
        reason = serving => Err(Failure::from(reason)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}
