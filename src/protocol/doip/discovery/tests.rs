use super::*;
use crate::protocol::doip::{FurtherAction, Gid, SyncStatus};

fn announcement(eid: u8, vin: &[u8; 17]) -> Announcement {
    Announcement {
        vin: *vin,
        address: LogicalAddress::new(0x4000 + u16::from(eid)),
        eid: Eid([eid; 6]),
        gid: Some(Gid([7; 6])),
        further_action: FurtherAction::None,
        sync_status: Some(SyncStatus::Synchronized),
    }
}

const VIN: &[u8; 17] = b"WVWZZZ1KZ6W000001";

fn datagram(payload: impl Into<Payload>) -> Vec<u8> {
    Message::new(ProtocolVersion::V2012, payload).encode().unwrap()
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([169, 254, 1, host], PORT))
}

fn asked(discovery: &mut Discovery) -> Vec<(Destination, Message)> {
    std::iter::from_fn(|| discovery.poll_transmit())
        .map(|(destination, bytes)| (destination, decode_datagram(&bytes).unwrap()))
        .collect()
}

fn events(discovery: &mut Discovery) -> Vec<DiscoveryEvent> {
    std::iter::from_fn(|| discovery.poll_event()).collect()
}

#[test]
fn a_broadcast_question_goes_out_three_times_in_every_version() {
    let mut now = Instant::now();
    let mut discovery = Discovery::new();
    discovery.ask(now, Question::Anybody, Destination::Broadcast);
    let mut versions = Vec::new();
    while let Some(due) = discovery.poll_timeout() {
        for (destination, message) in asked(&mut discovery) {
            assert_eq!(
                (destination, message.payload),
                (Destination::Broadcast, Payload::IdentificationRequest)
            );
            versions.push((u8::from(message.version), now));
        }
        now = due;
        discovery.handle_timeout(now);
    }
    assert_eq!(versions.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [0xFF, 0x02, 0x03, 0x04]);
    assert_eq!(versions[3].1, versions[2].1);
    assert_eq!(versions[2].1 - versions[0].1, 2 * ANNOUNCE_WAIT);
    assert!(discovery.is_done_asking());
}

#[test]
fn a_request_by_eid_ends_with_its_answer_and_one_by_vin_continues() {
    let now = Instant::now();
    let mut discovery = Discovery::new();
    discovery.ask(now, Question::Vin(*VIN), Destination::Multicast);
    discovery.ask(now, Question::Eid(Eid([1; 6])), Destination::Broadcast);
    let payloads: Vec<_> = asked(&mut discovery).into_iter().map(|(_, message)| message.payload).collect();
    assert_eq!(
        payloads,
        [Payload::IdentificationRequestByVin(*VIN), Payload::IdentificationRequestByEid(Eid([1; 6]))]
    );
    discovery.handle_datagram(at(1), &datagram(announcement(1, VIN)));
    assert_eq!(discovery.asking.len(), 1);
    assert!(discovery.gateways()[0].was_asked);
}

#[test]
fn several_gateways_are_each_reported_once() {
    let mut discovery = Discovery::new();
    for _ in 0..3 {
        discovery.handle_datagram(at(1), &datagram(announcement(1, VIN)));
        discovery.handle_datagram(at(2), &datagram(announcement(2, VIN)));
        // two entities behind one address
        discovery.handle_datagram(at(2), &datagram(announcement(3, VIN)));
    }
    let found = events(&mut discovery);
    assert_eq!(found.len(), 3);
    assert!(found.iter().all(|event| matches!(event, DiscoveryEvent::Found(gateway) if !gateway.was_asked)));
    assert_eq!(discovery.gateway(LogicalAddress::new(0x4003)).unwrap().address, at(2));
}

#[test]
fn a_gateway_that_learns_its_vin_is_reported_as_changed() {
    let mut discovery = Discovery::new();
    discovery.handle_datagram(at(1), &datagram(announcement(1, &[0; 17])));
    assert!(discovery.gateways()[0].announcement.vin().is_err());
    discovery.handle_datagram(at(1), &datagram(announcement(1, VIN)));
    let events = events(&mut discovery);
    let DiscoveryEvent::Changed(changed) = &events[1] else { panic!("{events:?}") };
    assert_eq!(changed.announcement.vin().unwrap().as_str().as_bytes(), VIN);
}

#[test]
fn a_gateway_that_got_another_address_is_known_at_that_address_only() {
    let mut discovery = Discovery::new();
    discovery.handle_datagram(at(1), &datagram(announcement(1, VIN)));
    discovery.handle_datagram(at(9), &datagram(announcement(1, VIN)));
    assert_eq!(discovery.gateways().iter().map(|gateway| gateway.address).collect::<Vec<_>>(), [at(9)]);
    // the same gateway by IPv6 is another way to it
    let by_v6 = SocketAddr::from(([0xFE80, 0, 0, 0, 0, 0, 0, 1], PORT));
    discovery.handle_datagram(by_v6, &datagram(announcement(1, VIN)));
    assert_eq!(discovery.gateways().len(), 2);
}

