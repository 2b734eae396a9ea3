//! The connector's questions for the speed.

use std::time::Instant;

use connector_agent::relay::connection::VinTrigger;
use connector_test_support::data::golf;

use super::*;

/// A Golf on bus "HS" of a connection whose policy asks for the speed by OBD.
async fn rig_with_golf() -> (Rig, Drive, Vehicle) {
    let mut rig = Rig::with_policy(json!({}));
    let config = golf();
    let vehicle = Vehicle::start(&config, &rig.buses[0]);
    rig.configure_hs().await;
    (rig, config.drive.clone(), vehicle)
}

/// The times of the questions for the speed on the bus.
fn questions(node: &Node) -> Vec<Instant> {
    let is_question = |frame: &connector_hal::can::CanFrame| {
        frame.id() == id(0x7DF) && frame.data().starts_with(&[0x02, 0x01, 0x0D])
    };
    node.timed_frames().into_iter().filter(|(_, frame)| is_question(frame)).map(|(at, _)| at).collect()
}

#[tokio::test(start_paused = true)]
async fn the_speed_is_asked_only_after_an_intent_that_needs_it_and_once_a_second() {
    let (mut rig, _drive, _vehicle) = rig_with_golf().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.open_raw(2, json!({"response_id": 0x7E8})).await;
    rig.send(1, PLAIN, &READ);
    rig.run(5 * SECOND).await;
    assert_eq!(questions(&node).len(), 0, "a read needs no speed");
    let frames = rig.frames(2).len();
    rig.send(1, PLAIN, &[0x14, 0xFF, 0xFF, 0xFF]);
    rig.run(5 * SECOND).await;
    assert_eq!(state(&rig).motion, "stationary");
    rig.run(25 * SECOND).await;
    let asked = questions(&node);
    assert!((9..=11).contains(&asked.len()), "{}", asked.len());
    assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{asked:?}");
    assert_eq!(state(&rig).motion, "unknown", "the last speed is old");

    // the answers do not reach the operator
    let is_speed = |pdu: &Vec<u8>| pdu.starts_with(&[0x41]);
    assert!(!rig.pdus(1).iter().any(is_speed), "{:02X?}", rig.pdus(1));
    assert_eq!(rig.frames(2).len(), frames + 1, "{:?}", rig.frames(2));
}

