//! Reads any bytes as datagrams from hosts on the vehicle's link.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::codec::decode_datagram;
use connector_agent::protocol::doip::discovery::{Destination, Discovery, Question};
use connector_hal::ethernet::ArpPacket;

/// Before each datagram, the input has the datagram's length and the last byte of the sender's address.
pub(super) fn drive(data: &[u8]) {
    let mut now = Instant::now();
    let mut discovery = Discovery::new();
    let mut rest = data;
    while let Some(([length, host], behind)) = rest.split_first_chunk() {
        let (datagram, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        let from = SocketAddr::from(([169, 254, 1, *host], 13400));
        if host & 3 == 0 {
            let questions = [Question::Anybody, Question::EntityStatus, Question::PowerMode];
            discovery.ask(now, questions[usize::from(host >> 2) % 3], Destination::Host(from));
        }
        discovery.handle_datagram(from, datagram);
        if let Ok(message) = decode_datagram(datagram) {
            // decoding drops reserved bytes, and nothing else
            let encoded = message.encode().expect("a decoded message can be encoded");
            assert_eq!(decode_datagram(&encoded), Ok(message));
        }
        if let Some(packet) = ArpPacket::decode(datagram) {
            assert_eq!(ArpPacket::decode(&packet.encode()), Some(packet));
        }
        while let Some((_, question)) = discovery.poll_transmit() {
            assert!(decode_datagram(&question).is_ok());
        }
        assert!(discovery.gateways().len() <= 32);
        now += Duration::from_millis(u64::from(*host));
        discovery.handle_timeout(now);
    }
    assert!(std::iter::from_fn(|| discovery.poll_event()).count() <= 64);
}
