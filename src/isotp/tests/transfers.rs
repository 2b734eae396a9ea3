//! Whole PDUs between two endpoints.

use std::time::Duration;

use connector_hal::can::CanId;

use super::net::Net;
use crate::isotp::{Addressing, Config, Endpoint, Event, SeparationTime};

pub fn id(id: u32) -> CanId {
    CanId::try_from(id).unwrap()
}

pub fn tester() -> Config {
    Config::new(Addressing::normal(id(0x7E0), id(0x7E8)))
}

pub fn ecu() -> Config {
    Config::new(Addressing::normal(id(0x7E8), id(0x7E0)))
}

pub fn pdu(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

#[test]
fn a_short_pdu_goes_as_one_frame_and_is_told_as_sent() {
    let mut net = Net::pair(Endpoint::new(tester()), Endpoint::new(ecu()));
    net.send(0, &[0x22, 0xF1, 0x90]).unwrap();
    net.run();
    assert_eq!(net.candump(), ["7E0#0322F190CCCCCCCC"]);
    assert_eq!(net.received(1), [[0x22, 0xF1, 0x90]]);
    assert_eq!(net.outcomes(0), [&Event::Sent { elapsed: Duration::from_micros(250) }]);
}

#[test]
fn a_long_pdu_is_segmented_and_put_together() {
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
fn both_directions_go_on_at_once() {
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
    let who: Vec<usize> = net.log.iter().map(|(_, node, _)| *node).collect();
    assert_eq!(who, [0, 1, 0, 0, 1, 0, 0, 1, 0], "a flow control after each two consecutive frames");
    let gap = net.log[3].0 - net.log[2].0;
    assert_eq!(gap, Duration::from_millis(5) + net.confirm_delay + net.frame_time);
}
