use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use connector_hal::can::CanId;
use proptest::prelude::*;

use super::pair::{ECU_LISTENS, Pair, Side, data_number, is_ack, pdu, positive};
use crate::protocol::tp20::{
    ChannelConfig, CloseReason, Event, Parameters, ReceiveFailure, Refusal, SendError, SetupMessage,
    SetupOpcode, TimeByte,
};

/// T1 100 ms, T3 10 ms and 15 frames per block, as most ECUs request.
fn usual() -> Parameters {
    Parameters { t3: TimeByte(0x4A), ..Parameters::default() }
}

fn with(block_size: u8, t3: u8) -> Parameters {
    Parameters { block_size, t3: TimeByte(t3), ..Parameters::default() }
}

fn received(events: &[Event]) -> Vec<Vec<u8>> {
    let pdus = events.iter().filter_map(|event| match event {
        Event::Received { pdu } => Some(pdu.clone()),
        _ => None,
    });
    pdus.collect()
}

fn has_sent(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event, Event::Sent { .. }))
}

#[test]
fn pdus_of_every_length_cross_in_both_directions_simultaneously() {
    for parameters in [usual(), with(1, 0x00), with(4, 0x05), with(15, 0x00), with(0, 0x00), with(255, 0xFF)]
    {
        let mut pair = Pair::open(parameters);
        for len in [1, 4, 5, 6, 12, 13, 47, 100, 103, 104, 105, 106, 300] {
            pair.channel.send(pair.now, &pdu(len)).unwrap();
            let now = pair.now;
            pair.ecu().send(now, &pdu(len + 1)).unwrap();
            pair.run_for(Duration::from_secs(3));
            assert_eq!(
                received(&std::mem::take(&mut pair.tester_events)),
                [pdu(len + 1)],
                "{parameters:?} {len}"
            );
            assert_eq!(received(&std::mem::take(&mut pair.ecu_events)), [pdu(len)], "{parameters:?} {len}");
        }
    }
}

#[test]
fn the_longest_pdu_crosses_and_a_longer_one_is_refused() {
    let mut pair = Pair::open(with(15, 0x00));
    pair.channel.send(pair.now, &pdu(0x7FFF)).unwrap();
    pair.run_for(Duration::from_secs(20));
    assert!(received(&pair.ecu_events) == [pdu(0x7FFF)]);
    assert_eq!(
        pair.channel.send(pair.now, &pdu(0x8000)),
        Err(SendError::TooLong { len: 0x8000, max: 0x7FFF })
    );
    assert_eq!(pair.channel.send(pair.now, &[]), Err(SendError::Empty));
}

#[test]
fn blocks_and_gaps_are_those_that_the_ecu_requested() {
    let mut pair = Pair::open(with(4, 0x4A));
    pair.channel.send(pair.now, &pdu(7 * 10)).unwrap();
    let from = pair.log.len();
    pair.run_for(Duration::from_secs(2));
    assert_eq!(received(&pair.ecu_events), [pdu(70)]);
    let data: Vec<_> = pair.log[from..]
        .iter()
        .filter(|(_, side, f)| *side == Side::Tester && data_number(f).is_some())
        .collect();
    let ops: Vec<u8> = data.iter().map(|(_, _, frame)| frame.data()[0] >> 4).collect();
    assert_eq!(ops, [2, 2, 2, 0, 2, 2, 2, 0, 2, 2, 1]);
    for two in data.windows(2) {
        assert!(two[1].0 - two[0].0 >= Duration::from_millis(10));
    }
}

#[test]
fn channel_tests_of_either_side_keep_an_idle_channel_open() {
    let mut pair = Pair::open(usual());
    pair.run_for(Duration::from_secs(60));
    assert!(pair.channel.is_open());
    assert!(pair.tester_events.is_empty() && pair.ecu_events.is_empty());
    let tests = pair.sent_by(Side::Tester).iter().filter(|frame| frame.as_str() == "740#A3").count();
    assert!((110..=125).contains(&tests), "{tests}");
    // the ECU sends a channel test too
    pair.inject(0x300, &[0xA3]);
    pair.run_for(Duration::from_millis(2));
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#A10F8AFF32FF");
}

