//! TP2.0 channels. The connector sets them up, keeps them open and closes them. Otherwise they are like any
//! channel that carries PDUs.

use std::time::Duration;

use connector_agent::relay::connection::CloseReason;
use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::{CanBus, CanBusExt, CanEvent, CanFrame, CanId, CanSettings};
use connector_sim::vehicle::catalogue::VehicleRecord;
use connector_sim::vehicle::ecu::Session;
use connector_sim::vehicle::tp20::SetupForm;
use connector_sim::vehicle::{Tp20EcuConfig, Vehicle, VehicleConfig};
use serde_json::{Value, json};

use super::common::*;

fn bus() -> Value {
    json!([{"bus_name": "HS", "can_bus": {"pin_plus": 6, "pin_min": 14, "can_protocol": "tp20",
            "can_bit_rate": 500_000}}])
}

/// A vehicle with these ECUs, and a session whose bus is set up for TP2.0.
async fn rig_with(ecus: Vec<Tp20EcuConfig>) -> (Rig, Vehicle) {
    let mut rig = Rig::new();
    let record = VehicleRecord {
        make: "Volkswagen".to_owned(),
        platform: "GOLF_MK5".to_owned(),
        vin: None,
        vin_exchanges: Vec::new(),
        ecus: Vec::new(),
    };
    let vehicle = Vehicle::start(&VehicleConfig { tp20: ecus, ..VehicleConfig::new(record) }, &rig.buses[0]);
    let reply = rig.configure(bus()).await;
    assert_eq!(reply.action, "busesConfigured", "{reply:?}");
    (rig, vehicle)
}

async fn open(rig: &mut Rig, channel: u16, address: u8, more: Value) {
    let mut config = json!({"bus_name": "HS", "logical_address": address});
    more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    let reply = ask_open(rig, channel, config).await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
}

/// Asks to open a channel, and waits for the reply. A missing ECU takes longer than other requests.
async fn ask_open(rig: &mut Rig, channel: u16, config: Value) -> connector_agent::relay::wire::Envelope {
    let before = rig.texts.len();
    rig.ask("openChannel", json!({"channel": channel, "tp20_channel": config}));
    assert!(rig.run_until(10 * SECOND, |rig| rig.texts.len() > before).await, "openChannel is not answered");
    rig.texts[before].clone()
}

/// Sends a request and returns the next response on the channel.
async fn ask(rig: &mut Rig, channel: u16, request: &[u8]) -> Vec<u8> {
    let before = rig.pdus(channel).len();
    rig.send(channel, PLAIN, request);
    let came = rig.run_until(5 * SECOND, |rig| rig.pdus(channel).len() > before).await;
    assert!(came, "{request:02X?} is not answered: {:?}", rig.on(channel));
    rig.pdus(channel)[before].clone()
}

/// A node that receives all frames, and sends frames that no ECU sends.
struct Listener(Box<dyn CanBus>);

impl Listener {
    async fn attach(rig: &Rig) -> Self {
        let mut adapter = rig.buses[0]
            .attach_adapter("listener", connector_hal::can::virtual_bus::VirtualBus::full_capabilities());
        let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
        adapter.configure(settings).await.unwrap();
        Self(Box::new(adapter))
    }

    /// The frames on the bus since the last call.
    async fn frames(&mut self) -> Vec<String> {
        let mut frames = Vec::new();
        // the runtime's cooperative budget would report "no event" after a number of events; without the
        // budget, the runtime does not
        tokio::task::unconstrained(async {
            while let Ok(event) = tokio::time::timeout(Duration::ZERO, self.0.event()).await {
                if let CanEvent::Received { frame, .. } = event.unwrap() {
                    frames.push(frame.to_string());
                }
            }
        })
        .await;
        frames
    }

