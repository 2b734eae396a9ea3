//! Raw frames: diagnostics in them are judged as such, and tricks do not help.

use super::*;

const MOVING: &str = "moving (50 km/h)";
const NO_FIRST_FRAME: &str = "consecutive frame without an allowed first frame";

fn driving() -> Vehicle {
    let mut vehicle = Vehicle::new("", false);
    vehicle.drive(50.0);
    vehicle
}

fn why(refusal: Option<PolicyRefusal>) -> Option<String> {
    refusal.map(|refusal| refusal.why.to_string())
}

#[test]
fn a_single_frame_is_judged_by_its_service() {
    let mut vehicle = driving();
    let id = standard(0x7E0);
    for allowed in [
        &[0x03, 0x22, 0xF1, 0x90][..],
        &[0x02, 0x10, 0x03, 0, 0, 0, 0, 0],
        &[0x02, 0x3E, 0x80],
        &[0x30, 0, 0],
    ] {
        assert_eq!(vehicle.frame(id, allowed), None, "{allowed:02X?}");
    }
    for refused in
        [&[0x02, 0x11, 0x01][..], &[0x04, 0x14, 0xFF, 0xFF, 0xFF], &[0x02, 0x10, 0x02], &[0x01, 0x04]]
    {
        assert_eq!(why(vehicle.frame(id, refused)).as_deref(), Some(MOVING), "{refused:02X?}");
    }
}

#[test]
fn live_data_of_obd_may_be_read_while_driving() {
    let mut vehicle = driving();
    for pid in 0..=0xFF {
        assert_eq!(vehicle.frame(standard(0x7DF), &[0x02, 0x01, pid, 0, 0, 0, 0, 0]), None, "PID {pid:02X}");
    }
}

#[test]
fn consecutive_frames_pass_under_an_allowed_first_frame_and_its_length_only() {
    let mut vehicle = driving();
    let id = standard(0x7DF);
    assert_eq!(why(vehicle.frame(id, &[0x21, 1, 2, 3, 4, 5, 6, 7])).as_deref(), Some(NO_FIRST_FRAME));
    // 22 with 20 bytes: 6 in the first frame, then 7 and 7
    assert_eq!(vehicle.frame(id, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]), None);
    assert_eq!(vehicle.frame(id, &[0x21, 0x92, 0xF1, 0x93, 0xF1, 0x94, 0xF1, 0x95]), None);
    assert_eq!(vehicle.frame(id, &[0x22, 0xF1, 0x96, 0xF1, 0x97, 0xF1, 0x98, 0xF1]), None);
    assert_eq!(why(vehicle.frame(id, &[0x23, 0, 0, 0, 0, 0, 0, 0])).as_deref(), Some(NO_FIRST_FRAME));
    assert_eq!(why(vehicle.frame(id, &[0x10, 20, 0x2E, 0xF1, 0x90, 1, 2, 3])).as_deref(), Some(MOVING));
    assert_eq!(why(vehicle.frame(id, &[0x21, 4, 5, 6, 7, 8, 9, 10])).as_deref(), Some(NO_FIRST_FRAME));
}

#[test]
fn a_refused_first_frame_in_an_allowed_pdu_closes_it() {
    let mut vehicle = driving();
    let id = standard(0x7DF);
    assert_eq!(vehicle.frame(id, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]), None);
    assert!(vehicle.frame(id, &[0x10, 20, 0x2E, 0xF1, 0x90, 1, 2, 3]).is_some());
    assert_eq!(why(vehicle.frame(id, &[0x21, 1, 2, 3, 4, 5, 6, 7])).as_deref(), Some(NO_FIRST_FRAME));
    assert_eq!(vehicle.frame(id, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]), None);
    assert_eq!(
        vehicle.frame(id, &[0x02, 0x3E, 0x00]),
        None,
        "a single frame ends the PDU before it, as in an ECU"
    );
    assert_eq!(why(vehicle.frame(id, &[0x21, 1, 2, 3, 4, 5, 6, 7])).as_deref(), Some(NO_FIRST_FRAME));
}

#[test]
fn a_consecutive_frame_passes_only_behind_a_first_frame_that_was_sent() {
    let id = standard(0x7DF);
    let first = frame(id, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]);
    let next = [0x21, 1, 2, 3, 4, 5, 6, 7];
    let mut vehicle = driving();
    let intent = Intent { bus: BUS, target: IntentTarget::None, what: What::Frame(&first) };
    for stage in [Stage::Arrival, Stage::Turn] {
        assert_eq!(vehicle.policy.refuses(vehicle.now, stage, &intent), None);
    }
    // the frame was too old, or the adapter did not take it
    assert_eq!(why(vehicle.frame(id, &next)).as_deref(), Some(NO_FIRST_FRAME));
    assert_eq!(vehicle.frame(id, first.data()), None);
    // the adapter reports that the frame was not sent
    vehicle.policy.handle_frame_lost(0, id);
    assert_eq!(why(vehicle.frame(id, &next)).as_deref(), Some(NO_FIRST_FRAME));
    assert_eq!(vehicle.frame(id, first.data()), None);
    assert_eq!(vehicle.frame(id, &next), None);
}

