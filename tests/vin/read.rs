//! Reading the VIN on virtual buses with true bit timing, in virtual time.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::ecu::{Ecu, KWP, OBD, OTHER_VIN, UDS, VIN, attach, positive};
use connector_agent::config::VinSettings;
use connector_agent::vehicle::bit_rate::GiveUp;
use connector_agent::vehicle::vin::{BusEnd, ParallelReading, VinSource, read};
use connector_hal::bus::BusStatus;
use connector_hal::can::slcan::{Slcan, SlcanAdapter};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{
    CanBus, CanBusExt, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanId, CanSettings,
};
use connector_hal::future::BoxFuture;
use connector_test_support::id;

const ADAPTER: &str = "can0";

fn bus(bit_rate: u32, load: f32) -> VirtualBus {
    VirtualBus::new(VirtualBusConfig { bit_rate, load, ..VirtualBusConfig::default() })
}

fn obd_ecu(vin: &str) -> Ecu {
    Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, vin))
}

async fn read_all(
    buses: &[&VirtualBus],
    capabilities: CanCapabilities,
    settings: &VinSettings,
) -> ParallelReading {
    let adapters = buses.iter().map(|bus| bus.attach_adapter(ADAPTER, capabilities));
    read(adapters.map(|adapter| Box::new(adapter) as Box<dyn CanBus>).collect(), settings).await
}

async fn read_one(bus: &VirtualBus) -> ParallelReading {
    read_all(&[bus], VirtualBus::full_capabilities(), &VinSettings::default()).await
}

fn vin(reading: &ParallelReading) -> Option<&str> {
    reading.report.vin.as_ref().map(|vin| vin.as_str())
}

/// The number of frames that the agent's adapter sent or tried to send.
fn attempts(bus: &VirtualBus) -> u64 {
    let node = bus.statistics().nodes.into_iter().find(|node| node.name == ADAPTER).unwrap();
    node.sent + node.failed_attempts
}

#[tokio::test(start_paused = true)]
async fn listening_to_a_busy_bus_takes_milliseconds() {
    let bus = bus(500_000, 0.3);
    attach(&bus, vec![obd_ecu(VIN)]);
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.report.source, Some(VinSource::Obd));
    assert_eq!(reading.buses[0].bit_rate, Some(500_000));
    assert!(reading.report.elapsed < Duration::from_millis(85), "{:?}", reading.report.elapsed);
    assert_eq!(bus.statistics().disturbances, 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_bus_of_the_second_bit_rate_is_found_without_disturbing_it() {
    let bus = bus(250_000, 0.4);
    attach(&bus, vec![obd_ecu(VIN)]);
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.buses[0].bit_rate, Some(250_000));
    assert!(reading.report.elapsed < Duration::from_millis(120), "{:?}", reading.report.elapsed);
    assert_eq!(bus.statistics().disturbances, 0);
}

