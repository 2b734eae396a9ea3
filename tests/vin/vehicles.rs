//! The VIN of every vehicle of the file, read on a virtual bus in virtual time.

use std::time::Duration;

use connector_agent::config::VinSettings;
use connector_agent::vehicle::vin::{ParallelReading, Service, read};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{CanBus, CanCapabilities};
use connector_sim::vehicle::catalogue::VehicleRecord;
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use connector_test_support::data::catalogue;

/// Reads and checks the VIN of each vehicle on a bus with these settings. Returns the longest times of
/// vehicles with and without VIN.
async fn read_all(bit_rate: u32, load: f32, capabilities: CanCapabilities) -> (Duration, Duration) {
    let (mut longest, mut longest_without) = (Duration::ZERO, Duration::ZERO);
    for record in catalogue().vehicles() {
        let bus = VirtualBus::new(VirtualBusConfig { bit_rate, load, ..VirtualBusConfig::default() });
        let vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
        let adapter: Box<dyn CanBus> = Box::new(bus.attach_adapter("can0", capabilities));
        let settings = VinSettings { bit_rates: bit_rates(bit_rate, capabilities), ..VinSettings::default() };
        let reading = read(vec![adapter], &settings).await;
        check(record, &reading);
        assert_eq!(vehicle.anomalies(), [], "{}", record.platform);
        let elapsed = reading.report.elapsed;
        let kind = if record.vin.is_some() { &mut longest } else { &mut longest_without };
        *kind = elapsed.max(*kind);
    }
    println!("{bit_rate} bit/s, load {load}: at most {longest:?} with VIN, {longest_without:?} without");
    (longest, longest_without)
}

/// The bit rates to try. An adapter that cannot listen only is configured with the right bit rate.
fn bit_rates(bit_rate: u32, capabilities: CanCapabilities) -> Vec<u32> {
    if capabilities.listen_only { VinSettings::default().bit_rates } else { vec![bit_rate] }
}

fn check(record: &VehicleRecord, reading: &ParallelReading) {
    let platform = &record.platform;
    let report = &reading.report;
    assert_eq!(report.vin, record.vin, "{platform}");
    assert_eq!(report.conflict, [], "{platform}");
    let is_answered = record.vin_exchanges.iter().any(|(address, exchange)| {
        let service = Service::ALL.into_iter().find(|service| exchange.request == service.request());
        report.source == service.map(Service::source) && report.address == Some(address.response.into())
    });
    assert_eq!(
        is_answered,
        record.vin.is_some(),
        "{platform}: read by {:?} from {:?}",
        report.source,
        report.address
    );
}

#[tokio::test(start_paused = true)]
async fn every_vehicles_vin_is_read_on_a_busy_bus() {
    let (longest, longest_without) = read_all(500_000, 0.3, VirtualBus::full_capabilities()).await;
    assert!(longest < Duration::from_millis(400), "{longest:?}");
    assert!(longest_without < Duration::from_millis(400), "{longest_without:?}");
}

#[tokio::test(start_paused = true)]
async fn every_vehicles_vin_is_read_on_a_silent_bus() {
    let (longest, longest_without) = read_all(500_000, 0.0, VirtualBus::full_capabilities()).await;
    assert!(longest < Duration::from_millis(600), "{longest:?}");
    assert!(longest_without < Duration::from_millis(600), "{longest_without:?}");
}

#[tokio::test(start_paused = true)]
async fn every_vehicles_vin_is_read_on_a_slow_and_full_bus() {
    let (longest, longest_without) = read_all(250_000, 0.9, VirtualBus::full_capabilities()).await;
    assert!(longest < Duration::from_millis(600), "{longest:?}");
    assert!(longest_without < Duration::from_millis(600), "{longest_without:?}");
}

#[tokio::test(start_paused = true)]
async fn every_vehicles_vin_is_read_by_an_adapter_that_can_only_send() {
    let plain = CanCapabilities { set_bit_rate: true, ..CanCapabilities::default() };
    let (longest, longest_without) = read_all(500_000, 0.0, plain).await;
    assert!(longest < Duration::from_millis(600), "{longest:?}");
    assert!(longest_without < Duration::from_millis(600), "{longest_without:?}");
}
