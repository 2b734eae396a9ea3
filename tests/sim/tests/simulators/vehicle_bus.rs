//! Whole vehicles on the virtual bus, in virtual time.

use std::time::Duration;

use connector_agent::protocol::isotp::{Addressing, Config, FrameSize, Responders, SeparationTime};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{CanFrame, CanId};
use connector_sim::vehicle::catalogue::EcuAddress;
use connector_sim::vehicle::ecu::{Session, Timing, crc32, toy_key};
use connector_sim::vehicle::simulation::image_path;
use connector_sim::vehicle::transport::TransportConfig;
use connector_sim::vehicle::{Vehicle, VehicleConfig, hex};
use connector_test_support::can_tool::{Tool, bus};
use connector_test_support::data::catalogue;
use connector_test_support::id;

const P2: Duration = Duration::from_millis(100);

fn vehicle(platform: &str) -> VehicleConfig {
    VehicleConfig::new(catalogue().find(platform).unwrap().clone())
}

fn address(request: u32, response: u32) -> EcuAddress {
    EcuAddress { request: id(request), response: id(response), extended: None }
}

/// The last answer, as hex.
async fn ask(tool: &mut Tool, request: &str) -> String {
    ask_bytes(tool, &hex::parse(request).unwrap()).await
}

async fn ask_bytes(tool: &mut Tool, request: &[u8]) -> String {
    let (answers, _) = tool.ask(request, Duration::from_secs(30)).await;
    answers.last().map(|answer| hex::format(&answer.pdu)).unwrap_or_default()
}

async fn unlock(tool: &mut Tool) {
    let seed = hex::parse(&ask(tool, "2711").await).unwrap();
    let key = toy_key(0x11, seed[2..].try_into().unwrap());
    assert_eq!(ask(tool, &format!("2712{}", hex::format(&key))).await, "6712");
}

#[tokio::test(start_paused = true)]
async fn every_ecu_of_every_vehicle_answers_its_exchanges_byte_for_byte() {
    let catalogue = catalogue();
    let mut asked = 0;
    for record in catalogue.vehicles() {
        let bus = bus();
        let vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
        for node in record.nodes() {
            let mut tool = Tool::physical(&bus, node.address);
            for exchange in &node.exchanges {
                let (answers, _) = tool.ask(&exchange.request, P2).await;
                let answered: Vec<_> = answers.iter().map(|answer| &answer.pdu).collect();
                assert_eq!(answered, [&exchange.response], "{} {}", record.platform, node.address);
                asked += 1;
            }
        }
        assert_eq!(vehicle.anomalies(), [], "{}", record.platform);
        vehicle.stop().await;
    }
    assert_eq!(asked, 1003 + 175, "the exchanges and VIN exchanges of the file");
}

