//! The DoIP entity in virtual time: routing activation, alive checks, timers, refusals, and a recorded
//! gateway.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder, decode_datagram};
use connector_agent::protocol::doip::{
    ActivationCode, ActivationRequest, ActivationType, DiagnosticMessage, DiagnosticNackCode, Eid,
    HeaderNackCode, LogicalAddress, Message, Payload, PowerMode, ProtocolVersion,
};
use connector_agent::protocol::vin::Vin;
use connector_operator::doip_entity::{
    Answer, Confirmation, ConnectionId, Entity, EntityConfig, Event, Output,
};
use connector_sim::vehicle::doip::{Carrier, DoipRecording, Speaker};
use connector_test_support::data::DOIP_LOG;

const GATEWAY: LogicalAddress = LogicalAddress::new(0x4010);
const ECU: LogicalAddress = LogicalAddress::new(0x4011);
const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);
const OTHER: LogicalAddress = LogicalAddress::new(0x0E81);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn config() -> EntityConfig {
    let vin: Vin = "WVWLU5SP1H0375027".parse().unwrap();
    let mut config = EntityConfig::new(GATEWAY, Some(&vin), Eid([2, 0, 0, 0, 0, 1]));
    config.targets.push(ECU);
    config.announcements = 0;
    config
}

/// An entity and its clock.
struct Rig {
    entity: Entity,
    now: Instant,
    opened: u64,
    /// The messages that the entity sent, by connection.
    sent: BTreeMap<ConnectionId, Vec<Payload>>,
    closed: Vec<ConnectionId>,
    datagrams: Vec<Payload>,
    broadcasts: usize,
}

impl Rig {
    fn new(change: impl FnOnce(&mut EntityConfig)) -> Self {
        let (mut config, now) = (config(), Instant::now());
        change(&mut config);
        let entity = Entity::new(config, now);
        let (sent, closed, datagrams) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { entity, now, opened: 0, sent, closed, datagrams, broadcasts: 0 }
    }

    fn settle(&mut self) {
        while let Some(output) = self.entity.poll_output(self.now) {
            match output {
                Output::Send { connection, bytes } => {
                    let payload = decode_datagram(&bytes).unwrap().payload;
                    self.sent.entry(connection).or_default().push(payload);
                }
                Output::Close(connection) => self.closed.push(connection),
                Output::Datagram { bytes, .. } => {
                    self.datagrams.push(decode_datagram(&bytes).unwrap().payload);
                }
                Output::Broadcast(_) => self.broadcasts += 1,
            }
        }
    }

    /// Advances the time, one deadline after the other.
    fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some((at, _)) = self.entity.poll_timeout().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            self.entity.handle_timeout(self.now);
            self.settle();
        }
        self.now = until;
    }

    fn open(&mut self) -> ConnectionId {
        self.open_with(false)
    }

    fn open_with(&mut self, tls: bool) -> ConnectionId {
        self.opened += 1;
        let id = ConnectionId(self.opened);
        self.entity.handle_connected(self.now, id, tls);
        self.settle();
        id
    }

    fn say(&mut self, id: ConnectionId, payload: impl Into<Payload>) {
        let bytes = Message::new(ProtocolVersion::V2012, payload).encode().unwrap();
        self.say_bytes(id, &bytes);
    }

    fn say_bytes(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.entity.handle_bytes(self.now, id, bytes);
        self.settle();
    }

    fn ask_for_routing(&mut self, id: ConnectionId, source: LogicalAddress) {
        let activation_type = ActivationType::Default;
        self.say(id, ActivationRequest { source, activation_type, oem: None });
    }

    /// The entity's messages since the last call.
    fn hear(&mut self, id: ConnectionId) -> Vec<Payload> {
        self.sent.remove(&id).unwrap_or_default()
    }

    /// The code of the only answer.
    fn code(&mut self, id: ConnectionId) -> ActivationCode {
        match self.hear(id).as_slice() {
            [Payload::ActivationResponse(response)] => {
                assert_eq!(response.entity, GATEWAY);
                response.code
            }
            other => panic!("{other:?}"),
        }
    }

    fn activated(&mut self, source: LogicalAddress) -> ConnectionId {
        let id = self.open();
        self.ask_for_routing(id, source);
        assert_eq!(self.code(id), ActivationCode::Activated);
        id
    }

    fn ask(&mut self, id: ConnectionId, source: LogicalAddress, target: LogicalAddress, data: &[u8]) {
        self.say(id, DiagnosticMessage { source, target, data: data.to_vec() });
    }

    fn nack(&mut self, id: ConnectionId) -> DiagnosticNackCode {
        match self.hear(id).as_slice() {
            [Payload::DiagnosticNack(nack)] => nack.code,
            other => panic!("{other:?}"),
        }
    }

    fn is_closed(&self, id: ConnectionId) -> bool {
        self.closed.contains(&id)
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.entity.poll_event()).collect()
    }
}