    async fn send(&mut self, id: u32, data: &[u8]) {
        let frame = CanFrame::new(CanId::standard_truncated(id), data).unwrap();
        self.0.send(&frame).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn pdus_pass_both_ways_and_name_the_identifier_of_the_ecu() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    open(&mut rig, 1, 1, json!({})).await;
    assert_eq!(ask(&mut rig, 1, &[0x10, 0x89]).await, [0x50, 0x89]);
    let identification = ask(&mut rig, 1, &[0x1A, 0x9B]).await;
    assert_eq!(identification.len(), 48);
    assert!(matches!(rig.on(1)[0], Got::Pdu { address: 0x300, .. }));
    rig.send(1, CONFIRM, &[0x10, 0x89]);
    rig.run(100 * MILLISECOND).await;
    let sent = rig.events(1);
    assert!(matches!(sent[..], [(EventCode::Sent, 0, _)]), "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn several_ecus_have_simultaneous_channels_with_separate_identifiers() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    for (channel, address) in [(1, 1), (2, 2), (3, 3), (4, 9), (5, 0x1F)] {
        open(&mut rig, channel, address, json!({})).await;
    }
    for channel in 1..=5 {
        rig.send(channel, PLAIN, &[0x1A, 0x9B]);
    }
    rig.run(SECOND).await;
    for channel in 1..=5 {
        let Got::Pdu { address, data } = rig.on(channel)[0].clone() else { panic!("{:?}", rig.on(channel)) };
        assert_eq!((address, data.len()), (0x2FF + u32::from(channel), 48));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_channel_to_an_ecu_is_refused_while_the_first_is_open() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    open(&mut rig, 1, 1, json!({})).await;
    let reply = ask_open(&mut rig, 2, json!({"bus_name": "HS", "logical_address": "0x01"})).await;
    assert_eq!(problem(&reply), (409, "ecu-in-use".to_owned()));
    // an identical request gets an identical reply
    open(&mut rig, 1, 1, json!({})).await;
    rig.request("closeChannel", json!({"channel": 1})).await;
    open(&mut rig, 2, 1, json!({})).await;
    assert_eq!(ask(&mut rig, 2, &[0x10, 0x89]).await, [0x50, 0x89]);
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_a_disconnect_does_not_close_the_channel_of_another_ecu() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    let mut first = Listener::attach(&rig).await;
    open(&mut rig, 1, 1, json!({})).await;
    assert!(matches!(ask(&mut rig, 1, &[0x10, 0x89]).await[..], [0x50, 0x89]));
    rig.request("closeChannel", json!({"channel": 1})).await;
    let config = json!({"bus_name": "HS", "logical_address": 2});
    rig.ask("openChannel", json!({"channel": 2, "tp20_channel": config}));
    rig.run(MILLISECOND).await;
    first.send(0x300, &[0xA8]).await;
    assert_eq!(ask(&mut rig, 2, &[0x10, 0x89]).await, [0x50, 0x89], "{:?}", rig.texts);
    assert!(matches!(rig.on(2)[0], Got::Pdu { address: 0x301, .. }), "{:?}", rig.on(2));
}

#[tokio::test(start_paused = true)]
async fn channel_tests_keep_an_idle_channel_open_even_without_a_link() {
    let (mut rig, vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    let mut listener = Listener::attach(&rig).await;
    open(&mut rig, 1, 1, json!({})).await;
    assert_eq!(ask(&mut rig, 1, &[0x10, 0x03]).await[..2], [0x50, 0x03]);
    rig.cut();
    rig.run(20 * SECOND).await;
    rig.resume().await;
    assert_eq!(vehicle.ecus()[0].status.borrow().session, Session::Extended);
    let frames = listener.frames().await;
    let tests = frames.iter().filter(|frame| frame.as_str() == "740#A3").count();
    assert!((36..=44).contains(&tests), "{tests}");
    assert_eq!(
        frames.iter().filter(|frame| frame.starts_with("200#")).count(),
        1,
        "the channel was set up once"
    );
    assert_eq!(rig.events(1), [], "the operator receives nothing about channel tests");
    assert_eq!(ask(&mut rig, 1, &[0x1A, 0x9B]).await.len(), 48);
}

#[tokio::test(start_paused = true)]
async fn tester_present_is_sent_only_on_request() {
    let (mut rig, vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    open(&mut rig, 1, 1, json!({})).await;
    open(&mut rig, 2, 2, json!({"keep_alive": "enabled"})).await;
    rig.run(9 * SECOND).await;
    let presents = |index: usize| vehicle.ecus()[index].status.borrow().tester_presents;
    assert_eq!((presents(0), presents(1)), (0, 4));
    assert!(rig.heard.is_empty(), "{:?}", rig.heard);
}

#[tokio::test(start_paused = true)]
async fn chained_pdus_are_sent_in_turn_and_break_as_on_any_channel() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    open(&mut rig, 1, 1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 0x89]);
    for _ in 0..5 {
        rig.send(1, CHAINED, &[0x1A, 0x9B]);
    }
    rig.send(1, CHAINED, &[0x2E, 0xF1, 0x90, 1]);
    rig.send(1, CHAINED, &[0x1A, 0x9B]);
    rig.run(2 * SECOND).await;
    let services: Vec<u8> = rig.pdus(1).iter().map(|pdu| pdu[0]).collect();
    assert_eq!(services, [0x50, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x7F]);
    let events = rig.events(1);
    assert!(matches!(events[..], [(EventCode::ChainBroken, 1.., 1)]), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn ecus_with_other_forms_of_set_up_are_opened_too() {
    let odd = |address: u32, listens, change: fn(&mut Tp20EcuConfig)| {
        let mut ecu = Tp20EcuConfig::new("odd", address.try_into().unwrap(), listens);
        change(&mut ecu);
        ecu
    };
    let ecus = vec![
        odd(1, 0x740, |ecu| ecu.form = SetupForm::WantsBoth),
        odd(2, 0x741, |ecu| ecu.form = SetupForm::ChoosesBoth),
        odd(3, 0x742, |ecu| ecu.asks_first = true),
        odd(4, 0x743, |ecu| ecu.busy = 2),
        odd(5, 0x744, |ecu| ecu.test_after = Some(200 * MILLISECOND)),
        odd(6, 0x745, |ecu| ecu.parameters.block_size = 1),
    ];
    let (mut rig, vehicle) = rig_with(ecus).await;
    for channel in 1..=6 {
        open(&mut rig, channel, channel as u8, json!({})).await;
        assert_eq!(ask(&mut rig, channel, &[0x1A, 0x9B]).await.len(), 48);
        assert_eq!(ask(&mut rig, channel, &[&[0x2E][..], &[0x55; 60]].concat()).await[0], 0x7F);
    }
    rig.run(5 * SECOND).await;
    assert_eq!(ask(&mut rig, 5, &[0x1A, 0x9B]).await.len(), 48);
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_failed_opening_is_reported_and_frees_the_channel_number() {
    let mut full = Tp20EcuConfig::new("full", 2u32.try_into().unwrap(), 0x760);
    full.busy = 100;
    let (mut rig, _vehicle) = rig_with(vec![full]).await;
    let reply = ask_open(&mut rig, 1, json!({"bus_name": "HS", "logical_address": 1})).await;
    assert_eq!(problem(&reply), (504, "ecu-silent".to_owned()));
    let reply = ask_open(&mut rig, 1, json!({"bus_name": "HS", "logical_address": 2})).await;
    assert_eq!(problem(&reply), (409, "ecu-refused".to_owned()));
    for wrong in [json!(0), json!(240), json!(255)] {
        let reply = ask_open(&mut rig, 1, json!({"bus_name": "HS", "logical_address": wrong})).await;
        assert_eq!(problem(&reply), (400, "invalid-message".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_the_ecu_drops_is_reported_and_reopened_by_the_next_pdu() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    let mut listener = Listener::attach(&rig).await;
    open(&mut rig, 1, 1, json!({})).await;
    listener.send(0x300, &[0xA8]).await;
    rig.run(5 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::KeepAliveFailed, 7, 0)]);
    let before = listener.frames().await.iter().filter(|frame| frame.starts_with("200#")).count();
    assert_eq!(before, 1, "nothing is sent to an ECU that has closed the channel");
    assert_eq!(ask(&mut rig, 1, &[0x10, 0x89]).await, [0x50, 0x89]);
    assert_eq!(listener.frames().await[0], "200#01C00010000301");
}

#[tokio::test(start_paused = true)]
async fn pdus_to_a_missing_ecu_fail() {
    let (mut rig, vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    let _listener = Listener::attach(&rig).await;
    open(&mut rig, 1, 1, json!({})).await;
    vehicle.stop().await;
    rig.send(1, PLAIN, &[0x10, 0x89]);
    rig.run(5 * SECOND).await;
    assert_eq!(
        rig.events(1),
        [(EventCode::SendFailed, 1, 0), (EventCode::KeepAliveFailed, 1, 0)],
        "{:?}",
        rig.on(1)
    );
    rig.send(1, PLAIN, &[0x10, 0x89]);
    rig.run(5 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 1), 2);
}

#[tokio::test(start_paused = true)]
async fn closing_a_channel_a_connection_or_the_buses_disconnects_the_ecus() {
    for how in ["closeChannel", "closeConnection", "configureBuses"] {
        let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
        let mut listener = Listener::attach(&rig).await;
        open(&mut rig, 1, 1, json!({})).await;
        rig.run(100 * MILLISECOND).await;
        listener.frames().await;
        rig.request(how, json!({"channel": 1, "buses": bus()})).await;
        rig.run(50 * MILLISECOND).await;
        let frames = listener.frames().await;
        assert!(frames.contains(&"740#A8".to_owned()), "{how}: {frames:?}");
        assert_eq!(rig.close_reason().is_some(), how == "closeConnection");
        assert!(rig.close_reason().is_none_or(|reason| reason == CloseReason::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_is_left_silently_disconnects_no_ecu() {
    for is_silent in [false, true] {
        let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
        let mut listener = Listener::attach(&rig).await;
        open(&mut rig, 1, 1, json!({})).await;
        rig.run(100 * MILLISECOND).await;
        listener.frames().await;
        if is_silent {
            rig.session.leave_silently();
        }
        drop(rig);
        tokio::time::sleep(50 * MILLISECOND).await;
        let frames = listener.frames().await;
        assert_eq!(frames.contains(&"740#A8".to_owned()), !is_silent, "{frames:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_on_a_bus_of_another_kind_of_protocol_is_opened_too() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    assert_eq!(rig.configure(json!([hs()])).await.action, "busesConfigured");
    open(&mut rig, 1, 1, json!({})).await;
    rig.open_isotp(2, json!({})).await;
    assert_eq!(ask(&mut rig, 1, &[0x10, 0x89]).await, [0x50, 0x89]);
}

#[tokio::test(start_paused = true)]
async fn pdus_sent_while_the_channel_is_being_set_up_wait_for_it() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    rig.ask("openChannel", json!({"channel": 1, "tp20_channel": {"bus_name": "HS", "logical_address": 1}}));
    rig.send(1, PLAIN, &[0x10, 0x89]);
    rig.send(1, CHAINED, &[0x1A, 0x9B]);
    rig.run(SECOND).await;
    assert_eq!(rig.texts.last().unwrap().action, "channelOpened");
    assert_eq!(rig.pdus(1).iter().map(Vec::len).collect::<Vec<_>>(), [2, 48]);
}

#[tokio::test(start_paused = true)]
async fn with_the_ignition_off_a_channel_closes_and_a_pdu_reopens_it() {
    let (mut rig, _vehicle) = rig_with(Tp20EcuConfig::golf()).await;
    let mut listener = Listener::attach(&rig).await;
    open(&mut rig, 1, 1, json!({})).await;
    rig.session.handle_ignition(now(), Some(false));
    rig.run(400 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::KeepAliveFailed, 6, 0)]);
    let frames = listener.frames().await;
    let last: Vec<_> = frames.iter().rev().take(4).collect();
    assert_eq!(last.iter().filter(|frame| frame.ends_with("#A8")).count(), 2, "{last:?}");
    rig.run(10 * SECOND).await;
    assert_eq!(listener.frames().await, Vec::<String>::new());
    assert_eq!(ask(&mut rig, 1, &[0x10, 0x89]).await, [0x50, 0x89]);
}
