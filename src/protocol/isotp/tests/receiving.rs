//! The receiving role with a scripted sender.

use std::time::Duration;

use super::script::Script;
use super::{id, tester};
use crate::protocol::isotp::{
    Config, Event, FrameSize, ReceiveFailure, SendFailure, SeparationTime, Timeouts, Timer,
};

fn started() -> Event {
    Event::ReceptionStarted { address: id(0x7E8) }
}

fn received(pdu: &[u8]) -> Event {
    Event::Received { address: id(0x7E8), pdu: pdu.to_vec() }
}

fn failed(failure: ReceiveFailure) -> Event {
    Event::ReceiveFailed { address: id(0x7E8), failure }
}

/// A receiver of 20 bytes whose first frame is received and whose flow control is acknowledged.
fn after_flow_control(config: Config) -> Script {
    let mut script = Script::new(config);
    script.receive("7E8#1014010203040506");
    assert_eq!(script.events(), [started()]);
    assert!(script.transmit_confirmed().starts_with("7E0#30"));
    assert!(script.endpoint.is_receiving());
    script
}

#[test]
fn a_single_frame_is_a_whole_pdu() {
    let mut script = Script::new(tester());
    script.receive("7E8#027E00AAAAAAAAAA");
    assert_eq!(script.events(), [started(), received(&[0x7E, 0])]);
    assert_eq!(script.transmit(), "");
}

#[test]
fn frames_of_other_nodes_are_ignored() {
    let mut script = Script::new(tester());
    let now = script.now;
    assert!(!script.endpoint.handle_frame(now, &super::script::frame("7E9#027E00")));
    assert!(!script.endpoint.handle_frame(now, &super::script::frame("7E0#027E00")));
    assert_eq!(script.event(), None);
}

#[test]
fn a_segmented_pdu_is_reassembled() {
    let mut script = after_flow_control(tester());
    script.receive("7E8#210708090A0B0C0D");
    assert_eq!(script.event(), None);
    script.receive("7E8#220E0F1011121314");
    assert_eq!(script.events(), [received(&(1..=20).collect::<Vec<u8>>())]);
    assert!(!script.endpoint.is_receiving());
    assert_eq!(script.timer(), None);
}

#[test]
fn flow_control_carries_its_parameters_and_precedes_own_data() {
    let mut script = Script::new(Config { block_size: 8, st_min: SeparationTime(0xF1), ..tester() });
    script.send(&[1]);
    script.receive("7E8#1014010203040506");
    assert_eq!(script.transmit(), "7E0#3008F1CCCCCCCCCC");
    assert_eq!(script.transmit(), "7E0#0101CCCCCCCCCCCC");
    assert_eq!(script.transmit(), "");
}

#[test]
fn a_flow_control_follows_each_block_but_the_last() {
    let mut script = after_flow_control(Config { block_size: 1, ..tester() });
    script.receive("7E8#210708090A0B0C0D");
    assert_eq!(script.transmit_confirmed(), "7E0#300100CCCCCCCCCC");
    script.receive("7E8#220E0F1011121314");
    assert_eq!(script.transmit(), "");
    assert_eq!(script.events(), [received(&(1..=20).collect::<Vec<u8>>())]);
}

#[test]
fn a_consecutive_frame_may_come_before_the_flow_control_s_acknowledgement() {
    let mut script = Script::new(Config { block_size: 1, ..tester() });
    script.receive("7E8#1014010203040506");
    script.transmit();
    script.receive("7E8#210708090A0B0C0D");
    script.transmit();
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NAr, 1000)), "the second flow control is still on its way");
    script.receive("7E8#220E0F1011121314");
    script.confirm();
    assert_eq!(script.events(), [started(), received(&(1..=20).collect::<Vec<u8>>())]);
    assert_eq!(script.timer(), None);
}

