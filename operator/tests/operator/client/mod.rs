//! The operator's client with the real session of a connector and a simulated vehicle, in virtual time.

mod rig;

use std::sync::atomic::Ordering;
use std::time::Duration;

use connector_agent::relay::wire::codec::PduFlags;
use connector_agent::relay::wire::request::RawChannelConfig;
use connector_hal::can::CanId;
use connector_operator::client::{CloseReason, ExchangeError, Item, LinkState, Timing};
use connector_operator::flash::{Firmware, FlashError, Step, flash};
use connector_operator::{Failure, FailureKind};
use connector_sim::network::{BadNetworkConfig, Direction};
use connector_sim::vehicle::ecu::Session;
use tokio::time::Instant;

use rig::{Control, Rig, isotp};

const GOLF: &str = "VOLKSWAGEN_GOLF_MK7";
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// The beginning of the Golf's engine's answer to `22F187F189F182`.
const PART_NUMBER: &[u8] = b"\x62\xF1\x8704E906016A \xF1\x89";

fn network(round_trip: Duration) -> BadNetworkConfig {
    BadNetworkConfig { round_trip, ..BadNetworkConfig::default() }
}

fn firmware(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..len).map(|_| random.u8(..)).collect()
}

/// The last image in the ECU's memory.
fn memory(rig: &Rig) -> Vec<u8> {
    let ecu = rig.vehicle.ecu_at(CanId::standard(0x7E0).unwrap()).unwrap();
    let memory = ecu.status.borrow().memory.clone();
    memory.last().map(|image| image.data.clone()).unwrap_or_default()
}

fn session(rig: &Rig) -> Session {
    rig.vehicle.ecu_at(CanId::standard(0x7E0).unwrap()).unwrap().status.borrow().session
}

