//! DoIP through the relay: a session with a scripted gateway in memory, and the operator's end of its link.
//!
//! - `doip/4095 bytes there and back`: CPU time of one diagnostic message of 4095 bytes that its ECU answers
//!   with as many, from the operator's link to the gateway and back: link, session, channel, connection,
//!   codec; no network, no TLS.
//! - `doip/PDUs a second`: short requests and their answers on one connection, as many as can be under way.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a benchmark prints its figures

use std::future::poll_fn;
use std::time::{Duration, Instant};

use connector_agent::relay::wire::codec::{Payload as Record, PduFlags};
use connector_test_support::config::doip_bus;
use connector_test_support::hardware::HardwareBuilder;
use connector_test_support::now;
use connector_test_support::session::{Gateway, Gateways, Rig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;

const GATEWAY: u16 = 0x4010;
/// The number of simultaneous requests; up to 64 can wait on a channel.
const AHEAD: usize = 32;

/// Answers every request with the same number of bytes.
fn answer(request: &[u8]) -> Vec<(Duration, Vec<u8>)> {
    let mut data = request.to_vec();
    if let Some(first) = data.first_mut() {
        *first = first.wrapping_add(0x40);
    }
    vec![(Duration::ZERO, data)]
}

struct Relay(Rig);

impl Relay {
    async fn start() -> Self {
        let gateways = Gateways::without_history();
        gateways.set([Gateway { ecus: vec![(GATEWAY, answer)], ..Gateway::new(GATEWAY) }]);
        let hardware = HardwareBuilder::in_runtime_time().doip_network(move || gateways.network()).build();
        let mut rig = Rig::with_hardware(hardware);
        rig.configure(json!([doip_bus(1)])).await;
        let channel =
            json!({"bus_name": "ETH", "gateway_id": GATEWAY, "tester_id": 0x0E80, "ecu_id": GATEWAY});
        rig.open(1, "doip_channel", channel).await;
        Self(rig)
    }

    /// Sends `count` requests of this length, and returns when all are answered.
    async fn exchange(&mut self, count: usize, length: usize) {
        let Rig { session, operator, .. } = &mut self.0;
        let mut request = vec![0; length];
        if let Some(first) = request.first_mut() {
            *first = 0x36;
        }
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent - answered < AHEAD {
                let record = Record::Pdu { address: 0, flags: PduFlags::default(), data: &request };
                if operator.push(now(), now(), 1, record).is_err() {
                    break;
                }
                sent += 1;
            }
            while let Some(message) = operator.poll_message(now()) {
                session.handle_message(now(), &message);
            }
            poll_fn(|cx| session.poll_drive(cx)).await;
            while let Some(message) = session.poll_message(now()) {
                if let Ok(Some(incoming)) = operator.handle_message(now(), &message) {
                    let is_answer = |record: &Record<'_>| matches!(record, Record::Pdu { .. });
                    answered += incoming.records().filter(|record| is_answer(&record.payload)).count();
                }
            }
        }
    }
}

fn doip(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return eprintln!("no runtime to measure with") };
    let mut relay = runtime.block_on(Relay::start());
    let mut group = criterion.benchmark_group("doip");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    for (name, length) in [("4095 bytes there and back", 4095), ("PDUs a second", 8)] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                runtime.block_on(relay.exchange(count, length));
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, doip);
criterion_main!(benches);