#[test]
fn an_unexpected_consecutive_frame_is_ignored() {
    let mut script = Script::new(tester());
    script.receive("7E8#210708090A0B0C0D");
    assert_eq!(script.event(), None);
    script.receive("7E8#1014010203040506");
    script.receive("7E8#210708090A0B0C0D");
    script.transmit_confirmed();
    script.receive("7E8#210708090A0B0C0D");
    script.receive("7E8#220E0F1011121314");
    assert_eq!(script.events(), [started(), received(&(1..=20).collect::<Vec<u8>>())]);
}

#[test]
fn a_wrong_sequence_number_ends_the_reception() {
    for text in ["7E8#220708090A0B0C0D", "7E8#200708090A0B0C0D"] {
        let mut script = after_flow_control(tester());
        script.receive(text);
        assert_eq!(script.events(), [failed(ReceiveFailure::WrongSequenceNumber)]);
        script.receive("7E8#210708090A0B0C0D");
        assert_eq!((script.event(), script.timer()), (None, None));
    }
}

#[test]
fn the_sequence_number_wraps_from_15_to_0() {
    let mut script = Script::new(tester());
    script.receive("7E8#1078000000000000");
    script.transmit_confirmed();
    for number in 1..=17 {
        script.receive(&format!("7E8#2{:X}00000000000000", number % 16));
    }
    assert!(matches!(&script.events()[..], [_, Event::Received { pdu, .. }] if pdu.len() == 120));
}

#[test]
fn n_cr_restarts_with_each_frame_and_ends_the_reception() {
    let timeouts = Timeouts { n_cr: Duration::from_millis(150), ..Timeouts::default() };
    let mut script = after_flow_control(Config { timeouts, ..tester() });
    assert_eq!(script.timer(), Some((Timer::NCr, 150)));
    script.pass_ms(149);
    script.receive("7E8#210708090A0B0C0D");
    assert_eq!(script.timer(), Some((Timer::NCr, 150)));
    script.pass_ms(150);
    assert_eq!(script.events(), [failed(ReceiveFailure::ConsecutiveFrameTimeout)]);
    script.receive("7E8#220E0F1011121314");
    assert_eq!((script.event(), script.timer()), (None, None));
}

#[test]
fn n_ar_ends_the_reception_when_the_flow_control_is_not_sent() {
    let timeouts = Timeouts { n_ar: Duration::from_millis(70), ..Timeouts::default() };
    for fetched in [true, false] {
        let mut script = Script::new(Config { timeouts, ..tester() });
        script.receive("7E8#1014010203040506");
        if fetched {
            script.transmit();
        }
        assert_eq!(script.timer(), Some((Timer::NAr, 70)));
        script.pass_ms(70);
        assert_eq!(script.events(), [started(), failed(ReceiveFailure::NotAcknowledged)]);
        assert_eq!(script.transmit(), "");
    }
}

#[test]
fn a_flow_control_given_up_by_the_adapter_ends_the_reception() {
    for failure in [SendFailure::NotAcknowledged, SendFailure::BusOff] {
        let mut script = Script::new(tester());
        script.receive("7E8#1014010203040506");
        script.transmit();
        script.fail(failure);
        assert_eq!(script.events(), [started(), failed(ReceiveFailure::NotAcknowledged)]);
    }
}

#[test]
fn bus_off_does_not_end_a_reception_whose_flow_control_is_sent() {
    let mut script = after_flow_control(tester());
    script.fail(SendFailure::BusOff);
    script.receive("7E8#210708090A0B0C0D");
    script.receive("7E8#220E0F1011121314");
    assert_eq!(script.events(), [received(&(1..=20).collect::<Vec<u8>>())]);
}

