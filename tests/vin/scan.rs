//! The scan finds exactly the ECUs of every vehicle of the file, on a virtual bus in virtual time.

use std::time::Duration;

use connector_agent::vehicle::scan::{
    EcuFound, IdRange, ScanEnd, ScanObserver, ScanOutcome, ScanProgress, ScanProtocol, ScanRequest, scan,
};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{CanBusExt, CanEvent, CanFrame};
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::catalogue::{EcuAddress, VehicleRecord};
use connector_sim::vehicle::tp20::SetupForm;
use connector_sim::vehicle::{Tp20EcuConfig, Vehicle, VehicleConfig};
use connector_test_support::data::{catalogue, golf};
use connector_test_support::id;

#[derive(Default)]
struct ProgressRecorder {
    ignition: Option<bool>,
    last: Option<ScanProgress>,
}

impl ScanObserver for ProgressRecorder {
    fn ignition(&self) -> Option<bool> {
        self.ignition
    }

    fn handle_progress(&mut self, progress: ScanProgress) {
        assert!(progress.done <= progress.total);
        self.last = Some(progress);
    }
}

/// Everything is asked, and a person made sure that the vehicle stands.
fn everything() -> ScanRequest {
    ScanRequest { vehicle_stands: true, ranges: vec![IdRange::new(0x600, 0x6FF).unwrap()] }
}

async fn scan_bus(bus: &VirtualBus, observer: &mut ProgressRecorder) -> ScanEnd {
    scan_for(bus, &everything(), observer).await
}

async fn scan_for(bus: &VirtualBus, request: &ScanRequest, observer: &mut ProgressRecorder) -> ScanEnd {
    let mut adapter = bus.attach_adapter("can0", VirtualBus::full_capabilities());
    scan(&mut adapter, &[500_000, 250_000], request, TimerKind::Runtime, observer).await.unwrap()
}

/// Scans every `every`th vehicle, with the nodes that `prepare` adds to its bus, and checks the ECUs found.
/// Returns the longest time that a scan took.
async fn scan_each(every: usize, config: VirtualBusConfig, prepare: impl Fn(&VirtualBus)) -> Duration {
    let mut longest = Duration::ZERO;
    for record in catalogue().vehicles().iter().step_by(every) {
        let bus = VirtualBus::new(config.clone());
        let vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
        prepare(&bus);
        let mut observer = ProgressRecorder::default();
        let end = scan_bus(&bus, &mut observer).await;
        assert_eq!(end.outcome, ScanOutcome::Done, "{}", record.platform);
        assert_eq!(addresses(&end.ecus), expected(record), "{}", record.platform);
        assert!(end.ecus.iter().all(|ecu| ecu.protocol == ScanProtocol::Isotp), "{}", record.platform);
        assert_eq!(vehicle.anomalies(), [], "{}", record.platform);
        let asked = vehicle.ecus().iter().map(|ecu| ecu.status.borrow().tester_presents).max().unwrap();
        assert!(asked <= 3, "{}: an ECU was asked {asked} times", record.platform);
        longest = end.elapsed.max(longest);
        vehicle.stop().await;
    }
    println!("load {}: at most {longest:?}", config.load);
    longest
}

fn addresses(ecus: &[EcuFound]) -> Vec<EcuAddress> {
    let address = |ecu: &EcuFound| EcuAddress {
        request: ecu.request,
        response: ecu.response,
        extended: ecu.extended_request_address,
    };
    let mut addresses: Vec<_> = ecus.iter().map(address).collect();
    addresses.sort();
    addresses
}

fn expected(record: &VehicleRecord) -> Vec<EcuAddress> {
    let mut addresses: Vec<_> = record.nodes().iter().map(|node| node.address).collect();
    addresses.sort();
    addresses
}