#[test]
fn a_busy_ecu_that_misses_some_tests_is_not_given_up() {
    let mut pair = Pair::open(usual());
    let mut left = 3;
    pair.loses = Box::new(move |side, frame| {
        let is_test = side == Side::Tester && frame.data() == [0xA3];
        left -= i32::from(is_test);
        is_test && left >= 0
    });
    pair.ecu = pair.ecu.take();
    pair.run_for(Duration::from_millis(1100));
    assert!(pair.channel.is_open(), "{:?}", pair.tester_events);
}

#[test]
fn a_lost_ecu_is_detected_and_the_next_pdu_opens_the_channel_again() {
    let mut pair = Pair::open(usual());
    pair.ecu = None;
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.tester_events, [Event::Closed { reason: CloseReason::NoTestAnswer }]);
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#A8");
    let frames = pair.log.len();
    pair.run_for(Duration::from_secs(5));
    assert_eq!(pair.log.len(), frames, "no frame is sent to a lost ECU");
    pair.tester_events.clear();
    pair.channel.send(pair.now, &[0x10, 0x89]).unwrap();
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.tester_events[0], Event::Opened);
    assert!(has_sent(&pair.tester_events));
    assert_eq!(received(&pair.ecu_events), [[0x10, 0x89]]);
}

#[test]
fn the_loss_of_any_single_frame_is_recovered() {
    // the n-th frame of each kind is lost once
    type Picks = fn(&connector_hal::can::CanFrame) -> bool;
    let kinds: [(Side, Picks); 4] = [
        (Side::Tester, |frame| data_number(frame).is_some()),
        (Side::Ecu, |frame| data_number(frame).is_some()),
        (Side::Tester, is_ack),
        (Side::Ecu, is_ack),
    ];
    for (of, picks) in kinds {
        for lost in 0..9 {
            let mut pair = Pair::open(with(3, 0x32));
            let mut count = 0;
            pair.loses = Box::new(move |side, frame| {
                let is_it = side == of && picks(frame);
                count += i32::from(is_it);
                is_it && count == lost + 1
            });
            pair.channel.send(pair.now, &pdu(50)).unwrap();
            let now = pair.now;
            pair.ecu().send(now, &pdu(60)).unwrap();
            pair.run_for(Duration::from_secs(3));
            assert_eq!(received(&pair.ecu_events), [pdu(50)], "{of:?} {lost}");
            assert_eq!(received(&pair.tester_events), [pdu(60)], "{of:?} {lost}");
            assert!(has_sent(&pair.tester_events) && has_sent(&pair.ecu_events), "{of:?} {lost}");
            // the next PDU arrives whole too
            pair.tester_events.clear();
            pair.ecu_events.clear();
            pair.channel.send(pair.now, &pdu(20)).unwrap();
            pair.run_for(Duration::from_secs(1));
            assert_eq!(received(&pair.ecu_events), [pdu(20)], "{of:?} {lost}");
        }
    }
}

#[test]
fn unacknowledged_data_is_repeated_a_bounded_number_of_times() {
    let mut pair = Pair::open(usual());
    pair.loses = Box::new(|side, frame| side == Side::Ecu && is_ack(frame));
    let from = pair.log.len();
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_secs(2));
    let reason = CloseReason::NoAck;
    assert_eq!(pair.tester_events, [Event::SendFailed { reason }, Event::Closed { reason }]);
    let data =
        pair.log[from..].iter().filter(|(_, side, f)| *side == Side::Tester && data_number(f).is_some());
    assert_eq!(data.count(), 6);
    assert_eq!(received(&pair.ecu_events), [[0x3E]], "the ECU received the PDU once");
}

#[test]
fn sending_continues_when_a_busy_ecu_reports_that_it_is_ready() {
    // the ECU's side is scripted from here on
    let mut pair = Pair::open(with(2, 0x00));
    pair.ecu = None;
    pair.channel.send(pair.now, &pdu(5 + 7 * 3)).unwrap();
    pair.run_for(Duration::from_millis(5));
    pair.inject(0x300, &[0x92]);
    let from = pair.log.len();
    pair.run_for(Duration::from_millis(300));
    let data = |pair: &Pair| {
        let sent = pair.log[from..].iter().filter(|(_, side, _)| *side == Side::Tester);
        sent.filter_map(|(_, _, frame)| data_number(frame)).collect::<Vec<_>>()
    };
    assert!(data(&pair).is_empty());
    pair.inject(0x300, &[0xB2]);
    pair.run_for(Duration::from_millis(5));
    assert_eq!(data(&pair), [2, 3]);
    pair.inject(0x300, &[0xB4]);
    pair.run_for(Duration::from_millis(5));
    assert!(has_sent(&pair.tester_events));
}