#[test]
fn a_service_behind_the_escape_of_a_long_first_frame_is_judged() {
    let mut vehicle = driving();
    let first = [0x10, 0x00, 0x00, 0x00, 0x20, 0x00, 0x36, 0x01];
    assert_eq!(why(vehicle.frame(standard(0x7E0), &first)).as_deref(), Some(MOVING));
}

#[test]
fn the_start_of_a_request_is_judged_by_its_strictest_continuation() {
    let mut vehicle = driving();
    // a session, of which the next frame has the sub-function
    let first = [0x12, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00, 0x10];
    assert_eq!(why(vehicle.frame(standard(0x6F1), &first)).as_deref(), Some(MOVING));
    let rule = "rule = [{ services = [0x22], dids = [0xF190], require = [\"never\"] }]";
    let mut vehicle = Vehicle::new(rule, false);
    let first = [0x12, 0x10, 0x00, 0x00, 0x00, 0x10, 0x00, 0x22];
    assert_eq!(vehicle.frame(standard(0x6F1), &first).unwrap().rule, 1);
    let mut vehicle = Vehicle::new("", false);
    assert_eq!(vehicle.frame(standard(0x200), &[0x01, 0xC0, 0x00, 0x10, 0x00, 0x03, 0x01]), None);
    vehicle.hear(0x201, &[0x00, 0xD0, 0x00, 0x03, 0x40, 0x07, 0x01]);
    vehicle.drive(50.0);
    assert_eq!(why(vehicle.frame(standard(0x740), &[0x20, 0x00, 0x02, 0x10])).as_deref(), Some(MOVING));
}

#[test]
fn extended_addressing_is_read_too_until_a_response_shows_the_form() {
    let mut vehicle = driving();
    let id = standard(0x714);
    // reset of the ECU with the address 0x30, which looks like a flow control with normal addressing
    let reset = [0x30, 0x02, 0x11, 0x01];
    assert_eq!(why(vehicle.frame(id, &reset)).as_deref(), Some(MOVING));
    assert_eq!(vehicle.frame(id, &[0x03, 0x22, 0xF1, 0x90]), None);
    vehicle.hear(0x71C, &[0x10, 0x14, 0x62, 0xF1, 0x90, 0x57, 0x56, 0x57]);
    assert_eq!(vehicle.frame(id, &reset), None, "a flow control: this ECU has no address byte");
    let bmw = standard(0x6F1);
    assert_eq!(vehicle.frame(bmw, &[0x12, 0x03, 0x22, 0xF1, 0x90]), None);
    assert_eq!(why(vehicle.frame(bmw, &[0x12, 0x02, 0x11, 0x01])).as_deref(), Some(MOVING));
}

#[test]
fn pdus_of_several_ecus_behind_one_identifier_are_kept_apart() {
    let mut vehicle = driving();
    let bmw = standard(0x6F1);
    assert_eq!(vehicle.frame(bmw, &[0x12, 0x10, 0x10, 0x22, 0xF1, 0x90, 0xF1, 0x91]), None);
    assert_eq!(why(vehicle.frame(bmw, &[0x40, 0x21, 1, 2, 3, 4, 5, 6])).as_deref(), Some(NO_FIRST_FRAME));
    assert_eq!(vehicle.frame(bmw, &[0x12, 0x21, 1, 2, 3, 4, 5, 6]), None);
}

#[test]
fn frames_of_other_protocols_are_no_diagnostics() {
    let mut vehicle = driving();
    for (id, data) in [
        (standard(0x7E0), &[0xFF, 0x00][..]),
        (standard(0x7E0), &[0xF0, 0x02, 0x3E, 0x00]),
        (standard(0x123), &[0x02, 0x3E, 0x00]),
        (standard(0x123), &[]),
        (CanId::extended(0x18FE_F100).unwrap(), &[0x03, 0x22, 0xF1, 0x90]),
    ] {
        let refusal = vehicle.frame(id, data).unwrap();
        assert_eq!((refusal.class, refusal.why), (Class::Bus, Why::Moving { kmh: 50.0 }), "{data:02X?}");
    }
    let remote = CanFrame::new_remote(standard(0x7E0), 2).unwrap();
    let intent = Intent { bus: BUS, target: IntentTarget::None, what: What::Frame(&remote) };
    assert_eq!(vehicle.policy.refuses(vehicle.now, Stage::Turn, &intent).unwrap().class, Class::Bus);
}

#[test]
fn an_identifier_outside_diagnostics_is_read_as_diagnostics_too() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.policy.handle_voltage(vehicle.now, Some(11.0));
    assert_eq!(why(vehicle.frame(standard(0x600), &[0x02, 0x10, 0x02])).as_deref(), Some("11.0 V"));
    assert_eq!(vehicle.frame(standard(0x600), &[0x21, 0x10, 0x02]), None);
    let mut vehicle = Vehicle::new("facts = { diagnostic_ids = [0x600] }", false);
    vehicle.drive(50.0);
    assert_eq!(vehicle.frame(standard(0x600), &[0x03, 0x22, 0xF1, 0x90]), None);
}

