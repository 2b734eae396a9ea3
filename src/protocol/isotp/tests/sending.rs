//! The sending role with a scripted receiver.

use std::time::Duration;

use super::script::Script;
use super::{pdu, tester};
use crate::protocol::isotp::{
    Addressing, Config, Event, FrameSize, Padding, SendError, SendFailure, Timeouts, Timer,
};

fn failed(failure: SendFailure) -> Vec<Event> {
    vec![Event::SendFailed { failure }]
}

/// A sender of `len` bytes whose first frame is acknowledged.
fn after_first_frame(config: Config, len: usize) -> Script {
    let mut script = Script::new(config);
    script.send(&pdu(len));
    assert!(script.transmit_confirmed().starts_with("7E0#1"));
    script
}

/// Acknowledges each consecutive frame immediately, and returns their number.
fn run(script: &mut Script) -> usize {
    std::iter::from_fn(|| Some(script.transmit_confirmed()).filter(|frame| !frame.is_empty())).count()
}

#[test]
fn a_pdu_that_cannot_be_sent_is_refused() {
    let mut script = Script::new(Config { max_pdu: 100, ..tester() });
    let now = script.now;
    assert_eq!(script.endpoint.send(now, &[]), Err(SendError::Empty));
    assert_eq!(script.endpoint.send(now, &[0; 101]), Err(SendError::TooLong { len: 101, max: 100 }));
    assert_eq!(script.endpoint.send(now, &[0; 100]), Ok(()));
    assert_eq!(script.endpoint.send(now, &[1]), Err(SendError::Busy));
    assert!(script.endpoint.is_sending());
}

#[test]
fn a_pdu_is_sent_when_its_last_frame_is_acknowledged() {
    let mut script = after_first_frame(tester(), 20);
    script.pass_ms(3);
    script.receive("7E8#300000");
    assert_eq!(script.transmit(), "7E0#212A31383F464D54");
    assert_eq!(script.transmit(), "7E0#225B626970777E85");
    script.confirm();
    assert_eq!(script.event(), None);
    assert!(script.endpoint.is_sending());
    script.pass_ms(4);
    script.confirm();
    assert_eq!(script.events(), [Event::Sent { elapsed: Duration::from_millis(7) }]);
    assert!(!script.endpoint.is_sending());
    assert_eq!(script.timer(), None);
}

#[test]
fn at_most_a_window_of_frames_is_without_outcome() {
    for (window, expected) in [(0, 1), (1, 1), (4, 4)] {
        let mut script = after_first_frame(Config { window, ..tester() }, 100);
        script.receive("7E8#300000");
        let given: Vec<String> =
            std::iter::from_fn(|| Some(script.transmit()).filter(|f| !f.is_empty())).collect();
        assert_eq!(given.len(), expected, "window {window}");
        script.confirm();
        assert!(!script.transmit().is_empty());
        assert!(script.transmit().is_empty());
    }
}

#[test]
fn the_separation_time_runs_from_the_acknowledgement_to_the_next_frame() {
    for (code, time) in
        [("05", 5000), ("F1", 100), ("F9", 900), ("7F", 127_000), ("80", 127_000), ("FF", 127_000)]
    {
        let mut script = after_first_frame(tester(), 30);
        script.receive(&format!("7E8#3000{code}"));
        assert!(script.transmit().starts_with("7E0#21"), "the first one is sent immediately");
        script.pass_ms(1);
        assert_eq!(script.transmit(), "", "nothing before the acknowledgement");
        assert_eq!(script.timer(), Some((Timer::NAs, 999)));
        script.confirm();
        assert_eq!(
            script.endpoint.poll_timeout(),
            Some((script.now + Duration::from_micros(time), Timer::NCs))
        );
        script.pass(Duration::from_micros(time - 1));
        assert_eq!(script.transmit(), "", "{code}: 1 us too early");
        script.pass(Duration::from_micros(1));
        assert!(script.transmit().starts_with("7E0#22"), "{code}");
    }
}