#[test]
fn a_new_first_or_single_frame_replaces_a_reception() {
    let interrupted = failed(ReceiveFailure::Interrupted);
    let mut script = after_flow_control(tester());
    script.receive("7E8#210708090A0B0C0D");
    script.receive("7E8#1008010203040506");
    assert_eq!(script.events(), [interrupted.clone(), started()]);
    assert_eq!(script.transmit_confirmed(), "7E0#300000CCCCCCCCCC");
    script.receive("7E8#017F");
    assert_eq!(script.events(), [interrupted, started(), received(&[0x7F])]);
    script.receive("7E8#210708AAAAAAAAAA");
    assert_eq!((script.event(), script.timer()), (None, None));
}

#[test]
fn a_flow_control_of_an_interrupted_reception_does_not_count_for_the_next() {
    let mut script = Script::new(tester());
    script.receive("7E8#1014010203040506");
    script.transmit();
    script.receive("7E8#1014010203040506");
    script.transmit();
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NAr, 1000)));
    script.confirm();
    assert_eq!(script.timer(), Some((Timer::NCr, 1000)));
}

#[test]
fn a_frame_that_is_not_an_n_pdu_does_not_affect_a_reception() {
    let mut script = after_flow_control(tester());
    for text in
        ["7E8#", "7E8#00", "7E8#09", "7E8#4000", "7E8#FF00", "7E8#10", "7E8#1005010203040506", "7E8#30"]
    {
        script.receive(text);
        assert_eq!(script.event(), None, "{text}");
    }
    script.receive("7E8#210708090A0B0C0D");
    script.receive("7E8#220E0F1011121314");
    assert_eq!(script.events(), [received(&(1..=20).collect::<Vec<u8>>())]);
}

#[test]
fn only_the_last_consecutive_frame_may_be_short() {
    let mut script = after_flow_control(tester());
    script.receive("7E8#210708090A0B0C");
    script.receive("7E8#210708090A0B0C0D");
    script.receive("7E8#220E0F10111213");
    assert_eq!(script.event(), None, "one byte is missing");
    script.receive("7E8#220E0F1011121314");
    assert_eq!(script.events(), [received(&(1..=20).collect::<Vec<u8>>())]);
}

#[test]
fn the_size_of_consecutive_fd_frames_is_that_of_the_first() {
    let mut script = Script::new(tester());
    script.receive("7E8##1101E0102030405060708090A0B0C0D0E");
    assert_eq!(script.events(), [started()]);
    script.transmit_confirmed();
    script.receive("7E8##1210F101112131415");
    script.receive("7E8##1210F101112131415161718191A1B1C1D1E000000");
    assert_eq!(script.event(), None, "shorter and longer ones are ignored");
    script.receive("7E8##1210F101112131415161718191A1B1C1D");
    script.receive("7E8##1221E");
    assert_eq!(script.events(), [received(&(1..=30).collect::<Vec<u8>>())]);
}

#[test]
fn an_endpoint_that_sends_classic_frames_accepts_a_long_fd_frame() {
    let mut script = Script::new(tester());
    script.receive("7E8##100080102030405060708CCCC");
    assert_eq!(script.events(), [started(), received(&[1, 2, 3, 4, 5, 6, 7, 8])]);
    script.receive("7E8##108080102030405060708CCCC");
    assert_eq!(script.event(), None, "without the escape, the frame is not a single frame");
}

/// An ECU that sends frames of one length only puts its short answers into them.
#[test]
fn a_short_answer_in_a_long_fd_frame_is_a_pdu() {
    let padding = "CC".repeat(59);
    let mut script = Script::new(tester());
    for text in ["7E8##100037F2231CCCCCCCCCCCCCC", &format!("7E8##100037F2231{padding}")] {
        script.receive(text);
        assert_eq!(script.events(), [started(), received(&[0x7F, 0x22, 0x31])], "{text}");
    }
    for text in
        ["7E8##1000000000000000000000000", "7E8##1000B7F2231CCCCCCCCCCCCCC", "7E8##1037F2231CCCCCCCCCCCCCCCC"]
    {
        script.receive(text);
        assert_eq!(script.event(), None, "{text} has an invalid length");
    }
}

