//! The agent in vehicles with K-lines, with a sandbox cloud and an operator. The ECUs are those of
//! `connector-sim vehicle --kline`, behind serial devices.

use std::path::Path;

use clap::Parser as _;
use connector_agent::config::KLINE_BIT_RATES;
use connector_agent::relay::wire::request::BusConfig;
use connector_operator::client::{Channel, Connection, Timing};
use connector_sim::vehicle::kline::{KlineArgs, RunningKline};
use connector_test_support::agent::{AgentSettings, Sandbox, TestAgent, bus};
use connector_test_support::{HANG, soon};
use futures_util::future::join_all;
use serde_json::json;

/// The K-line arguments of `connector-sim vehicle`.
#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    kline: KlineArgs,
}

/// An ECU that one kind of initialisation wakes, at this bit rate.
fn start(device: &Path, initialisation: &str, bit_rate: u32) -> RunningKline {
    let bit_rate = bit_rate.to_string();
    let arguments = ["vehicle", "--kline-init", initialisation, "--kline-bit-rate", &bit_rate, "--kline"];
    let arguments = arguments.iter().map(std::ffi::OsStr::new).chain([device.as_os_str()]);
    Line::parse_from(arguments).kline.start(None).unwrap().unwrap()
}

async fn open(connection: &Connection, bus_name: &str) -> Channel {
    loop {
        let config = json!({"bus_name": bus_name, "ecu_id": 0x11});
        let config = serde_json::from_value(config).unwrap();
        match connection.open_channel(|open| open.kline_channel = Some(config)).await {
            Ok(channel) => return channel,
            // with more tests than cores, a simulated ECU may answer later than a real one
            Err(error) => println!("{bus_name}: {error}"),
        }
    }
}

/// Requests the VIN until an answer arrives, because a busy machine may miss one.
async fn vin(channel: &Channel) -> Vec<u8> {
    loop {
        if let Ok(answer) = channel.request(&[0x1A, 0x90], &Timing::default()).await {
            return answer.data;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_initialisations_at_every_bit_rate_reach_an_ecu_behind_a_serial_device() {
    let _alone = crate::BUSY.lock().await;
    let directory = tempfile::tempdir().unwrap();
    let lines: Vec<(&str, u32)> =
        ["slow", "fast"].into_iter().flat_map(|how| KLINE_BIT_RATES.map(|rate| (how, rate))).collect();
    let device = |(how, rate): &(&str, u32)| directory.path().join(format!("{how}-{rate}"));
    let vehicles: Vec<RunningKline> = lines.iter().map(|line| start(&device(line), line.0, line.1)).collect();
    let sandbox = Sandbox::start(1).await;
    let connector = sandbox.connectors[0].clone();
    let settings = AgentSettings { klines: lines.iter().map(device).collect(), ..AgentSettings::default() };
    let _agent = TestAgent::start(&sandbox, &connector, &bus(), settings);
    let mut portal = sandbox.portal(&connector).await;
    portal.sees_online().await;
    let ticket = sandbox.ticket(&connector, None).await;
    let connecting = sandbox.operator.connect(ticket.connection().unwrap());
    let connection = soon("the connection", connecting).await.unwrap();
    let buses: Vec<BusConfig> = (1..)
        .zip(&lines)
        .map(|(pin, (how, rate))| {
            let bus =
                json!({"pin": pin, "kline_protocol": format!("iso14230_{how}"), "kline_bit_rate": rate});
            serde_json::from_value(json!({"bus_name": format!("{how} {rate}"), "kline_bus": bus})).unwrap()
        })
        .collect();
    let names: Vec<String> = buses.iter().map(|bus| bus.bus_name.clone()).collect();
    soon("the buses", connection.configure_buses(buses)).await.unwrap();
    let read = names.iter().map(async |name| vin(&open(&connection, name).await).await);
    // on a busy machine, many attempts miss the timing of the wake-up
    let read = tokio::time::timeout(4 * HANG, join_all(read)).await.expect("every VIN is read");
    for (read, name) in read.into_iter().zip(&names) {
        assert_eq!(read, b"\x5A\x90WVWZZZ1KZ6W000001", "{name}");
    }
    drop(vehicles);
}
