//! The CPU time of a transfer of 4095 bytes, for both ends together, without bus or system calls.
//!
//! One iteration sends a PDU from one endpoint to another. Every frame is delivered and acknowledged
//! immediately. The time is that of the computation only; on a bus, 4095 bytes take about 137 ms at 500
//! kbit/s.

#[path = "common/transfer.rs"]
mod transfer;

use std::hint::black_box;
use std::time::Instant;

use connector_agent::protocol::isotp::{Addressing, Config, Endpoint, FrameSize};
use connector_hal::can::CanId;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use transfer::transfer;

const LENGTH: usize = 4095;

fn isotp(criterion: &mut Criterion) {
    let (a, b) = (CanId::standard_truncated(0x7E0), CanId::standard_truncated(0x7E8));
    let pdu: Vec<u8> = (0..LENGTH).map(|i| i as u8).collect();
    let fd = FrameSize::fd(64, true).unwrap_or_default();
    let mut group = criterion.benchmark_group("isotp");
    group.throughput(Throughput::Bytes(LENGTH as u64));
    for (name, frame_size, block_size) in [
        ("4095 bytes, classic", FrameSize::Classic, 0),
        ("4095 bytes, classic, block size 8", FrameSize::Classic, 8),
        ("4095 bytes, FD 64", fd, 0),
    ] {
        let config = |addressing| Config { frame_size, block_size, ..Config::new(addressing) };
        let mut from = Endpoint::new(config(Addressing::normal(a, b)));
        let mut to = Endpoint::new(config(Addressing::normal(b, a)));
        let now = Instant::now();
        assert_eq!(transfer(now, &mut from, &mut to, &pdu).as_deref(), Some(pdu.as_slice()));
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(transfer(now, &mut from, &mut to, black_box(&pdu))));
        });
    }
    group.finish();
}

criterion_group!(benches, isotp);
criterion_main!(benches);