#[tokio::test(start_paused = true)]
async fn every_vin_of_obd_is_in_the_answer_to_a_functional_request() {
    let catalogue = catalogue();
    for record in catalogue.vehicles() {
        let bus = bus();
        let _vehicle = Vehicle::start(&VehicleConfig::new(record.clone()), &bus);
        let standard = (id(0x7DF), Responders::Obd11);
        let extended = (id(0x18DB_33F1), Responders::Obd29);
        for (request, responders) in [standard, extended] {
            let by_obd = |address: &EcuAddress| match request.is_extended() {
                true => responders.include(address.response),
                false => (0x7E0..=0x7E7).contains(&address.request.raw()),
            };
            let mut expected: Vec<_> = record
                .vin_exchanges
                .iter()
                .filter(|(address, exchange)| exchange.request == [0x09, 0x02] && by_obd(address))
                .map(|(address, exchange)| (address.response, exchange.response.clone()))
                .collect();
            expected.sort();
            let mut tool = Tool::functional(&bus, request, responders.clone());
            let mut answers: Vec<_> = tool
                .ask_functional(&[0x09, 0x02], P2)
                .await
                .into_iter()
                .map(|answer| (answer.address, answer.pdu))
                .collect();
            answers.sort();
            assert_eq!(answers, expected, "{} {request}", record.platform);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_with_a_vin_by_obd_reports_the_information_type() {
    let bus = bus();
    let _vehicle = Vehicle::start(&vehicle("CHRYSLER_PACIFICA_2018"), &bus);
    let mut tool = Tool::functional(&bus, id(0x7DF), Responders::Obd11);
    let answers = tool.ask_functional(&[0x09, 0x00], P2).await;
    assert_eq!(answers.len(), 1, "the transmission does not support mode 09, and does not answer");
    assert_eq!(hex::format(&answers[0].pdu), "490040000000");
}

#[tokio::test(start_paused = true)]
async fn ecus_that_answer_together_contend_for_the_bus_and_all_arrive() {
    let bus = bus();
    let config = vehicle("TOYOTA_HIGHLANDER_TSS2");
    let _vehicle = Vehicle::start(&config, &bus);
    let mut tool = Tool::functional(&bus, id(0x7DF), Responders::Obd11);
    let answers = tool.ask_functional(&[0x09, 0x02], P2).await;
    let from: Vec<CanId> = answers.iter().map(|answer| answer.address).collect();
    assert_eq!(from, [id(0x7E8), id(0x7EA)], "the lower identifier first");
    assert_eq!(answers[0].pdu, answers[1].pdu);
}

#[tokio::test(start_paused = true)]
async fn only_the_ecus_of_the_obd_range_hear_the_obd_request() {
    let bus = bus();
    let vehicle = Vehicle::start(&vehicle("CHRYSLER_PACIFICA_2018"), &bus);
    let mut tool = Tool::functional(&bus, id(0x7DF), Responders::Obd11);
    tool.ask_functional(&[0x3E, 0x80], P2).await;
    let heard: Vec<_> = vehicle
        .ecus()
        .iter()
        .filter(|ecu| ecu.status.borrow().tester_presents > 0)
        .map(|ecu| ecu.address.request)
        .collect();
    assert_eq!(heard, [id(0x7E0), id(0x7E1)]);
}

#[tokio::test(start_paused = true)]
async fn other_functional_identifiers_are_heard_where_they_are_configured() {
    let bus = bus();
    let mut config = vehicle("CHRYSLER_PACIFICA_2018");
    config.functional = vec![id(0x700)];
    let vehicle = Vehicle::start(&config, &bus);
    let mut tool = Tool::functional(&bus, id(0x700), Responders::List(vec![]));
    tool.ask_functional(&[0x10, 0x83], P2).await;
    assert!(vehicle.ecus().iter().all(|ecu| ecu.status.borrow().session == Session::Extended));
    vehicle.stop().await;
}

#[tokio::test(start_paused = true)]
async fn ecus_with_the_same_identifiers_answer_to_their_own_address_alone() {
    let bus = bus();
    let config = vehicle("TOYOTA_CAMRY");
    let vehicle = Vehicle::start(&config, &bus);
    let shared: Vec<_> = config.record.ecus.iter().filter(|ecu| ecu.address.extended.is_some()).collect();
    let mut tool = Tool::physical(&bus, shared[0].address);
    assert_eq!(ask(&mut tool, "1003").await, "5003003201F4");
    let session = |index: usize| vehicle.status(shared[index].address).unwrap().session;
    assert_eq!((session(0), session(1)), (Session::Extended, Session::Default));
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_by_its_timeout_and_its_status_changes() {
    let bus = bus();
    let vehicle = Vehicle::start(&vehicle("CHRYSLER_PACIFICA_2018"), &bus);
    let mut tool = Tool::physical(&bus, address(0x7E0, 0x7E8));
    assert_eq!(ask(&mut tool, "1003").await, "5003003201F4");
    let began = tokio::time::Instant::now();
    let mut status = vehicle.ecu_at(id(0x7E0)).unwrap().status.clone();
    status.wait_for(|status| status.session == Session::Default).await.unwrap();
    let lasted = began.elapsed();
    assert!((4990..5010).contains(&lasted.as_millis()), "{lasted:?}");
    assert_eq!(ask(&mut tool, "22F186").await, "62F18601");
}

async fn flash(tool: &mut Tool, image: &[u8], block: usize) {
    assert_eq!(ask(tool, "1003").await, "5003003201F4");
    assert_eq!(ask(tool, "1002").await, "5002003201F4");
    unlock(tool).await;
    assert_eq!(ask(tool, "3101FF00").await, "7101FF0000");
    assert!(ask(tool, &format!("34004408000000{:08X}", image.len())).await.starts_with("7420"));
    for (index, block) in image.chunks(block).enumerate() {
        let counter = (index + 1) as u8;
        let request = [&[0x36, counter], block].concat();
        assert_eq!(ask_bytes(tool, &request).await, format!("76{counter:02X}"));
    }
    assert_eq!(ask(tool, "37").await, "77");
    assert_eq!(ask(tool, &format!("31010202{:08X}", crc32(image))).await, "7101020200");
}

#[tokio::test(start_paused = true)]
async fn any_ecu_can_be_flashed_and_shows_the_received_image() {
    let image: Vec<u8> = (0..20_000_u32).map(|index| (index * 31 / 7) as u8).collect();
    let directory = tempfile::tempdir().unwrap();
    for platform in ["CHRYSLER_PACIFICA_2018", "HONDA_CIVIC", "TOYOTA_CAMRY"] {
        let bus = bus();
        let mut config = vehicle(platform);
        config.memory_dir = Some(directory.path().join(platform));
        let vehicle = Vehicle::start(&config, &bus);
        for node in config.record.nodes() {
            let mut tool = Tool::physical(&bus, node.address);
            flash(&mut tool, &image, 4093).await;
            let memory = vehicle.memory(node.address);
            assert_eq!((memory.len(), &memory[0].data), (1, &image), "{platform} {}", node.address);
            let file = image_path(&directory.path().join(platform), node.address, &memory[0]);
            assert_eq!(std::fs::read(file).unwrap(), image);
        }
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_keeps_to_the_ecus_block_size_and_separation_time() {
    let bus = bus();
    let mut config = vehicle("CHRYSLER_PACIFICA_2018");
    config.transport =
        TransportConfig { block_size: 8, st_min: SeparationTime(5), ..TransportConfig::default() };
    config.timing.write = Duration::ZERO;
    let vehicle = Vehicle::start(&config, &bus);
    let mut tool = Tool::physical(&bus, address(0x7E0, 0x7E8));
    let began = tokio::time::Instant::now();
    flash(&mut tool, &[0x5A; 700], 700).await;
    // 702 bytes are a first frame and 100 consecutive ones, in blocks of 8 with 5 ms between two frames
    assert!(began.elapsed() > Duration::from_millis(87 * 5));
    assert_eq!(vehicle.memory(address(0x7E0, 0x7E8))[0].data, [0x5A; 700]);
}

#[tokio::test(start_paused = true)]
async fn fd_frames_carry_longer_pdus() {
    let settings = VirtualBusConfig { data_bit_rate: Some(2_000_000), ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(settings);
    let mut config = vehicle("CHRYSLER_PACIFICA_2018");
    config.transport.frame_size = FrameSize::fd(64, true).unwrap();
    let vehicle = Vehicle::start(&config, &bus);
    let addressing = Addressing::normal(id(0x7E0), id(0x7E8));
    let frame_size = FrameSize::fd(64, true).unwrap();
    let mut tool = Tool::configured(&bus, Config { frame_size, ..Config::new(addressing) });
    flash(&mut tool, &[0xA5; 9000], 4093).await;
    assert_eq!(vehicle.memory(address(0x7E0, 0x7E8))[0].data.len(), 9000);
    assert!(bus.statistics().frames < 250, "{:?}", bus.statistics().frames);
}

#[tokio::test(start_paused = true)]
async fn an_erasing_ecu_sends_response_pending_while_others_answer() {
    let bus = bus();
    let mut config = vehicle("CHRYSLER_PACIFICA_2018");
    config.timing = Timing { erase: Duration::from_secs(12), ..Timing::default() };
    let _vehicle = Vehicle::start(&config, &bus);
    let mut engine = Tool::physical(&bus, address(0x7E0, 0x7E8));
    let mut transmission = Tool::physical(&bus, address(0x7E1, 0x7E9));
    assert_eq!(ask(&mut engine, "1002").await, "5002003201F4");
    unlock(&mut engine).await;
    let erase = engine.ask(&[0x31, 0x01, 0xFF, 0x00], Duration::from_secs(20));
    let (erased, other) = tokio::join!(erase, ask(&mut transmission, "22F132"));
    assert_eq!(other, "62F1323638323737333730414A");
    let (answers, sent) = erased;
    let delays: Vec<u128> =
        answers.iter().map(|answer| (answer.started - sent.unwrap()).as_millis()).collect();
    assert_eq!(answers.len(), 4, "{delays:?}");
    for (delay, expected) in delays.iter().zip([40, 4540, 9040, 12_000]) {
        assert!((expected..expected + 6).contains(delay), "{delays:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ecu_returns_to_the_bus_after_bus_off() {
    let bus = bus();
    let vehicle = Vehicle::start(&vehicle("CHRYSLER_PACIFICA_2018"), &bus);
    let mut tool = Tool::physical(&bus, address(0x7E0, 0x7E8));
    assert_eq!(ask(&mut tool, "3E00").await, "7E00");
    bus.force_bus_off("engine 0x7E0/0x7E8");
    let (answers, _) = tool.ask(&[0x3E, 0x00], Duration::from_millis(50)).await;
    assert_eq!(answers, []);
    tool.listen(Duration::from_secs(1)).await;
    assert_eq!(ask(&mut tool, "3E00").await, "7E00");
    assert_eq!(vehicle.ecus().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_vehicle_leaves_the_bus() {
    let bus = bus();
    let vehicle = Vehicle::start(&vehicle("CHRYSLER_PACIFICA_2018"), &bus);
    assert_eq!(bus.statistics().nodes.len(), 7);
    vehicle.stop().await;
    assert_eq!(bus.statistics().nodes.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_request_is_dropped_and_counted() {
    let bus = bus();
    let vehicle = Vehicle::start(&vehicle("CHRYSLER_PACIFICA_2018"), &bus);
    let mut tool = Tool::physical(&bus, address(0x7E0, 0x7E8));
    let first = CanFrame::new(id(0x7E0), &[0x10, 0x20, 0x36, 1, 2, 3, 4, 5]).unwrap();
    tool.send_frame(&first).await;
    tool.listen(Duration::from_secs(2)).await;
    let anomalies = vehicle.anomalies();
    assert_eq!(anomalies.len(), 1);
    assert_eq!(anomalies[0].1.broken_receptions, 1);
    assert_eq!(ask(&mut tool, "3E00").await, "7E00");
}

#[test]
fn no_frames_stop_the_vehicle() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    let frame =
        (prop::sample::select(vec![0x7E0, 0x7DF, 0x7E1, 0x700]), prop::collection::vec(any::<u8>(), 0..=8));
    let frames = prop::collection::vec((frame, 0_u64..1500), 1..40);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let config = vehicle("CHRYSLER_PACIFICA_2018");
    TestRunner::new(Config::with_cases(60))
        .run(&frames, |frames| {
            runtime.block_on(async {
                let bus = bus();
                let _vehicle = Vehicle::start(&config, &bus);
                let mut sender = Tool::physical(&bus, address(0x123, 0x124));
                for ((raw, data), wait) in &frames {
                    sender.send_frame(&CanFrame::new(id(*raw), data).unwrap()).await;
                    sender.listen(Duration::from_millis(*wait)).await;
                }
                // every transfer has timed out by then
                sender.listen(Duration::from_secs(10)).await;
                let mut tool = Tool::physical(&bus, address(0x7E0, 0x7E8));
                prop_assert_eq!(ask(&mut tool, "3E00").await, "7E00");
                Ok(())
            })
        })
        .unwrap();
}
