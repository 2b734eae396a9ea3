//! Chained PDUs.

use std::time::Duration;

use connector_agent::protocol::isotp::{Addressing, Config, SeparationTime};
use connector_agent::relay::wire::codec::EventCode;
use serde_json::json;

use super::common::*;

const BROKEN: EventCode = EventCode::ChainBroken;

/// Answers each request by its second byte, an index of the script. Beyond the script, the answer is
/// positive.
fn by_index(script: Vec<Answers>) -> impl FnMut(&[u8]) -> Answers + Send + 'static {
    move |request| {
        let index = usize::from(request.get(1).copied().unwrap_or(0));
        script.get(index).cloned().unwrap_or_else(|| positive(request))
    }
}

async fn rig_with_chain(pdus: u8) -> Rig {
    let mut rig = Rig::configured().await;
    rig.open_isotp(1, json!({})).await;
    for index in 0..pdus {
        rig.send(1, if index == 0 { PLAIN } else { CHAINED }, &[0x36, index]);
    }
    rig
}

fn indexes(ecu: &Ecu) -> Vec<u8> {
    ecu.requests().into_iter().map(|request| request[1]).collect()
}

#[tokio::test(start_paused = true)]
async fn each_chained_pdu_waits_for_the_positive_response_to_the_one_before() {
    let mut rig = rig_with_chain(5).await;
    let script = vec![vec![(700 * MILLISECOND, vec![0x76, 9])]; 5];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(5 * SECOND).await;
    let requests = ecu.timed_requests();
    assert_eq!(indexes(&ecu), [0, 1, 2, 3, 4]);
    assert!(requests.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 700 * MILLISECOND));
    assert_eq!(rig.pdus(1).len(), 5, "every response is relayed");
    assert_eq!(rig.events(1), []);
}