#[test]
fn the_separation_time_ends_also_without_a_call_to_handle_timeout() {
    let mut script = after_first_frame(tester(), 30);
    script.receive("7E8#300005");
    script.transmit_confirmed();
    script.now += Duration::from_millis(5);
    assert!(script.transmit().starts_with("7E0#22"));
}

#[test]
fn a_block_ends_with_waiting_for_the_next_flow_control() {
    let mut script = after_first_frame(tester(), 6 + 7 * 10);
    script.receive("7E8#300300");
    assert_eq!(run(&mut script), 3);
    assert_eq!(script.timer(), Some((Timer::NBs, 1000)));
    // each flow control sets block size and separation time again
    script.receive("7E8#300100");
    assert_eq!(run(&mut script), 1);
    script.receive("7E8#300000");
    assert_eq!(run(&mut script), 6);
    assert!(matches!(script.events()[..], [Event::Sent { .. }]));
}

#[test]
fn a_flow_control_may_come_before_the_acknowledgement_of_the_frame_it_answers() {
    let mut script = Script::new(tester());
    script.send(&pdu(6 + 7 * 4));
    script.transmit();
    script.receive("7E8#300200");
    assert!(script.transmit().starts_with("7E0#21"));
    assert!(script.transmit().starts_with("7E0#22"));
    script.confirm();
    script.receive("7E8#300200");
    assert!(script.transmit().starts_with("7E0#23"));
    assert!(script.transmit().starts_with("7E0#24"));
    for _ in 0..3 {
        script.confirm();
        assert_eq!(script.event(), None);
    }
    script.confirm();
    assert!(matches!(script.events()[..], [Event::Sent { .. }]));
}

#[test]
fn a_wait_frame_before_the_acknowledgement_starts_n_bs() {
    let mut script = Script::new(tester());
    script.send(&pdu(20));
    script.transmit();
    script.receive("7E8#310000");
    script.pass_ms(300);
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NBs, 700)));
}

#[test]
fn the_first_frames_acknowledgement_does_not_start_the_separation_time() {
    let mut script = Script::new(tester());
    script.send(&pdu(30));
    script.transmit();
    script.receive("7E8#30000A");
    assert!(script.transmit().starts_with("7E0#21"));
    script.confirm();
    assert_eq!(
        script.timer(),
        Some((Timer::NAs, 1000)),
        "the first frame's acknowledgement starts no pacing"
    );
    script.pass_ms(2);
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NCs, 10)));
}

#[test]
fn n_bs_runs_from_the_acknowledgement_and_ends_the_transfer() {
    let timeouts = Timeouts { n_bs: Duration::from_millis(150), ..Timeouts::default() };
    let mut script = Script::new(Config { timeouts, ..tester() });
    script.send(&pdu(20));
    script.transmit();
    script.pass_ms(100);
    assert_eq!(script.timer(), Some((Timer::NAs, 900)));
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NBs, 150)));
    script.pass_ms(149);
    assert_eq!(script.event(), None);
    script.pass_ms(1);
    assert_eq!(script.events(), failed(SendFailure::FlowControlTimeout));
    assert_eq!(script.timer(), None);
    script.receive("7E8#300000");
    assert_eq!(script.transmit(), "", "too late");
}

#[test]
fn n_bs_runs_again_after_the_last_frame_of_a_block() {
    let mut script = after_first_frame(tester(), 30);
    script.receive("7E8#300100");
    script.transmit();
    assert_eq!(script.timer(), Some((Timer::NAs, 1000)));
    script.pass_ms(10);
    script.confirm();
    script.pass_ms(1000);
    assert_eq!(script.events(), failed(SendFailure::FlowControlTimeout));
}

