//! Inputs and outputs under control are returned when the vehicle moves.

use super::*;

/// InputOutputControlByIdentifier: shortTermAdjustment, and the request that returns control.
const ADJUST: [u8; 5] = [0x2F, 0x01, 0x02, 0x03, 0xFF];
const RETURN: [u8; 4] = [0x2F, 0x01, 0x02, 0x00];
const DEFAULT_SESSION: [u8; 2] = [0x10, 0x01];

#[tokio::test(start_paused = true)]
async fn an_output_under_control_is_returned_on_isotp_when_the_vehicle_moves() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| {
        vec![(30 * MILLISECOND, vec![request[0] + 0x40, request[1]])]
    });
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &[0x10, 0x03]);
    rig.send(1, CHAINED, &ADJUST);
    rig.run(SECOND).await;
    let answered = rig.pdus(1).len();
    assert_eq!(answered, 2);
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(2 * SECOND).await;
    assert_eq!(ecu.requests()[2..], [RETURN.to_vec(), DEFAULT_SESSION.to_vec()]);
    let times: Vec<_> = ecu.timed_requests().into_iter().map(|(at, _)| at).collect();
    assert!(times[3] - times[2] >= 30 * MILLISECOND, "the ECU has answered before it is asked again");
    assert_eq!(rig.pdus(1).len(), answered, "answers to the connector's requests do not reach the operator");
    rig.send(1, PLAIN, &ADJUST);
    rig.run(SECOND).await;
    assert_eq!(refusals(&rig, 1), [0]);

    // once: the next motion has nothing to return
    set_speed(&mut rig, &drive, 0.0).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(2 * SECOND).await;
    assert_eq!(ecu.requests().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_output_under_control_is_returned_on_a_raw_channel_when_the_vehicle_moves() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x7E2, "response_id": 0x7EA})).await;
    rig.send_frame(1, frame(0x7E2, &[0x05, 0x2F, 0x01, 0x02, 0x03, 0xFF]));
    rig.run(SECOND).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(2 * SECOND).await;
    assert_eq!(node.single_frames(0x7E2), [ADJUST.to_vec(), RETURN.to_vec(), DEFAULT_SESSION.to_vec()]);
    let sent: Vec<_> = node
        .timed_frames()
        .into_iter()
        .filter(|(_, frame)| frame.id() == id(0x7E2))
        .map(|(at, _)| at)
        .collect();
    assert!(sent[2] - sent[1] >= 50 * MILLISECOND, "an ECU has P2 for each request");
}

/// A raw channel shows the bus as it is: without these answers, a tool would not see that its session has ended.
#[tokio::test(start_paused = true)]
async fn answers_to_the_return_of_an_output_are_visible_on_a_raw_channel() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E2, 0x7EA, positive);
    rig.open_raw(1, json!({"request_id": 0x7E2, "response_id": 0x7EA})).await;
    rig.send_frame(1, frame(0x7E2, &[0x05, 0x2F, 0x01, 0x02, 0x03, 0xFF]));
    rig.run(SECOND).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(2 * SECOND).await;
    let is_moving = rig.policy_states.iter().any(|state| state.message["motion"] == "moving");
    assert!(is_moving, "the operator knows why: {:?}", rig.policy_states);
    assert_eq!(ecu.requests(), [ADJUST.to_vec(), RETURN.to_vec(), DEFAULT_SESSION.to_vec()]);
    let services: Vec<u8> = rig.frames(1).iter().map(|frame| frame.data()[1]).collect();
    assert_eq!(services, [0x6F, 0x6F, 0x50]);
}

#[tokio::test(start_paused = true)]
async fn an_output_that_the_operator_returned_is_not_returned_again() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &ADJUST);
    rig.send(1, PLAIN, &RETURN);
    rig.run(SECOND).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(2 * SECOND).await;
    assert_eq!(ecu.requests().len(), 2);
}
