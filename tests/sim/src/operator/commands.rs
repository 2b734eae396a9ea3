//! What the subcommands do.

use std::io::{Read as _, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use connector_agent::relay::wire::codec::EventCode;
use connector_agent::relay::wire::request::{
    BusConfig, CanBusConfig, IsotpChannelConfig, PaddingConfig, RawChannelConfig, Switch,
};
use connector_hal::can::CanId;
use serde::Deserialize;

use super::args::{Args, BusArgs, CloudArgs, Command, EcuArgs, TicketArgs};
use super::client::{
    Channel, Connection, Credentials, ExchangeError, Item, Operator, Response, Ticket, Timing,
};
use super::failure::{Failure, FailureKind};
use super::flash::{Firmware, flash};
use super::gateway::{can_gateway, doip_gateway};
use super::progress::FlashProgress;
use super::uds::{describe_refusal, trouble_codes};
use crate::vehicle::hex;

/// What the bus is called in all that this program asks for.
const BUS: &str = "HS";
/// How long responses to a functional request are collected.
const WINDOW: Duration = Duration::from_secs(1);
/// The longest firmware taken.
const MAX_FIRMWARE: u64 = 64 << 20;

/// Runs a subcommand.
pub async fn run(args: Args) -> Result<(), Failure> {
    let operator = login(&args.cloud).await?;
    match &args.command {
        Command::Tickets => return print_tickets(&operator.tickets().await?),
        Command::Join => {
            let ticket = joined_ticket(&operator, &args.ticket).await?;
            println!("Ticket {} is in progress for {}.", number(&ticket), vehicle(&ticket));
            return Ok(());
        }
        Command::Complete => {
            let ticket = find_ticket(operator.in_progress_tickets().await?, &args.ticket)?;
            operator.complete(&ticket.id).await?;
            println!("Ticket {} is completed.", number(&ticket));
            return Ok(());
        }
        Command::Cancel { reason } => {
            let ticket = find_ticket(operator.in_progress_tickets().await?, &args.ticket)?;
            operator.cancel(&ticket.id, reason).await?;
            println!("Ticket {} is cancelled.", number(&ticket));
            return Ok(());
        }
        Command::Read { .. }
        | Command::Vin
        | Command::Dtcs
        | Command::Flash { .. }
        | Command::Dump { .. }
        | Command::CanGateway(_)
        | Command::DoipGateway(_) => {}
    }
    let ticket = joined_ticket(&operator, &args.ticket).await?;
    let uuid = ticket.connection().ok_or_else(|| {
        let what = format!("ticket {} has no connection", number(&ticket));
        Failure::new(FailureKind::Ticket, what, "check that the cloud relays connections")
    })?;
    let connection = operator.connect(uuid).await?;
    let result = diagnose(&connection, &args).await;
    // what was found out counts, and not how the connection was left
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the connection was not closed");
    }
    result
}

async fn diagnose(connection: &Connection, args: &Args) -> Result<(), Failure> {
    if let Command::Vin = args.command {
        return identify(connection).await;
    }
    if let Command::DoipGateway(gateway) = &args.command {
        return doip_gateway(connection, gateway, bus(&args.bus), args.ecu.p2()).await;
    }
    connection.configure_buses(vec![bus(&args.bus)]).await?;
    match &args.command {
        Command::Read { request } => read(connection, &args.ecu, &request.0).await,
        Command::Dtcs => list_trouble_codes(connection, &args.ecu).await,
        Command::Flash { file, address } => flash_file(connection, &args.ecu, file, *address).await,
        Command::Dump { seconds } => dump(connection, seconds.map(Duration::from_secs)).await,
        Command::CanGateway(gateway) => {
            can_gateway(connection, gateway, BUS, args.bus.data_bit_rate.is_some(), args.ecu.p2()).await
        }
        _ => Ok(()),
    }
}

#[derive(Deserialize)]
struct Ready {
    api_url: String,
    websocket_url: String,
    ca_file: Option<std::path::PathBuf>,
    operator: ReadyOperator,
}

#[derive(Deserialize)]
struct ReadyOperator {
    client_id: String,
    client_secret: String,
}