#[test]
fn two_channels_on_one_identifier_share_a_watcher() {
    let mut vehicle = driving();
    let id = standard(0x18);
    assert!(vehicle.frame(id, &[0x10, 20, 0x22, 1, 2, 3, 4, 5]).is_some());
    let id = standard(0x7DF);
    assert_eq!(vehicle.frame(id, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]), None);
    // the other channel's frame ends the PDU
    assert_eq!(vehicle.frame(id, &[0x02, 0x01, 0x0C]), None);
    assert_eq!(why(vehicle.frame(id, &[0x21, 1, 2, 3, 4, 5, 6, 7])).as_deref(), Some(NO_FIRST_FRAME));
}

#[test]
fn a_transfer_by_raw_frames_is_not_cut_by_motion() {
    let mut vehicle = Vehicle::new("", false);
    vehicle.stand();
    let id = standard(0x7E0);
    assert_eq!(vehicle.frame(id, &[0x10, 0x0B, 0x34, 0x00, 0x44, 0, 0, 0]), None);
    vehicle.hear(0x7E8, &[0x30, 0x00, 0x00]);
    assert_eq!(vehicle.frame(id, &[0x21, 0, 0, 0, 0x10, 0, 0, 0]), None);
    assert_eq!(vehicle.frame(id, &[0x10, 0x12, 0x36, 0x01, 0xAA, 0xAA, 0xAA, 0xAA]), None);
    vehicle.drive(50.0);
    assert_eq!(vehicle.frame(id, &[0x21, 0x02, 0x11, 0x01, 0, 0, 0, 0]), None);
    assert_eq!(vehicle.frame(id, &[0x22, 1, 2, 3, 4, 5, 0, 0]), None);
    assert_eq!(vehicle.frame(id, &[0x10, 0x12, 0x36, 0x02, 0xAA, 0xAA, 0xAA, 0xAA]), None);
    assert!(vehicle.frame(id, &[0x10, 0x0B, 0x34, 0x00, 0x44, 0, 0, 0]).is_some());
}

#[test]
fn channels_of_tp20_are_followed_from_their_set_up() {
    let mut vehicle = Vehicle::new("", false);
    assert_eq!(vehicle.frame(standard(0x200), &[0x01, 0xC0, 0x00, 0x10, 0x00, 0x03, 0x01]), None);
    vehicle.hear(0x201, &[0x00, 0xD0, 0x00, 0x03, 0x40, 0x07, 0x01]);
    vehicle.drive(50.0);
    let id = standard(0x740);
    assert_eq!(vehicle.frame(id, &[0xA0, 0x0F, 0x8A, 0xFF, 0x32, 0xFF]), None);
    assert_eq!(vehicle.frame(id, &[0x10, 0x00, 0x02, 0x1A, 0x9B]), None);
    assert_eq!(
        vehicle.frame(id, &[0x10, 0x00, 0x02, 0x1A, 0x9B]),
        None,
        "repeated, because the acknowledgement was lost"
    );
    assert_eq!(why(vehicle.frame(id, &[0x11, 0x00, 0x02, 0x10, 0x85])).as_deref(), Some(MOVING));
    // the first frame of a longer request, then one that the ECU would take for the first frame of another
    assert_eq!(vehicle.frame(id, &[0x21, 0x00, 0x09, 0x18, 0, 0, 0, 0]), None);
    assert_eq!(why(vehicle.frame(id, &[0x11, 0x00, 0x02, 0x10, 0x85])).as_deref(), Some(NO_FIRST_FRAME));
    assert_eq!(vehicle.frame(id, &[0x12, 1, 2, 3, 4]), None);
    assert_eq!(vehicle.frame(id, &[0xA8]), None);
    assert!(vehicle.frame(id, &[0x13, 0x00, 0x02, 0x1A, 0x9B]).is_some(), "the channel is gone");
}

#[test]
fn a_response_of_the_vehicle_alone_makes_no_channel_of_tp20() {
    let mut vehicle = driving();
    vehicle.hear(0x201, &[0x00, 0xD0, 0x00, 0x03, 0x40, 0x07, 0x01]);
    assert_eq!(why(vehicle.frame(standard(0x740), &[0x10, 0x00, 0x02, 0x1A, 0x9B])).as_deref(), Some(MOVING));
}

#[test]
fn the_number_of_watched_identifiers_is_bounded() {
    let mut vehicle = driving();
    let first = standard(0x7DF);
    assert_eq!(vehicle.frame(first, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]), None);
    for low in 0..2000 {
        let id = CanId::extended(0x18DA_0000 + low).unwrap();
        assert_eq!(vehicle.frame(id, &[0x10, 20, 0x22, 0xF1, 0x90, 0xF1, 0x91, 0xF1]), None);
    }
    assert_eq!(why(vehicle.frame(first, &[0x21, 1, 2, 3, 4, 5, 6, 7])).as_deref(), Some(NO_FIRST_FRAME));
}