#[test]
fn n_as_ends_the_transfer_when_a_frame_is_never_acknowledged() {
    let timeouts = Timeouts { n_as: Duration::from_millis(70), ..Timeouts::default() };
    let mut script = Script::new(Config { timeouts, ..tester() });
    script.send(&[0x3E, 0]);
    script.transmit();
    assert_eq!(script.timer(), Some((Timer::NAs, 70)));
    script.pass_ms(70);
    assert_eq!(script.events(), failed(SendFailure::NotAcknowledged));
    assert!(!script.endpoint.is_sending());
}

#[test]
fn n_as_ends_a_transfer_whose_frame_is_never_fetched() {
    let mut script = Script::new(tester());
    script.send(&[0x3E, 0]);
    script.pass_ms(1000);
    assert_eq!(script.events(), failed(SendFailure::NotAcknowledged));
    assert_eq!(script.transmit(), "", "no old frame reaches the bus");
}

#[test]
fn n_as_of_a_ready_frame_runs_from_the_previous_acknowledgement() {
    let mut script = Script::new(Config { window: 1, ..tester() });
    script.send(&pdu(20));
    script.transmit();
    script.receive("7E8#300000");
    script.pass_ms(900);
    assert_eq!(script.timer(), Some((Timer::NAs, 100)));
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NAs, 1000)));
}

#[test]
fn each_frame_of_a_window_has_its_own_n_as() {
    let mut script = after_first_frame(tester(), 100);
    script.receive("7E8#300000");
    script.transmit();
    script.pass_ms(600);
    script.transmit();
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NAs, 1000)), "the timer of the second frame");
    script.pass_ms(999);
    assert_eq!(script.event(), None);
    script.pass_ms(1);
    assert_eq!(script.events(), failed(SendFailure::NotAcknowledged));
}

#[test]
fn outcomes_of_an_abandoned_transfer_do_not_affect_the_next() {
    let mut script = Script::new(tester());
    script.send(&[1]);
    script.transmit();
    script.pass_ms(1000);
    assert_eq!(script.events(), failed(SendFailure::NotAcknowledged));
    script.send(&[2]);
    assert_eq!(script.transmit(), "7E0#0102CCCCCCCCCCCC");
    script.confirm();
    assert_eq!(script.event(), None, "the acknowledgement was that of the first frame");
    script.confirm();
    assert!(matches!(script.events()[..], [Event::Sent { .. }]));
}

#[test]
fn an_adapter_that_never_confirms_gets_a_bounded_number_of_frames() {
    let mut script = Script::new(tester());
    let mut given = 0;
    for _ in 0..1000 {
        script.send(&[1]);
        given += usize::from(!script.transmit().is_empty());
        script.pass_ms(1000);
        assert_eq!(script.events(), failed(SendFailure::NotAcknowledged));
    }
    assert_eq!(given, 20, "the window and 16 more frames");
    script.fail(SendFailure::BusOff);
    script.send(&[1]);
    assert!(!script.transmit().is_empty(), "bus off ends all frames");
}

#[test]
fn wait_frames_restart_n_bs_up_to_the_limit() {
    let mut script = after_first_frame(Config { max_wait_frames: 2, ..tester() }, 20);
    for _ in 0..2 {
        script.pass_ms(900);
        script.receive("7E8#310000");
        assert_eq!(script.transmit(), "");
        assert_eq!(script.timer(), Some((Timer::NBs, 1000)));
    }
    script.receive("7E8#310000");
    assert_eq!(script.events(), failed(SendFailure::WaitLimit));
}

#[test]
fn by_default_an_ecu_may_ask_to_wait_255_times_and_then_go_on() {
    let mut script = after_first_frame(tester(), 20);
    for _ in 0..255 {
        script.receive("7E8#310000");
    }
    script.receive("7E8#300000");
    assert_eq!(run(&mut script), 2);
    assert!(matches!(script.events()[..], [Event::Sent { .. }]));
}

#[test]
fn continue_to_send_resets_the_count_of_wait_frames() {
    let mut script = after_first_frame(Config { max_wait_frames: 1, ..tester() }, 30);
    for _ in 0..2 {
        script.receive("7E8#310000");
        script.receive("7E8#300100");
        assert_eq!(run(&mut script), 1);
    }
    assert_eq!(script.event(), None);
}

