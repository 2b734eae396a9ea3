//! `connector-sim operator can-gateway` and `doip-gateway`, from their arguments to their end.

use std::path::Path;

use anyhow::Context as _;
use connector_agent::protocol::doip::{LogicalAddress, ProtocolVersion};
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::request::{BusConfig, Switch};
use connector_hal::can::CanId;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::can::{CanGatewayServer, CanGatewaySettings};
use super::doip::{DoipGatewayServer, DoipGatewaySettings, RemoteVehicle};
use crate::doip::ListenConfig;
use crate::doip::tls::EntityTls;
use crate::operator::args::{CanGatewayArgs, CoverArgs, DoipGatewayArgs, Over};
use crate::operator::client::{CloseReason, Connection};
use crate::operator::failure::{Failure, FailureKind};
use crate::operator::gateway::cover::CoverConfig;
use crate::vehicle::catalogue::EcuAddress;
use crate::vehicle::doip::GATEWAY;

/// What a DoIP bus is called.
const ETHERNET: &str = "ETH";

fn local(error: &anyhow::Error) -> Failure {
    Failure::new(
        FailureKind::Local,
        format!("{error:#}"),
        "choose another place, and see that nobody uses it",
    )
}

fn cover(args: &CoverArgs, ecu_p2: std::time::Duration) -> CoverConfig {
    let milliseconds = |number: u32| std::time::Duration::from_millis(u64::from(number));
    CoverConfig {
        p2: milliseconds(args.tool_p2_ms),
        p2_star: milliseconds(args.tool_p2_star_ms),
        ecu_p2,
        ..CoverConfig::default()
    }
}

/// Serves CAN tools until interrupted, or until the connection is over. The bus is configured.
pub async fn can_gateway(
    connection: &Connection,
    args: &CanGatewayArgs,
    bus: &str,
    fd: bool,
    ecu_p2: std::time::Duration,
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
    let server = make_server(&args.slcan, settings).map_err(|error| local(&error))?;
    println!("{}", server.ready(&args.slcan, connection.joined().vin_number.as_deref()));
    until_interrupted(server.run(connection)).await
}

/// Serves DoIP tools until interrupted, or until the connection is over; `can` is the bus of a vehicle on CAN.
pub async fn doip_gateway(
    connection: &Connection,
    args: &DoipGatewayArgs,
    can: BusConfig,
    ecu_p2: std::time::Duration,
) -> Result<(), Failure> {
    let bus = match args.over {
        Over::Can => can,
        Over::Doip => {
            let doip_bus = json!({
                "doip_option": args.doip_option,
                "doip_network_configuration": args.network_configuration,
            });
            let bus = serde_json::from_value(json!({"bus_name": ETHERNET, "doip_bus": doip_bus}));
            bus.map_err(|error| local(&error.into()))?
        }
    };
    let bus_name = bus.bus_name.clone();
    connection.configure_buses(vec![bus]).await?;
    // known before the session where the connector has heard it announced
    let found = connection.identify_vehicle().await?;
    let vin = connection.joined().vin_number.as_deref().or(found.vin_number.as_deref());
    let vin = vin.and_then(|vin| vin.parse::<Vin>().ok());
    let heard =
        if found.source.as_deref() == Some("doip") { found.address.as_ref().and_then(heard) } else { None };
    let address = args.gateway_id.or(heard).unwrap_or(GATEWAY);
    let vehicle = match args.over {
        Over::Doip => RemoteVehicle::Doip { gateway: address },
        Over::Can => {
            let obd = CanGatewaySettings::obd(&bus_name);
            let ecus = if args.ecu.is_empty() { obd.ecus } else { args.ecu.clone() };
            let is_long = ecus.iter().any(|ecu| ecu.request.is_extended());
            let functional = obd.functional.into_iter().find(|id| id.is_extended() == is_long);
            RemoteVehicle::Can {
                first: address.get().saturating_add(1),
                ecus,
                functional: functional.unwrap_or(CanId::standard_truncated(0x7DF)),
            }
        }
    };
    let listen = listen(args).map_err(|error| local(&error))?;
    let mut settings = DoipGatewaySettings::new(listen, &bus_name, address, vin.as_ref(), vehicle);
    settings.entity.version = ProtocolVersion::from(args.doip_version);
    settings.cover = cover(&args.cover, ecu_p2);
    settings.keep_alive = keep_alive(&args.cover);
    let bound = DoipGatewayServer::bind(settings).await;
    let server = bound
        .with_context(|| format!("cannot serve DoIP at {}", args.listen))
        .map_err(|error| local(&error))?;
    println!("{}", server.ready());
    until_interrupted(server.run(connection)).await
}

/// The logical address in what `vehicleIdentified` says, a number or as it is printed.
fn heard(address: &Value) -> Option<LogicalAddress> {
    let number = match address {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok()?,
        Value::String(text) => u32::from_str_radix(text.strip_prefix("0x")?, 16).ok()?,
        _ => return None,
    };
    LogicalAddress::try_from(number).ok()
}

fn listen(args: &DoipGatewayArgs) -> anyhow::Result<ListenConfig> {
    let mut listen = ListenConfig::new(args.listen);
    listen.udp_port = args.udp_port;
    listen.announce_to = args.announce_to;
    if let Some(port) = args.tls_port {
        let tls = EntityTls::self_signed(&["localhost".to_owned(), args.listen.ip().to_string()])?;
        if let Some(file) = &args.tls_certificate {
            std::fs::write(file, &tls.certificate)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        listen.tls = Some((port, tls.config));
    }
    Ok(listen)
}

fn make_server(slcan: &Path, settings: CanGatewaySettings) -> anyhow::Result<CanGatewayServer> {
    CanGatewayServer::new(Some(slcan), settings)
        .with_context(|| format!("cannot make the SLCAN adapter at {}", slcan.display()))
}

fn keep_alive(args: &CoverArgs) -> Switch {
    if args.no_keep_alive { Switch::Disabled } else { Switch::Enabled }
}

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

/// Reads `7E0/7E8` or `750/758/0F`: request, response and address byte, in hexadecimal.
pub fn parse_ecu(text: &str) -> Result<EcuAddress, String> {
    let number = |text: &str| {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
        u32::from_str_radix(digits, 16).map_err(|_| format!("`{text}` is no hexadecimal number"))
    };
    let identifier = |text: &str| CanId::try_from(number(text)?).map_err(|error| error.to_string());
    let parts: Vec<&str> = text.split('/').collect();
    let (request, response, extended) = match *parts.as_slice() {
        [request, response] => (request, response, None),
        [request, response, extended] => (request, response, Some(extended)),
        _ => return Err("request and response identifier, such as 7E0/7E8".to_owned()),
    };
    let byte = |text: &str| u8::try_from(number(text)?).map_err(|error| error.to_string());
    Ok(EcuAddress {
        request: identifier(request)?,
        response: identifier(response)?,
        extended: extended.map(byte).transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecus_are_read_with_and_without_prefix_and_address_byte() {
        let show = |text| parse_ecu(text).map(|ecu| ecu.to_string());
        assert_eq!(show("7E0/7E8"), Ok("0x7E0/0x7E8".to_owned()));
        assert_eq!(show("0x18DA10F1/18DAF110"), Ok("0x18DA10F1/0x18DAF110".to_owned()));
        assert_eq!(show("750/758/F"), Ok("0x750/0x758/0x0F".to_owned()));
        for text in ["7E0", "7E0/7E8/100", "7E0/7E8/0F/1", "7E0/xyz", "20000000/7E8"] {
            assert!(show(text).is_err(), "{text}");
        }
    }
}
