//! Answers that are late, to something else, from several ECUs, or not to this tester.

use std::time::Duration;

use connector_agent::protocol::kline::{Config, Event};
use connector_sim::vehicle::kline::{AnswerScript, KlineEcuConfig, Misbehaviour};

use super::rig::{MS, Rig};
use super::{VIN_ANSWER, fast, is_up};

/// An ECU that answers `21 01` with these answers, each after its delay.
fn scripted(address: u8, answers: &[(u64, &[u8])]) -> KlineEcuConfig {
    let answers =
        answers.iter().map(|(delay, data)| (Duration::from_millis(*delay), data.to_vec())).collect();
    let script = AnswerScript { answers, ..AnswerScript::new(&[0x21, 0x01], &[]) };
    KlineEcuConfig { scripts: vec![script], ..KlineEcuConfig::new(address) }
}

fn up(config: Config, ecus: Vec<KlineEcuConfig>) -> Rig {
    let mut rig = Rig::new(vec![config], ecus);
    rig.endpoints[0].connect();
    rig.run_until(Duration::from_secs(5), is_up).unwrap();
    rig.run(200 * MS);
    rig
}

fn count(rig: &Rig, wanted: &Event) -> usize {
    rig.events.iter().filter(|(_, event)| event == wanted).count()
}

fn add_message(rig: &mut Rig, after: Duration, bytes: &[u8]) {
    for (index, byte) in (0u32..).zip(bytes) {
        rig.wire.add_noise(rig.now + after + 2 * MS * index, *byte);
    }
}

/// Lets the next turn wait for silence.
fn delay_the_next_turn(rig: &mut Rig) {
    add_message(rig, MS, &[0x42]);
    rig.run(2 * MS);
}

#[test]
fn every_pdu_that_was_sent_has_one_end_of_its_answers() {
    let answers: [&[(u64, &[u8])]; 5] = [
        &[(0, &[0x61, 1])],
        &[(0, &[0x7F, 0x21, 0x78]), (3000, &[0x61, 1])],
        &[(0, &[0x7E])],
        &[(0, &[0x7F, 0x21, 0x12])],
        &[],
    ];
    for answers in answers {
        let mut rig = up(fast(0x11), vec![scripted(0x11, answers)]);
        rig.ask(0, &[0x21, 0x01]);
        rig.run(100 * MS);
        assert_eq!(count(&rig, &Event::AnswersOver), 1, "{answers:02X?}");
        let is_answered = answers.last().is_some_and(|(_, data)| data[0] != 0x7E);
        assert_eq!(count(&rig, &Event::NoAnswer), usize::from(!is_answered), "{answers:02X?}");
    }
}

#[test]
fn an_answer_to_something_else_gives_the_ecu_more_time_and_is_no_doubt() {
    let mut rig = up(fast(0x11), vec![scripted(0x11, &[(0, &[0x7E]), (90, &[0x61, 1])])]);
    assert_eq!(rig.ask(0, &[0x21, 0x01]), [vec![0x7E], vec![0x61, 1]]);
    let mut rig = up(fast(0x11), vec![scripted(0x11, &[(0, &[0x7E])])]);
    assert_eq!(rig.ask(0, &[0x21, 0x01]), [[0x7E]]);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
    assert_eq!(rig.ecus[0].requests(), [[0x21, 0x01], [0x1A, 0x90]], "the ECU is there: no TesterPresent");
    assert_eq!(rig.anomalies(), []);
}

#[test]
fn an_ecu_that_never_stops_to_send_ends_the_wait_too() {
    let answers: Vec<(u64, &[u8])> = (0..100).map(|_| (60, &[0x7E][..])).collect();
    let mut rig = up(fast(0x11), vec![scripted(0x11, &answers)]);
    rig.endpoints[0].send(&[0x21, 0x01]).unwrap();
    let over = rig.run_until(Duration::from_secs(2), |event| *event == Event::AnswersOver);
    assert!(over.is_some());
}

#[test]
fn response_pending_of_one_ecu_outlasts_the_answer_of_another() {
    // behind the answer of the first ECU to StartCommunication
    let late = |ecu| KlineEcuConfig { p2: 48 * MS, ..ecu };
    let pending = scripted(0x10, &[(0, &[0x7F, 0x21, 0x78]), (2000, &[0x61, 1, 0x10])]);
    let prompt = late(scripted(0x11, &[(40, &[0x61, 1, 0x11])]));
    let mut rig = up(fast(0x33), vec![pending, prompt]);
    let answers = rig.ask(0, &[0x21, 0x01]);
    assert_eq!(answers, [vec![0x7F, 0x21, 0x78], vec![0x61, 1, 0x11], vec![0x61, 1, 0x10]]);
    assert_eq!(count(&rig, &Event::NoAnswer), 0);
}