/// Starts a node that sends a frame with this identifier repeatedly.
fn send_repeatedly(bus: &VirtualBus, raw: u32, every: Duration, data: [u8; 8]) {
    let mut node = bus.attach(&format!("traffic {raw:X}"));
    tokio::spawn(async move {
        let mut data = data;
        loop {
            data[7] = data[7].wrapping_add(1);
            if node.send(&CanFrame::new(id(raw), &data).unwrap()).await.is_err() {
                return;
            }
            // the node reads its events, so that they do not accumulate
            while let Ok(Ok(_)) = tokio::time::timeout(Duration::ZERO, node.event()).await {}
            tokio::time::sleep(every).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn every_ecu_of_every_vehicle_is_found_in_a_few_seconds() {
    let longest = scan_each(1, VirtualBusConfig::default(), |_| ()).await;
    assert!(longest < Duration::from_secs(8), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bus_with_60_per_cent_load_is_scanned_completely() {
    let config = VirtualBusConfig { load: 0.6, ..VirtualBusConfig::default() };
    let longest = scan_each(24, config, |_| ()).await;
    assert!(longest < Duration::from_secs(9), "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn traffic_on_diagnostic_identifiers_is_not_an_ecu() {
    let config = VirtualBusConfig { load: 0.3, ..VirtualBusConfig::default() };
    let longest = scan_each(12, config, |bus| {
        send_repeatedly(bus, 0x6C0, Duration::from_millis(10), [1, 2, 3, 4, 5, 6, 7, 8]);
        send_repeatedly(bus, 0x6C8, Duration::from_millis(20), [2, 0x7E, 0, 0, 0, 0, 0, 0]);
        send_repeatedly(bus, 0x6E0, Duration::from_millis(730), [3, 0x7F, 0x3E, 0x12, 0, 0, 0, 0]);
    })
    .await;
    assert!(longest < Duration::from_secs(12), "{longest:?}");
}

fn golf_without_ecus() -> VehicleRecord {
    VehicleRecord {
        make: "Volkswagen".to_owned(),
        platform: "GOLF_MK5".to_owned(),
        vin: None,
        vin_exchanges: Vec::new(),
        ecus: Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn ecus_behind_tp20_are_found_by_every_form_of_set_up_and_left_closed() {
    let bus = VirtualBus::new(VirtualBusConfig::default());
    let mut ecus = Tp20EcuConfig::golf();
    ecus[1].form = SetupForm::WantsBoth;
    ecus[2].form = SetupForm::ChoosesBoth;
    ecus[3].busy = 1;
    let addresses: Vec<u8> = ecus.iter().map(|ecu| ecu.ecu.get()).collect();
    let vehicle =
        Vehicle::start(&VehicleConfig { tp20: ecus, ..VehicleConfig::new(golf_without_ecus()) }, &bus);
    let mut observer = ProgressRecorder::default();
    let end = scan_bus(&bus, &mut observer).await;
    let found: Vec<u8> = end.ecus.iter().map(|ecu| ecu.logical_address().unwrap().get()).collect();
    assert_eq!(found, addresses);
    assert!(end.ecus.iter().all(|ecu| ecu.request == id(0x200) && ecu.protocol == ScanProtocol::Tp20));
    // the ECUs received no other request, and a channel can be opened immediately
    assert!(vehicle.ecus().iter().all(|ecu| ecu.status.borrow().responses == 0));
    assert_eq!(scan_bus(&bus, &mut observer).await.ecus, end.ecus);
}

#[tokio::test(start_paused = true)]
async fn a_tp20_ecu_is_found_among_other_senders_with_its_identifier() {
    let bus = VirtualBus::new(VirtualBusConfig { load: 0.3, ..VirtualBusConfig::default() });
    let ecus = Tp20EcuConfig::golf();
    let addresses: Vec<u32> = ecus.iter().map(|ecu| ecu.ecu.get().into()).collect();
    let _vehicle =
        Vehicle::start(&VehicleConfig { tp20: ecus, ..VehicleConfig::new(golf_without_ecus()) }, &bus);
    for address in [addresses[0], addresses[1], 0x44, 0x45] {
        send_repeatedly(&bus, 0x200 + address, Duration::from_millis(10), [0, 0xD0, 0, 3, 0x40, 7, 1, 0]);
        send_repeatedly(&bus, 0x200 + address, Duration::from_millis(20), [0x10, 0xD1, 3, 4, 5, 6, 7, 8]);
    }
    let end = scan_bus(&bus, &mut ProgressRecorder::default()).await;
    let found: Vec<u32> = end.ecus.iter().map(|ecu| ecu.logical_address().unwrap().get().into()).collect();
    assert_eq!(found, addresses);
}

#[tokio::test(start_paused = true)]
async fn the_ignition_off_stops_a_scan_and_progress_is_reported() {
    let bus = VirtualBus::new(VirtualBusConfig::default());
    let _vehicle = Vehicle::start(&VehicleConfig::new(catalogue().vehicles()[0].clone()), &bus);
    let mut observer = ProgressRecorder { ignition: Some(false), last: None };
    assert_eq!(scan_bus(&bus, &mut observer).await.outcome, ScanOutcome::IgnitionOff);
    let mut observer = ProgressRecorder { ignition: Some(true), last: None };
    let end = scan_bus(&bus, &mut observer).await;
    let last = observer.last.unwrap();
    assert_eq!((last.done, last.found), (last.total, end.ecus.len()));
}

#[tokio::test(start_paused = true)]
async fn another_bit_rate_is_detected_before_any_frame_is_sent() {
    let bus =
        VirtualBus::new(VirtualBusConfig { bit_rate: 250_000, load: 0.1, ..VirtualBusConfig::default() });
    let record = catalogue().vehicles()[0].clone();
    let _vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
    let end = scan_bus(&bus, &mut ProgressRecorder::default()).await;
    assert_eq!(end.bit_rate, 250_000);
    assert_eq!(addresses(&end.ecus), expected(&record));
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_in_use_is_scanned_if_its_ecu_reports_that_it_stands() {
    let bus = VirtualBus::new(VirtualBusConfig { load: 0.3, ..VirtualBusConfig::default() });
    let record = golf().record;
    let _vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
    let end = scan_for(&bus, &ScanRequest::default(), &mut ProgressRecorder::default()).await;
    assert_eq!((end.outcome, addresses(&end.ecus)), (ScanOutcome::Done, expected(&record)));
}

#[tokio::test(start_paused = true)]
async fn a_bus_without_evidence_gets_no_question_but_those_for_it() {
    for load in [0.0, 0.3] {
        let bus = VirtualBus::new(VirtualBusConfig { load, ..VirtualBusConfig::default() });
        let mut listener = bus.attach("listener");
        let end = scan_for(&bus, &ScanRequest::default(), &mut ProgressRecorder::default()).await;
        assert_eq!((end.outcome, end.ecus), (ScanOutcome::MayMove, vec![]));
        while let Ok(Ok(event)) = tokio::time::timeout(Duration::ZERO, listener.event()).await {
            if let CanEvent::Received { frame, .. } = event {
                assert_ne!(frame.data().get(1..3), Some(&[0x3E, 0][..]), "{frame}");
            }
        }
    }
}

/// Starts an ECU at 0x7E0 that answers TesterPresent, and leaves the bus after this many frames.
fn start_ecu_that_falls_asleep(bus: &VirtualBus, after: u32) {
    let mut node = bus.attach("ECU");
    tokio::spawn(async move {
        let mut heard = 0;
        while heard < after
            && let Ok(event) = node.event().await
        {
            let CanEvent::Received { frame, .. } = event else { continue };
            heard += 1;
            if frame.id() == id(0x7E0) && frame.data().starts_with(&[2, 0x3E, 0]) {
                node.send(&CanFrame::new(id(0x7E8), &[2, 0x7E, 0]).unwrap()).await.unwrap();
            }
        }
    });
}

#[tokio::test(start_paused = true)]
async fn the_bit_rate_of_a_bus_that_falls_asleep_during_a_scan_is_kept() {
    for (after, found) in [(3, 0), (700, 1)] {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        start_ecu_that_falls_asleep(&bus, after);
        let request = ScanRequest { vehicle_stands: true, ..ScanRequest::default() };
        let end = scan_for(&bus, &request, &mut ProgressRecorder::default()).await;
        assert_eq!((end.bit_rate, end.ecus.len()), (500_000, found), "{end:?}");
        assert!(matches!(end.outcome, ScanOutcome::FellAsleep | ScanOutcome::BusOff), "{end:?}");
    }
}
