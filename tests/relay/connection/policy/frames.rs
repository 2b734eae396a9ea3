//! Raw frames are not a way around the policy.

use connector_agent::protocol::isotp::{Addressing, Config};

use super::*;

/// The address byte of the ECU with extended addressing.
const EXTENDED: u8 = 0x02;

/// A moving vehicle with a raw channel to 0x7E0, and the ECUs that listen there with and without an address byte.
async fn moving() -> (Rig, Drive, Brakes, [Ecu; 2]) {
    let (mut rig, drive, vehicle) = standing(&json!({})).await;
    let normal = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    let extended = Addressing::extended(id(0x7E8), id(0x7E0), 0xF1, EXTENDED);
    let extended = Ecu::with_config(&rig.buses[0], Config::new(extended), silent);
    rig.open_raw(1, json!({"request_id": 0x7E0, "response_id": 0x7E8})).await;
    set_speed(&mut rig, &drive, 12.0).await;
    (rig, drive, vehicle, [normal, extended])
}

async fn send_all(rig: &mut Rig, frames: &[(u16, &[u8])]) {
    for (channel, data) in frames {
        rig.send_frame(*channel, frame(0x7E0, data));
        rig.run(5 * MILLISECOND).await;
    }
    rig.run(100 * MILLISECOND).await;
}

const FIRST_READ: &[u8] = &[0x10, 0x09, 0x22, 0xF1, 0x90, 0xF1, 0x87, 0xF1];
const FIRST_WRITE: &[u8] = &[0x10, 0x09, 0x2E, 0xF1, 0x90, 1, 2, 3];
const CONSECUTIVE: &[u8] = &[0x21, 4, 5, 6, 0, 0, 0, 0];
const SINGLE_WRITE: &[u8] = &[0x04, 0x2E, 0xF1, 0x90, 0x01, 0, 0, 0];

#[tokio::test(start_paused = true)]
async fn intrusive_raw_frames_are_refused_while_moving_and_allowed_when_standing() {
    let (mut rig, drive, _vehicle, [normal, _extended]) = moving().await;
    send_all(
        &mut rig,
        &[(1, SINGLE_WRITE), (1, &[0x03, 0x22, 0xF1, 0x90]), (1, FIRST_WRITE), (1, CONSECUTIVE)],
    )
    .await;
    assert_eq!(normal.requests(), [READ]);
    assert_eq!(refusals(&rig, 1).len(), 3);
    assert_eq!(rig.event_texts[0], MOVING);
    let text = "policy: consecutive frame without an allowed first frame: the frame is refused; send the PDU from its \
                first frame";
    assert_eq!(rig.event_texts[2], text);
    set_speed(&mut rig, &drive, 0.0).await;
    send_all(&mut rig, &[(1, SINGLE_WRITE), (1, FIRST_WRITE), (1, CONSECUTIVE)]).await;
    let long = [0x2E, 0xF1, 0x90, 1, 2, 3, 4, 5, 6];
    assert_eq!(normal.requests()[1..], [WRITE.to_vec(), long.to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn no_sequence_of_raw_frames_brings_a_refused_service_to_an_ecu() {
    let extended_write: &[u8] = &[EXTENDED, 0x10, 0x09, 0x2E, 0xF1, 0x90, 1, 2];
    let sequences: [&[(u16, &[u8])]; 8] = [
        // single frames between consecutive frames
        &[(1, FIRST_READ), (1, SINGLE_WRITE), (1, CONSECUTIVE)],
        // the first frame repeated with another service
        &[(1, FIRST_READ), (1, FIRST_WRITE), (1, CONSECUTIVE)],
        &[(1, FIRST_WRITE), (1, FIRST_READ), (1, FIRST_WRITE), (1, CONSECUTIVE), (1, CONSECUTIVE)],
        // two channels on one identifier
        &[(1, FIRST_READ), (2, FIRST_WRITE), (1, CONSECUTIVE)],
        &[(1, FIRST_WRITE), (2, CONSECUTIVE), (1, CONSECUTIVE)],
        // a frame that reads without an address byte, and writes with one
        &[(1, extended_write), (1, &[EXTENDED, 0x21, 3, 4, 5])],
        &[(1, FIRST_READ), (1, &[EXTENDED, 0x04, 0x2E, 0xF1, 0x90, 1]), (1, CONSECUTIVE)],
        // a length in the escape sequence of long PDUs
        &[(1, &[0x10, 0x00, 0, 0, 0, 9, 0x2E, 0xF1]), (1, &[0x21, 0x90, 1, 2, 3, 4, 5, 6])],
    ];
    for (number, sequence) in sequences.into_iter().enumerate() {
        let (mut rig, _drive, _vehicle, ecus) = moving().await;
        rig.open_raw(2, json!({"request_id": 0x7E0, "response_id": 0x7E8})).await;
        send_all(&mut rig, sequence).await;
        for ecu in ecus {
            let intrusive: Vec<_> = ecu
                .requests()
                .into_iter()
                .filter(|request| request[0] == 0x2E && request.len() > 3)
                .collect();
            assert!(intrusive.is_empty(), "sequence {number}: {intrusive:02X?}");
        }
        assert!(!refusals(&rig, 1).is_empty() || !refusals(&rig, 2).is_empty(), "sequence {number}");
    }
}

#[tokio::test(start_paused = true)]
async fn raw_frames_that_wait_are_judged_again_when_their_turn_comes() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let normal = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_raw(1, json!({"request_id": 0x7E0, "response_id": 0x7E8})).await;
    // these frames take the bus for a quarter of a second
    for _ in 0..1000 {
        rig.send_frame(1, frame(0x7E0, SINGLE_WRITE));
    }
    rig.run(50 * MILLISECOND).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(SECOND).await;
    let (sent, refused) = (normal.requests().len(), refusals(&rig, 1).len());
    assert!(sent > 100 && refused > 100, "{sent} sent, {refused} refused");
    assert_eq!(sent + refused, 1000);
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_no_diagnostics_are_refused_while_moving() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x123})).await;
    rig.send_frame(1, frame(0x123, &[1, 2, 3]));
    rig.run(100 * MILLISECOND).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.send_frame(1, frame(0x123, &[1, 2, 3]));
    rig.run(100 * MILLISECOND).await;
    assert_eq!(refusals(&rig, 1), [0]);
    let text = "policy: moving (12 km/h): a raw frame is refused; stop the vehicle and send again";
    assert_eq!(rig.event_texts[0], text);
    assert_eq!(node.frames().iter().filter(|frame| frame.id() == id(0x123)).count(), 1);
}