fn read_ready(path: &Path) -> Result<Ready, Failure> {
    let local =
        |what| Failure::new(FailureKind::Local, what, "name the line that `connector-sim cloud` prints");
    let text = if path == Path::new("-") {
        // one line: the cloud's output does not end
        let mut line = Vec::new();
        let stdin = std::io::stdin().lock();
        for byte in stdin.bytes().map_while(Result::ok).take_while(|byte| *byte != b'\n').take(64 * 1024) {
            line.push(byte);
        }
        String::from_utf8_lossy(&line).into_owned()
    } else {
        std::fs::read_to_string(path)
            .map_err(|error| local(format!("cannot read {}: {error}", path.display())))?
    };
    let line = text.lines().find(|line| line.trim_start().starts_with('{')).unwrap_or(&text);
    serde_json::from_str(line).map_err(|error| local(format!("{}: {error}", path.display())))
}

async fn login(args: &CloudArgs) -> Result<Operator, Failure> {
    let missing = |option: &str| {
        Failure::new(FailureKind::Local, format!("--{option} is missing"), "give it, or --ready FILE")
    };
    let ready = args.ready.as_deref().map(read_ready).transpose()?;
    let (known_api, known_websocket, known_ca, known_id, known_secret) = match ready {
        Some(ready) => (
            Some(ready.api_url),
            Some(ready.websocket_url),
            ready.ca_file,
            Some(ready.operator.client_id),
            Some(ready.operator.client_secret),
        ),
        None => (None, None, None, None, None),
    };
    let given = |given: &Option<String>, known: Option<String>, option| {
        given.clone().or(known).ok_or_else(|| missing(option))
    };
    let api_url = given(&args.api_url, known_api, "api-url")?;
    let websocket_url = given(&args.websocket_url, known_websocket, "websocket-url")?;
    let credentials = Credentials {
        client_id: given(&args.client_id, known_id, "client-id")?,
        client_secret: given(&args.client_secret, known_secret, "client-secret")?,
    };
    let ca_file = args.ca_file.clone().or(known_ca);
    Ok(Operator::login(&api_url, &websocket_url, ca_file.as_deref(), credentials).await?)
}

fn number(ticket: &Ticket) -> &str {
    ticket.ticket_number.as_deref().unwrap_or(&ticket.id)
}

fn vehicle(ticket: &Ticket) -> String {
    ticket.vin.as_ref().map_or_else(|| "a vehicle without VIN".to_owned(), |vin| format!("vehicle {vin}"))
}

fn print_tickets(tickets: &[Ticket]) -> Result<(), Failure> {
    if tickets.is_empty() {
        println!("There is no ticket.");
        return Ok(());
    }
    let row = |number: &str, state: &str, vin: &str, connector: &str, created: &str| {
        println!("{number:<10}  {state:<12}  {vin:<17}  {connector:<36}  {created}");
    };
    row("TICKET", "STATE", "VIN", "CONNECTOR", "MADE AT");
    for ticket in tickets {
        let connector = ticket.connector_uuid.map(|uuid| uuid.to_string()).unwrap_or_default();
        row(
            number(ticket),
            &ticket.state.as_deref().unwrap_or("-").replace('_', " "),
            ticket.vin.as_deref().unwrap_or("-"),
            if connector.is_empty() { "-" } else { &connector },
            ticket.created_at.as_deref().unwrap_or("-"),
        );
    }
    Ok(())
}

/// The one ticket that the arguments mean.
fn find_ticket(mut tickets: Vec<Ticket>, args: &TicketArgs) -> Result<Ticket, Failure> {
    tickets.retain(|ticket| {
        args.ticket.as_deref().is_none_or(|name| ticket.is_called(name))
            && args.vin.as_deref().is_none_or(|vin| ticket.vin.as_deref() == Some(vin))
    });
    if tickets.len() > 1 {
        let numbers: Vec<&str> = tickets.iter().map(number).collect();
        let what = format!("{} tickets could be meant: {}", numbers.len(), numbers.join(", "));
        return Err(Failure::new(FailureKind::Ticket, what, "choose one with --ticket"));
    }
    tickets.pop().ok_or_else(|| {
        let what = match (&args.ticket, &args.vin) {
            (Some(name), _) => format!("there is no ticket {name}"),
            (None, Some(vin)) => format!("there is no ticket for vehicle {vin}"),
            (None, None) => "there is no ticket".to_owned(),
        };
        Failure::new(FailureKind::Ticket, what, "have the customer make one, and see `tickets`")
    })
}