#[test]
fn overflow_and_unknown_flow_status_end_the_transfer() {
    for (frame, failure) in
        [("7E8#320000", SendFailure::Overflow), ("7E8#330000", SendFailure::InvalidFlowStatus)]
    {
        let mut script = after_first_frame(tester(), 20);
        script.receive(frame);
        assert_eq!(script.events(), failed(failure));
        assert!(!script.endpoint.is_sending());
        assert_eq!(script.transmit(), "");
    }
}

#[test]
fn an_unexpected_flow_control_is_ignored() {
    let mut script = Script::new(tester());
    script.receive("7E8#320000");
    script.send(&pdu(100));
    script.receive("7E8#320000");
    script.transmit_confirmed();
    script.receive("7E8#300400");
    script.transmit_confirmed();
    for text in ["7E8#320000", "7E8#3F0000", "7E8#31007F", "7E8#30017F"] {
        script.receive(text);
    }
    assert_eq!(run(&mut script), 3, "block size and separation time remain");
    assert_eq!(script.event(), None);
}

#[test]
fn a_flow_control_too_short_to_be_one_is_ignored() {
    let mut script = after_first_frame(tester(), 20);
    script.receive("7E8#3000");
    assert_eq!(script.transmit(), "");
    assert_eq!(script.event(), None);
}

#[test]
fn bus_off_and_a_frame_given_up_by_the_adapter_end_the_transfer() {
    for failure in [SendFailure::BusOff, SendFailure::NotAcknowledged] {
        let mut script = after_first_frame(tester(), 100);
        script.receive("7E8#300000");
        script.transmit();
        script.transmit();
        script.fail(failure);
        assert_eq!(script.events(), failed(failure));
        assert_eq!(script.transmit(), "");
        assert_eq!(script.timer(), None);
        if failure != SendFailure::BusOff {
            script.fail(failure);
            assert_eq!(script.event(), None, "the failure is reported once");
        }
        script.send(&[1]);
        script.transmit_confirmed();
        assert!(matches!(script.events()[..], [Event::Sent { .. }]));
    }
}

#[test]
fn bus_off_while_waiting_for_a_flow_control_ends_the_transfer() {
    let mut script = after_first_frame(tester(), 100);
    script.fail(SendFailure::BusOff);
    assert_eq!(script.events(), failed(SendFailure::BusOff));
}

#[test]
fn an_aborted_transfer_reports_nothing_more() {
    let mut script = after_first_frame(tester(), 100);
    script.receive("7E8#300000");
    script.transmit();
    script.endpoint.abort_send();
    script.confirm();
    assert_eq!(script.transmit(), "");
    assert_eq!((script.event(), script.timer()), (None, None));
    script.send(&[1, 2]);
    assert_eq!(script.transmit(), "7E0#020102CCCCCCCCCC");
}

#[test]
fn without_padding_frames_are_as_short_as_their_content() {
    let mut script = Script::new(Config { padding: Padding::Disabled, ..tester() });
    script.send(&[0x3E, 0]);
    assert_eq!(script.transmit_confirmed(), "7E0#023E00");
    script.send(&pdu(15));
    script.transmit_confirmed();
    script.receive("7E8#300000");
    script.transmit();
    assert_eq!(script.transmit(), "7E0#225B62");
    script.receive("7E8#100A010203040506");
    assert_eq!(script.transmit(), "7E0#300000");
}

#[test]
fn padding_detection_follows_the_peer() {
    let mut script = Script::new(Config { padding: Padding::Detection(0x55), ..tester() });
    let mut request = |answer: &str| {
        script.send(&[0x3E, 0]);
        let text = script.transmit_confirmed();
        script.receive(answer);
        script.events();
        text
    };
    assert_eq!(
        request("7E8#027E00"),
        "7E0#023E005555555555",
        "frames are padded until the peer's padding is known"
    );
    assert_eq!(request("7E8#077E000102030405"), "7E0#023E00");
    assert_eq!(
        request("7E8#027E00AAAAAAAAAA"),
        "7E0#023E00",
        "a full frame does not show whether the peer pads"
    );
    assert_eq!(request("7E8#027E00AAAAAAAAAA"), "7E0#023E005555555555");
}

