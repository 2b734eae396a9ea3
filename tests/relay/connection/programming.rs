//! Programming services of a connection that is meant for a certain vehicle.

use std::time::Duration;

use connector_agent::relay::connection::{CloseReason, VinTrigger};
use connector_agent::relay::wire::codec::EventCode;
use serde_json::json;

use super::common::*;

/// A connection for a certain vehicle, whose ECU answers everything positively. Channel 1 is open.
async fn rig() -> (Rig, Ecu) {
    let mut rig = Rig::new();
    rig.session.require_vin();
    rig.configure_hs().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    (rig, ecu)
}

/// Reads the VIN, which no ECU reports. Returns the text by which the request on channel 1 is refused then.
async fn refusal(rig: &mut Rig) -> String {
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(10 * MILLISECOND).await;
    assert!(rig.session.take_vin_wanted());
    assert_eq!(rig.event_texts, [""; 0]);
    assert!(rig.session.start_reading_vin(now(), 1500 * MILLISECOND, VinTrigger::Request));
    for _ in 0..40 {
        rig.run(100 * MILLISECOND).await;
        if let Some(report) = rig.session.poll_vin(now()) {
            assert_eq!(report.vin, None);
            rig.run(10 * MILLISECOND).await;
            assert_eq!(rig.count(1, EventCode::SendFailed, 6), 1);
            return std::mem::take(&mut rig.event_texts).concat();
        }
    }
    panic!("the reading does not end");
}

#[tokio::test(start_paused = true)]
async fn programming_waits_for_the_vin_and_goes_on_in_order() {
    let (mut rig, ecu) = rig().await;
    assert!(rig.session.take_vin_wanted(), "the VIN is read as soon as the buses are there");
    let second = Ecu::attach(&rig.buses[0], 0x7E1, 0x7E9, positive);
    let other = json!({"bus_name": "HS", "request_id": 0x7E1, "response_id": 0x7E9});
    rig.open(2, "isotp_channel", other).await;
    rig.open_raw(3, json!({"request_id": 0x7E2, "max_age_ms": 5000})).await;
    let node = Node::attach(&rig.buses[0]);
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.send(1, CONFIRM, &[0x10, 0x02]);
    rig.send(1, CHAINED, &[0x34, 0]);
    rig.send(1, CHAINED, &[0x22, 2]);
    rig.send(1, PLAIN, &[0x22, 3]);
    rig.send(2, PLAIN, &[0x22, 4]);
    rig.send_frame(3, frame(0x7E2, &[0x02, 0x10, 0x02]));
    rig.send_frame(3, frame(0x7E2, &[0x02, 0x3E, 0x00]));
    rig.run(1200 * MILLISECOND).await;
    assert_eq!(ecu.requests(), [[0x22, 1]]);
    assert_eq!(second.requests(), [[0x22, 4]], "another channel is not held");
    assert_eq!(node.single_frames(0x7E2).len(), 0);
    assert!(rig.session.take_vin_wanted() && !rig.session.take_vin_wanted());

    rig.session.confirm_vin(now());
    rig.run(SECOND).await;
    assert_eq!(ecu.requests()[1..], [[0x10, 2], [0x34, 0], [0x22, 2], [0x22, 3]]);
    assert_eq!(rig.pdus(1).len(), 5);
    assert_eq!(rig.count(1, EventCode::Sent, 0), 1);
    assert_eq!(node.single_frames(0x7E2), [[0x10, 2], [0x3E, 0]]);
    assert_eq!(rig.event_texts, [""; 0], "nothing failed");
}