/// The ticket in progress, joined now if it was not before.
async fn joined_ticket(operator: &Operator, args: &TicketArgs) -> Result<Ticket, Failure> {
    let in_progress = operator.in_progress_tickets().await?;
    if !in_progress.is_empty()
        && let Ok(ticket) = find_ticket(in_progress, args)
    {
        return Ok(ticket);
    }
    let ticket = find_ticket(operator.tickets().await?, args)?;
    Ok(operator.join(&ticket.id, &args.operator_id).await?)
}

fn bus(args: &BusArgs) -> BusConfig {
    let (pin_plus, pin_min) = args.pins;
    let can_bus = CanBusConfig {
        pin_plus,
        pin_min,
        can_protocol: "isotp".to_owned(),
        can_bit_rate: args.bit_rate,
        transceiver: None,
        data_bit_rate: args.data_bit_rate,
    };
    BusConfig { bus_name: BUS.to_owned(), can_bus: Some(can_bus), ..BusConfig::default() }
}

async fn open(connection: &Connection, ecu: &EcuArgs, keep_alive: Switch) -> Result<Channel, Failure> {
    let response = if ecu.is_functional() { None } else { ecu.response() };
    if response.is_none() && !ecu.is_functional() {
        let what = format!("it is not known with which identifier {} answers", ecu.request_id);
        return Err(Failure::new(FailureKind::Local, what, "give it with --response-id"));
    }
    let config = isotp(BUS, ecu.request_id, response, ecu.extended_address, keep_alive);
    Ok(connection.open_isotp(config).await?)
}

/// An ISO-TP channel with the protocol's defaults.
pub(crate) fn isotp(
    bus: &str,
    request: CanId,
    response: Option<CanId>,
    extended: Option<u8>,
    keep_alive: Switch,
) -> IsotpChannelConfig {
    IsotpChannelConfig {
        bus_name: bus.to_owned(),
        request_id: request.to_socketcan(),
        response_id: response.map(CanId::to_socketcan),
        response_ids: Vec::new(),
        extended_request_address: extended,
        extended_response_address: extended,
        padding: PaddingConfig::Enabled,
        padding_byte: None,
        keep_alive,
        block_size: None,
        st_min: None,
        max_age_ms: None,
        p2_ms: None,
    }
}

fn responder(address: u32) -> String {
    CanId::try_from(address).map_or_else(|_| format!("0x{address:X}"), |id| id.to_string())
}

async fn identify(connection: &Connection) -> Result<(), Failure> {
    let vehicle = connection.identify_vehicle().await?;
    let Some(vin) = vehicle.vin_number else {
        let advice = "check ignition on; some vehicles have no VIN that can be read";
        return Err(Failure::new(FailureKind::Vehicle, "the vehicle tells no VIN", advice));
    };
    let source = vehicle.source.unwrap_or_else(|| "unknown service".to_owned());
    let address = match vehicle.address {
        Some(serde_json::Value::Number(address)) => {
            address.as_u64().and_then(|address| u32::try_from(address).ok()).map(responder)
        }
        Some(serde_json::Value::String(address)) => Some(address),
        _ => None,
    };
    let from = address.map(|address| format!(" from {address}")).unwrap_or_default();
    let took = vehicle.elapsed_ms.map(|elapsed| format!(" in {elapsed} ms")).unwrap_or_default();
    println!("{vin}  (by {source}{from}{took})");
    Ok(())
}

/// A request to one ECU or to all: who answers what, negative responses too where all were asked.
async fn exchange(connection: &Connection, ecu: &EcuArgs, pdu: &[u8]) -> Result<Vec<Response>, Failure> {
    let channel = open(connection, ecu, Switch::Disabled).await?;
    let timing = Timing { p2: ecu.p2(), ..Timing::default() };
    if !ecu.is_functional() {
        return Ok(vec![channel.request(pdu, &timing).await?]);
    }
    let responses = channel.request_functional(pdu, WINDOW.max(ecu.p2()), &timing).await?;
    if responses.is_empty() { Err(ExchangeError::NoResponse { after: WINDOW }.into()) } else { Ok(responses) }
}

async fn read(connection: &Connection, ecu: &EcuArgs, pdu: &[u8]) -> Result<(), Failure> {
    let responses = exchange(connection, ecu, pdu).await?;
    for Response { address, data, .. } in &responses {
        let refusal = match data.as_slice() {
            [0x7F, _, code, ..] => format!("  ({})", describe_refusal(*code).0),
            _ => String::new(),
        };
        println!("{}  {}{refusal}", responder(*address), hex::format(data));
    }
    Ok(())
}

