//! The costs of the protocols: the CPU time of ISO-TP, and the time of reading a VIN on the bus.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use connector_agent::protocol::isotp::{Addressing, Config, Endpoint};
use connector_hal::can::CanId;
use connector_sim::vehicle::catalogue::Catalogue;
use connector_test_support::slow_uplink::{SCENE, Scene, run};

use crate::Row;
use crate::reading::{read_once, virtual_time};
use crate::transfer::transfer;

/// A 4095-byte transfer, both ends together.
pub(crate) fn isotp() -> anyhow::Result<Row> {
    const ROUNDS: u32 = 2_000;
    let (a, b) = (CanId::standard_truncated(0x7E0), CanId::standard_truncated(0x7E8));
    let mut from = Endpoint::new(Config::new(Addressing::normal(a, b)));
    let mut to = Endpoint::new(Config::new(Addressing::normal(b, a)));
    let pdu = [0x5A; 4095];
    let now = Instant::now();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        let received = transfer(now, &mut from, &mut to, std::hint::black_box(&pdu));
        anyhow::ensure!(received.as_deref() == Some(pdu.as_slice()), "the PDU did not arrive");
    }
    let each = started.elapsed() / ROUNDS;
    Ok(("ISO-TP, 4095 bytes, both ends".to_owned(), format!("{:.1} µs of CPU", each.as_secs_f64() * 1e6)))
}

/// The time from the beginning of listening to the VIN, in the simulated bus's time.
pub(crate) fn vin() -> anyhow::Result<Vec<Row>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vehicles/vehicles.json");
    let catalogue = Catalogue::load(&file)?;
    let runtime = virtual_time()?;
    let cases = [
        ("VIN by OBD, bus 30 % full", "TOYOTA_CHR", 0.3),
        ("VIN by OBD, silent bus", "TOYOTA_CHR", 0.0),
        ("VIN by UDS, bus 30 % full", "KIA_EV6", 0.3),
        ("no VIN to read, bus 30 % full", "TESLA_MODEL_3", 0.3),
    ];
    cases
        .into_iter()
        .map(|(name, platform, load)| {
            let record = catalogue.find(platform).ok().context("the vehicle is not in the file")?;
            let elapsed = runtime.block_on(read_once(record, 500_000, load));
            Ok((name.to_owned(), format!("{} ms of bus time", elapsed.as_millis())))
        })
        .collect()
}

/// The response to a request every second, over 0.5 Mbit/s and 100 ms of round trip, alone and beside a full bus.
pub(crate) fn slow_uplink() -> [Row; 2] {
    // enough requests for the one percent
    const SECONDS: u64 = 600;
    [("no bus monitored", 0), ("full bus monitored", SCENE.frames)].map(|(name, frames)| {
        let outcome = run(&Scene { frames, seconds: SECONDS, ..SCENE });
        let (median, p99) = (outcome.quantile(0.5), outcome.quantile(0.99));
        let figure = format!("median {} ms, p99 {} ms", median.as_millis(), p99.as_millis());
        (format!("response over 0.5 Mbit/s, {name}"), figure)
    })
}
