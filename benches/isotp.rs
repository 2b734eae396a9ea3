//! What a 4095-byte transfer costs in CPU time, both ends together, without bus or system calls.
//!
//! One iteration sends a PDU from one endpoint to another and takes it out there: every frame is handed over at once
//! and acknowledged at once. The time is pure computing; on a bus, 4095 bytes take about 137 ms at 500 kbit/s.

use std::hint::black_box;
use std::time::Instant;

use connector_agent::isotp::{Addressing, Config, Endpoint, Event, FrameSize};
use connector_hal::can::CanId;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const LENGTH: usize = 4095;

/// Carries frames both ways until nobody has one left; gives what `to` received.
fn transfer(now: Instant, from: &mut Endpoint, to: &mut Endpoint, pdu: &[u8]) -> Option<Vec<u8>> {
    from.send(now, pdu).ok()?;
    loop {
        let mut idle = true;
        while let Some(frame) = from.poll_transmit(now) {
            from.handle_transmitted(now);
            to.handle_frame(now, &frame);
            idle = false;
        }
        while let Some(frame) = to.poll_transmit(now) {
            to.handle_transmitted(now);
            from.handle_frame(now, &frame);
            idle = false;
        }
        if idle {
            break;
        }
    }
    while from.poll_event().is_some() {}
    std::iter::from_fn(|| to.poll_event()).find_map(|event| match event {
        Event::Received { pdu, .. } => Some(pdu),
        _ => None,
    })
}

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
