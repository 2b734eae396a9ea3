//! Transfers of PDUs between two endpoints.

use std::time::Duration;

use super::net::Net;
use super::{ecu, id, pdu, tester};
use crate::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FrameSize, ReceiveFailure, SendError, SendFailure, SeparationTime,
};

#[test]
fn a_short_pdu_is_sent_in_one_frame_and_reported() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
    net.send(0, &[0x22, 0xF1, 0x90]).unwrap();
    net.run();
    assert_eq!(net.candump(), ["7E0#0322F190CCCCCCCC"]);
    assert_eq!(net.received(1), [[0x22, 0xF1, 0x90]]);
    assert_eq!(net.outcomes(0), [&Event::Sent { elapsed: Duration::from_micros(250) }]);
}

#[test]
fn a_long_pdu_is_segmented_and_reassembled() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
    net.send(0, &pdu(20)).unwrap();
    net.run();
    assert_eq!(
        net.candump(),
        ["7E0#101400070E151C23", "7E8#300000CCCCCCCCCC", "7E0#212A31383F464D54", "7E0#225B626970777E85",]
    );
    assert_eq!(net.received(1), [pdu(20)]);
    assert!(matches!(net.outcomes(0)[..], [Event::Sent { .. }]));
}

#[test]
fn both_directions_transfer_simultaneously() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
    net.send(0, &pdu(4095)).unwrap();
    net.send(1, &pdu(1000)).unwrap();
    net.run();
    assert_eq!(net.received(0), [pdu(1000)]);
    assert_eq!(net.received(1), [pdu(4095)]);
}

#[test]
fn block_size_and_separation_time_of_the_receiver_are_kept() {
    let receiver = Config { block_size: 2, st_min: SeparationTime(5), ..ecu() };
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(receiver));
    net.send(0, &pdu(40)).unwrap();
    net.run();
    assert_eq!(net.received(1), [pdu(40)]);
    let senders: Vec<usize> = net.log.iter().map(|(_, node, _)| *node).collect();
    assert_eq!(senders, [0, 1, 0, 0, 1, 0, 0, 1, 0], "a flow control after each two consecutive frames");
    let gap = net.log[3].0 - net.log[2].0;
    assert_eq!(gap, Duration::from_millis(5) + net.confirm_delay + net.frame_time);
}

/// Every addressing mode, as the endpoint and its peer configure it.
pub(crate) fn addressing_modes() -> Vec<(Addressing, Addressing)> {
    let (a, b) = (id(0x7E0), id(0x7E8));
    let (long_a, long_b) = (id(0x18DA_10F1), id(0x18DA_F110));
    vec![
        (Addressing::normal(a, b), Addressing::normal(b, a)),
        (Addressing::normal(long_a, long_b), Addressing::normal(long_b, long_a)),
        (Addressing::normal_fixed(0x10, 0xF1), Addressing::normal_fixed(0xF1, 0x10)),
        (Addressing::extended(a, b, 0x10, 0xF1), Addressing::extended(b, a, 0xF1, 0x10)),
        (Addressing::extended(long_a, long_b, 0x10, 0xF1), Addressing::extended(long_b, long_a, 0xF1, 0x10)),
        (Addressing::new(a, b, Some(0x10), None), Addressing::new(b, a, None, Some(0x10))),
        (Addressing::new(a, b, None, Some(0xF1)), Addressing::new(b, a, Some(0xF1), None)),
        (Addressing::mixed(a, b, 0x99), Addressing::mixed(b, a, 0x99)),
        (Addressing::mixed_fixed(0x10, 0xF1, 0x99), Addressing::mixed_fixed(0xF1, 0x10, 0x99)),
    ]
}

pub(crate) fn frame_sizes() -> Vec<FrameSize> {
    let fd = [8, 12, 16, 20, 24, 32, 48, 64].map(|tx_dl| FrameSize::fd(tx_dl, true).unwrap());
    std::iter::once(FrameSize::Classic).chain(fd).collect()
}

