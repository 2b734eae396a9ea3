//! Errors on a line, and the recovery of the link.

use std::time::{Duration, Instant};

use connector_agent::protocol::kline::{Endpoint, Event, Failure, KeyByteError, LineClock, ReceiveFailure};
use connector_hal::kline::Signal;
use connector_sim::vehicle::kline::{KlineEcuConfig, Misbehaviour};

use super::rig::{MS, Rig};
use super::{VIN_ANSWER, fast, is_up, slow};

fn with(misbehaviour: Misbehaviour) -> KlineEcuConfig {
    KlineEcuConfig { misbehaviour, ..KlineEcuConfig::new(0x11) }
}

/// The reason why the initialisation of the link failed.
fn failure(rig: &mut Rig) -> Option<Failure> {
    rig.endpoints[0].send(&[0x1A, 0x90]).unwrap();
    let event = rig.run_until(Duration::from_secs(20), |event| matches!(event, Event::SendFailed(_)));
    match event {
        Some(Event::SendFailed(failure)) => Some(failure),
        _ => None,
    }
}

fn initialisations(rig: &Rig) -> usize {
    rig.sent.iter().filter(|(_, signal)| !matches!(signal, Signal::Byte(_))).count()
}

#[test]
fn a_silent_ecu_is_tried_three_times_by_pulse_and_by_each_form_of_its_address() {
    // 0x11 has an even number of ones: seven bits and odd parity are another address than eight bits
    for (config, attempts) in [(fast(0x11), 3), (slow(0x11), 3), (slow(0x10), 2)] {
        let mut rig = Rig::new(vec![config], vec![]);
        assert_eq!(failure(&mut rig), Some(Failure::NoAnswer));
        assert_eq!(initialisations(&rig), attempts);
        rig.run(Duration::from_secs(60));
        assert_eq!(initialisations(&rig), attempts, "no ECU is initialised without a PDU");
        // the next PDU tries again
        assert_eq!(failure(&mut rig), Some(Failure::NoAnswer));
        assert_eq!(initialisations(&rig), 2 * attempts);
    }
}

#[test]
fn an_ecu_that_missed_the_first_initialisation_is_reached_by_the_next() {
    for (config, attempts) in [(fast(0x11), 2), (slow(0x11), 3)] {
        let ecu = with(Misbehaviour { deaf_to: 1, ..Misbehaviour::default() });
        let mut rig = Rig::new(vec![config], vec![ecu]);
        assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
        assert_eq!(initialisations(&rig), attempts);
        assert_eq!(rig.anomalies(), []);
    }
}

#[test]
fn key_bytes_of_another_protocol_or_with_a_wrong_parity_are_refused() {
    for config in [fast(0x11), slow(0x11)] {
        let ecu = KlineEcuConfig { key_bytes: [0x08, 0x08], ..KlineEcuConfig::new(0x11) };
        let mut rig = Rig::new(vec![config], vec![ecu]);
        assert_eq!(failure(&mut rig), Some(Failure::KeyBytes(KeyByteError::OtherProtocol(8, 8))));
        assert_eq!(initialisations(&rig), 1, "another attempt would fail too");
        let ecu = KlineEcuConfig { key_bytes: [0xEE, 0x8F], ..KlineEcuConfig::new(0x11) };
        let mut rig = Rig::new(vec![config], vec![ecu]);
        assert_eq!(failure(&mut rig), Some(Failure::KeyBytes(KeyByteError::Parity(0xEE, 0x8F))));
    }
}

#[test]
fn only_the_keyword_in_either_byte_order_is_accepted() {
    for keyword in [(143, 233), (233, 143)] {
        for mut config in [fast(0x11), slow(0x11)] {
            config.keyword = Some(keyword);
            let mut rig = Rig::new(vec![config], vec![KlineEcuConfig::new(0x11)]);
            let failed = failure(&mut rig).unwrap();
            assert!(matches!(failed, Failure::OtherKeyBytes(found) if found.number() == 0x8FEF), "{failed}");
            let ecu = KlineEcuConfig { key_bytes: [0xE9, 0x8F], ..KlineEcuConfig::new(0x11) };
            let mut rig = Rig::new(vec![config], vec![ecu]);
            assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
        }
    }
}