#[test]
fn gateways_without_eid_are_distinguished_by_their_hosts() {
    let mut discovery = Discovery::new();
    for filler in [0x00, 0xFF] {
        let unset = Announcement { eid: Eid([filler; 6]), ..announcement(1, VIN) };
        discovery.handle_datagram(at(filler | 1), &datagram(unset));
        discovery.handle_datagram(at(filler & 0xF0 | 2), &datagram(unset));
    }
    assert_eq!(discovery.gateways().len(), 4);
    assert!(discovery.gateways().iter().all(|gateway| gateway.eid().is_none()));
}

#[test]
fn a_silent_host_is_known_by_its_activation_until_it_announces_itself() {
    let host = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut discovery = Discovery::new();
    discovery.ask(Instant::now(), Question::Anybody, Destination::Host(host));
    discovery.handle_activation(host, ProtocolVersion::V2019, LogicalAddress::new(0x4001));
    let [known] = discovery.gateways() else { panic!("{:?}", discovery.gateways()) };
    assert_eq!((known.address, known.version, known.eid()), (host, ProtocolVersion::V2019, None));
    assert!(known.announcement.vin().is_err());
    discovery.handle_datagram(host, &datagram(announcement(1, VIN)));
    let [known] = discovery.gateways() else { panic!("{:?}", discovery.gateways()) };
    assert_eq!((known.eid(), known.announcement.vin().is_ok()), (Some(Eid([1; 6])), true));
}

#[test]
fn status_and_power_mode_are_kept_with_their_gateway() {
    let now = Instant::now();
    let mut discovery = Discovery::new();
    discovery.handle_datagram(at(1), &datagram(announcement(1, VIN)));
    discovery.handle_datagram(at(2), &datagram(announcement(2, VIN)));
    discovery.ask(now, Question::EntityStatus, Destination::Host(at(1)));
    discovery.ask(now, Question::PowerMode, Destination::Host(at(1)));
    assert!(asked(&mut discovery).iter().all(|(_, message)| message.version == ProtocolVersion::V2012));
    let status =
        EntityStatus { node_type: 0.into(), max_sockets: 1, open_sockets: 0, max_data_size: Some(0xFFF) };
    discovery.handle_datagram(at(1), &datagram(status));
    discovery.handle_datagram(at(1), &datagram(Payload::PowerModeResponse(PowerMode::Ready)));
    let [first, second] = discovery.gateways() else { panic!() };
    assert_eq!((first.status, first.power_mode), (Some(status), Some(PowerMode::Ready)));
    assert_eq!((second.status, second.power_mode), (None, None));
    assert!(discovery.is_done_asking());
}

#[test]
fn a_known_gateway_is_asked_in_the_version_that_it_announced() {
    let mut now = Instant::now();
    for version in [ProtocolVersion::V2019, ProtocolVersion::V2025, ProtocolVersion::Other(9)] {
        let mut discovery = Discovery::new();
        let announced = Message::new(version, announcement(1, VIN)).encode().unwrap();
        discovery.handle_datagram(at(1), &announced);
        discovery.ask(now, Question::EntityStatus, Destination::Host(at(1)));
        let mut questions = asked(&mut discovery);
        while let Some(due) = discovery.poll_timeout() {
            now = due;
            discovery.handle_timeout(now);
            questions.extend(asked(&mut discovery));
        }
        assert_eq!(questions.len(), 3);
        assert!(questions.iter().all(|(_, message)| message.version == version), "{questions:?}");
    }
}

#[test]
fn a_host_asked_at_a_given_port_takes_connections_at_that_port() {
    let host = SocketAddr::from(([127, 0, 0, 1], 40_000));
    let mut discovery = Discovery::new();
    discovery.ask(Instant::now(), Question::Anybody, Destination::Host(host));
    discovery.handle_datagram(host, &datagram(announcement(1, VIN)));
    assert_eq!(discovery.gateways()[0].address, host);
    // an entity may answer from any port; connections go to the known one
    discovery.handle_datagram(SocketAddr::from(([10, 0, 0, 1], 50_000)), &datagram(announcement(2, VIN)));
    assert_eq!(discovery.gateways()[1].address, SocketAddr::from(([10, 0, 0, 1], PORT)));
}

#[test]
fn a_flood_of_invented_gateways_and_noise_fill_a_bounded_table() {
    let mut discovery = Discovery::new();
    for number in 0..2000u16 {
        let mut invented = announcement(1, VIN);
        invented.address = number.into();
        discovery.handle_datagram(at(1), &datagram(invented));
        discovery.handle_datagram(at(1), &number.to_be_bytes());
        discovery.handle_datagram(at(1), &datagram(Payload::HeaderNack(HeaderNackCode::OutOfMemory)));
    }
    assert_eq!(discovery.gateways().len(), MAX_GATEWAYS);
    // every gateway, and each kind of noise once
    assert_eq!(events(&mut discovery).len(), MAX_GATEWAYS + 2);
    for _ in 0..100 {
        discovery.ask(Instant::now(), Question::Anybody, Destination::Broadcast);
    }
    assert_eq!(discovery.asking.len(), MAX_QUESTIONS);
}