#[test]
fn sending_continues_by_itself_if_a_busy_ecu_never_reports_ready() {
    let mut pair = Pair::open(with(2, 0x00));
    pair.ecu = None;
    pair.channel.send(pair.now, &pdu(5 + 7 * 3)).unwrap();
    pair.run_for(Duration::from_millis(5));
    pair.inject(0x300, &[0x92]);
    pair.run_for(Duration::from_millis(600));
    let numbers: Vec<u8> = pair.log.iter().filter_map(|(_, _, frame)| data_number(frame)).collect();
    assert_eq!(&numbers[..4], [0, 1, 2, 3]);
}

#[test]
fn an_ecu_that_is_never_ready_ends_the_wait() {
    let mut pair = Pair::open(with(1, 0x00));
    pair.ecu = None;
    pair.channel.send(pair.now, &pdu(20)).unwrap();
    for _ in 0..200 {
        pair.inject(0x300, &[0x91]);
        pair.run_for(Duration::from_millis(100));
    }
    let reason = CloseReason::NotReady;
    assert_eq!(pair.tester_events[..2], [Event::SendFailed { reason }, Event::Closed { reason }]);
}

#[test]
fn an_ecu_that_sends_its_parameters_first_gets_an_answer_and_the_pdus() {
    let mut pair = Pair::new(usual());
    pair.setup = Box::new(|request| Some(positive(request)));
    pair.channel.open();
    // the ECU sends its own A0 immediately after its D0, and never answers the tester's A0
    pair.loses = Box::new(|side, frame| side == Side::Ecu && frame.data().first() == Some(&0xA1));
    pair.run_for(Duration::from_millis(1));
    pair.inject(0x300, &[0xA0, 0x05, 0x8A, 0xFF, 0x4A, 0xFF]);
    pair.run_for(Duration::from_millis(5));
    assert_eq!(pair.tester_events, [Event::Opened]);
    assert!(pair.sent_by(Side::Tester).contains(&"740#A10F8AFF32FF".to_owned()));
    pair.channel.send(pair.now, &pdu(60)).unwrap();
    pair.run_for(Duration::from_secs(1));
    assert_eq!(received(&pair.ecu_events), [pdu(60)]);
    let ends_block: Vec<String> =
        pair.sent_by(Side::Tester).into_iter().filter(|frame| frame.starts_with("740#0")).collect();
    assert_eq!(ends_block.len(), 1, "a block has the 5 frames of the ECU's A0: {ends_block:?}");
}

#[test]
fn sequence_numbers_begin_at_zero_after_an_ecus_restart() {
    let mut pair = Pair::open(usual());
    pair.channel.send(pair.now, &pdu(30)).unwrap();
    pair.run_for(Duration::from_secs(1));
    pair.inject(0x300, &[0xA0, 0x0F, 0x8A, 0xFF, 0x0A, 0xFF]);
    pair.run_for(Duration::from_millis(5));
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#1000013E");
}

#[test]
fn the_channel_tries_every_form_of_set_up() {
    type Wants = fn(&SetupMessage) -> bool;
    let both: Wants = |request| request.receive.is_some() && request.transmit.is_some();
    let neither: Wants = |request| request.receive.is_none() && request.transmit.is_none();
    for wants in [both, neither] {
        let mut pair = Pair::new(usual());
        pair.setup = Box::new(move |request| {
            wants(request).then(|| SetupMessage {
                receive: Some(CanId::standard_truncated(0x3A1)),
                transmit: Some(CanId::standard_truncated(0x4A3)),
                ..positive(request)
            })
        });
        pair.channel.send(pair.now, &[0x10, 0x89]).unwrap();
        pair.run_for(Duration::from_secs(2));
        assert_eq!(pair.channel.receive_id(), CanId::standard_truncated(0x3A1));
        assert_eq!(received(&pair.ecu_events), [[0x10, 0x89]]);
        assert!(pair.sent_by(Side::Tester).contains(&"4A3#1000021089".to_owned()));
    }
}