#[test]
fn a_wrong_synchronisation_byte_or_address_is_reported() {
    let ecu = with(Misbehaviour { synchronisation: Some(0x54), ..Misbehaviour::default() });
    assert_eq!(failure(&mut Rig::new(vec![slow(0x11)], vec![ecu])), Some(Failure::Synchronisation(0x54)));
    let ecu = with(Misbehaviour { confirms_with: Some(0x11), ..Misbehaviour::default() });
    assert_eq!(failure(&mut Rig::new(vec![slow(0x11)], vec![ecu])), Some(Failure::Address(0x11)));
    // an ECU at another bit rate
    let ecu = KlineEcuConfig { bit_rate: 9_600, ..KlineEcuConfig::new(0x11) };
    assert!(matches!(failure(&mut Rig::new(vec![slow(0x11)], vec![ecu])), Some(Failure::Synchronisation(_))));
}

#[test]
fn an_ecu_that_refuses_communication_is_not_initialised_again() {
    let ecu = with(Misbehaviour { refuses_with: Some(0x10), ..Misbehaviour::default() });
    let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
    assert_eq!(failure(&mut rig), Some(Failure::Refused(0x10)));
    assert_eq!(initialisations(&rig), 1);
}

#[test]
fn a_line_without_echo_is_distinguished_from_a_silent_ecu() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.is_open_circuit = true;
    assert_eq!(failure(&mut rig), Some(Failure::NoEcho));
}

#[test]
fn a_line_that_never_falls_silent_is_in_use_and_gets_no_signal() {
    for config in [fast(0x11), slow(0x11)] {
        let mut rig = Rig::new(vec![config], vec![KlineEcuConfig::new(0x11)]);
        for index in 0..60 {
            rig.wire.add_noise(rig.start + 100 * MS * index, 0x42);
        }
        assert_eq!(failure(&mut rig), Some(Failure::LineInUse));
        assert_eq!(rig.now - rig.start, Duration::from_secs(2));
        assert_eq!(rig.sent, [], "another attempt would fail too");
        rig.run(Duration::from_secs(5));
        assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER], "the line is quiet");
    }
}

#[test]
fn a_link_beside_another_tester_sends_nothing_into_its_messages() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.run(100 * MS);
    let sent = rig.sent.len();
    for index in 0..300 {
        rig.wire.add_noise(rig.now + 30 * MS * index, 0x42);
    }
    rig.run(10 * MS);
    assert_eq!(failure(&mut rig), Some(Failure::LineInUse));
    rig.endpoints[0].stop();
    rig.run(Duration::from_secs(5));
    assert!(rig.has(|event| *event == Event::Stopped));
    assert_eq!(rig.sent.len(), sent, "neither the PDU nor TesterPresent nor StopCommunication");
}

#[test]
fn a_collision_ends_the_request_and_the_next_one_gets_through() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    // the echo of the next request's second byte differs
    rig.wire.disturb(1, 0x10);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), Vec::<Vec<u8>>::new());
    let collision = Event::SendFailed(Failure::Collision { sent: 0x11, received: 0x01 });
    assert!(rig.has(|event| *event == collision), "{:?}", rig.events);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    // the tester checked the link with TesterPresent; the ECU did not accept the disturbed request
    assert_eq!(rig.ecus[0].requests(), [vec![0x1A, 0x90], vec![0x3E], vec![0x1A, 0x90]]);
}

#[test]
fn a_foreign_byte_between_two_own_bytes_is_a_collision() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.run(100 * MS);
    let at = rig.now + 3 * MS;
    rig.wire.add_noise(at, 0x42);
    rig.ask(0, &[0x1A, 0x90]);
    assert!(rig.has(|event| matches!(event, Event::SendFailed(Failure::Collision { received: 0x42, .. }))));
}

#[test]
fn noise_on_an_idle_line_only_delays_the_next_request() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.run(100 * MS);
    for byte in [0x00, 0xFF, 0x83] {
        rig.wire.add_noise(rig.now, byte);
        rig.run(MS);
    }
    // the ECU treats the noise as the beginning of a message, until the line is silent for P4max
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
}