#[test]
fn every_length_around_a_boundary_arrives_in_every_mode() {
    let flows = [(0, 0), (1, 0), (8, 0), (0, 0xF1), (1, 5), (8, 0x80)];
    for (addressing, peers_view) in addressing_modes() {
        for frame_size in frame_sizes() {
            let single = frame_size.tx_dl() - addressing.address_bytes() - 2;
            let consecutive = single + 1;
            // lengths that end a single frame, a first frame, a consecutive frame, a block and a sequence
            // number
            let ends =
                [1, 6, single, single + consecutive, single + 8 * consecutive, single + 17 * consecutive];
            for (number, len) in ends.into_iter().flat_map(|end| end..end + 3).enumerate() {
                transfer((addressing, peers_view), frame_size, flows[number % flows.len()], len);
            }
            for (flow, len) in [((0, 0), 4095), ((8, 0xF1), 4096)] {
                transfer((addressing, peers_view), frame_size, flow, len);
            }
        }
    }
}

fn transfer(addressing: (Addressing, Addressing), frame_size: FrameSize, flow: (u8, u8), len: usize) {
    let config = |addressing| Config {
        frame_size,
        block_size: flow.0,
        st_min: SeparationTime(flow.1),
        ..Config::new(addressing)
    };
    let mut net = Net::pair(Endpoint::new(config(addressing.0)), Endpoint::new(config(addressing.1)));
    net.send(0, &pdu(len)).unwrap();
    net.run();
    let case = format!("{addressing:?} {frame_size:?} {flow:?} {len}");
    assert_eq!(net.received(1), [pdu(len)], "{case}");
    assert!(matches!(net.outcomes(0)[..], [Event::Sent { .. }]), "{case}: {:?}", net.outcomes(0));
}

#[test]
fn a_mebibyte_arrives() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
    net.send(0, &pdu(1 << 20)).unwrap();
    net.run();
    assert!(net.received(1) == [pdu(1 << 20)]);
    assert!(matches!(net.send(0, &pdu((1 << 20) + 1)), Err(SendError::TooLong { .. })));
}

#[test]
fn a_pdu_that_the_receiver_refuses_fails_on_both_sides() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(Config { max_pdu: 100, ..ecu() }));
    net.send(0, &pdu(101)).unwrap();
    net.run();
    assert_eq!(net.outcomes(0), [&Event::SendFailed { failure: SendFailure::Overflow }]);
    let failure = ReceiveFailure::TooLong;
    assert_eq!(net.outcomes(1), [&Event::ReceiveFailed { address: id(0x7E0), failure }]);
    assert_eq!(net.log.len(), 2);
}

#[test]
fn a_saturated_bus_carries_4095_bytes_in_587_frames_without_a_gap() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
    net.confirm_delay = Duration::from_micros(150);
    net.send(0, &pdu(4095)).unwrap();
    net.run();
    assert_eq!(net.log.len(), 1 + 1 + 585);
    let consecutive = &net.log[2..];
    assert!(
        consecutive.windows(2).all(|two| two[1].0 - two[0].0 == net.frame_time),
        "the window hides the delay"
    );
}

#[test]
fn a_frame_confirmed_only_after_the_answer_still_counts() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(Config { block_size: 1, ..ecu() }));
    net.confirm_delay = Duration::from_millis(400);
    net.send(0, &pdu(100)).unwrap();
    net.run();
    assert_eq!(net.received(1), [pdu(100)]);
    assert!(matches!(net.outcomes(0)[..], [Event::Sent { .. }]));
}

#[test]
fn a_lost_first_frame_or_flow_control_ends_by_n_bs() {
    for lost in [0, 1] {
        let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
        net.lose = Box::new(move |number, _| number == lost);
        net.send(0, &pdu(100)).unwrap();
        net.run();
        assert_eq!(net.outcomes(0), [&Event::SendFailed { failure: SendFailure::FlowControlTimeout }]);
        assert_eq!(net.outcomes(1).len(), lost, "the receiver of the first frame gives up by N_Cr");
    }
}

#[test]
fn a_lost_consecutive_frame_ends_the_reception() {
    for (lost, failure) in
        [(4, ReceiveFailure::WrongSequenceNumber), (15, ReceiveFailure::ConsecutiveFrameTimeout)]
    {
        let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
        net.lose = Box::new(move |number, _| number == lost);
        net.send(0, &pdu(100)).unwrap();
        net.run();
        assert_eq!(net.log.len(), 16);
        assert_eq!(net.outcomes(1), [&Event::ReceiveFailed { address: id(0x7E0), failure }]);
        assert!(net.received(1).is_empty());
    }
}