#[tokio::test(start_paused = true)]
async fn a_programming_service_hidden_by_the_addressing_of_a_channel_waits_for_the_vin() {
    let long = |at: usize, hidden: &[u8]| {
        let mut pdu = vec![0x22; 133];
        pdu[at..at + hidden.len()].copy_from_slice(hidden);
        pdu
    };
    for (channel, pdu) in [
        // without an address byte, the first frame of 133 = 85h bytes reads as 02 10 85
        (json!({"request_id": 0x714, "extended_request_address": 2}), vec![0x22; 133]),
        // with one, the ninth consecutive frame reads as 29 02 10 02
        (json!({"request_id": 0x714}), long(6 + 8 * 7, &[0x02, 0x10, 0x02])),
        // with one, the padding of the single frame reads as 02 10 02
        (json!({"request_id": 0x714, "padding_byte": 2}), vec![0x02, 0x10]),
        (
            json!({"request_id": 0x714, "extended_request_address": 0, "frame_format": "fd"}),
            long(61, &[0x10, 2]),
        ),
    ] {
        let mut rig = Rig::new();
        rig.session.require_vin();
        let mut bus = hs();
        bus["can_bus"]["data_bit_rate"] = json!(2_000_000);
        rig.configure(json!([bus])).await;
        let node = Node::attach(&rig.buses[0]);
        let mut config = json!({"bus_name": "HS", "response_id": 0x77E, "keep_alive": "disabled",
                                "frame_format": "classic"});
        channel.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
        assert!(rig.session.take_vin_wanted());
        rig.send(1, PLAIN, &pdu);
        rig.run(4 * SECOND).await;
        assert_eq!(node.frames().len(), 0, "{channel}: {:?}", node.frames());
        assert!(rig.session.take_vin_wanted(), "{channel}");
        rig.run(2 * SECOND).await;
        assert_eq!(rig.count(1, EventCode::SendFailed, 6), 1, "{channel}");
    }
}

