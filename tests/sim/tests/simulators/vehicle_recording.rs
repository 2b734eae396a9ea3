//! The recorded flash session: its parts, and the replay of the ECU's side.

use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{Padding, SeparationTime};
use connector_sim::vehicle::candump;
use connector_sim::vehicle::ecu::{Responder, Target};
use connector_sim::vehicle::hex;
use connector_sim::vehicle::recording::{RecordedEcu, Recording, ToolStep};
use connector_test_support::data::FLASH_LOG;
use connector_test_support::id;

fn recording() -> Recording {
    Recording::new(candump::parse(FLASH_LOG).unwrap()).unwrap()
}

fn step<'a>(recording: &'a Recording, request: &str) -> &'a ToolStep {
    let request = hex::parse(request).unwrap();
    recording.tool_steps().iter().find(|step| step.pdu == request).unwrap()
}

fn answers(step: &ToolStep) -> Vec<(u32, Duration, String)> {
    let answer = |answer: &connector_sim::vehicle::recording::RecordedAnswer| {
        (answer.response_id.raw(), answer.delay, hex::format(&answer.pdu))
    };
    step.answers.iter().map(answer).collect()
}

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn testers_and_ecus_are_recognised_by_their_messages() {
    let recording = recording();
    assert_eq!(recording.records().len(), 141);
    // the second ECU received functional requests only: its request identifier is as far from its response
    assert_eq!(recording.roles().ecus, [(id(0x710), id(0x71A)), (id(0x713), id(0x71D))]);
    assert_eq!(recording.roles().functional, [id(0x700)]);
}

#[test]
fn every_frame_of_the_log_is_assigned() {
    let recording = recording();
    assert_eq!((recording.broken(), recording.unexplained()), (0, &[][..]));
    let steps = recording.tool_steps();
    let physical = steps.iter().filter(|step| step.target == Target::Physical).count();
    assert_eq!((physical, steps.len() - physical), (17, 17));
    let answers: usize = steps.iter().map(|step| step.answers.len()).sum();
    assert_eq!(answers, 24);
}

#[test]
fn long_requests_are_reassembled_and_answers_timed_from_their_end() {
    let recording = recording();
    let block = recording.tool_steps().iter().find(|step| step.pdu.len() == 258).unwrap();
    assert_eq!(hex::format(&block.pdu[..6]), "360119B142E2");
    assert_eq!(hex::format(&block.pdu[251..]), "C6C09092413B27");
    assert_eq!(answers(block), [(0x71A, micros(1680), "7601".to_owned())]);
    assert_eq!(answers(step(&recording, "3400410A00000100")), [(0x71A, micros(2261), "74200FF9".to_owned())]);
}

#[test]
fn response_pending_belongs_to_its_request_and_keeps_its_time() {
    let recording = recording();
    let erase = answers(step(&recording, "3101FF000101"));
    let pending = "7F3178".to_owned();
    assert_eq!(
        erase,
        [
            (0x71A, micros(58_581), pending.clone()),
            (0x71A, micros(4_558_762), pending.clone()),
            (0x71A, micros(9_058_952), pending.clone()),
            (0x71A, micros(13_559_135), pending),
            (0x71A, micros(17_742_932), "7101FF0000".to_owned()),
        ]
    );
}

#[test]
fn the_answers_to_a_functional_request_come_from_another_ecu() {
    let recording = recording();
    let asked = step(&recording, "8582FFFFFF");
    assert_eq!(asked.target, Target::Functional);
    assert_eq!(
        answers(asked),
        [(0x71D, micros(28_986), "7F8578".to_owned()), (0x71D, micros(58_751), "C502".to_owned())]
    );
    assert!(answers(step(&recording, "3E80")).is_empty());
}

#[test]
fn each_ecu_pads_frames_and_controls_the_flow_as_recorded() {
    let recording = recording();
    let transports: Vec<_> = recording.ecus().map(|(_, _, transport, _)| transport.clone()).collect();
    assert_eq!(transports[0].padding, Padding::Enabled(0xAA));
    assert_eq!(transports[1].padding, Padding::Enabled(0x00));
    assert_eq!((transports[0].block_size, transports[0].st_min), (0, SeparationTime(0)));
}

#[test]
fn a_log_without_a_session_is_refused() {
    let records = candump::parse("(1.0) can0 123#0011223344556677\n(1.1) can0 124#02\n").unwrap();
    assert_eq!(
        Recording::new(records).unwrap_err().to_string(),
        "the log has no diagnostic session: no ECU answers any request in it"
    );
}

/// Sends a request to an ECU, and returns its answers with their delays.
fn ask(ecu: &mut RecordedEcu, now: &mut Instant, target: Target, request: &[u8]) -> Vec<(Duration, Vec<u8>)> {
    let asked = *now;
    ecu.handle_request(asked, target, request);
    let mut answers = Vec::new();
    while let Some((at, _)) = ecu.poll_timeout() {
        *now = at;
        ecu.handle_timeout(at);
        while let Some(answer) = ecu.poll_response() {
            ecu.handle_response_done(at, true);
            answers.push((at - asked, answer));
        }
    }
    answers
}

