//! ISO 14230 links to simulated ECUs, byte by byte in virtual time. The ECUs check the timing of the tester.

mod answers;
mod errors;
mod rig;
mod together;

use std::time::Duration;

use connector_agent::protocol::kline::{Addressing, Config, Event, Initialisation};
use connector_hal::kline::Signal;
use connector_sim::vehicle::kline::KlineEcuConfig;
use rig::{MS, Rig};

const VIN_ANSWER: &[u8] = b"\x5A\x90WVWZZZ1KZ6W000001";

fn fast(address: u8) -> Config {
    Config::new(Addressing::of(address), Initialisation::Fast, 10_400)
}

fn slow(address: u8) -> Config {
    Config::new(Addressing::of(address), Initialisation::Slow, 10_400)
}

fn is_up(event: &Event) -> bool {
    matches!(event, Event::Up(_))
}

#[test]
fn a_fast_initialisation_is_a_pulse_and_start_communication_50_ms_after_its_start() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.endpoints[0].connect();
    let up = rig.run_until(Duration::from_secs(2), is_up);
    assert!(matches!(up, Some(Event::Up(key_bytes)) if key_bytes.number() == 0x8FEF), "{up:?}");
    let (pulse_at, pulse) = rig.sent[0];
    assert_eq!(pulse, Signal::Pulse(25 * MS));
    assert_eq!(pulse_at - rig.start, 300 * MS, "the line was idle for W5");
    assert_eq!(rig.sent[1], (pulse_at + 50 * MS, Signal::Byte(0x81)));
    assert_eq!(rig.heard[..5], [0x81, 0x11, 0xF1, 0x81, 0x04]);
    assert_eq!(rig.heard[5..], [0x83, 0xF1, 0x11, 0xC1, 0xEF, 0x8F, 0xC4]);
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn a_slow_initialisation_is_an_address_and_two_complements() {
    let mut rig = Rig::new(vec![slow(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.endpoints[0].connect();
    let up = rig.run_until(Duration::from_secs(5), is_up);
    assert!(matches!(up, Some(Event::Up(key_bytes)) if key_bytes.number() == 0x8FEF), "{up:?}");
    assert_eq!(rig.sent[0].1, Signal::Address(0x11));
    assert_eq!(rig.heard, [0x55, 0xEF, 0x8F, !0x8F, !0x11]);
    assert_eq!(rig.anomalies(), []);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn the_first_pdu_initialises_the_link_and_is_answered() {
    for config in [fast(0x11), slow(0x11)] {
        let mut rig = Rig::new(vec![config], vec![KlineEcuConfig::new(0x11)]);
        assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
        assert!(rig.has(|event| matches!(event, Event::Received { source: 0x11, .. })));
        // 6 bytes of 0.96 ms, 5 ms apart
        let elapsed = rig.events.iter().find_map(|(_, event)| match event {
            Event::Sent { elapsed } => Some(*elapsed),
            _ => None,
        });
        let elapsed = elapsed.unwrap();
        assert!(elapsed > 30 * MS && elapsed < 32 * MS, "{elapsed:?}");
        assert_eq!(rig.anomalies(), []);
    }
}

#[test]
fn a_functional_address_reaches_the_ecu_that_has_the_function() {
    for config in [fast(0x33), slow(0x33)] {
        let mut rig = Rig::new(vec![config], vec![KlineEcuConfig::new(0x11)]);
        assert_eq!(rig.ask(0, &[0x01, 0x00]).len(), 1);
        assert!(rig.has(|event| matches!(event, Event::Received { source: 0x11, .. })));
        assert_eq!(rig.anomalies(), []);
    }
}

#[test]
fn several_messages_answer_one_request() {
    let mut rig = Rig::new(vec![fast(0x33)], vec![KlineEcuConfig::new(0x11)]);
    let answers = rig.ask(0, &[0x09, 0x02]);
    let vin: Vec<u8> = answers.iter().flat_map(|answer| answer[3..].to_vec()).collect();
    assert_eq!(answers.len(), 5);
    assert_eq!(&vin[3..], b"WVWZZZ1KZ6W000001");
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn response_pending_extends_the_wait_to_5_s() {
    let mut ecu = KlineEcuConfig::new(0x11);
    ecu.erase_time = Duration::from_secs(12);
    ecu.pending_interval = Duration::from_millis(4900);
    let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
    let answers = rig.ask(0, &[0x31, 0x02]);
    assert_eq!(
        answers,
        [vec![0x7F, 0x31, 0x78], vec![0x7F, 0x31, 0x78], vec![0x7F, 0x31, 0x78], vec![0x71, 0x02]]
    );
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn pdus_in_sequence_keep_p3_and_every_key_byte_has_its_header() {
    // key bytes: no option; length in the format byte; additional length byte; one-byte header; every option
    for first in [0xD0, 0xE9, 0xEA, 0xE5, 0x6E, 0xD5, 0xEF] {
        let mut ecu = KlineEcuConfig::new(0x11);
        ecu.key_bytes = [first, 0x8F];
        let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
        for _ in 0..3 {
            assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER], "0x{first:02X}");
        }
        assert_eq!(rig.ask(0, &[0x34, 0x00]), [[0x74, 0xFE]]);
        for block in 0..4u8 {
            assert_eq!(rig.ask(0, &[&[0x36][..], &[block; 60]].concat()), [[0x76]]);
        }
        assert_eq!(rig.ask(0, &[0x37]), [[0x77]]);
        assert_eq!(rig.ecus[0].memory().len(), 240);
        assert_eq!(rig.anomalies(), [], "0x{first:02X}");
    }
}

#[test]
fn a_long_pdu_has_a_separate_length_byte_if_the_key_bytes_allow_it() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x34]);
    assert_eq!(rig.ask(0, &[&[0x36][..], &[7; 254]].concat()), [[0x76]]);
    assert_eq!(rig.ecus[0].memory(), [7; 254]);
    // 0x8FE9: only the format byte counts
    let mut ecu = KlineEcuConfig::new(0x11);
    ecu.key_bytes = [0xE9, 0x8F];
    let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
    rig.endpoints[0].send(&[0x36; 64]).unwrap();
    rig.run(Duration::from_secs(2));
    assert!(
        rig.has(|event| matches!(event, Event::SendFailed(_))),
        "the PDU was accepted before the key bytes were known"
    );
    assert!(rig.endpoints[0].send(&[0x36; 64]).is_err(), "such a PDU is refused after that");
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn extended_timing_lets_an_ecu_answer_after_a_second() {
    let mut ecu = KlineEcuConfig::new(0x11);
    ecu.key_bytes = [0xD9, 0x8F];
    let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
    rig.endpoints[0].connect();
    rig.run_until(Duration::from_secs(2), is_up).unwrap();
    rig.ecus[0].config_mut().p2 = 990 * MS;
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    // the normal set gives up after P2max
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.endpoints[0].connect();
    rig.run_until(Duration::from_secs(2), is_up).unwrap();
    rig.ecus[0].config_mut().p2 = 990 * MS;
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), Vec::<Vec<u8>>::new());
    assert!(rig.has(|event| *event == Event::NoAnswer));
}

