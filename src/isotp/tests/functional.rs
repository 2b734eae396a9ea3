//! Functional requests with several responders.

use super::net::{Net, Node};
use super::transfers::{id, pdu};
use crate::isotp::{Addressing, Config, Endpoint, Event, FunctionalConfig, FunctionalEndpoint, Responders};

fn functional(config: FunctionalConfig) -> Node {
    Node::Functional(Box::new(FunctionalEndpoint::new(config)))
}

/// An ECU's answering side.
fn responder(transmit: u32, receive: u32) -> Node {
    Node::Point(Box::new(Endpoint::new(Config::new(Addressing::normal(id(transmit), id(receive))))))
}

#[test]
fn answers_of_several_responders_are_collected_with_flow_control_to_each_physically() {
    let config = FunctionalConfig::new(id(0x7DF), Responders::Obd11);
    let mut net = Net::new(vec![functional(config), responder(0x7E8, 0x7E0), responder(0x7EA, 0x7E2)]);
    net.send(0, &[0x09, 0x02]).unwrap();
    net.run();
    net.send(1, &pdu(20)).unwrap();
    net.send(2, &pdu(30)).unwrap();
    net.run();
    assert_eq!(net.candump()[0], "7DF#020902CCCCCCCCCC");
    let mut sent_to: Vec<_> = net.log.iter().filter(|(_, node, _)| *node == 0).map(|l| l.2.id()).collect();
    sent_to.sort();
    assert_eq!(sent_to, [id(0x7DF), id(0x7E0), id(0x7E2)]);
    assert_eq!(net.received(0), [pdu(20), pdu(30)]);
    assert!(
        net.events
            .iter()
            .any(|(_, _, event)| matches!(event, Event::Received { address, .. } if *address == id(0x7EA)))
    );
}