#[test]
fn a_message_is_acknowledged_immediately_and_answered_to_its_sender() {
    let mut rig = Rig::new(|_| {});
    let (one, other) = (rig.activated(TESTER), rig.activated(OTHER));
    rig.events();
    rig.ask(one, TESTER, ECU, &[0x22, 0xF1, 0x90]);
    let heard = rig.hear(one);
    let [Payload::DiagnosticAck(ack)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((ack.source, ack.target, ack.code), (ECU, TESTER, 0));
    let message = DiagnosticMessage { source: TESTER, target: ECU, data: vec![0x22, 0xF1, 0x90] };
    assert_eq!(rig.events(), [Event::Diagnostic(message)]);
    let response = DiagnosticMessage { source: ECU, target: TESTER, data: vec![0x62] };
    assert!(rig.entity.respond(rig.now, response.clone()));
    rig.settle();
    assert_eq!(rig.hear(one), [Payload::Diagnostic(response)]);
    assert_eq!(rig.hear(other), []);
}

#[test]
fn each_fault_of_a_routing_activation_has_its_own_code() {
    let request = |source, activation_type| ActivationRequest { source, activation_type, oem: None };
    let ask = |change: fn(&mut EntityConfig), request: ActivationRequest| {
        let mut rig = Rig::new(change);
        let id = rig.open();
        rig.say(id, request);
        (rig.code(id), rig.is_closed(id))
    };
    let default = request(TESTER, ActivationType::Default);
    let stranger = request(LogicalAddress::new(0x1234), ActivationType::Default);
    assert_eq!(ask(|_| {}, stranger), (ActivationCode::UnknownSourceAddress, true));
    let strange = request(TESTER, ActivationType::Other(0x42));
    assert_eq!(ask(|_| {}, strange), (ActivationCode::UnsupportedActivationType, true));
    let tls: fn(&mut EntityConfig) = |config| config.activation.tls_required = true;
    assert_eq!(ask(tls, default), (ActivationCode::TlsRequired, true));
    let oem: fn(&mut EntityConfig) = |config| config.activation.oem = Some([1, 2, 3, 4]);
    assert_eq!(ask(oem, default), (ActivationCode::MissingAuthentication, false));
    let with_oem = ActivationRequest { oem: Some([1, 2, 3, 4]), ..default };
    assert_eq!(ask(oem, with_oem), (ActivationCode::Activated, false));
    for activation_type in [ActivationType::Regulation, ActivationType::CentralSecurity] {
        assert_eq!(ask(|_| {}, request(TESTER, activation_type)), (ActivationCode::Activated, false));
    }

    let mut rig = Rig::new(tls);
    let id = rig.open_with(true);
    rig.ask_for_routing(id, TESTER);
    assert_eq!(rig.code(id), ActivationCode::Activated);
    rig.ask_for_routing(id, OTHER);
    assert_eq!((rig.code(id), rig.is_closed(id)), (ActivationCode::OtherAddressActivated, true));
}

#[test]
fn the_activation_can_answer_any_code_or_stay_silent() {
    for code in 0..=0xFF {
        let code = ActivationCode::from(code);
        let mut rig = Rig::new(|config| config.activation.answer = Answer::Always(code));
        let id = rig.open();
        rig.ask_for_routing(id, TESTER);
        assert_eq!(rig.code(id), code);
    }
    let mut rig = Rig::new(|config| config.activation.answer = Answer::Never);
    let id = rig.open();
    rig.ask_for_routing(id, TESTER);
    assert_eq!(rig.hear(id), []);
    rig.pass(ms(2000));
    assert!(rig.is_closed(id));
}

#[test]
fn a_confirmation_is_awaited_and_can_be_refused() {
    for (granted, code) in [(true, ActivationCode::Activated), (false, ActivationCode::RejectedConfirmation)]
    {
        let confirmation = Some(Confirmation { after: ms(3000), granted });
        let mut rig = Rig::new(|config| config.activation.confirmation = confirmation);
        let id = rig.open();
        rig.ask_for_routing(id, TESTER);
        assert_eq!(rig.code(id), ActivationCode::ConfirmationRequired);
        rig.pass(ms(2999));
        rig.ask_for_routing(id, TESTER);
        assert_eq!(rig.code(id), ActivationCode::ConfirmationRequired);
        rig.pass(ms(1));
        assert_eq!((rig.code(id), rig.is_closed(id)), (code, !granted));
    }
}

#[test]
fn a_live_tester_keeps_its_address() {
    let mut rig = Rig::new(|_| {});
    let first = rig.activated(TESTER);
    let second = rig.open();
    rig.ask_for_routing(second, TESTER);
    assert_eq!((rig.hear(first), rig.hear(second)), (vec![Payload::AliveCheckRequest], vec![]));
    rig.pass(ms(499));
    rig.say(first, Payload::AliveCheckResponse(TESTER));
    assert_eq!((rig.code(second), rig.is_closed(second)), (ActivationCode::AddressInUse, true));
    assert!(!rig.is_closed(first));
}

#[test]
fn a_silent_tester_loses_its_connection_to_a_new_one() {
    let mut rig = Rig::new(|_| {});
    let first = rig.activated(TESTER);
    let second = rig.open();
    rig.ask_for_routing(second, TESTER);
    rig.pass(ms(500));
    assert!(rig.is_closed(first));
    assert_eq!(rig.code(second), ActivationCode::Activated);
}

#[test]
fn a_full_table_accepts_a_tester_only_if_another_has_left() {
    let mut rig = Rig::new(|config| config.max_sockets = 2);
    let (first, second) = (rig.activated(TESTER), rig.activated(OTHER));
    let third = rig.open();
    let fourth = rig.open();
    assert!(!rig.is_closed(third) && rig.is_closed(fourth));
    rig.ask_for_routing(third, LogicalAddress::new(0x0E82));
    rig.say(first, Payload::AliveCheckResponse(TESTER));
    assert_eq!(rig.hear(third), []);
    rig.say(second, Payload::AliveCheckResponse(OTHER));
    assert_eq!((rig.code(third), rig.is_closed(third)), (ActivationCode::NoSocketFree, true));

    let fifth = rig.open();
    rig.ask_for_routing(fifth, LogicalAddress::new(0x0E82));
    rig.say(first, Payload::AliveCheckResponse(TESTER));
    rig.pass(ms(500));
    assert!(rig.is_closed(second));
    assert_eq!(rig.code(fifth), ActivationCode::Activated);
}

#[test]
fn messages_that_cannot_be_routed_are_refused_by_the_standards_codes() {
    let mut rig = Rig::new(|config| config.max_data_size = Some(8));
    let id = rig.activated(TESTER);
    rig.ask(id, TESTER, LogicalAddress::new(0x4711), &[0x3E, 0]);
    assert_eq!(rig.nack(id), DiagnosticNackCode::UnknownTargetAddress);
    rig.ask(id, TESTER, ECU, &[0; 9]);
    assert_eq!(rig.nack(id), DiagnosticNackCode::MessageTooLarge);
    assert!(!rig.is_closed(id));
    rig.ask(id, OTHER, ECU, &[0x3E, 0]);
    assert_eq!(rig.nack(id), DiagnosticNackCode::InvalidSourceAddress);
    assert!(rig.is_closed(id));

    let mut rig = Rig::new(|config| config.diagnostic_nack = Some(DiagnosticNackCode::TargetUnreachable));
    let id = rig.activated(TESTER);
    rig.ask(id, TESTER, ECU, &[0x3E, 0]);
    assert_eq!(rig.nack(id), DiagnosticNackCode::TargetUnreachable);
    assert!(!rig.events().iter().any(|event| matches!(event, Event::Diagnostic(_))));

    let mut rig = Rig::new(|_| {});
    let id = rig.open();
    rig.ask(id, TESTER, ECU, &[0x3E, 0]);
    assert_eq!(rig.nack(id), DiagnosticNackCode::InvalidSourceAddress);
    assert!(rig.is_closed(id));
}

#[test]
fn invalid_headers_are_refused_and_some_end_the_connection() {
    let refuse = |bytes: &[u8]| {
        let mut rig = Rig::new(|config| config.max_data_size = Some(4096));
        let id = rig.activated(TESTER);
        rig.say_bytes(id, bytes);
        match rig.hear(id).as_slice() {
            [Payload::HeaderNack(code)] => (*code, rig.is_closed(id)),
            other => panic!("{bytes:02X?}: {other:?}"),
        }
    };
    assert_eq!(refuse(&[2, 2, 0x80, 1, 0, 0, 0, 6]), (HeaderNackCode::IncorrectPattern, true));
    assert_eq!(
        refuse(&[0, 0xFF, 0x80, 1, 0, 0, 0, 5, 0x0E, 0x80, 0x40, 0x11, 1]),
        (HeaderNackCode::IncorrectPattern, true)
    );
    for payload_type in [0x00, 0x01, 0x05, 0x07, 0x08] {
        let any = [0xFF, 0x00, 0, payload_type, 0, 0, 0, 0];
        assert_eq!(refuse(&any), (HeaderNackCode::IncorrectPattern, true), "{payload_type}");
    }
    assert_eq!(refuse(&[2, 0xFD, 0, 5, 0, 0, 0, 3, 1, 2, 3]), (HeaderNackCode::InvalidPayloadLength, true));
    assert_eq!(refuse(&[2, 0xFD, 0x77, 1, 0, 0, 0, 1, 9]), (HeaderNackCode::UnknownPayloadType, false));
    assert_eq!(refuse(&[2, 0xFD, 0x80, 1, 0xFF, 0xFF, 0xFF, 0xFF]), (HeaderNackCode::MessageTooLarge, false));
    assert_eq!(refuse(&[2, 0xFD, 0x40, 1, 0, 0, 0, 0]), (HeaderNackCode::UnknownPayloadType, false));
    assert_eq!(refuse(&[2, 0xFD, 0x77, 1, 0x7F, 0, 0, 0]), (HeaderNackCode::UnknownPayloadType, false));
    assert_eq!(refuse(&[2, 0xFD, 0, 5, 0x7F, 0, 0, 0]), (HeaderNackCode::MessageTooLarge, false));
}

#[test]
fn invalid_datagrams_are_refused_by_the_rules_for_headers() {
    for (bytes, code) in [
        (&[2, 2, 0, 1, 0, 0, 0, 0][..], HeaderNackCode::IncorrectPattern),
        (&[0, 0xFF, 0, 1, 0, 0, 0, 0], HeaderNackCode::IncorrectPattern),
        (&[0xFF, 0, 0x40, 1, 0, 0, 0, 0], HeaderNackCode::IncorrectPattern),
        (&[0xFF, 0, 0x40, 3, 0, 0, 0, 0], HeaderNackCode::IncorrectPattern),
        (&[2, 0xFD, 0x77, 1, 0, 0, 0, 1, 9], HeaderNackCode::UnknownPayloadType),
        (&[2, 0xFD, 0, 2, 0, 0, 0, 5, 1, 2, 3, 4, 5], HeaderNackCode::InvalidPayloadLength),
        (&[2, 0xFD, 0, 1, 0, 0, 0, 9], HeaderNackCode::InvalidPayloadLength),
    ] {
        let mut rig = Rig::new(|_| {});
        rig.entity.handle_datagram(rig.now, "127.0.0.1:50000".parse().unwrap(), bytes);
        rig.settle();
        assert_eq!(rig.datagrams, [Payload::HeaderNack(code)], "{bytes:02X?}");
    }
}

#[test]
fn connections_that_say_nothing_are_closed_by_their_timers() {
    let mut rig = Rig::new(|_| {});
    let (idle, active) = (rig.open(), rig.activated(TESTER));
    rig.pass(ms(1999));
    assert!(!rig.is_closed(idle));
    rig.pass(ms(1));
    assert!(rig.is_closed(idle));
    rig.pass(Duration::from_secs(290));
    rig.ask(active, TESTER, ECU, &[0x3E, 0x80]);
    rig.pass(ms(299_999));
    assert!(!rig.is_closed(active));
    rig.pass(ms(1));
    assert!(rig.is_closed(active));
    assert!(rig.events().contains(&Event::Deactivated { tester: TESTER }));
}

#[test]
fn an_entity_announces_itself_three_times_and_answers_requests_for_it() {
    let mut rig = Rig::new(|config| {
        config.announcements = 3;
        config.version = ProtocolVersion::V2019;
    });
    rig.settle();
    assert_eq!(rig.broadcasts, 1);
    rig.pass(ms(999));
    assert_eq!(rig.broadcasts, 2);
    rig.pass(ms(5000));
    assert_eq!(rig.broadcasts, 3);

    let from: SocketAddr = "127.0.0.1:50000".parse().unwrap();
    let mut ask = |version, payload: Payload| {
        let bytes = Message::new(version, payload).encode().unwrap();
        rig.entity.handle_datagram(rig.now, from, &bytes);
        rig.settle();
        std::mem::take(&mut rig.datagrams)
    };
    let announcement = config().announcement;
    let any = ProtocolVersion::Default;
    assert_eq!(ask(any, Payload::IdentificationRequest), [Payload::Announcement(announcement)]);
    assert_eq!(
        ask(any, Payload::IdentificationRequestByEid(announcement.eid)),
        [Payload::Announcement(announcement)]
    );
    assert_eq!(
        ask(any, Payload::IdentificationRequestByVin(announcement.vin)),
        [Payload::Announcement(announcement)]
    );
    assert_eq!(ask(any, Payload::IdentificationRequestByEid(Eid([9; 6]))), []);
    assert_eq!(ask(any, Payload::IdentificationRequestByVin([b'X'; 17])), []);
    let v2 = ProtocolVersion::V2012;
    assert_eq!(ask(v2, Payload::PowerModeRequest), [Payload::PowerModeResponse(PowerMode::Ready)]);
    let status = ask(v2, Payload::EntityStatusRequest);
    assert!(matches!(status[..], [Payload::EntityStatusResponse(status)] if status.open_sockets == 0));
    // an entity does not answer another entity, because two entities would never stop
    assert_eq!(ask(v2, Payload::Announcement(announcement)), []);
    assert_eq!(ask(v2, Payload::HeaderNack(HeaderNackCode::UnknownPayloadType)), []);
}

#[test]
fn a_slow_entity_sends_its_messages_later_in_the_same_order() {
    let mut rig = Rig::new(|config| config.latency = ms(700));
    let id = rig.open();
    rig.ask_for_routing(id, TESTER);
    rig.ask(id, TESTER, ECU, &[0x3E, 0]);
    rig.pass(ms(699));
    assert_eq!(rig.hear(id), []);
    rig.pass(ms(1));
    let heard = rig.hear(id);
    assert!(matches!(heard[..], [Payload::ActivationResponse(_), Payload::DiagnosticAck(_)]), "{heard:?}");
}

#[test]
fn a_flood_uses_bounded_memory() {
    let mut rig = Rig::new(|config| config.latency = Duration::from_secs(3600));
    let id = rig.open();
    rig.ask_for_routing(id, TESTER);
    for _ in 0..20_000 {
        rig.ask(id, TESTER, LogicalAddress::new(0x4711), &[0x3E, 0]);
    }
    rig.now += Duration::from_secs(3600);
    rig.settle();
    assert_eq!(rig.hear(id).len(), 4096);
}

/// An entity with the configuration of the recording sends every message of the recorded gateway, byte for
/// byte and at the recorded time.
#[test]
fn the_recorded_gateway_is_played_byte_for_byte() {
    let recording = DoipRecording::parse(DOIP_LOG).unwrap();
    let start = Instant::now();
    let mut entity_config = recording.entity();
    // the tester does not cause the announcements of the recorded gateway
    entity_config.announcements = 0;
    let mut entity = Entity::new(entity_config, start);
    let mut connections: BTreeMap<u16, ConnectionId> = BTreeMap::new();
    let mut sent: Vec<(Duration, u16, Vec<u8>)> = Vec::new();
    let collect =
        |entity: &mut Entity, now: Instant, connections: &BTreeMap<u16, ConnectionId>, sent: &mut Vec<_>| {
            while let Some(output) = entity.poll_output(now) {
                match output {
                    Output::Datagram { to, bytes } => sent.push((now - start, to.port(), bytes)),
                    Output::Send { connection, bytes } => {
                        let port =
                            connections.iter().find(|(_, id)| **id == connection).map(|(port, _)| *port);
                        sent.push((now - start, port.unwrap(), bytes));
                    }
                    Output::Close(_) | Output::Broadcast(_) => {}
                }
            }
        };
    let records = recording.records();
    let mut expected: Vec<(Duration, u16, Vec<u8>)> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let now = start + record.at;
        while let Some((at, _)) = entity.poll_timeout().filter(|(at, _)| *at <= now) {
            entity.handle_timeout(at);
            collect(&mut entity, at, &connections, &mut sent);
        }
        match (record.speaker, record.carrier) {
            (Speaker::Announcement, _) => {}
            (Speaker::Vehicle, _) => {
                let is_answer = record.bytes[2..4] == [0x80, 0x01];
                if is_answer {
                    // the messages of ECUs do not come from the entity
                    let message = decode_datagram(&record.bytes).unwrap();
                    let Payload::Diagnostic(message) = message.payload else { panic!() };
                    assert!(entity.respond(now, message));
                    collect(&mut entity, now, &connections, &mut sent);
                }
                expected.push((record.at, record.tester_port, record.bytes.clone()));
            }
            (Speaker::Tester, Carrier::Udp) => {
                let from = SocketAddr::from(([127, 0, 0, 1], record.tester_port));
                entity.handle_datagram(now, from, &record.bytes);
                collect(&mut entity, now, &connections, &mut sent);
            }
            (Speaker::Tester, Carrier::Tcp) => {
                let next = ConnectionId(connections.len() as u64 + 1);
                let id = *connections.entry(record.tester_port).or_insert_with(|| {
                    entity.handle_connected(now, next, false);
                    next
                });
                entity.handle_bytes(now, id, &record.bytes);
                collect(&mut entity, now, &connections, &mut sent);
                // the gateway did not wait for this alive check, because the tester had closed that
                // connection
                let following: Vec<_> = records[index + 1..].iter().take(2).collect();
                if let [check, activation] = following[..]
                    && check.bytes == hex("02fd000700000000")
                    && activation.at - check.at < ms(100)
                    && activation.speaker == Speaker::Vehicle
                {
                    entity.handle_closed(now, connections[&check.tester_port]);
                    collect(&mut entity, now, &connections, &mut sent);
                }
            }
        }
        while entity.poll_event().is_some() {}
    }
    assert_eq!(sent.len(), expected.len());
    for (sent, expected) in sent.iter().zip(&expected) {
        assert_eq!((sent.1, &sent.2), (expected.1, &expected.2), "at {:?}", expected.0);
        // the clock of the recording has a resolution of a millisecond
        assert!(sent.0.abs_diff(expected.0) <= ms(3), "{:?} instead of {:?}", sent.0, expected.0);
    }
}