#[test]
fn flow_control_has_the_format_of_the_first_frame() {
    for config in [tester(), Config { frame_size: FrameSize::fd(64, true).unwrap(), ..tester() }] {
        for (first, control) in [
            ("7E8#100A000102030405", "7E0#300000CCCCCCCCCC"),
            ("7E8##0100A000102030405", "7E0##0300000CCCCCCCCCC"),
            ("7E8##1100A000102030405", "7E0##1300000CCCCCCCCCC"),
        ] {
            let mut script = Script::new(config.clone());
            script.receive(first);
            assert_eq!(script.transmit(), control, "{first}");
        }
    }
}

#[test]
fn memory_grows_with_received_and_not_with_announced_bytes() {
    let mut script = Script::new(tester());
    script.receive("7E8#1000001000000102");
    assert_eq!(script.transmit_confirmed(), "7E0#300000CCCCCCCCCC");
    assert!(script.endpoint.memory() <= 4096, "{}", script.endpoint.memory());
    let mut most = 0;
    let frames = ((1 << 20) - 2_u32).div_ceil(7);
    for number in 1..frames {
        script.receive(&format!("7E8#2{:X}00000000000000", number % 16));
        let came = 2 + 7 * usize::try_from(number).unwrap();
        most = most.max(script.endpoint.memory());
        assert!(script.endpoint.memory() <= 4096.max(2 * came), "after {came}");
    }
    assert_eq!(most, 1 << 20, "at the end, exactly the PDU is stored");
    script.receive(&format!("7E8#2{:X}00000000000000", frames % 16));
    assert!(matches!(&script.events()[..], [_, Event::Received { pdu, .. }] if pdu.len() == 1 << 20));
    assert_eq!(script.endpoint.memory(), 0);
}

#[test]
fn a_pdu_beyond_the_bound_is_refused_with_overflow() {
    let mut script = Script::new(Config { max_pdu: 19, ..tester() });
    script.receive("7E8#1014010203040506");
    assert_eq!(script.events(), [started(), failed(ReceiveFailure::TooLong)]);
    assert!(!script.endpoint.is_receiving());
    assert_eq!(script.transmit_confirmed(), "7E0#320000CCCCCCCCCC");
    script.receive("7E8#210708090A0B0C0D");
    assert_eq!((script.event(), script.timer()), (None, None));
    script.receive("7E8#1013010203040506");
    assert_eq!(script.transmit(), "7E0#300000CCCCCCCCCC");
}

#[test]
fn a_refusal_that_cannot_be_sent_is_dropped() {
    let mut script = Script::new(Config { max_pdu: 19, ..tester() });
    script.receive("7E8#1014010203040506");
    script.events();
    assert_eq!(script.timer(), Some((Timer::NAr, 1000)));
    script.pass_ms(1000);
    assert_eq!((script.transmit(), script.event(), script.timer()), (String::new(), None, None));
}

#[test]
fn the_longest_length_of_the_wire_format_is_refused() {
    let mut script = Script::new(tester());
    script.receive("7E8#1000FFFFFFFF0102");
    assert_eq!(script.events(), [started(), failed(ReceiveFailure::TooLong)]);
    assert_eq!(script.transmit(), "7E0#320000CCCCCCCCCC");
}

#[test]
fn frames_are_dropped_while_too_many_events_are_unread() {
    let mut script = Script::new(tester());
    for _ in 0..1000 {
        script.receive("7E8#017F");
    }
    assert_eq!(script.events().len(), 8);
    script.receive("7E8#017F");
    assert_eq!(script.events().len(), 2);
}

#[test]
fn an_adapter_that_never_confirms_gets_a_bounded_number_of_flow_controls() {
    let mut script = Script::new(tester());
    let mut given = 0;
    for _ in 0..1000 {
        script.receive("7E8#1014010203040506");
        given += usize::from(!script.transmit().is_empty());
        script.events();
    }
    assert_eq!(given, 36, "16 more than the frames of the sender");
}