#[test]
fn an_ecu_that_names_an_identifier_of_set_up_messages_gets_no_channel() {
    for (transmit, receive) in [(0x200, 0x300), (0x2EF, 0x300), (0x740, 0x201)] {
        let mut pair = Pair::new(usual());
        pair.setup = Box::new(move |request| {
            Some(SetupMessage {
                transmit: Some(CanId::standard_truncated(transmit)),
                receive: Some(CanId::standard_truncated(receive)),
                ..positive(request)
            })
        });
        pair.channel.send(pair.now, &[0x10, 0x89]).unwrap();
        pair.run_for(Duration::from_secs(3));
        let sent = pair.sent_by(Side::Tester);
        assert!(sent.iter().all(|frame| frame.starts_with("200#") && frame.contains("C0")), "{sent:?}");
    }
}

#[test]
fn an_ecu_without_an_identifier_in_its_answer_uses_the_requested_one() {
    let mut pair = Pair::new(usual());
    pair.setup = Box::new(|request| Some(SetupMessage { receive: None, ..positive(request) }));
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_millis(100));
    assert!(has_sent(&pair.tester_events), "{:?}", pair.tester_events);
    assert_eq!(pair.channel.receive_id(), CanId::standard_truncated(0x300));
}

#[test]
fn set_up_is_repeated_if_no_channel_is_free_but_not_if_unsupported() {
    let refuse = |refusal| {
        let requests = Rc::new(RefCell::new(0));
        let mut pair = Pair::new(usual());
        let counted = requests.clone();
        pair.setup = Box::new(move |request| {
            *counted.borrow_mut() += 1;
            Some(SetupMessage { opcode: SetupOpcode::Negative(refusal), ..positive(request) })
        });
        pair.channel.send(pair.now, &[0x3E]).unwrap();
        pair.run_for(Duration::from_secs(10));
        let reason = CloseReason::Refused(refusal);
        assert_eq!(pair.tester_events, [Event::SendFailed { reason }, Event::Closed { reason }]);
        requests.take()
    };
    assert_eq!(refuse(Refusal::ApplicationType), 1);
    assert_eq!(refuse(Refusal::Resources), 5);
    assert_eq!(refuse(Refusal::ApplicationTypeNow), 5);

    let mut pair = Pair::new(usual());
    let mut first = true;
    pair.setup = Box::new(move |request| {
        let busy = SetupMessage { opcode: SetupOpcode::Negative(Refusal::Resources), ..positive(request) };
        Some(if std::mem::take(&mut first) { busy } else { positive(request) })
    });
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_secs(1));
    assert!(has_sent(&pair.tester_events));
}

#[test]
fn a_missing_ecu_is_reported_after_all_forms_were_tried() {
    let mut pair = Pair::new(usual());
    pair.setup = Box::new(|_| None);
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_secs(3));
    let reason = CloseReason::SetupTimeout;
    assert_eq!(pair.tester_events, [Event::SendFailed { reason }, Event::Closed { reason }]);
    assert_eq!(
        pair.sent_by(Side::Tester),
        ["200#01C00010000301", "200#01C00010000301", "200#01C00003000301", "200#01C00010001001"]
    );
    assert!(pair.channel.is_idle());
}

#[test]
fn unanswered_parameters_are_repeated_and_then_the_set_up_fails() {
    let mut pair = Pair::new(usual());
    // the disconnect of the ECU is lost too
    pair.loses = Box::new(|side, frame| match side {
        Side::Tester => frame.data().first() == Some(&0xA0),
        Side::Ecu => frame.data() == [0xA8],
    });
    pair.channel.open();
    pair.run_for(Duration::from_secs(3));
    assert_eq!(pair.tester_events, [Event::Closed { reason: CloseReason::NoParameters }]);
    let offers = pair.sent_by(Side::Tester).iter().filter(|frame| frame.starts_with("740#A0")).count();
    assert_eq!(offers, 10);
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#A8");
}