fn hex(text: &str) -> Vec<u8> {
    connector_sim::vehicle::hex::parse(text).unwrap()
}

#[test]
fn an_invalid_recording_is_an_error_that_names_the_line() {
    for (text, error) in [
        ("0.0 udp vehicle>tester 1>2", "line 1: expected five fields"),
        ("x udp vehicle>tester 1>2 00", "line 1: the time"),
        ("\n0.0 sctp vehicle>tester 1>2 00", "line 2: expected udp or tcp"),
        ("0.0 udp vehicle>tester 1>2 02fe", "line 1"),
        ("# nothing", "no announcement"),
    ] {
        let message = DoipRecording::parse(text).unwrap_err().to_string();
        assert!(message.contains(error), "{message}");
    }
}

#[test]
fn messages_split_anywhere_decode_to_the_same_messages() {
    let mut rig = Rig::new(|_| {});
    let id = rig.activated(TESTER);
    rig.events();
    let message = DiagnosticMessage { source: TESTER, target: ECU, data: vec![0x22; 300] };
    let bytes = Message::new(ProtocolVersion::V2012, message.clone()).encode().unwrap();
    for piece in bytes.iter().chain(&bytes) {
        rig.say_bytes(id, &[*piece]);
    }
    assert_eq!(rig.events(), [Event::Diagnostic(message.clone()), Event::Diagnostic(message)]);
    assert_eq!(rig.hear(id).len(), 2);
    let mut decoder = StreamDecoder::new(1000);
    decoder.handle_bytes(&bytes);
    assert!(matches!(decoder.poll_message(), Ok(Some(Decoded::Message(_)))));
}