async fn list_trouble_codes(connection: &Connection, ecu: &EcuArgs) -> Result<(), Failure> {
    for Response { address, data, .. } in exchange(connection, ecu, &[0x19, 0x02, 0xFF]).await? {
        let who = responder(address);
        match (trouble_codes(&data), data.as_slice()) {
            (Some(codes), _) if codes.is_empty() => println!("{who}  no trouble codes"),
            (Some(codes), _) => {
                for code in codes {
                    println!("{who}  {code}  {}", code.status_in_words());
                }
            }
            (None, [0x7F, _, code, ..]) => println!("{who}  does not tell: {}", describe_refusal(*code).0),
            (None, _) => println!("{who}  answers what is no list of trouble codes: {}", hex::format(&data)),
        }
    }
    Ok(())
}

async fn flash_file(
    connection: &Connection,
    ecu: &EcuArgs,
    file: &Path,
    address: u32,
) -> Result<(), Failure> {
    let local = |what| Failure::new(FailureKind::Local, what, "check that it is the right file");
    let length = std::fs::metadata(file).map(|metadata| metadata.len());
    if length.is_ok_and(|length| length > MAX_FIRMWARE) {
        return Err(local(format!("{} is longer than {MAX_FIRMWARE} bytes", file.display())));
    }
    let data =
        std::fs::read(file).map_err(|error| local(format!("cannot read {}: {error}", file.display())))?;
    if ecu.is_functional() {
        let advice = "choose one with --request-id";
        return Err(Failure::new(FailureKind::Local, "only one ECU can be programmed at a time", advice));
    }
    let channel = open(connection, ecu, Switch::Enabled).await?;
    let timing = Timing { p2: ecu.p2(), ..Timing::default() };
    let mut progress = FlashProgress::new(data.len(), |line| eprintln!("  {line}"));
    let firmware = Firmware { address, data: &data };
    let mut show = |step| progress.handle(step);
    let report = tokio::select! {
        report = flash(&channel, firmware, &timing, &mut show) => report,
        _ = tokio::signal::ctrl_c() => {
            let what = "interrupted while programming\nThe ECU may be without valid firmware now";
            return Err(Failure::new(FailureKind::Local, what, "flash again before the vehicle is used"));
        }
    };
    progress.end();
    let report = report?;
    let rate = report.bytes as f64 / report.transferring.as_secs_f64().max(0.001);
    println!(
        "Programmed and checked: {} bytes in {} blocks, {:.1} s in all, {rate:.0} bytes/s while transferring.",
        report.bytes,
        report.blocks,
        report.total.as_secs_f64(),
    );
    Ok(())
}

async fn dump(connection: &Connection, duration: Option<Duration>) -> Result<(), Failure> {
    let config =
        RawChannelConfig { bus_name: BUS.to_owned(), request_id: None, response_id: None, max_age_ms: None };
    let channel = connection.open_raw(config).await?;
    let opened = SystemTime::now();
    // the connector's clock has another beginning than ours: the first frame ties them together
    let mut epoch: Option<Duration> = None;
    let end = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut out = std::io::stdout().lock();
    loop {
        let received = tokio::select! {
            () = &mut end => return Ok(()),
            _ = tokio::signal::ctrl_c() => return Ok(()),
            received = channel.recv() => received?,
        };
        let epoch = *epoch.get_or_insert_with(|| {
            let now = SystemTime::now().max(opened).duration_since(UNIX_EPOCH).unwrap_or_default();
            now.saturating_sub(received.at)
        });
        let at = (epoch + received.at).as_secs_f64();
        let written = match &received.item {
            Item::Frame(frame) => writeln!(out, "({at:.6}) {BUS} {frame}"),
            Item::Event { code: EventCode::Gap, value, .. } => {
                writeln!(out, "# ({at:.6}) {value} frames are missing here")
            }
            Item::Event { code: EventCode::BusState, detail, .. } => {
                let state = ["active", "passive", "off"].get(usize::from(*detail)).unwrap_or(&"unknown");
                writeln!(out, "# ({at:.6}) the bus is {state}")
            }
            _ => Ok(()),
        };
        // whoever read our output has enough
        if written.and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
    }
}