#[test]
fn closing_disconnects_and_waits_for_the_answer_for_a_bounded_time() {
    let mut pair = Pair::open(usual());
    pair.channel.close(pair.now);
    pair.run_for(Duration::from_millis(5));
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#A8");
    assert_eq!(pair.sent_by(Side::Ecu).last().unwrap(), "300#A8");
    assert_eq!(pair.tester_events, [Event::Closed { reason: CloseReason::Requested }]);
    assert_eq!(pair.ecu_events, [Event::Closed { reason: CloseReason::ByPeer }]);
    assert!(pair.channel.is_idle());

    let mut pair = Pair::open(usual());
    pair.ecu = None;
    pair.channel.close(pair.now);
    pair.run_for(Duration::from_millis(200));
    assert!(pair.channel.is_idle());
    assert_eq!(pair.sent_by(Side::Tester).iter().filter(|frame| frame.as_str() == "740#A8").count(), 1);
}

#[test]
fn a_disconnect_of_the_ecu_fails_transfers_in_both_directions() {
    let mut pair = Pair::open(usual());
    pair.channel.send(pair.now, &pdu(100)).unwrap();
    pair.run_for(Duration::from_millis(15));
    pair.inject(0x300, &[0x20, 0x00, 0x20, 1, 2, 3, 4, 5]);
    pair.inject(0x300, &[0xA8]);
    pair.run_for(Duration::from_millis(5));
    let reason = CloseReason::ByPeer;
    assert_eq!(
        pair.tester_events,
        [
            Event::ReceptionStarted,
            Event::SendFailed { reason },
            Event::ReceiveFailed { failure: ReceiveFailure::Closed },
            Event::Closed { reason },
        ]
    );
    // the next PDU opens a new channel, whose counters begin at 0
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_millis(50));
    assert!(has_sent(&pair.tester_events));
}

#[test]
fn a_break_discards_unacknowledged_data() {
    let mut pair = Pair::open(usual());
    pair.ecu = None;
    for frame in [
        &[0x20, 0x00, 0x0E, 1, 2, 3, 4, 5][..],
        &[0x01, 6, 7, 8, 9, 10, 11, 12],
        &[0x22, 0xEE],
        &[0xA4],
        &[0x12, 13, 14],
    ] {
        pair.inject(0x300, frame);
        pair.run_for(Duration::from_millis(1));
    }
    assert_eq!(received(&pair.tester_events), [(1..=14).collect::<Vec<u8>>()]);
}

#[test]
fn a_reception_that_stalls_after_a_channel_test_requests_the_missing_frame() {
    let mut pair = Pair::open(usual());
    pair.ecu = None;
    pair.inject(0x300, &[0x20, 0x00, 0x06, 1, 2, 3, 4, 5]);
    pair.inject(0x300, &[0xA3]);
    pair.run_for(Duration::from_millis(250));
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#B1");
    pair.inject(0x300, &[0x11, 6]);
    pair.run_for(Duration::from_millis(5));
    assert_eq!(received(&pair.tester_events), [[1, 2, 3, 4, 5, 6]]);
}

#[test]
fn a_reception_that_stops_for_good_closes_the_channel() {
    let mut pair = Pair::open(usual());
    pair.ecu = None;
    pair.inject(0x300, &[0x20, 0x00, 0x06, 1, 2, 3, 4, 5]);
    pair.run_for(Duration::from_secs(2));
    assert_eq!(
        pair.tester_events,
        [
            Event::ReceptionStarted,
            Event::ReceiveFailed { failure: ReceiveFailure::Timeout },
            Event::Closed { reason: CloseReason::ReceptionStopped },
        ]
    );
}

#[test]
fn lengths_are_read_without_their_highest_bit_and_padding_is_left_out() {
    let mut pair = Pair::open(usual());
    pair.inject(0x300, &[0x10, 0x80, 0x02, 0x50, 0x89, 0xAA, 0xAA, 0xAA]);
    pair.run_for(Duration::from_millis(2));
    assert_eq!(received(&pair.tester_events), [[0x50, 0x89]]);
    assert_eq!(pair.sent_by(Side::Tester).last().unwrap(), "740#B1");
}