#[test]
fn the_recorded_ecus_give_every_answer_with_its_recorded_delay() {
    let recording = recording();
    for (request_id, response_id, _, mut ecu) in recording.ecus() {
        let mut now = Instant::now();
        for step in recording.tool_steps() {
            if step.target == Target::Physical && step.request_id != request_id {
                continue;
            }
            let expected: Vec<_> = step
                .answers
                .iter()
                .filter(|answer| answer.response_id == response_id)
                .map(|answer| (answer.delay, answer.pdu.clone()))
                .collect();
            assert_eq!(ask(&mut ecu, &mut now, step.target, &step.pdu), expected);
        }
        let status = ecu.poll_status().unwrap();
        let script = status.script.unwrap();
        assert_eq!(script.played, script.total);
        assert!(status.anomalies.is_empty(), "{:?}", status.anomalies);
    }
}

#[test]
fn a_request_out_of_the_recorded_order_is_answered_and_counted() {
    let (_, _, _, mut ecu) = recording().ecus().next().unwrap();
    let mut now = Instant::now();
    let ask = |ecu: &mut _, now: &mut _, request: &str| {
        ask(ecu, now, Target::Physical, &hex::parse(request).unwrap()).last().map(|(_, pdu)| hex::format(pdu))
    };
    assert_eq!(ask(&mut ecu, &mut now, "1003").as_deref(), Some("5003003201F4"));
    assert!(ecu.poll_status().unwrap().anomalies.is_empty());
    assert_eq!(ask(&mut ecu, &mut now, "2711").as_deref(), Some("671100032E69"), "a later seed");
    assert_eq!(ecu.poll_status().unwrap().anomalies.unrecorded_requests, 1);
    assert_eq!(ask(&mut ecu, &mut now, "1003").as_deref(), Some("5003003201F4"), "again");
    assert_eq!(ecu.poll_status().unwrap().anomalies.unrecorded_requests, 2);
    assert_eq!(ask(&mut ecu, &mut now, "22F190").as_deref(), Some("7F2224"), "not recorded");
    assert_eq!(ecu.poll_status().unwrap().anomalies.unrecorded_requests, 3);
    assert_eq!(ask(&mut ecu, &mut now, "3E80"), None);
    assert_eq!(ecu.poll_status().unwrap().anomalies.unrecorded_requests, 3);
}

#[test]
fn requests_before_the_answer_are_counted() {
    let (_, _, _, mut ecu) = recording().ecus().next().unwrap();
    let now = Instant::now();
    ecu.handle_request(now, Target::Physical, &[0x10, 0x03]);
    ecu.handle_request(now, Target::Physical, &[0x3E, 0x80]);
    assert_eq!(ecu.poll_status().unwrap().anomalies.requests_while_busy, 0);
    ecu.handle_request(now, Target::Physical, &[0x31, 0x01, 0x02, 0x03]);
    assert_eq!(ecu.poll_status().unwrap().anomalies.requests_while_busy, 1);
}

mod hostile {
    use super::*;
    use connector_hal::can::CanFrame;
    use connector_sim::vehicle::candump::Record;
    use connector_sim::vehicle::catalogue::Catalogue;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_recording_is_parsed_or_refused(
            frames in prop::collection::vec(
                (prop::sample::select(vec![0x700, 0x710, 0x71A, 0x71D, 0x18DA_10F1]), prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..=8),
                    prop::sample::select(vec![
                        vec![2, 0x3E, 0], vec![2, 0x7E, 0], vec![0x10, 8, 0x22, 1, 2, 3, 4, 5], vec![0x30, 0, 0],
                        vec![0x21, 6, 7], vec![3, 0x7F, 0x22, 0x78],
                    ]),
                ]),
                0..60,
            ),
        ) {
            let record = |(index, (raw, data)): (usize, &(u32, Vec<u8>))| Record {
                time: Duration::from_millis(index as u64),
                interface: "can0".to_owned(),
                frame: CanFrame::new(id(*raw), data).unwrap(),
            };
            if let Ok(recording) = Recording::new(frames.iter().enumerate().map(record).collect()) {
                prop_assert!(recording.ecus().count() > 0);
                let answers: usize = recording.tool_steps().iter().map(|step| step.answers.len()).sum();
                prop_assert!(answers + recording.unexplained().len() <= frames.len());
            }
        }

        #[test]
        fn a_recorded_ecu_keeps_a_bounded_number_of_answers(
            requests in prop::collection::vec((any::<bool>(), 0_usize..40, 0_u64..3000), 0..200),
        ) {
            let recording = recording();
            let (_, _, _, mut ecu) = recording.ecus().next().unwrap();
            let mut now = Instant::now();
            for (functional, index, wait) in requests {
                let target = if functional { Target::Functional } else { Target::Physical };
                let request = recording.tool_steps().get(index).map(|step| step.pdu.clone());
                ecu.handle_request(now, target, &request.unwrap_or_else(|| vec![index as u8; index]));
                now += micros(wait);
                ecu.handle_timeout(now);
            }
            ecu.handle_timeout(now + Duration::from_secs(60));
            let mut answers = 0;
            while ecu.poll_response().is_some() {
                answers += 1;
            }
            prop_assert!(answers <= 64);
            prop_assert!(ecu.poll_timeout().is_none());
        }

        #[test]
        fn no_text_stops_the_reader_of_the_vehicles_file(text in "[\\[\\]{}\",:a-z0-9 \\n]{0,120}") {
            if let Ok(catalogue) = Catalogue::parse(&text) {
                prop_assert!(catalogue.find(&text).is_err());
            }
        }
    }
}