#[test]
fn a_disturbed_answer_is_reported_and_the_link_continues() {
    let ecu = with(Misbehaviour::default());
    let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.ecus[0].config_mut().misbehaviour.wrong_checksums = 1;
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), Vec::<Vec<u8>>::new());
    let is_checksum = |event: &Event| matches!(event, Event::ReceiveFailed(ReceiveFailure::Message(_)));
    assert!(rig.has(is_checksum));
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    rig.ecus[0].config_mut().misbehaviour.truncated = 1;
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), Vec::<Vec<u8>>::new());
    assert!(rig.has(|event| *event == Event::ReceiveFailed(ReceiveFailure::Incomplete)));
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    let asked = rig.ecus[0].requests().iter().filter(|request| request[0] == 0x1A).count();
    assert_eq!(asked, 5, "no request of the operator is repeated");
    assert_eq!(initialisations(&rig), 1);
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn an_ecu_that_lost_its_session_is_initialised_again_for_the_next_pdu() {
    let ecu = with(Misbehaviour { forgets_after: Some(1), ..Misbehaviour::default() });
    let mut rig = Rig::new(vec![fast(0x11)], vec![ecu]);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    // the ECU ignores this request
    assert_eq!(rig.ask(0, &[0x21, 0x01]), Vec::<Vec<u8>>::new());
    assert!(rig.has(|event| *event == Event::NoAnswer));
    assert_eq!(rig.ask(0, &[0x21, 0x02]).len(), 1, "{:?}", rig.events);
    assert!(rig.has(|event| *event == Event::Down(Failure::NoAnswer)));
    assert_eq!(rig.events.iter().filter(|(_, event)| is_up(event)).count(), 2);
    assert_eq!(initialisations(&rig), 2);
}

#[test]
fn a_missing_ecu_is_detected_by_its_keep_alive_and_found_when_it_returns() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.ecus[0].config_mut().misbehaviour.is_silent = true;
    let down = rig.run_until(Duration::from_secs(10), |event| matches!(event, Event::Down(_)));
    assert_eq!(down, Some(Event::Down(Failure::NoAnswer)));
    rig.run(Duration::from_secs(20));
    assert!(!rig.endpoints[0].is_up());
    rig.ecus[0].config_mut().misbehaviour.is_silent = false;
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
}

#[test]
fn a_lost_line_fails_the_pending_pdus_and_is_set_up_again() {
    let mut rig = Rig::new(vec![fast(0x11)], vec![KlineEcuConfig::new(0x11)]);
    rig.ask(0, &[0x1A, 0x90]);
    rig.endpoints[0].send(&[0x1A, 0x90]).unwrap();
    rig.endpoints[0].handle_line_lost();
    assert!(!rig.endpoints[0].is_up());
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    assert_eq!(initialisations(&rig), 2);
}

#[test]
fn the_events_of_an_endpoint_that_is_not_read_are_bounded() {
    let mut now = Instant::now();
    let mut endpoint = Endpoint::new(fast(0x11), now);
    let mut line = LineClock::new(now);
    let answers: [&[u8]; 2] = [b"\x83\xF1\x11\xC1\xEF\x8F\xC4", b"\x82\xF1\x11\x5A\x90\x6E"];
    for round in 0..2000 {
        match round % 5 {
            0 => endpoint.stop(),
            1 => endpoint.connect(),
            _ => drop(endpoint.send(&[0x1A, 0x90])),
        }
        if endpoint.wants_line().is_some_and(|at| at <= now) {
            endpoint.start(now, &line);
        }
        while let Some(signal) = endpoint.poll_transmit() {
            line.handle_activity(now);
            match signal {
                Signal::Byte(byte) => endpoint.handle_byte(now, byte),
                _ => endpoint.handle_sent(now),
            }
        }
        if round % 7 == 0 {
            endpoint.abort_send();
        }
        answers.concat().into_iter().for_each(|byte| endpoint.handle_byte(now, byte));
        if let Some((at, _)) = endpoint.poll_timeout() {
            now = now.max(at);
            endpoint.handle_timeout(now);
        }
    }
    let events = std::iter::from_fn(|| endpoint.poll_event()).count();
    assert!(events <= 32, "{events} events");
}