#[tokio::test(start_paused = true)]
async fn a_whole_download_costs_one_round_trip() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.set_network(Network::Up(300 * MILLISECOND));
    let start = rig.elapsed();
    for index in 0..40 {
        rig.send(1, if index == 0 { PLAIN } else { CHAINED }, &[0x36, index]);
    }
    assert!(rig.run_until(10 * SECOND, |rig| rig.pdus(1).len() == 40).await);
    let took = rig.elapsed() - start;
    assert!(took < 800 * MILLISECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn unchained_pdus_do_not_wait_for_responses() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({})).await;
    for index in 0..10 {
        rig.send(1, PLAIN, &[0x36, index]);
    }
    rig.run(20 * MILLISECOND).await;
    assert_eq!(indexes(&ecu), (0..10).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn response_pending_extends_the_wait_by_five_seconds_each_time() {
    let mut rig = rig_with_chain(2).await;
    let pending = vec![0x7F, 0x36, 0x78];
    let script = vec![vec![
        (900 * MILLISECOND, pending.clone()),
        (5_800 * MILLISECOND, pending.clone()),
        (10_700 * MILLISECOND, pending),
        (15_600 * MILLISECOND, vec![0x76, 0]),
    ]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(20 * SECOND).await;
    assert_eq!(indexes(&ecu), [0, 1]);
    assert_eq!(rig.pdus(1).len(), 5, "pending responses are relayed too");
    assert_eq!(rig.events(1), []);
}

#[tokio::test(start_paused = true)]
async fn a_chain_breaks_five_and_a_half_seconds_after_the_last_pending_response() {
    let mut rig = rig_with_chain(3).await;
    let script = vec![vec![(500 * MILLISECOND, vec![0x7F, 0x36, 0x78])]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(5_900 * MILLISECOND).await;
    assert_eq!(rig.events(1), []);
    rig.run(200 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(BROKEN, 0, 2)]);
    assert_eq!(indexes(&ecu), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_negative_response_discards_chained_pdus_with_its_code_and_their_number() {
    let mut rig = rig_with_chain(6).await;
    let script =
        vec![positive(&[0x36, 0]), positive(&[0x36, 1]), vec![(MILLISECOND, vec![0x7F, 0x36, 0x73])]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(5 * SECOND).await;
    assert_eq!(indexes(&ecu), [0, 1, 2]);
    assert_eq!(rig.pdus(1), [vec![0x76, 0], vec![0x76, 1], vec![0x7F, 0x36, 0x73]]);
    assert_eq!(rig.events(1), [(BROKEN, 0x73, 3)]);
}

#[tokio::test(start_paused = true)]
async fn no_response_within_p2_discards_the_chained_pdus() {
    let mut rig = rig_with_chain(4).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.run(990 * MILLISECOND).await;
    assert_eq!(rig.events(1), []);
    rig.run(30 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(BROKEN, 0, 3)]);
    assert_eq!(indexes(&ecu), [0]);
}

#[tokio::test(start_paused = true)]
async fn p2_ends_with_the_first_frame_of_a_long_response() {
    let mut rig = Rig::configured().await;
    // 100 consecutive frames 20 ms apart take two seconds
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| {
        if request[1] == 0 { vec![(900 * MILLISECOND, vec![0x76; 700])] } else { positive(request) }
    });
    rig.open_isotp(1, json!({"st_min": 20})).await;
    rig.send(1, PLAIN, &[0x36, 0]);
    rig.send(1, CHAINED, &[0x36, 1]);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.heard, [], "the response has not ended");
    rig.run(3 * SECOND).await;
    assert_eq!(indexes(&ecu), [0, 1]);
    assert_eq!(rig.events(1), []);
}

#[tokio::test(start_paused = true)]
async fn later_pdus_chained_to_discarded_ones_are_discarded() {
    let mut rig = rig_with_chain(3).await;
    let script = vec![vec![(MILLISECOND, vec![0x7F, 0x36, 0x31])]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(100 * MILLISECOND).await;
    rig.send(1, CHAINED, &[0x36, 3]);
    rig.send(1, CHAINED, &[0x36, 4]);
    rig.run(5 * SECOND).await;
    assert_eq!(indexes(&ecu), [0]);
    assert_eq!(rig.events(1), [(BROKEN, 0x31, 2), (BROKEN, 0x31, 1), (BROKEN, 0x31, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_unchained_pdu_starts_again_after_a_break() {
    let mut rig = rig_with_chain(3).await;
    let script = vec![vec![(MILLISECOND, vec![0x7F, 0x36, 0x31])]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(100 * MILLISECOND).await;
    rig.send(1, PLAIN, &[0x36, 5]);
    rig.send(1, CHAINED, &[0x36, 6]);
    rig.run(SECOND).await;
    assert_eq!(indexes(&ecu), [0, 5, 6]);
    assert_eq!(rig.events(1), [(BROKEN, 0x31, 2)]);
}

#[tokio::test(start_paused = true)]
async fn an_unchained_pdu_behind_chained_ones_survives_their_break() {
    let mut rig = Rig::configured().await;
    let script = vec![vec![(10 * MILLISECOND, vec![0x7F, 0x36, 0x31])]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.open_isotp(1, json!({})).await;
    for (index, flags) in [(0, PLAIN), (1, CHAINED), (2, PLAIN)] {
        rig.send(1, flags, &[0x36, index]);
    }
    rig.run(5 * MILLISECOND).await;
    assert_eq!(indexes(&ecu), [0], "the PDU waits behind the chained one, to keep the order");
    rig.run(SECOND).await;
    assert_eq!(indexes(&ecu), [0, 2]);
    assert_eq!(rig.events(1), [(BROKEN, 0x31, 1)]);
}

#[tokio::test(start_paused = true)]
async fn responses_to_other_requests_do_not_affect_a_chain() {
    let mut rig = rig_with_chain(2).await;
    let script = vec![vec![
        (100 * MILLISECOND, vec![0x62, 0xF1, 0x90]),
        (200 * MILLISECOND, vec![0x7F, 0x3E, 0x12]),
        (300 * MILLISECOND, vec![0x7F, 0x36]),
        (400 * MILLISECOND, vec![0x7F]),
        (800 * MILLISECOND, vec![0x76, 0]),
    ]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.run(700 * MILLISECOND).await;
    assert_eq!(indexes(&ecu), [0]);
    rig.run(SECOND).await;
    assert_eq!(indexes(&ecu), [0, 1]);
    assert_eq!(rig.pdus(1).len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_chained_pdu_without_a_predecessor_is_sent_immediately() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, CHAINED, &[0x36, 0]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(indexes(&ecu), [0]);
}

#[tokio::test(start_paused = true)]
async fn a_pdu_that_cannot_be_sent_breaks_its_chain() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x36; 100]);
    rig.send(1, CHAINED, &[0x36, 1]);
    rig.send(1, CHAINED, &[0x36, 2]);
    // the ECU sends no flow control
    rig.run(2 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 1, 0), (BROKEN, 0, 2)]);
    assert_eq!(node.frames().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_65th_waiting_pdu_is_refused_and_the_others_are_sent() {
    let mut rig = rig_with_chain(70).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| {
        // the first answer takes so long that all PDUs arrive before it
        let after = if request[1] == 0 { 500 * MILLISECOND } else { MILLISECOND };
        vec![(after, vec![0x76, request[1]])]
    });
    rig.run(100 * MILLISECOND).await;
    assert_eq!(rig.events(1), vec![(EventCode::SendFailed, 5, 0); 5], "one PDU is being sent, 64 wait");
    rig.run(5 * SECOND).await;
    assert_eq!(
        indexes(&ecu),
        (0..65).collect::<Vec<_>>(),
        "the PDUs arrive in order, and no later one replaces a refused one"
    );
    assert_eq!(rig.events(1).len(), 5);
    rig.send(1, CHAINED, &[0x36, 65]);
    rig.run(SECOND).await;
    assert_eq!(indexes(&ecu).last(), Some(&65), "the chain continues when there is room");
}

#[tokio::test(start_paused = true)]
async fn a_later_chained_pdu_does_not_replace_a_refused_one() {
    let mut rig = rig_with_chain(66).await;
    let ecu =
        Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| vec![(100 * MILLISECOND, vec![0x76, request[1]])]);
    rig.run(350 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 5), 1);
    // there is room again, but PDU 65 is missing
    rig.send(1, CHAINED, &[0x36, 66]);
    rig.run(20 * SECOND).await;
    assert_eq!(indexes(&ecu), (0..65).collect::<Vec<_>>());
    assert_eq!(rig.count(1, EventCode::SendFailed, 5), 2);
}

#[tokio::test(start_paused = true)]
async fn pdus_chained_to_a_refused_unchained_pdu_are_discarded() {
    let mut rig = rig_with_chain(65).await;
    let ecu =
        Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| vec![(100 * MILLISECOND, vec![0x76, request[1]])]);
    rig.run(20 * MILLISECOND).await;
    rig.send(1, PLAIN, &[0x31, 200]);
    rig.run(300 * MILLISECOND).await;
    rig.send(1, CHAINED, &[0x36, 201]);
    rig.run(20 * SECOND).await;
    assert_eq!(indexes(&ecu), (0..65).collect::<Vec<_>>());
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 5, 0), (BROKEN, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn at_most_512_kib_wait_on_a_channel() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x34, 0]);
    for _ in 0..9 {
        rig.send(1, CHAINED, &[0x36; 60_000]);
    }
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 5, 0)], "8 of 60,000 bytes fit, 9 do not");
    assert_eq!(node.frames().len(), 1);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.events(1)[1..], [(BROKEN, 0, 8)], "the 8 waited");
}

