//! TP2.0 with an independent tester, the transport of Python's kwp2000-can, on the virtual bus through SLCAN.
//! The simulated ECUs use the [`Connection`](connector_agent::protocol::tp20::Connection) that the agent
//! uses.
//!
//! Needs a Python with `kwp2000-can`, `python-can` and `pyserial`, named by `CONNECTOR_TEST_PYTHON` (default:
//! `.venv/bin/python` in the workspace). Without it, the test prints one line `SKIPPED: …` and passes.

use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::catalogue::VehicleRecord;
use connector_sim::vehicle::{Tp20EcuConfig, Vehicle, VehicleConfig};
use connector_test_support::hex;
use connector_test_support::peers::{peer, run};
use serde_json::{Value, json};

const CLOCK: TimerKind = TimerKind::Precise;

/// One frame, several frames, more than a block of fifteen frames, and so many that sequence numbers wrap.
const LENGTHS: [usize; 5] = [1, 5, 6, 40, 250];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_independent_tester_opens_channels_sends_requests_and_disconnects() {
    let Some(mut tester) = peer("tp20_peer.py", "TP2.0 against kwp2000-can", "can, serial, tp20").await
    else {
        return;
    };
    let bus = VirtualBus::new(VirtualBusConfig { timer: CLOCK, ..VirtualBusConfig::default() });
    let adapter = SlcanAdapter::new(None, &bus, "tester").unwrap();
    let record = VehicleRecord {
        make: "Volkswagen".to_owned(),
        platform: "GOLF_MK5".to_owned(),
        vin: None,
        vin_exchanges: Vec::new(),
        ecus: Vec::new(),
    };
    let ecus = Tp20EcuConfig::golf();
    let config = VehicleConfig { tp20: ecus.clone(), timer: CLOCK, ..VehicleConfig::new(record) };
    let vehicle = Vehicle::start(&config, &bus);
    let (mut job, mut expected) = (Vec::new(), Vec::new());
    // two ECUs are enough, because the tester is slow
    for ecu in ecus.iter().step_by(4) {
        let known =
            ecu.exchanges.iter().map(|exchange| (exchange.request.clone(), exchange.response.clone()));
        // a service that no ECU supports
        let unknown = LENGTHS.map(|len| (vec![0xBA; len], vec![0x7F, 0xBA, 0x11]));
        let (asks, answers): (Vec<_>, Vec<_>) =
            known.chain(unknown).map(|(request, response)| (hex(&request), hex(&response))).unzip();
        job.push(json!({"ecu": ecu.ecu.get(), "asks": asks}));
        expected.push(json!(answers));
    }
    tester.arg(adapter.device()).arg(Value::from(job).to_string());
    assert_eq!(run(tester).await, Value::from(expected));
    assert_eq!(vehicle.anomalies(), []);
}