#[tokio::test(start_paused = true)]
async fn no_frame_is_sent_on_a_bus_with_neither_bit_rate() {
    let bus = bus(125_000, 0.3);
    attach(&bus, vec![obd_ecu(VIN)]);
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), None);
    assert!(matches!(reading.buses[0].end, BusEnd::GivenUp(GiveUp::UnknownBitRate)));
    assert_eq!((reading.buses[0].bit_rate, attempts(&bus), bus.statistics().disturbances), (None, 0, 0));
    assert!(reading.report.elapsed < Duration::from_secs(1), "{:?}", reading.report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn a_silent_bus_is_tested_with_one_acknowledged_frame() {
    let bus = bus(500_000, 0.0);
    attach(&bus, vec![Ecu::new(0x797, 0x79A).answering(KWP, positive(KWP, VIN))]);
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.report.source, Some(VinSource::Kwp));
    assert!(reading.report.elapsed < Duration::from_millis(550), "{:?}", reading.report.elapsed);
    assert_eq!(bus.statistics().disturbances, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_bus_of_the_second_bit_rate_is_sent_one_frame_at_the_first() {
    let bus = bus(250_000, 0.0);
    attach(&bus, vec![obd_ecu(VIN)]);
    let (spy, sent) = Spy::on(&bus);
    let reading = read(vec![spy], &VinSettings::default()).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.buses[0].bit_rate, Some(250_000));
    assert!(reading.report.elapsed < Duration::from_millis(400), "{:?}", reading.report.elapsed);
    let sent = sent.lock().unwrap();
    let at_wrong_rate: Vec<_> = sent.iter().filter(|(rate, _)| *rate == 500_000).collect();
    assert_eq!(at_wrong_rate.len(), 1);
    let at_right_rate: Vec<_> =
        sent.iter().filter(|(rate, _)| *rate == 250_000).map(|(_, frame)| frame.id()).collect();
    assert_eq!(at_right_rate, [id(0x7DF), id(0x18DB_33F1), id(0x7E0)]);
}

#[tokio::test(start_paused = true)]
async fn no_frame_is_sent_at_a_bit_rate_with_errors() {
    for bit_rate in [500_000, 250_000, 125_000, 100_000, 1_000_000] {
        let bus = bus(bit_rate, 0.05);
        attach(&bus, vec![obd_ecu(VIN)]);
        let (spy, sent) = Spy::on(&bus);
        let reading = read(vec![spy], &VinSettings::default()).await;
        let known = VinSettings::default().bit_rates.contains(&bit_rate);
        assert_eq!(vin(&reading), known.then_some(VIN), "{bit_rate}");
        let rates: Vec<u32> = sent.lock().unwrap().iter().map(|(rate, _)| *rate).collect();
        assert_eq!(rates.is_empty(), !known, "{bit_rate}");
        assert!(rates.iter().all(|rate| *rate == bit_rate), "{rates:?} on a bus of {bit_rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_bus_gets_one_frame_per_bit_rate_and_ends_quickly() {
    let bus = bus(500_000, 0.0);
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), None);
    assert!(matches!(reading.buses[0].end, BusEnd::GivenUp(GiveUp::NoNode)));
    assert!(reading.report.elapsed < Duration::from_millis(350), "{:?}", reading.report.elapsed);
    let attempts_then = attempts(&bus);
    assert!(attempts_then > 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(attempts(&bus), attempts_then, "the unacknowledged frame was withdrawn");
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_listens_first_hears_a_testers_keep_alive_and_asks_nothing() {
    let settings = VinSettings { listen_first: Duration::from_secs(3), ..VinSettings::default() };
    for has_tester in [true, false] {
        let bus = bus(500_000, 0.2);
        attach(&bus, vec![obd_ecu(VIN)]);
        if has_tester {
            let mut tester = bus.attach("another tester");
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                    let keep_alive = CanFrame::new(id(0x7E1), &[2, 0x3E, 0x80, 0, 0, 0, 0, 0]).unwrap();
                    tester.send(&keep_alive).await.unwrap();
                }
            });
        }
        let reading = read_all(&[&bus], VirtualBus::full_capabilities(), &settings).await;
        if has_tester {
            assert!(matches!(reading.buses[0].end, BusEnd::OtherTester), "{:?}", reading.buses[0].end);
            assert_eq!(attempts(&bus), 0);
        } else {
            assert_eq!(vin(&reading), Some(VIN), "the budget begins after the listening");
            assert!(reading.report.elapsed > Duration::from_secs(3), "{:?}", reading.report.elapsed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_without_vin_is_reported_within_half_a_second() {
    let bus = bus(500_000, 0.3);
    attach(
        &bus,
        vec![Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"))],
    );
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), None);
    assert!(matches!(reading.buses[0].end, BusEnd::NotAnswered));
    assert!(reading.report.elapsed < Duration::from_millis(500), "{:?}", reading.report.elapsed);
    assert_eq!(reading.buses[0].bit_rate, Some(500_000));
}

#[tokio::test(start_paused = true)]
async fn after_the_reading_the_adapter_listens_only() {
    let bus = bus(500_000, 0.2);
    attach(&bus, vec![obd_ecu(VIN)]);
    let mut reading = read_one(&bus).await;
    let frame = CanFrame::new(id(0x123), &[]).unwrap();
    assert!(reading.buses[0].bus.send(&frame).await.is_err());
    assert!(matches!(reading.buses[0].bus.event().await, Ok(CanEvent::Received { .. })));
}

#[tokio::test(start_paused = true)]
async fn pending_ecus_are_awaited_within_the_budget() {
    let bus = bus(500_000, 0.3);
    let pending = vec![
        (Duration::from_millis(30), vec![0x7F, 0x22, 0x78]),
        (Duration::from_millis(700), positive(UDS, VIN)),
    ];
    attach(&bus, vec![Ecu::new(0x7E0, 0x7E8).scripted(UDS, vec![pending])]);
    let reading = read_one(&bus).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.report.source, Some(VinSource::Uds));
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_kept_with_any_vehicle() {
    let bus = bus(500_000, 0.3);
    let pending = vec![(Duration::from_millis(30), vec![0x7F, 0x09, 0x78])];
    attach(&bus, vec![Ecu::new(0x7E0, 0x7E8).scripted(OBD, vec![pending])]);
    let settings = VinSettings { budget: Duration::from_millis(600), ..VinSettings::default() };
    let reading = read_all(&[&bus], VirtualBus::full_capabilities(), &settings).await;
    assert_eq!(vin(&reading), None);
    assert!(reading.report.elapsed <= Duration::from_millis(601), "{:?}", reading.report.elapsed);
    assert!(reading.report.elapsed > Duration::from_millis(500), "{:?}", reading.report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_cannot_listen_only_uses_its_bit_rate_as_it_is() {
    let bus = bus(500_000, 0.3);
    attach(&bus, vec![obd_ecu(VIN)]);
    let plain = CanCapabilities { set_bit_rate: true, ..CanCapabilities::default() };
    let reading = read_all(&[&bus], plain, &VinSettings::default()).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.buses[0].bit_rate, Some(500_000));
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_the_system_has_set_up_is_used_as_it_is() {
    let bus = bus(250_000, 0.0);
    attach(&bus, vec![Ecu::new(0x7E0, 0x7E8).answering(UDS, positive(UDS, VIN))]);
    let fixed =
        CanCapabilities { confirms_transmission: true, listen_only: true, ..CanCapabilities::default() };
    let mut adapter = bus.attach_adapter(ADAPTER, fixed);
    let system =
        connector_hal::can::CanSettings { bit_rate: 250_000, data_bit_rate: None, listen_only: false };
    adapter.configure(system).await.unwrap();
    let reading = read(vec![Box::new(adapter)], &VinSettings::default()).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert_eq!(reading.buses[0].bit_rate, Some(250_000));
}

#[tokio::test(start_paused = true)]
async fn the_first_of_several_buses_wins_and_a_different_vin_on_another_is_a_conflict() {
    let (fast, slow, silent) = (bus(500_000, 0.3), bus(500_000, 0.3), bus(500_000, 0.0));
    attach(&fast, vec![obd_ecu(VIN)]);
    let late = vec![(Duration::from_millis(30), positive(OBD, OTHER_VIN))];
    attach(&slow, vec![Ecu::new(0x7E0, 0x7E8).scripted(OBD, vec![late])]);
    let settings = VinSettings::default();
    let reading = read_all(&[&slow, &silent, &fast], VirtualBus::full_capabilities(), &settings).await;
    assert_eq!(vin(&reading), Some(VIN));
    let vins: Vec<_> = reading.report.conflict.iter().map(|candidate| candidate.vin.as_str()).collect();
    assert_eq!(vins, [VIN, OTHER_VIN]);
    assert_eq!(reading.buses.len(), 3);
    assert!(matches!(reading.buses[1].end, BusEnd::Stopped));
    assert!(reading.report.elapsed < Duration::from_millis(200), "{:?}", reading.report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn a_removed_adapter_is_reported_and_the_others_continue() {
    let (gone, good) = (bus(500_000, 0.0), bus(500_000, 0.3));
    attach(&good, vec![obd_ecu(VIN)]);
    let pulled = gone.attach_adapter("can1", VirtualBus::full_capabilities());
    let adapter = good.attach_adapter(ADAPTER, VirtualBus::full_capabilities());
    gone.unplug("can1");
    let reading = read(vec![Box::new(pulled), Box::new(adapter)], &VinSettings::default()).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert!(matches!(reading.buses[0].end, BusEnd::Failed(_)));
    assert!(matches!(reading.buses[1].end, BusEnd::Answered));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_starts_slowly_gets_the_whole_budget() {
    let bus = bus(500_000, 0.3);
    attach(&bus, vec![obd_ecu(VIN)]);
    let (mut spy, _) = Spy::on(&bus);
    spy.starts_in = Duration::from_secs(2);
    let reading = read(vec![spy], &VinSettings::default()).await;
    assert_eq!(vin(&reading), Some(VIN));
    assert!(reading.report.elapsed < Duration::from_millis(85), "{:?}", reading.report.elapsed);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_never_starts_ends_the_reading() {
    let bus = bus(500_000, 0.3);
    let (mut spy, _) = Spy::on(&bus);
    spy.starts_in = Duration::from_secs(3600);
    let reading = read(vec![spy], &VinSettings::default()).await;
    assert!(matches!(reading.buses[0].end, BusEnd::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_the_adapter_refuses_is_not_sent_and_the_reading_continues() {
    let bus = bus(500_000, 0.3);
    attach(&bus, vec![obd_ecu(VIN)]);
    let (mut spy, _) = Spy::on(&bus);
    spy.refuses = vec![id(0x18DB_33F1)];
    let reading = read(vec![spy], &VinSettings::default()).await;
    assert_eq!(vin(&reading), Some(VIN));
    let (mut spy, sent) = Spy::on(&bus);
    spy.refuses = vec![id(0x7DF), id(0x18DB_33F1)];
    let reading = read(vec![spy], &VinSettings::default()).await;
    assert!(matches!(reading.buses[0].end, BusEnd::NotAnswered), "{:?}", reading.buses[0].end);
    assert!(sent.lock().unwrap().iter().any(|(_, frame)| frame.id() == id(0x7E0)));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_without_receptions_or_confirmations_sends_one_frame_per_bit_rate() {
    let bus = bus(125_000, 0.3);
    let silent = CanCapabilities { confirms_transmission: false, ..VirtualBus::full_capabilities() };
    let (mut spy, sent) = Spy::on(&bus);
    spy.adapter = Box::new(bus.attach_adapter("deaf", silent));
    spy.deaf = true;
    let reading = read(vec![spy], &VinSettings::default()).await;
    assert_eq!(vin(&reading), None);
    let rates: Vec<u32> = sent.lock().unwrap().iter().map(|(rate, _)| *rate).collect();
    assert_eq!(rates, [500_000, 250_000]);
}

/// A host behind an SLCAN adapter over memory.
fn slcan(bus: &VirtualBus) -> Box<dyn CanBus> {
    let (near, far) = tokio::io::duplex(4096);
    let bus = bus.clone();
    tokio::spawn(async move { SlcanAdapter::serve(far, &bus, ADAPTER).await });
    Box::new(Slcan::over("slcan:test", near))
}

#[tokio::test(start_paused = true)]
async fn an_slcan_adapter_reads_the_vin_of_busy_and_silent_buses() {
    for (bit_rate, load) in [(500_000, 0.3), (250_000, 0.3), (500_000, 0.0)] {
        let bus = bus(bit_rate, load);
        attach(&bus, vec![Ecu::new(0x7C6, 0x7CE).physical_only().answering(UDS, positive(UDS, VIN))]);
        let reading = read(vec![slcan(&bus)], &VinSettings::default()).await;
        assert_eq!(vin(&reading), Some(VIN), "{bit_rate} bit/s, load {load}");
        assert_eq!(reading.buses[0].bit_rate, Some(bit_rate));
        assert!(reading.report.elapsed < Duration::from_secs(1), "{:?}", reading.report.elapsed);
        assert_eq!(bus.statistics().disturbances, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_slcan_adapter_sends_nothing_at_a_wrong_bit_rate() {
    let bus = bus(125_000, 0.3);
    let reading = read(vec![slcan(&bus)], &VinSettings::default()).await;
    assert!(matches!(reading.buses[0].end, BusEnd::GivenUp(GiveUp::UnknownBitRate)));
    assert_eq!((attempts(&bus), bus.statistics().disturbances), (0, 0));
}

/// The frames passed to an adapter, each with the bit rate of that time.
type Sent = Arc<Mutex<Vec<(u32, CanFrame)>>>;

/// An adapter that records the frames it sends.
struct Spy {
    adapter: Box<dyn CanBus>,
    bit_rate: u32,
    sent: Sent,
    /// The time of the adapter's first configuration.
    starts_in: Duration,
    /// Whether the adapter reports no errors.
    deaf: bool,
    /// The frames that the adapter refuses, by their identifiers.
    refuses: Vec<CanId>,
}

impl Spy {
    fn on(bus: &VirtualBus) -> (Box<Self>, Sent) {
        let adapter = Box::new(bus.attach_adapter(ADAPTER, VirtualBus::full_capabilities()));
        let sent = Sent::default();
        let spy = Self {
            adapter,
            bit_rate: 0,
            sent: Arc::clone(&sent),
            starts_in: Duration::ZERO,
            deaf: false,
            refuses: Vec::new(),
        };
        (Box::new(spy), sent)
    }
}

impl CanBus for Spy {
    fn device(&self) -> &str {
        self.adapter.device()
    }

    fn capabilities(&self) -> CanCapabilities {
        self.adapter.capabilities()
    }

    fn status(&self) -> BusStatus {
        self.adapter.status()
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        self.bit_rate = settings.bit_rate;
        let starts_in = std::mem::take(&mut self.starts_in);
        Box::pin(async move {
            tokio::time::sleep(starts_in).await;
            self.adapter.configure(settings).await
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        self.adapter.restart()
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.adapter.set_filters(filters)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        if self.refuses.contains(&frame.id()) {
            let what = format!("send {}", frame.id());
            return Poll::Ready(Err(CanError::Unsupported { device: self.device().to_owned(), what }));
        }
        let taken = self.adapter.poll_send(cx, frame);
        if let Poll::Ready(Ok(())) = taken {
            self.sent.lock().unwrap().push((self.bit_rate, *frame));
        }
        taken
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        loop {
            let event = self.adapter.poll_event(cx);
            let is_error = match &event {
                Poll::Ready(Ok(CanEvent::Received { frame, .. })) => frame.is_error(),
                Poll::Ready(Ok(CanEvent::State(_))) => true,
                _ => false,
            };
            if !(self.deaf && is_error) {
                return event;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_off_after_an_acknowledged_request_keeps_the_bit_rate() {
    let bus = bus(500_000, 0.0);
    let mut node = bus.attach("ECU");
    let of_vehicle = bus.clone();
    tokio::spawn(async move {
        while let Ok(event) = node.event().await {
            if let CanEvent::Received { .. } = event {
                of_vehicle.force_bus_off(ADAPTER);
            }
        }
    });
    let reading = read_one(&bus).await;
    assert!(matches!(reading.buses[0].end, BusEnd::NotAnswered), "{:?}", reading.buses[0].end);
    assert_eq!(reading.buses[0].bit_rate, Some(500_000));
}