#[test]
fn a_late_answer_before_the_next_request_is_received() {
    let mut rig = up(fast(0x11), vec![KlineEcuConfig::new(0x11)]);
    delay_the_next_turn(&mut rig);
    add_message(&mut rig, 10 * MS, &[0x82, 0xF1, 0x11, 0x61, 0x09, 0xEE]);
    let answers = rig.ask(0, &[0x1A, 0x90]);
    assert_eq!(answers, [vec![0x61, 0x09], VIN_ANSWER.to_vec()]);
    // an answer of an ECU that this link is not with
    let mut rig = up(fast(0x11), vec![KlineEcuConfig::new(0x11)]);
    delay_the_next_turn(&mut rig);
    add_message(&mut rig, 10 * MS, &[0x82, 0xF1, 0x28, 0x61, 0x09, 0x05]);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER]);
}

#[test]
fn a_message_that_is_not_for_this_tester_is_reported_as_that() {
    for message in [[0x81, 0xF2, 0x11, 0x7E, 0x02], [0x81, 0x28, 0xF1, 0x3E, 0xD8]] {
        // before a request, and while its answer is due
        let mut rig = up(fast(0x11), vec![scripted(0x11, &[])]);
        delay_the_next_turn(&mut rig);
        add_message(&mut rig, 10 * MS, &message);
        rig.ask(0, &[0x1A, 0x90]);
        assert_eq!(count(&rig, &Event::OtherTester), 1);
        rig.endpoints[0].send(&[0x21, 0x01]).unwrap();
        rig.run_until(Duration::from_secs(1), |event| matches!(event, Event::Sent { .. })).unwrap();
        add_message(&mut rig, 20 * MS, &message);
        rig.run(Duration::from_secs(1));
        assert_eq!(count(&rig, &Event::OtherTester), 2);
        let started = count(&rig, &Event::ReceptionStarted);
        let ended = rig.events.iter().filter(|(_, event)| {
            matches!(event, Event::Received { .. } | Event::ReceiveFailed(_) | Event::ReceptionDropped)
        });
        assert_eq!(ended.count(), started, "{:?}", rig.events);
    }
}

#[test]
fn noise_before_the_bytes_of_a_slow_initialisation_is_ignored() {
    // the synchronisation byte comes at 2401 ms, key byte 1 at 2412, 2 at 2423, the address's complement at 2487
    for (at, noise) in [(2350, 0x00), (2350, 0x21), (2405, 0x00), (2415, 0x00), (2430, 0x42), (2470, 0x42)] {
        let mut rig = Rig::new(vec![super::slow(0x11)], vec![KlineEcuConfig::new(0x11)]);
        rig.endpoints[0].connect();
        rig.run(MS * at);
        // a glitch at the tester's end, which the ECU does not hear
        rig.handle_byte(noise);
        assert!(rig.run_until(Duration::from_secs(1), is_up).is_some(), "0x{noise:02X} at {at} ms");
        assert_eq!(rig.anomalies(), []);
    }
}

#[test]
fn noise_alone_is_no_reception() {
    let misbehaviour = Misbehaviour { is_silent: false, ..Misbehaviour::default() };
    let mut rig = up(fast(0x11), vec![KlineEcuConfig { misbehaviour, ..scripted(0x11, &[]) }]);
    rig.endpoints[0].send(&[0x21, 0x01]).unwrap();
    rig.run_until(Duration::from_secs(1), |event| matches!(event, Event::Sent { .. })).unwrap();
    add_message(&mut rig, 20 * MS, &[0x00]);
    rig.run(Duration::from_secs(1));
    assert_eq!(count(&rig, &Event::ReceptionDropped), 1);
    assert_eq!(count(&rig, &Event::NoAnswer), 1);
    assert!(!rig.has(|event| matches!(event, Event::ReceiveFailed(_))));
}

#[test]
fn a_foreign_byte_delays_a_pulse_by_w5() {
    // before the pause, and in it, of a line that the tester has used before
    for (before, within) in [(true, false), (false, true)] {
        let mut rig = up(fast(0x11), vec![KlineEcuConfig::new(0x11)]);
        rig.endpoints[0].stop();
        rig.run(Duration::from_secs(1));
        let sent = rig.sent.len();
        if before {
            add_message(&mut rig, MS, &[0x42]);
            rig.run(100 * MS);
        }
        let heard = rig.now - 99 * MS;
        rig.endpoints[0].connect();
        if within {
            // the pause is over immediately unless the line was in use
            rig.line.handle_activity(rig.now);
            add_message(&mut rig, 20 * MS, &[0x42]);
        }
        rig.run_until(Duration::from_secs(1), is_up).unwrap();
        let heard = if within { heard + 119 * MS } else { heard };
        assert_eq!(rig.sent[sent].0 - heard, 300 * MS);
    }
}

#[test]
fn a_bit_rate_in_a_session_request_does_not_change_that_of_the_line() {
    let script = AnswerScript::new(&[0x10, 0x85, 0x02], &[vec![0x50, 0x85, 0x02]]);
    let mut rig = up(fast(0x11), vec![KlineEcuConfig { scripts: vec![script], ..KlineEcuConfig::new(0x11) }]);
    assert_eq!(rig.ask(0, &[0x10, 0x85, 0x02]), [[0x50, 0x85, 0x02]]);
    assert_eq!(rig.endpoints[0].config().bit_rate, 10_400);
    assert_eq!(rig.ask(0, &[0x1A, 0x90]), [VIN_ANSWER], "an ECU that keeps its bit rate still answers");
}