#[tokio::test(start_paused = true)]
async fn a_pdu_longer_than_the_queue_is_accepted_if_it_is_sent_immediately() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x3E, 0x80]);
    rig.run(100 * MILLISECOND).await;
    // there was no response to this PDU, and the chain does not wait for one
    rig.send(1, PLAIN, &vec![0x36; 600_000]);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(rig.events(1), []);
    assert_eq!(node.frames().last().unwrap().data()[..6], [0x10, 0, 0, 0x09, 0x27, 0xC0]);
}

#[tokio::test(start_paused = true)]
async fn the_response_timeout_can_be_set_per_channel() {
    let mut rig = Rig::configured().await;
    let script = vec![vec![(2_500 * MILLISECOND, vec![0x76, 0])]];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(script));
    rig.open_isotp(1, json!({"p2_ms": 3000})).await;
    rig.send(1, PLAIN, &[0x36, 0]);
    rig.send(1, CHAINED, &[0x36, 1]);
    rig.run(Duration::from_secs(4)).await;
    assert_eq!(indexes(&ecu), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_continues_while_the_link_is_down() {
    let mut rig = rig_with_chain(20).await;
    let ecu =
        Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| vec![(100 * MILLISECOND, vec![0x76, request[1]])]);
    rig.run(250 * MILLISECOND).await;
    rig.cut();
    rig.run(5 * SECOND).await;
    assert_eq!(indexes(&ecu), (0..20).collect::<Vec<_>>());
    rig.resume().await;
    rig.run(SECOND).await;
    let answers: Vec<_> = rig.pdus(1).into_iter().map(|pdu| pdu[1]).collect();
    assert_eq!(answers, (0..20).collect::<Vec<_>>(), "every response arrives once, in order");
}