#[test]
fn a_pdu_of_wrong_length_is_reported_and_the_next_one_is_received() {
    let config = ChannelConfig { max_pdu: 20, ..ChannelConfig::new(1.try_into().unwrap(), 0) };
    let mut pair = Pair::with(config, usual());
    pair.channel.open();
    pair.run_for(Duration::from_millis(50));
    pair.tester_events.clear();
    for frame in [
        &[0x10, 0x00, 0x03, 0x50, 0x89][..],
        &[0x21, 0x00, 0x15, 1, 2, 3, 4, 5],
        &[0x22, 6, 7, 8, 9, 10, 11, 12],
        &[0x13, 1],
        &[0x14, 0x00, 0x01, 0x7E],
    ] {
        pair.inject(0x300, frame);
        pair.run_for(Duration::from_millis(1));
    }
    let failures: Vec<Event> = pair
        .tester_events
        .iter()
        .filter(|event| !matches!(event, Event::ReceptionStarted))
        .cloned()
        .collect();
    assert_eq!(
        failures,
        [
            Event::ReceiveFailed { failure: ReceiveFailure::WrongLength },
            Event::ReceiveFailed { failure: ReceiveFailure::TooLong },
            Event::Received { pdu: vec![0x7E] },
        ]
    );
}

#[test]
fn two_consecutive_pdus_are_received_separately() {
    let mut pair = Pair::open(usual());
    pair.inject(0x300, &[0x10, 0x00, 0x03, 0x7F, 0x31, 0x78]);
    pair.inject(0x300, &[0x31, 0x00, 0x02, 0x71, 0xB8]);
    pair.run_for(Duration::from_millis(5));
    assert_eq!(received(&pair.tester_events), [vec![0x7F, 0x31, 0x78], vec![0x71, 0xB8]]);
}

#[test]
fn bus_off_fails_every_transfer_and_the_bus_is_used_again_afterwards() {
    let mut pair = Pair::open(usual());
    pair.channel.send(pair.now, &pdu(100)).unwrap();
    pair.run_for(Duration::from_millis(5));
    let reason = CloseReason::BusOff;
    pair.channel.handle_transmit_failed(pair.now, reason);
    pair.run_for(Duration::from_millis(1));
    assert_eq!(pair.tester_events, [Event::SendFailed { reason }, Event::Closed { reason }]);
    assert_eq!(pair.channel.poll_transmit(pair.now), None);
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    pair.run_for(Duration::from_millis(50));
    assert!(has_sent(&pair.tester_events));
}

#[test]
fn a_frame_that_is_not_acknowledged_on_the_bus_ends_the_set_up() {
    let mut pair = Pair::new(usual());
    pair.channel.send(pair.now, &[0x3E]).unwrap();
    assert!(pair.channel.poll_transmit(pair.now).is_some());
    pair.channel.handle_transmit_failed(pair.now, CloseReason::NotAcknowledged);
    let reason = CloseReason::NotAcknowledged;
    assert_eq!(pair.channel.poll_event(), Some(Event::SendFailed { reason }));
    assert_eq!(pair.channel.poll_event(), Some(Event::Closed { reason }));
}

#[test]
fn channels_of_one_bus_ask_for_different_identifiers() {
    let ids: Vec<u32> =
        (0..17).map(|index| ChannelConfig::new(1.try_into().unwrap(), index).receive.raw()).collect();
    assert_eq!(ids[..2], [0x300, 0x301]);
    assert_eq!((ids[15], ids[16]), (0x30F, 0x300));
    assert_eq!(ECU_LISTENS.raw(), 0x740);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// If some frames are lost, each PDU arrives once, whole and in order.
    #[test]
    fn lost_frames_never_change_or_duplicate_a_pdu(
        seed: u64,
        loss in 0u32..25,
        block_size in 1u8..=15,
        lens in proptest::collection::vec(1usize..200, 1..5),
    ) {
        let mut pair = Pair::open(with(block_size, 0x0A));
        let mut random = seed | 1;
        pair.loses = Box::new(move |_, _| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % 100 < u64::from(loss)
        });
        let mut expected = Vec::new();
        for len in lens {
            pair.channel.send(pair.now, &pdu(len)).unwrap();
            while pair.channel.is_sending() {
                pair.run_for(Duration::from_millis(10));
            }
            let failed = pair.tester_events.iter().any(|event| matches!(event, Event::SendFailed { .. }));
            if failed {
                // the failed PDU may have arrived, but only as a whole
                let got = received(&pair.ecu_events);
                prop_assert!(got == expected || got[..got.len() - 1] == expected && got.last() == Some(&pdu(len)));
                return Ok(());
            }
            expected.push(pdu(len));
            prop_assert_eq!(&received(&pair.ecu_events), &expected);
        }
    }
}