#[tokio::test(start_paused = true)]
async fn the_first_intrusive_request_waits_for_the_speed_though_another_channel_is_busy() {
    for is_raw in [false, true] {
        let (mut rig, drive, _vehicle) = rig_with_golf().await;
        let node = Node::attach(&rig.buses[0]);
        drive.set_speed(50.0);
        let _ecu = Ecu::attach(&rig.buses[0], 0x714, 0x77E, |request| {
            vec![(20 * MILLISECOND, [&[request[0] + 0x40], &request[1..]].concat())]
        });
        let other = json!({"request_id": 0x714, "response_id": 0x77E, "keep_alive": "disabled"});
        rig.open_isotp(2, other).await;
        (0..64).for_each(|_| rig.send(2, CHAINED, &READ));
        if is_raw {
            rig.open_raw(1, json!({"request_id": 0x7E0, "response_id": 0x7E8})).await;
            rig.send_frame(1, frame(0x7E0, &[0x04, 0x14, 0xFF, 0xFF, 0xFF, 0, 0, 0]));
        } else {
            rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
            rig.send(1, PLAIN, &[0x14, 0xFF, 0xFF, 0xFF]);
            rig.send(1, PLAIN, &READ);
        }
        rig.run(5 * SECOND).await;
        assert_eq!(refusals(&rig, 1), [0], "raw: {is_raw}");
        assert!(
            rig.event_texts.iter().any(|text| text.contains("moving (50 km/h)")),
            "{:?}",
            rig.event_texts
        );
        assert!(!node.single_frames(0x7E0).iter().any(|request| request[0] == 0x14));
        assert_eq!((rig.pdus(2).len(), rig.pdus(1).len()), (64, usize::from(!is_raw)), "nothing is lost");
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_answer_an_intrusive_request_waits_once_and_a_short_time() {
    let mut rig = Rig::with_policy(json!({}));
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    let node = Node::attach(&rig.buses[0]);
    rig.configure_hs().await;
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &WRITE);
    rig.send(1, CHAINED, &READ);
    rig.run(290 * MILLISECOND).await;
    assert_eq!((ecu.requests().len(), questions(&node).len()), (0, 1));
    rig.run(60 * MILLISECOND).await;
    assert_eq!(ecu.requests(), [&WRITE[..], &READ[..]]);
    rig.send(1, PLAIN, &WRITE);
    rig.run(30 * MILLISECOND).await;
    assert_eq!(ecu.requests().len(), 3, "no further wait");
    assert_eq!((refusals(&rig, 1), rig.pdus(1).len()), (vec![], 3));
}

#[tokio::test(start_paused = true)]
async fn no_request_waits_where_the_speed_is_not_judged_or_cannot_be_asked() {
    let no_question = json!({"facts": {"speed": []}});
    for settings in [json!({"mode": "observe"}), json!({"mode": "off"}), no_question] {
        let mut rig = Rig::with_policy(settings.clone());
        let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
        rig.configure_hs().await;
        rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
        rig.send(1, PLAIN, &WRITE);
        rig.run(20 * MILLISECOND).await;
        assert_eq!(ecu.requests().len(), 1, "{settings}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_speed_that_the_operator_asks_for_reaches_the_operator() {
    let (mut rig, drive, _vehicle) = rig_with_golf().await;
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    drive.set_speed(12.0);
    rig.send(1, PLAIN, &[0x14, 0xFF, 0xFF, 0xFF]);
    for _ in 0..20 {
        rig.send(1, PLAIN, &[0x01, 0x0D]);
        rig.run(130 * MILLISECOND).await;
    }
    let speeds = rig.pdus(1).into_iter().filter(|pdu| *pdu == [0x41, 0x0D, 12]).count();
    assert_eq!(speeds, 20, "{:02X?}", rig.pdus(1));
    rig.send(1, PLAIN, &[0x14, 0xFF, 0xFF, 0xFF]);
    rig.run(SECOND).await;
    assert_eq!(refusals(&rig, 1), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_speed_is_not_asked_while_a_channel_of_the_bus_is_busy() {
    let mut rig = Rig::with_policy(json!({}));
    let ecu = Ecu::attach(&rig.buses[0], 0x714, 0x77E, |request| {
        vec![
            (20 * MILLISECOND, vec![0x7F, request[0], 0x78]),
            (4 * SECOND, vec![request[0] + 0x40, request[1]]),
        ]
    });
    let node = Node::attach(&rig.buses[0]);
    rig.configure_hs().await;
    rig.open_isotp(1, json!({"request_id": 0x714, "response_id": 0x77E, "keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &WRITE);
    // the request waits for an answer that does not come
    rig.run(4200 * MILLISECOND).await;
    assert_eq!((ecu.requests().len(), questions(&node).len()), (1, 1));
    rig.run(SECOND).await;
    assert_eq!(questions(&node).len(), 2);

    // the frames of a raw channel may be the middle of an exchange
    rig.open_raw(2, json!({"request_id": 0x715})).await;
    let before = questions(&node).len();
    for _ in 0..10 {
        rig.send_frame(2, frame(0x715, &[0x02, 0x3E, 0x00]));
        rig.run(500 * MILLISECOND).await;
    }
    assert_eq!(questions(&node).len(), before);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_the_question_for_the_speed_is_not_another_tester() {
    let (mut rig, _drive, _vehicle) = rig_with_golf().await;
    let node = Node::attach(&rig.buses[0]);
    // the speed is answered at 0x7E8, to which no channel is open
    let body = json!({"request_id": 0x714, "response_id": 0x77E, "keep_alive": "disabled"});
    rig.open_isotp(1, body).await;
    rig.send(1, PLAIN, &[0x14, 0xFF, 0xFF, 0xFF]);
    rig.run(3 * SECOND).await;
    assert!(questions(&node).len() >= 2);
    assert!(rig.session.start_reading_vin(now(), 3 * SECOND, VinTrigger::Request));
    for _ in 0..40 {
        rig.run(100 * MILLISECOND).await;
        if let Some(report) = rig.session.poll_vin(now()) {
            assert!(report.vin.is_some(), "the reading was stopped");
            return;
        }
    }
    panic!("the reading does not end");
}

fn with_speed(request: &[u8]) -> Vec<(std::time::Duration, Vec<u8>)> {
    match request {
        [0x22, 0xF4, 0x0D] => vec![(40 * MILLISECOND, vec![0x62, 0xF4, 0x0D, 0])],
        [0x22, 0x00, 0x01] => vec![(40 * MILLISECOND, vec![0x7F, 0x22, 0x31])],
        _ => vec![(40 * MILLISECOND, [&[request[0] + 0x40], &request[1..]].concat())],
    }
}

fn without_speed(request: &[u8]) -> Vec<(std::time::Duration, Vec<u8>)> {
    match request {
        [0x22, 0xF4, 0x0D] => vec![(40 * MILLISECOND, vec![0x7F, 0x22, 0x31])],
        _ => with_speed(request),
    }
}

/// A connection over DoIP to an ECU that answers so, in which the speed has been wanted.
async fn rig_on_doip(answer: Answer) -> Rig {
    let mut rig = Rig::with_policy(json!({}));
    rig.gateways.set([Gateway { ecus: vec![(0x4020, answer)], ..Gateway::new(0x4010) }]);
    assert_eq!(rig.configure(json!([doip_bus(5)])).await.action, "busesConfigured");
    let config = json!({"bus_name": "ETH", "gateway_id": 0x4010, "tester_id": 0x0E80, "ecu_id": 0x4020,
                        "keep_alive": "disabled"});
    let before = rig.texts.len();
    rig.ask("openChannel", json!({"channel": 1, "doip_channel": config}));
    let is_open = |rig: &Rig| rig.texts[before..].iter().any(|text| text.action == "channelOpened");
    assert!(rig.run_until(20 * SECOND, is_open).await);
    rig
}

fn doip_questions(rig: &Rig) -> usize {
    rig.gateways.requests().iter().filter(|request| request.3 == [0x22, 0xF4, 0x0D]).count()
}

#[tokio::test(start_paused = true)]
async fn an_ecu_behind_doip_is_asked_for_the_speed_beside_the_operator() {
    for answer in [with_speed as Answer, without_speed] {
        let mut rig = rig_on_doip(answer).await;
        rig.send(1, PLAIN, &WRITE);
        // requests of the operator begin at every moment of a question and its answer
        for step in 0..30_u32 {
            rig.run(5 * step * MILLISECOND).await;
            rig.send(1, PLAIN, &READ);
            assert!(rig.run_until(SECOND, |rig| rig.pdus(1).len() as u32 == step + 2).await);
        }
        rig.run(SECOND).await;
        assert!((2..12).contains(&doip_questions(&rig)), "{}", doip_questions(&rig));
        let wrong: Vec<_> =
            rig.pdus(1).into_iter().skip(1).filter(|pdu| !pdu.starts_with(&[0x62, 0xF1, 0x90])).collect();
        assert!(wrong.is_empty(), "{wrong:02X?}");
        assert_eq!(rig.pdus(1).len(), 31);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_the_operator_is_not_taken_for_that_to_the_question() {
    fn late(request: &[u8]) -> Vec<(std::time::Duration, Vec<u8>)> {
        match request {
            [0x22, 0xF4, 0x0D] => vec![(MILLISECOND, vec![0x62, 0xF4, 0x0D, 0])],
            // two ECUs of a group answer
            [0x22, ..] => vec![
                (MILLISECOND, vec![0x62, request[1], request[2]]),
                (20 * MILLISECOND, vec![0x62, request[1], request[2], 1]),
            ],
            _ => with_speed(request),
        }
    }
    let mut rig = rig_on_doip(late).await;
    rig.send(1, PLAIN, &WRITE);
    rig.run(SECOND).await;
    assert!(doip_questions(&rig) >= 1);
    rig.send(1, PLAIN, &READ);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1).len(), 3, "{:02X?}", rig.pdus(1));
}