#[tokio::test(start_paused = true)]
async fn a_chain_continues_behind_a_request_that_suppresses_its_response() {
    for request in [&[0x85, 0x82][..], &[0x28, 0x81, 1], &[0x10, 0x83], &[0x3E, 0x80], &[0x31, 0x81, 0xFF, 0]]
    {
        let mut rig = Rig::configured().await;
        let answer = |request: &[u8]| if request[0] == 0x36 { positive(request) } else { Vec::new() };
        let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, answer);
        rig.open_isotp(1, json!({"p2_ms": 200})).await;
        rig.send(1, PLAIN, request);
        rig.send(1, CHAINED, &[0x36, 1]);
        rig.run(SECOND).await;
        assert_eq!(ecu.requests(), [request, &[0x36, 1]], "{request:02X?}");
        assert_eq!(rig.events(1), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_suppressed_response_that_is_negative_or_pending_counts() {
    for (answers, expected) in [
        (vec![(MILLISECOND, vec![0x7F, 0x85, 0x22])], vec![(BROKEN, 0x22, 1)]),
        (vec![(MILLISECOND, vec![0x7F, 0x85, 0x78])], vec![(BROKEN, 0, 1)]),
    ] {
        let mut rig = Rig::configured().await;
        let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, move |_: &[u8]| answers.clone());
        rig.open_isotp(1, json!({"p2_ms": 200})).await;
        rig.send(1, PLAIN, &[0x85, 0x82]);
        rig.send(1, CHAINED, &[0x36, 1]);
        rig.run(10 * SECOND).await;
        assert_eq!((ecu.requests().len(), rig.events(1)), (1, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_without_sub_functions_suppresses_no_response() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({"p2_ms": 200})).await;
    rig.send(1, PLAIN, &[0x36, 0x80]);
    rig.send(1, CHAINED, &[0x36, 0x81]);
    rig.run(SECOND).await;
    assert_eq!((ecu.requests().len(), rig.events(1)), (1, vec![(BROKEN, 0, 1)]));
}

/// An ECU that announces P2 of 2 s and P2* of 20 s, and uses both.
fn slow_ecu(request: &[u8]) -> Answers {
    match request {
        [0x10, ..] => vec![(MILLISECOND, vec![0x50, 2, 0x07, 0xD0, 0x07, 0xD0])],
        [0x31, ..] => {
            vec![(1900 * MILLISECOND, vec![0x7F, 0x31, 0x78]), (19 * SECOND, vec![0x71, request[1]])]
        }
        _ => positive(request),
    }
}

#[tokio::test(start_paused = true)]
async fn the_times_of_an_ecu_are_learned_from_its_diagnostic_session() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, slow_ecu);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 2]);
    rig.send(1, CHAINED, &[0x31, 1]);
    rig.send(1, CHAINED, &[0x36, 1]);
    rig.run(30 * SECOND).await;
    assert_eq!(ecu.requests().len(), 3, "{:?}", rig.events(1));
    assert_eq!(rig.events(1), []);
}

#[tokio::test(start_paused = true)]
async fn an_operator_chooses_how_long_a_chain_waits_after_response_pending() {
    for (p2_star_ms, answered) in [(25_000, true), (1, false)] {
        let mut rig = Rig::configured().await;
        let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, slow_ecu);
        rig.open_isotp(1, json!({"p2_ms": 3000, "p2_star_ms": p2_star_ms})).await;
        rig.send(1, PLAIN, &[0x31, 1]);
        rig.send(1, CHAINED, &[0x36, 1]);
        rig.run(30 * SECOND).await;
        assert_eq!(ecu.requests().len() == 2, answered);
    }
}

#[tokio::test(start_paused = true)]
async fn response_pending_just_after_five_seconds_is_in_time() {
    for timing in [json!({}), json!({"p2_star_ms": 1})] {
        let mut rig = Rig::configured().await;
        let late = vec![
            (MILLISECOND, vec![0x7F, 0x36, 0x78]),
            (5_200 * MILLISECOND, vec![0x7F, 0x36, 0x78]),
            (10_400 * MILLISECOND, vec![0x76, 0]),
        ];
        let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, by_index(vec![late]));
        rig.open_isotp(1, timing).await;
        rig.send(1, PLAIN, &[0x36, 0]);
        rig.send(1, CHAINED, &[0x36, 1]);
        rig.run(15 * SECOND).await;
        assert_eq!((indexes(&ecu), rig.events(1)), (vec![0, 1], vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_pdu_that_became_too_old_in_the_queue_is_not_sent() {
    let mut rig = Rig::configured().await;
    let mut config = Config::new(Addressing::normal(id(0x7E8), id(0x7E0)));
    config.st_min = SeparationTime(20);
    let ecu = Ecu::with_config(&rig.buses[0], config, positive);
    rig.open_isotp(1, json!({"max_age_ms": 1000})).await;
    rig.send(1, PLAIN, &[0x36; 1000]);
    rig.send(1, PLAIN, &[0x11, 1]);
    rig.send(1, CHAINED, &[0x22, 1]);
    rig.send(1, PLAIN, &[0x22, 2]);
    rig.run(10 * SECOND).await;
    assert_eq!(ecu.requests().len(), 1, "the transfer took {:?}", 20 * 142 * MILLISECOND);
    let too_old = (EventCode::SendFailed, 8, 0);
    assert_eq!(rig.events(1), [too_old, (BROKEN, 0, 1), too_old]);
}
