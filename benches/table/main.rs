//! `cargo bench --bench table` prints the costs of the agent as one table. `docs/benchmarks.md` describes the
//! rows.
//!
//! The measured agent runs in a separate process, so that its CPU time and memory can be read. This binary
//! starts itself again for that process, with an environment variable. Cloud and operator run in this
//! process.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a benchmark prints its figures

mod buses;
mod child;
mod cpu;
mod idle;
mod policy;
mod protocol;
#[path = "../common/reading.rs"]
mod reading;
mod relay;
mod start;
#[path = "../common/transfer.rs"]
mod transfer;

use std::time::{Duration, Instant};

use connector_agent::relay::wire::codec::{Header, Payload, Record, Records, Tag};
use connector_hal::can::{CanFrame, CanId};

/// Names the agent's binary to measure. By default, it is the one that is built with the benchmarks.
const AGENT: &str = "CONNECTOR_BENCH_AGENT";

/// The binary to measure.
fn agent_binary() -> std::ffi::OsString {
    std::env::var_os(AGENT).unwrap_or_else(|| env!("CARGO_BIN_EXE_connector-agent").into())
}

/// The maximum time of each relaying row, in seconds; a short time only checks that the rows work.
const SECONDS: &str = "CONNECTOR_BENCH_SECONDS";

/// The time of a measurement.
fn window(seconds: u64) -> Duration {
    let at_most = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(at_most.unwrap_or(seconds).clamp(1, seconds))
}

/// A row: its name, and the figure with its unit.
type Row = (String, String);

fn main() -> anyhow::Result<()> {
    if let Ok(role) = std::env::var(child::ROLE) {
        return child::run(&role);
    }
    let mut rows = vec![protocol::isotp()?, codec()];
    rows.extend(policy::rows());
    rows.extend(protocol::vin()?);
    rows.extend(protocol::slow_uplink());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        rows.push(start::to_online().await?);
        // shorter, no report may be due
        rows.extend(idle::rows(window(20).max(Duration::from_secs(3))).await?);
        rows.extend(relay::binary(window(10)).await?);
        rows.extend(relay::agent("4,300 frames a second", 4_300, window(10)).await?);
        rows.extend(relay::agent("200,000 frames a second", 200_000, window(5)).await?);
        rows.extend(buses::all(window(10)).await?);
        rows.extend(relay::bare_echo("4,300 frames a second", 4_300, window(10)).await?);
        rows.extend(relay::bare_echo("200,000 frames a second", 200_000, window(5)).await?);
        anyhow::Ok(())
    })?;
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    for (name, figure) in rows {
        println!("{name:width$}  {figure}");
    }
    Ok(())
}

/// Encodes and decodes messages of 32 frames each.
fn codec() -> Row {
    const RECORDS: u16 = 32;
    const ROUNDS: u32 = 50_000;
    let id = CanId::standard_truncated(0x7E8);
    let frame = CanFrame::new(id, &[0x5A; 8]).ok();
    let record = frame.map(|frame| Record { channel: 1, offset: 0, payload: Payload::Frame(frame) });
    let mut seen = 0u64;
    let mut message = Vec::with_capacity(2048);
    let started = Instant::now();
    for seq in 1..=ROUNDS {
        message.clear();
        Header { record_count: RECORDS, tag: Tag([1; 4]), seq, ack: 0, time: 0 }.encode(&mut message);
        (0..RECORDS).for_each(|_| record.iter().for_each(|record| record.encode(&mut message)));
        let message = std::hint::black_box(&message);
        if let Ok(header) = Header::decode(message) {
            seen += Records::new(message, &header).filter(Result::is_ok).count() as u64;
        }
    }
    let per_second = seen as f64 / started.elapsed().as_secs_f64();
    ("relay codec, encoded and decoded".to_owned(), format!("{:.1} million records/s", per_second / 1e6))
}