#[tokio::test(start_paused = true)]
async fn a_request_gets_the_ecus_response_one_round_trip_later() {
    let rig = Rig::new(GOLF, network(300 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let asked = Instant::now();
    let request = [0x22, 0xF1, 0x87, 0xF1, 0x89, 0xF1, 0x82];
    let response = channel.request(&request, &Timing::default()).await.unwrap();
    assert!(response.data.starts_with(PART_NUMBER), "{:02X?}", response.data);
    assert_eq!(response.address, 0x7E8);
    assert!((300 * MS..330 * MS).contains(&asked.elapsed()), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn every_answer_to_a_functional_request_is_received() {
    let rig = Rig::new("TOYOTA_CAMRY", network(50 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7DF, None)).await.unwrap();
    let responses = channel.request_functional(&[0x09, 0x02], SECOND, &Timing::default()).await.unwrap();
    let mut responders: Vec<u32> = responses.iter().map(|response| response.address).collect();
    responders.sort_unstable();
    assert_eq!(responders, [0x7E8, 0x7EA]);
    assert!(responses.iter().all(|response| response.data.starts_with(&[0x49, 0x02])));
}

#[tokio::test(start_paused = true)]
async fn an_ecus_refusal_is_reported_in_words() {
    let rig = Rig::new(GOLF, network(Duration::ZERO));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let refused = channel.request(&[0x34, 0, 0x11, 0, 1], &Timing::default()).await.unwrap_err();
    assert_eq!(refused, ExchangeError::Negative { service: 0x34, code: 0x7F });
    let words = Failure::from(refused).to_string();
    assert!(words.contains("not available in this session") && words.contains("What to do:"), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_ecu_is_reported_within_bounded_time() {
    let rig = Rig::new(GOLF, network(100 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E6, Some(0x7EE))).await.unwrap();
    let asked = Instant::now();
    let error = channel.request(&[0x3E, 0], &Timing::default()).await.unwrap_err();
    assert!(matches!(error, ExchangeError::NoResponse { .. }), "{error:?}");
    assert!(asked.elapsed() < 20 * SECOND, "{:?}", asked.elapsed());
    assert_eq!(Failure::from(error).exit_code(), FailureKind::Vehicle as u8);
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_over_a_minute_while_response_pending_comes() {
    let rig = Rig::with_vehicle(GOLF, network(300 * MS), |vehicle| vehicle.timing.erase = 60 * SECOND);
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let data = firmware(1, 5000);
    let firmware = Firmware { address: 0x0800_0000, data: &data };
    let report = flash(&channel, firmware, &Timing::default(), &mut |_| {}).await.unwrap();
    assert!((60 * SECOND..62 * SECOND).contains(&report.erasing), "{:?}", report.erasing);
    assert_eq!(memory(&rig), data);
}

#[tokio::test(start_paused = true)]
async fn a_chained_download_waits_for_one_round_trip_only() {
    let data = firmware(2, 200_000);
    let mut took = Vec::new();
    for round_trip in [Duration::ZERO, 1000 * MS] {
        let rig = Rig::new(GOLF, network(round_trip));
        let connection = rig.connect().await;
        let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
        let mut confirmed = Vec::new();
        let mut note = |step| {
            if let Step::Transfer { confirmed: bytes } = step {
                confirmed.push(bytes);
            }
        };
        let firmware = Firmware { address: 0x0800_0000, data: &data };
        let report = flash(&channel, firmware, &Timing::default(), &mut note).await.unwrap();
        took.push(report.transferring);
        assert_eq!(memory(&rig), data);
        assert_eq!(rig.vehicle.anomalies(), []);
        assert!(confirmed.is_sorted() && confirmed.last() == Some(&data.len()), "{confirmed:?}");
        assert_eq!(session(&rig), Session::Default);
    }
    let [near, far] = took.try_into().unwrap();
    assert!(far < near + 1200 * MS, "{near:?} and {far:?}");
    // the time on the bus, and the time that the ECU needs to write 49 blocks
    assert!(near < 7100 * MS, "{near:?}");
}

/// Disturbs the network and the connector's link again and again.
async fn disturb(rig: &Rig, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        tokio::time::sleep(MS * random.u32(100..2500)).await;
        let direction = if random.bool() { Direction::ToServer } else { Direction::ToClient };
        match random.u8(..4) {
            0 => rig.network.cut_after(direction, random.u64(1..2000)),
            1 => rig.network.cut_after(direction, random.u64(1..40_000)),
            2 => rig.interrupt(MS * random.u32(1..8000)),
            _ => rig.network.stall(MS * random.u32(1..5000)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flash_survives_links_cut_after_any_byte_without_loss_or_duplicates() {
    let mut lost = 0;
    let mut interrupted = 0;
    for seed in 0..40 {
        let rig = Rig::new(GOLF, network(100 * MS));
        let data = firmware(seed, 60_000);
        let connection = rig.connect().await;
        let work = async {
            let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
            let firmware = Firmware { address: 0x0800_0000, data: &data };
            let report = flash(&channel, firmware, &Timing::default(), &mut |_| {}).await;
            report.unwrap_or_else(|error| panic!("seed {seed}: {error}: {error:?}"));
            connection.close_channel(channel).await.unwrap();
        };
        tokio::select! {
            () = work => {}
            () = disturb(&rig, seed) => {}
        }
        assert!(memory(&rig) == data, "seed {seed}");
        assert_eq!(rig.vehicle.anomalies(), [], "seed {seed}");
        lost += connection.counters().links_lost();
        interrupted += connection.counters().interruptions();
    }
    // with fewer disturbances, the test would show nothing
    assert!(lost >= 20 && interrupted >= 20, "{lost} links lost, {interrupted} interruptions");
}

#[tokio::test(start_paused = true)]
async fn a_stalled_link_is_replaced_and_the_flash_continues() {
    let rig = Rig::new(GOLF, network(100 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let data = firmware(4, 100_000);
    let mut stalled = false;
    let mut stall = |step| {
        if matches!(step, Step::Transfer { confirmed } if confirmed > 20_000) && !stalled {
            stalled = true;
            rig.network.stall(22 * SECOND);
        }
    };
    let firmware = Firmware { address: 0x0800_0000, data: &data };
    let report = flash(&channel, firmware, &Timing::default(), &mut stall).await.unwrap();
    assert!((22 * SECOND..26 * SECOND).contains(&report.transferring), "{:?}", report.transferring);
    assert!(connection.counters().links_lost() >= 1);
    assert_eq!(memory(&rig), data);
    assert_eq!(rig.vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_while_the_connector_is_offline() {
    let rig = Rig::new(GOLF, network(20 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let mut state = connection.state();
    rig.interrupt(25 * SECOND);
    state.wait_for(|state| *state == LinkState::Down).await.unwrap();
    let asked = Instant::now();
    channel.request(&[0x22, 0xF1, 0x86], &Timing::default()).await.unwrap();
    assert!((25 * SECOND..26 * SECOND).contains(&asked.elapsed()), "{:?}", asked.elapsed());
    assert_eq!(*state.borrow(), LinkState::Up);
}

#[tokio::test(start_paused = true)]
async fn a_channel_opens_although_its_request_or_answer_was_lost() {
    for bytes in (1..400).step_by(7) {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let rig = Rig::new(GOLF, network(20 * MS));
            let connection = rig.connect().await;
            rig.network.cut_after(direction, bytes);
            let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
            channel.request(&[0x22, 0xF1, 0x86], &Timing::default()).await.unwrap();
            connection.close_channel(channel).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flash_reports_a_connection_that_ended_with_its_link() {
    let rig = Rig::new(GOLF, network(20 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let data = firmware(3, 100_000);
    let mut cut = |step| {
        if matches!(step, Step::Transfer { confirmed } if confirmed > 20_000) {
            rig.dialer.is_down.store(true, Ordering::Relaxed);
            rig.network.cut();
        }
    };
    let firmware = Firmware { address: 0x0800_0000, data: &data };
    let error = flash(&channel, firmware, &Timing::default(), &mut cut).await.unwrap_err();
    let lost = ExchangeError::Closed(CloseReason::LinkLost);
    assert!(matches!(&error, FlashError::Step { source, .. } if *source == lost), "{error:?}");
    assert!(rig.dialer.dialed.load(Ordering::Relaxed) > 5);
    let words = Failure::from(error).to_string();
    assert!(words.contains("did not come back") && words.contains("flash again"), "{words}");
    assert_eq!(channel.send(&[0x3E, 0], PduFlags::default()).await, Err(lost));
}

#[tokio::test(start_paused = true)]
async fn every_waiting_call_returns_the_reason_for_the_close() {
    let rig = Rig::new(GOLF, network(20 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let (received, ()) = tokio::join!(channel.recv(), async {
        rig.control.send(Control::Close("vehicle-lost")).unwrap();
    });
    assert_eq!(received, Err(CloseReason::Remote("vehicle-lost".to_owned())));
    let error =
        connection.configure_buses(vec![connector_test_support::config::can_bus()]).await.unwrap_err();
    assert_eq!(Failure::from(error).exit_code(), FailureKind::Vehicle as u8);
}

#[tokio::test(start_paused = true)]
async fn a_flash_that_the_ecu_refuses_leaves_it_in_its_default_session() {
    // one byte more than the memory of the simulated ECU
    let rig = Rig::new(GOLF, network(20 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    let data = vec![0; (16 << 20) + 1];
    let firmware = Firmware { address: 0x0800_0000, data: &data };
    let error = flash(&channel, firmware, &Timing::default(), &mut |_| {}).await.unwrap_err();
    let refused = ExchangeError::Negative { service: 0x34, code: 0x31 };
    assert_eq!(error, FlashError::Step { step: Step::Download, source: refused });
    assert_eq!(session(&rig), Session::Default);
    assert!(Failure::from(error).to_string().contains("without valid firmware"));
}

#[tokio::test(start_paused = true)]
async fn a_raw_channel_shows_request_and_response_with_their_times() {
    let rig = Rig::new(GOLF, network(20 * MS));
    let connection = rig.connect().await;
    let raw =
        RawChannelConfig { bus_name: "HS".to_owned(), request_id: None, response_id: None, max_age_ms: None };
    let raw = connection.open_raw(raw).await.unwrap();
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    channel.request(&[0x10, 0x01], &Timing::default()).await.unwrap();
    let received = raw.recv().await.unwrap();
    let Item::Frame(frame) = received.item else { panic!("{received:?}") };
    assert!(frame.to_string().starts_with("7E8#065001"), "{frame}");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_connection_ends_its_channels() {
    let rig = Rig::new(GOLF, network(20 * MS));
    let connection = rig.connect().await;
    let channel = connection.open_isotp(isotp(0x7E0, Some(0x7E8))).await.unwrap();
    drop(connection);
    assert_eq!(channel.recv().await, Err(CloseReason::Dropped));
}