#[test]
fn padding_detection_learns_from_flow_control_and_last_consecutive_frame() {
    let mut script = Script::new(Config { padding: Padding::Detection(0x55), ..tester() });
    script.send(&pdu(8));
    script.transmit_confirmed();
    script.receive("7E8#300000");
    assert_eq!(script.transmit_confirmed(), "7E0#212A31");
    script.receive("7E8#1008010203040506");
    assert_eq!(script.transmit_confirmed(), "7E0#300000");
    script.receive("7E8#210708AAAAAAAAAA");
    script.receive("7E8#1008010203040506");
    assert_eq!(script.transmit_confirmed(), "7E0#3000005555555555");
}

#[test]
fn fd_frames_have_the_lengths_that_exist_and_the_escape_above_eight() {
    let frame_size = FrameSize::fd(64, true).unwrap();
    let mut script = Script::new(Config { frame_size, padding: Padding::Enabled(0xAA), ..tester() });
    let mut send = |len| {
        script.send(&pdu(len));
        script.transmit_confirmed()
    };
    assert_eq!(send(1), "7E0##10100AAAAAAAAAAAA");
    assert_eq!(send(7), "7E0##10700070E151C232A");
    assert_eq!(send(8), "7E0##1000800070E151C232A31AAAA");
    let longest = send(62);
    assert!(longest.starts_with("7E0##1003E00070E") && longest.len() == 6 + 128, "{longest}");
    let first = send(63);
    assert!(first.starts_with("7E0##1103F00070E") && first.len() == 6 + 128, "{first}");
    script.receive("7E8##1300000");
    assert_eq!(script.transmit(), "7E0##121B2AAAAAAAAAAAA");
}

#[test]
fn lengths_above_4095_are_encoded_in_32_bits() {
    let mut script = Script::new(tester());
    script.send(&pdu(4096));
    assert_eq!(script.transmit(), "7E0#1000000010000007");
    script.confirm();
    script.receive("7E8#300000");
    assert_eq!(script.transmit(), "7E0#210E151C232A3138");
}

#[test]
fn the_address_byte_is_the_first_of_each_frame() {
    let addressing = Addressing::extended(super::id(0x6F1), super::id(0x612), 0x12, 0xF1);
    let mut script = Script::new(Config::new(addressing));
    script.send(&pdu(6));
    assert_eq!(script.transmit_confirmed(), "6F1#120600070E151C23");
    script.send(&pdu(7));
    assert_eq!(script.transmit_confirmed(), "6F1#12100700070E151C");
    script.receive("612#F1300000");
    assert_eq!(script.transmit_confirmed(), "6F1#1221232ACCCCCCCC");
    script.receive("612#F1100A0102030405");
    assert_eq!(script.transmit_confirmed(), "6F1#12300000CCCCCCCC");
}

#[test]
fn each_direction_may_have_an_address_byte_without_the_other() {
    let (request, response) = (super::id(0x7E0), super::id(0x7E8));
    let mut script = Script::new(Config::new(Addressing::new(request, response, Some(0x10), None)));
    script.send(&pdu(7));
    assert_eq!(script.transmit_confirmed(), "7E0#10100700070E151C");
    script.receive("7E8#300000");
    assert_eq!(script.transmit_confirmed(), "7E0#1021232ACCCCCCCC");
    assert!(matches!(script.events()[..], [Event::Sent { .. }]));
    script.receive("7E8#0711223344556677");
    let pdu = vec![0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77];
    assert_eq!(script.events()[1], Event::Received { address: response, pdu });
}