#[tokio::test(start_paused = true)]
async fn programming_without_a_vin_is_refused_after_five_seconds_and_so_is_its_chain() {
    let (mut rig, ecu) = rig().await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.send(1, CHAINED, &[0x34, 0]);
    rig.send(1, CHAINED, &[0x22, 1]);
    rig.send(1, PLAIN, &[0x22, 2]);
    rig.run(4900 * MILLISECOND).await;
    assert_eq!(rig.events(1), []);
    rig.run(200 * MILLISECOND).await;
    assert_eq!(ecu.requests(), [[0x22, 2]]);
    assert_eq!(rig.count(1, EventCode::SendFailed, 6), 2);
    assert_eq!(rig.count(1, EventCode::ChainBroken, 0), 1);
    assert_eq!(rig.pdus(1), [[0x62, 2]], "no answer is invented");
    let text = "the VIN is not read yet, and no programming service is sent before: send again";
    assert_eq!(rig.event_texts[..2], [text; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_programs_is_refused_when_it_is_too_old() {
    let (mut rig, _ecu) = rig().await;
    rig.open_raw(2, json!({"request_id": 0x7E2})).await;
    rig.run(1200 * MILLISECOND).await;
    rig.send_frame(2, frame(0x7E2, &[0x02, 0x10, 0x02]));
    rig.run(1600 * MILLISECOND).await;
    assert_eq!(rig.count(2, EventCode::SendFailed, 6), 1);
    rig.session.confirm_vin(now());
    rig.run(SECOND).await;
    assert_eq!(rig.events(2).len(), 1, "reported once");
}

#[tokio::test(start_paused = true)]
async fn each_cause_of_an_unconfirmed_vin_has_its_own_text() {
    let (mut rig, _ecu) = rig().await;
    let text = refusal(&mut rig).await;
    assert!(text.contains("no ECU reports a VIN") && text.contains("without a VIN"), "{text}");

    let (mut rig, _ecu) = self::rig().await;
    rig.session.handle_ignition(now(), Some(false));
    let text = refusal(&mut rig).await;
    assert!(text.contains("the ignition is off"), "{text}");

    let (mut rig, _ecu) = self::rig().await;
    let tester = Node::attach(&rig.buses[0]);
    let (text, ()) = tokio::join!(refusal(&mut rig), async {
        tokio::time::sleep(30 * MILLISECOND).await;
        tester.send(frame(0x7E1, &[0x02, 0x10, 0x03]));
    });
    assert!(text.contains("another tester is in use"), "{text}");

    // a raw channel may be in the middle of a transfer, from the start of the reading or later
    for frames_before in [0, 1] {
        let (mut rig, _ecu) = self::rig().await;
        rig.open_raw(2, json!({"request_id": 0x7E2})).await;
        rig.send(1, PLAIN, &[0x10, 0x02]);
        rig.run(1200 * MILLISECOND).await;
        for _ in 0..frames_before {
            rig.send_frame(2, frame(0x7E2, &[0x02, 0x3E, 0x80]));
            rig.run(10 * MILLISECOND).await;
        }
        assert!(rig.session.start_reading_vin(now(), 1500 * MILLISECOND, VinTrigger::Request));
        while rig.session.poll_vin(now()).is_none() {
            rig.send_frame(2, frame(0x7E2, &[0x02, 0x3E, 0x80]));
            rig.run(300 * MILLISECOND).await;
        }
        rig.run(10 * MILLISECOND).await;
        let text = rig.event_texts.concat();
        assert!(text.contains("the channels were in use"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_programming_service_may_be_sent_again_and_is_read_for_again() {
    let (mut rig, ecu) = rig().await;
    refusal(&mut rig).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(100 * MILLISECOND).await;
    assert!(rig.session.take_vin_wanted());
    rig.session.confirm_vin(now());
    rig.run(100 * MILLISECOND).await;
    assert!(ecu.requests().ends_with(&[vec![0x22, 1], vec![0x10, 2]]));
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_the_watch_did_in_vain_refuses_what_waits() {
    let (mut rig, _ecu) = rig().await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(100 * MILLISECOND).await;
    rig.session.handle_no_vin(now());
    rig.run(100 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 6), 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_64_records_wait_for_the_vin_and_none_follows_a_gap() {
    let (mut rig, ecu) = rig().await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    for block in 0..70 {
        rig.send(1, CHAINED, &[0x36, block]);
    }
    rig.run(100 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 5), 7);
    rig.session.confirm_vin(now());
    rig.send(1, CHAINED, &[0x36, 70]);
    rig.run(2 * SECOND).await;
    let blocks: Vec<u8> = ecu.requests()[1..].iter().map(|request| request[1]).collect();
    assert_eq!(blocks, Vec::from_iter(0..63));
    assert_eq!(rig.count(1, EventCode::ChainBroken, 0), 1, "{:?}", rig.events(1));

    let (mut rig, _ecu) = self::rig().await;
    for _ in 0..3 {
        rig.send(1, PLAIN, &[0x36; 200_000]);
    }
    rig.run(100 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 5), 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_vin_is_discarded_with_its_channel_and_its_buses() {
    let (mut rig, ecu) = rig().await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(100 * MILLISECOND).await;
    rig.request("closeChannel", json!({"channel": 1})).await;
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(100 * MILLISECOND).await;
    rig.configure_hs().await;
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.session.confirm_vin(now());
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x22, 1]]);
    rig.session.close(CloseReason::Closed);
    rig.run(Duration::from_secs(6)).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_device_has_returned_the_vin_must_be_confirmed_again_before_programming() {
    let mut rig = Rig::new();
    rig.session.require_vin();
    rig.configure_hs().await;
    rig.session.confirm_vin(now());
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.buses[0].unplug("can0");
    rig.run(2 * SECOND).await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.send(1, PLAIN, &[0x10, 0x03]);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests().len(), 0);
    rig.session.confirm_vin(now());
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 0x02], [0x10, 0x03]]);
}

#[tokio::test(start_paused = true)]
async fn with_the_ignition_off_no_vin_is_read_only_because_the_buses_are_there() {
    let mut rig = Rig::new();
    rig.session.require_vin();
    rig.session.handle_ignition(now(), Some(false));
    rig.configure_hs().await;
    assert!(!rig.session.take_vin_wanted());
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(100 * MILLISECOND).await;
    assert!(rig.session.take_vin_wanted(), "the operator needs the VIN");
}
