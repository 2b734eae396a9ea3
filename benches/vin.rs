//! Reading the VIN of simulated vehicles on the virtual bus.
//!
//! - `vin/bus time`: the time that a technician waits, from the beginning of listening to the VIN, on a bus
//!   with true bit timing. The time is that of the simulation, and does not depend on the machine.
//! - `vin/cpu`: the CPU time of one reading, including the simulated bus and the vehicle's ECUs. The clock is
//!   virtual and stands still while the program computes, so that the benchmark waits for no time.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a benchmark prints its figures

#[path = "common/reading.rs"]
mod reading;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use connector_sim::vehicle::catalogue::Catalogue;
use criterion::{Criterion, criterion_group, criterion_main};
use reading::{read_once, virtual_time};

/// The measured cases: name, platform of the vehicle, bit rate and load of the bus.
const CASES: [(&str, &str, u32, f32); 6] = [
    ("obd, 500 kbit/s, 30 % load", "TOYOTA_CHR", 500_000, 0.3),
    ("obd, 250 kbit/s, 30 % load", "TOYOTA_CHR", 250_000, 0.3),
    ("obd, silent bus", "TOYOTA_CHR", 500_000, 0.0),
    ("uds, 500 kbit/s, 30 % load", "KIA_EV6", 500_000, 0.3),
    ("kwp, 500 kbit/s, 30 % load", "NISSAN_LEAF_VCM", 500_000, 0.3),
    ("no vin, 500 kbit/s, 30 % load", "TESLA_MODEL_3", 500_000, 0.3),
];

fn vin(criterion: &mut Criterion) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vehicles/vehicles.json");
    let catalogue = Catalogue::load(&file);
    let (Ok(catalogue), Ok(runtime)) = (catalogue, virtual_time()) else {
        return eprintln!("no vehicles, or no runtime, to measure with");
    };
    let cases = CASES.iter().filter_map(|(name, platform, bit_rate, load)| {
        Some((*name, catalogue.find(platform).ok()?, *bit_rate, *load))
    });
    for (name, record, bit_rate, load) in cases {
        let mut group = criterion.benchmark_group("vin");
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        group.bench_function(format!("bus time/{name}"), |bencher| {
            bencher.iter_custom(|count| {
                (0..count).map(|_| runtime.block_on(read_once(record, bit_rate, load))).sum()
            });
        });
        group.bench_function(format!("cpu/{name}"), |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                for _ in 0..count {
                    black_box(runtime.block_on(read_once(record, bit_rate, load)));
                }
                start.elapsed()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, vin);
criterion_main!(benches);
