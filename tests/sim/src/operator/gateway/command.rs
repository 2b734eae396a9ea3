//! `connector-sim operator can-gateway` and `doip-gateway`, from their arguments to their end.

use std::path::Path;

use anyhow::Context as _;
use connector_agent::relay::request::Switch;
use connector_hal::can::CanId;
use tokio::signal::unix::{SignalKind, signal};

use super::can::{CanGatewayServer, CanGatewaySettings};
use crate::operator::args::{CanGatewayArgs, CoverArgs};
use crate::operator::client::{CloseReason, Connection};
use crate::operator::failure::{Failure, FailureKind};
use crate::operator::gateway::cover::CoverConfig;
use crate::vehicle::catalogue::EcuAddress;

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
