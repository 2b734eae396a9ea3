//! The subcommands that read from ECUs: `vin`, `read` and `dtcs`.

use std::time::Duration;

use connector_agent::cli::clean;
use connector_agent::print_line;
use connector_agent::relay::wire::request::Switch;
use connector_hal::can::CanId;

use super::BUS;
use super::args::EcuArgs;
use super::failure::{Failure, FailureKind};
use crate::client::{Channel, Connection, ExchangeError, Response, Timing, isotp_channel};
use crate::hex;
use crate::uds::{describe_refusal, trouble_codes};

/// How long responses to a functional request are collected: far longer than P2 (50 ms), because the network
/// between adds to it.
const WINDOW: Duration = Duration::from_secs(1);

/// `vin`.
pub(super) async fn identify(connection: &Connection) -> Result<(), Failure> {
    let vehicle = connection.identify_vehicle().await?;
    let Some(vin) = vehicle.vin_number else {
        let advice = "check that the ignition is on; the VIN of some vehicles is not readable";
        return Err(Failure::new(FailureKind::Vehicle, "no VIN could be read", advice));
    };
    let vin = clean(&vin);
    let source = clean(vehicle.source.as_deref().unwrap_or("unknown service"));
    let address = match vehicle.address {
        Some(serde_json::Value::Number(address)) => {
            address.as_u64().and_then(|address| u32::try_from(address).ok()).map(responder)
        }
        Some(serde_json::Value::String(address)) => Some(clean(&address)),
        _ => None,
    };
    let from = address.map(|address| format!(" from {address}")).unwrap_or_default();
    let took = vehicle.elapsed_ms.map(|elapsed| format!(" in {elapsed} ms")).unwrap_or_default();
    print_line!("{vin}  (by {source}{from}{took})");
    Ok(())
}

/// `read`.
pub(super) async fn read(connection: &Connection, ecu: &EcuArgs, pdu: &[u8]) -> Result<(), Failure> {
    for Response { address, data, .. } in exchange(connection, ecu, pdu).await? {
        let refusal = match data.as_slice() {
            [0x7F, _, code, ..] => format!("  ({})", describe_refusal(*code).0),
            _ => String::new(),
        };
        print_line!("{}  {}{refusal}", responder(address), hex::format(&data));
    }
    Ok(())
}

/// `dtcs`.
pub(super) async fn list_trouble_codes(connection: &Connection, ecu: &EcuArgs) -> Result<(), Failure> {
    for Response { address, data, .. } in exchange(connection, ecu, &[0x19, 0x02, 0xFF]).await? {
        let ecu = responder(address);
        match (trouble_codes(&data), data.as_slice()) {
            (Some(codes), _) if codes.is_empty() => print_line!("{ecu}  no trouble codes"),
            (Some(codes), _) => {
                for code in codes {
                    print_line!("{ecu}  {code}  {}", code.status_in_words());
                }
            }
            (None, [0x7F, _, code, ..]) => {
                print_line!("{ecu}  refuses to list its trouble codes: {}", describe_refusal(*code).0);
            }
            (None, _) => {
                print_line!("{ecu}  the response is not a list of trouble codes: {}", hex::format(&data))
            }
        }
    }
    Ok(())
}

/// Sends a request to one ECU or to all, and returns the responses. Those of a functional request include
/// negative ones.
async fn exchange(connection: &Connection, ecu: &EcuArgs, pdu: &[u8]) -> Result<Vec<Response>, Failure> {
    let channel = open(connection, ecu, Switch::Disabled).await?;
    let timing = Timing { p2: ecu.p2(), ..Timing::default() };
    if !ecu.is_functional() {
        return Ok(vec![channel.request(pdu, &timing).await?]);
    }
    let responses = channel.request_functional(pdu, WINDOW.max(ecu.p2()), &timing).await?;
    if responses.is_empty() { Err(ExchangeError::NoResponse { after: WINDOW }.into()) } else { Ok(responses) }
}

/// Opens an ISO-TP channel to the ECU, or to all ECUs.
pub(super) async fn open(
    connection: &Connection,
    ecu: &EcuArgs,
    keep_alive: Switch,
) -> Result<Channel, Failure> {
    let response = if ecu.is_functional() { None } else { ecu.response() };
    if response.is_none() && !ecu.is_functional() {
        let what = format!("the response identifier for requests to {} is unknown", ecu.request_id);
        return Err(Failure::new(FailureKind::Local, what, "pass it with --response-id"));
    }
    let config = isotp_channel(BUS, ecu.request_id, response, ecu.extended_address, keep_alive);
    Ok(connection.open_isotp(config).await?)
}

fn responder(address: u32) -> String {
    CanId::try_from(address).map_or_else(|_| format!("0x{address:X}"), |id| id.to_string())
}