#[test]
fn tester_present_keeps_the_link_up_and_is_not_reported() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    let events = rig.events.len();
    rig.run(Duration::from_secs(60));
    assert_eq!(rig.events.len(), events, "TesterPresent causes no event");
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    let pulses = rig.sent.iter().filter(|(_, signal)| matches!(signal, Signal::Pulse(_))).count();
    assert_eq!(pulses, 1, "the link was initialised once");
    let kept = rig.ecus[0].requests().iter().filter(|request| **request == [0x3E]).count();
    assert!((25..=30).contains(&kept), "every 2 s: {kept}");
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn without_keep_alive_an_expired_link_is_initialised_again_for_a_pdu() {
    let mut rig = Rig::new(vec![Config { keep_alive: None, ..fast(0x11) }], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.run(Duration::from_secs(6));
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    let pulses = rig.sent.iter().filter(|(_, signal)| matches!(signal, Signal::Pulse(_))).count();
    assert_eq!(pulses, 2);
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn stopping_ends_the_communication_in_order() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.endpoints[0].stop();
    assert!(rig.run_until(Duration::from_secs(1), |event| *event == Event::Stopped).is_some());
    assert_eq!(rig.ecus[0].requests().last().unwrap(), &[0x82]);
    assert!(!rig.ecus[0].is_communicating());
    let heard = rig.heard.len();
    rig.run(Duration::from_secs(20));
    assert_eq!(rig.heard.len(), heard, "silence");
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn several_ecus_take_turns_on_one_line() {
    let ecus =
        vec![KlineEcuConfig::new(0x11), KlineEcuConfig { functions: vec![], ..KlineEcuConfig::new(0x28) }];
    let mut rig = Rig::new(vec![fast(0x11), slow(0x28)], ecus);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]).len(), 1);
    assert_eq!(rig.ask(1, &[0x21, 0x05]), [[0x61, 5, 5, 5, 5, 5, 5, 5, 5, 5]]);
    rig.endpoints[0].send(&[0x21, 0x01]).unwrap();
    rig.endpoints[1].send(&[0x21, 0x02]).unwrap();
    rig.run(Duration::from_secs(30));
    assert_eq!(rig.ask(0, &[0x21, 0x03]).len(), 1);
    assert_eq!(rig.ask(1, &[0x21, 0x04]).len(), 1);
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn an_adapter_that_keeps_every_byte_for_16_ms_stays_within_p4() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.latency = 16 * MS;
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    assert_eq!(rig.anomalies(), []);
    // the ECU abandons a request whose bytes are further apart than P4max
    rig.latency = 21 * MS;
    assert!(rig.ask(0, &[0x1A, 0x90]).is_empty());
}

#[test]
fn every_bit_rate_of_the_protocol_works() {
    for bit_rate in [9_600, 10_400, 15_625] {
        for initialisation in [Initialisation::Fast, Initialisation::Slow] {
            let ecu = KlineEcuConfig { bit_rate, ..KlineEcuConfig::new(0x11) };
            let config = Config::new(Addressing::of(0x11), initialisation, bit_rate);
            let mut rig = Rig::new(vec![config], vec![ecu]);
            assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
            assert_eq!(rig.anomalies(), []);
        }
    }
}
