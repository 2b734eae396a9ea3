//! The DoIP entity in virtual time: routing activation, alive checks, timers, refusals, and a recorded gateway.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // the helpers, as the tests

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder, decode_datagram};
use connector_agent::protocol::doip::{
    ActivationCode, ActivationRequest, ActivationType, DiagnosticMessage, DiagnosticNackCode, Eid,
    HeaderNackCode, LogicalAddress, Message, Payload, PowerMode, ProtocolVersion,
};
use connector_agent::protocol::vin::Vin;
use connector_sim::doip::{Answer, Confirmation, ConnectionId, Entity, EntityConfig, Event, Output};
use connector_sim::vehicle::doip::{Carrier, DoipRecording, Speaker};

const LOG: &str = include_str!("../../data/recordings/doip-gateway.txt");
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

/// An entity, and the clock.
struct Bench {
    entity: Entity,
    now: Instant,
    opened: u64,
    /// By connection, what was sent and whether it was closed.
    said: BTreeMap<ConnectionId, Vec<Payload>>,
    closed: Vec<ConnectionId>,
    datagrams: Vec<Payload>,
    broadcasts: usize,
}

impl Bench {
    fn new(change: impl FnOnce(&mut EntityConfig)) -> Self {
        let (mut config, now) = (config(), Instant::now());
        change(&mut config);
        let entity = Entity::new(config, now);
        let (said, closed, datagrams) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { entity, now, opened: 0, said, closed, datagrams, broadcasts: 0 }
    }

    fn settle(&mut self) {
        while let Some(output) = self.entity.poll_output(self.now) {
            match output {
                Output::Send { connection, bytes } => {
                    let payload = decode_datagram(&bytes).unwrap().payload;
                    self.said.entry(connection).or_default().push(payload);
                }
                Output::Close(connection) => self.closed.push(connection),
                Output::Datagram { bytes, .. } => {
                    self.datagrams.push(decode_datagram(&bytes).unwrap().payload);
                }
                Output::Broadcast(_) => self.broadcasts += 1,
            }
        }
    }

    /// Lets time pass, deadline by deadline.
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

    /// What was said since the last call.
    fn hear(&mut self, id: ConnectionId) -> Vec<Payload> {
        self.said.remove(&id).unwrap_or_default()
    }

    /// The one code that was answered.
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
fn a_message_is_acknowledged_at_once_and_its_response_goes_to_who_asked() {
    let mut bench = Bench::new(|_| {});
    let (one, other) = (bench.activated(TESTER), bench.activated(OTHER));
    bench.events();
    bench.ask(one, TESTER, ECU, &[0x22, 0xF1, 0x90]);
    let heard = bench.hear(one);
    let [Payload::DiagnosticAck(ack)] = heard.as_slice() else { panic!("{heard:?}") };
    assert_eq!((ack.source, ack.target, ack.code), (ECU, TESTER, 0));
    let message = DiagnosticMessage { source: TESTER, target: ECU, data: vec![0x22, 0xF1, 0x90] };
    assert_eq!(bench.events(), [Event::Diagnostic(message)]);
    let response = DiagnosticMessage { source: ECU, target: TESTER, data: vec![0x62] };
    assert!(bench.entity.respond(bench.now, response.clone()));
    bench.settle();
    assert_eq!(bench.hear(one), [Payload::Diagnostic(response)]);
    assert_eq!(bench.hear(other), []);
}

#[test]
fn everything_that_is_wrong_with_a_request_for_routing_has_its_own_code() {
    let request = |source, activation_type| ActivationRequest { source, activation_type, oem: None };
    let ask = |change: fn(&mut EntityConfig), request: ActivationRequest| {
        let mut bench = Bench::new(change);
        let id = bench.open();
        bench.say(id, request);
        (bench.code(id), bench.is_closed(id))
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

    let mut bench = Bench::new(tls);
    let id = bench.open_with(true);
    bench.ask_for_routing(id, TESTER);
    assert_eq!(bench.code(id), ActivationCode::Activated);
    bench.ask_for_routing(id, OTHER);
    assert_eq!((bench.code(id), bench.is_closed(id)), (ActivationCode::OtherAddressActivated, true));
}

#[test]
fn any_code_can_be_chosen_as_the_answer_and_silence_too() {
    for code in 0..=0xFF {
        let code = ActivationCode::from(code);
        let mut bench = Bench::new(|config| config.activation.answer = Answer::Always(code));
        let id = bench.open();
        bench.ask_for_routing(id, TESTER);
        assert_eq!(bench.code(id), code);
    }
    let mut bench = Bench::new(|config| config.activation.answer = Answer::Never);
    let id = bench.open();
    bench.ask_for_routing(id, TESTER);
    assert_eq!(bench.hear(id), []);
    bench.pass(ms(2000));
    assert!(bench.is_closed(id));
}

#[test]
fn a_confirmation_is_waited_for_and_may_be_refused() {
    for (granted, code) in [(true, ActivationCode::Activated), (false, ActivationCode::RejectedConfirmation)]
    {
        let confirmation = Some(Confirmation { after: ms(3000), granted });
        let mut bench = Bench::new(|config| config.activation.confirmation = confirmation);
        let id = bench.open();
        bench.ask_for_routing(id, TESTER);
        assert_eq!(bench.code(id), ActivationCode::ConfirmationRequired);
        bench.pass(ms(2999));
        bench.ask_for_routing(id, TESTER);
        assert_eq!(bench.code(id), ActivationCode::ConfirmationRequired);
        bench.pass(ms(1));
        assert_eq!((bench.code(id), bench.is_closed(id)), (code, !granted));
    }
}

#[test]
fn a_tester_that_is_alive_keeps_its_address() {
    let mut bench = Bench::new(|_| {});
    let first = bench.activated(TESTER);
    let second = bench.open();
    bench.ask_for_routing(second, TESTER);
    assert_eq!((bench.hear(first), bench.hear(second)), (vec![Payload::AliveCheckRequest], vec![]));
    bench.pass(ms(499));
    bench.say(first, Payload::AliveCheckResponse(TESTER));
    assert_eq!((bench.code(second), bench.is_closed(second)), (ActivationCode::AddressInUse, true));
    assert!(!bench.is_closed(first));
}

#[test]
fn a_tester_that_is_silent_loses_its_connection_to_the_one_that_comes() {
    let mut bench = Bench::new(|_| {});
    let first = bench.activated(TESTER);
    let second = bench.open();
    bench.ask_for_routing(second, TESTER);
    bench.pass(ms(500));
    assert!(bench.is_closed(first));
    assert_eq!(bench.code(second), ActivationCode::Activated);
}

#[test]
fn a_full_table_has_room_only_if_somebody_has_gone() {
    let mut bench = Bench::new(|config| config.max_sockets = 2);
    let (first, second) = (bench.activated(TESTER), bench.activated(OTHER));
    let third = bench.open();
    let fourth = bench.open();
    assert!(!bench.is_closed(third) && bench.is_closed(fourth));
    bench.ask_for_routing(third, LogicalAddress::new(0x0E82));
    bench.say(first, Payload::AliveCheckResponse(TESTER));
    assert_eq!(bench.hear(third), []);
    bench.say(second, Payload::AliveCheckResponse(OTHER));
    assert_eq!((bench.code(third), bench.is_closed(third)), (ActivationCode::NoSocketFree, true));

    let fifth = bench.open();
    bench.ask_for_routing(fifth, LogicalAddress::new(0x0E82));
    bench.say(first, Payload::AliveCheckResponse(TESTER));
    bench.pass(ms(500));
    assert!(bench.is_closed(second));
    assert_eq!(bench.code(fifth), ActivationCode::Activated);
}

#[test]
fn messages_that_cannot_be_routed_are_refused_by_the_standards_codes() {
    let mut bench = Bench::new(|config| config.max_data_size = Some(8));
    let id = bench.activated(TESTER);
    bench.ask(id, TESTER, LogicalAddress::new(0x4711), &[0x3E, 0]);
    assert_eq!(bench.nack(id), DiagnosticNackCode::UnknownTargetAddress);
    bench.ask(id, TESTER, ECU, &[0; 9]);
    assert_eq!(bench.nack(id), DiagnosticNackCode::MessageTooLarge);
    assert!(!bench.is_closed(id));
    bench.ask(id, OTHER, ECU, &[0x3E, 0]);
    assert_eq!(bench.nack(id), DiagnosticNackCode::InvalidSourceAddress);
    assert!(bench.is_closed(id));

    let mut bench = Bench::new(|config| config.diagnostic_nack = Some(DiagnosticNackCode::TargetUnreachable));
    let id = bench.activated(TESTER);
    bench.ask(id, TESTER, ECU, &[0x3E, 0]);
    assert_eq!(bench.nack(id), DiagnosticNackCode::TargetUnreachable);
    assert!(!bench.events().iter().any(|event| matches!(event, Event::Diagnostic(_))));

    let mut bench = Bench::new(|_| {});
    let id = bench.open();
    bench.ask(id, TESTER, ECU, &[0x3E, 0]);
    assert_eq!(bench.nack(id), DiagnosticNackCode::InvalidSourceAddress);
    assert!(bench.is_closed(id));
}

#[test]
fn headers_that_make_no_sense_are_refused_and_some_end_the_connection() {
    let refuse = |bytes: &[u8]| {
        let mut bench = Bench::new(|config| config.max_data_size = Some(4096));
        let id = bench.activated(TESTER);
        bench.say_bytes(id, bytes);
        match bench.hear(id).as_slice() {
            [Payload::HeaderNack(code)] => (*code, bench.is_closed(id)),
            other => panic!("{bytes:02X?}: {other:?}"),
        }
    };
    assert_eq!(refuse(&[2, 2, 0x80, 1, 0, 0, 0, 6]), (HeaderNackCode::IncorrectPattern, true));
    assert_eq!(
        refuse(&[9, 0xF6, 0x80, 1, 0, 0, 0, 5, 0x0E, 0x80, 0x40, 0x11, 1]),
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
fn datagrams_that_make_no_sense_are_refused_by_the_same_rules() {
    for (bytes, code) in [
        (&[2, 2, 0, 1, 0, 0, 0, 0][..], HeaderNackCode::IncorrectPattern),
        (&[9, 0xF6, 0, 1, 0, 0, 0, 0], HeaderNackCode::IncorrectPattern),
        (&[0xFF, 0, 0x40, 1, 0, 0, 0, 0], HeaderNackCode::IncorrectPattern),
        (&[0xFF, 0, 0x40, 3, 0, 0, 0, 0], HeaderNackCode::IncorrectPattern),
        (&[2, 0xFD, 0x77, 1, 0, 0, 0, 1, 9], HeaderNackCode::UnknownPayloadType),
        (&[2, 0xFD, 0, 2, 0, 0, 0, 5, 1, 2, 3, 4, 5], HeaderNackCode::InvalidPayloadLength),
        (&[2, 0xFD, 0, 1, 0, 0, 0, 9], HeaderNackCode::InvalidPayloadLength),
    ] {
        let mut bench = Bench::new(|_| {});
        bench.entity.handle_datagram(bench.now, "127.0.0.1:50000".parse().unwrap(), bytes);
        bench.settle();
        assert_eq!(bench.datagrams, [Payload::HeaderNack(code)], "{bytes:02X?}");
    }
}

#[test]
fn connections_that_say_nothing_are_closed_by_their_timers() {
    let mut bench = Bench::new(|_| {});
    let (idle, active) = (bench.open(), bench.activated(TESTER));
    bench.pass(ms(1999));
    assert!(!bench.is_closed(idle));
    bench.pass(ms(1));
    assert!(bench.is_closed(idle));
    bench.pass(Duration::from_secs(290));
    bench.ask(active, TESTER, ECU, &[0x3E, 0x80]);
    bench.pass(ms(299_999));
    assert!(!bench.is_closed(active));
    bench.pass(ms(1));
    assert!(bench.is_closed(active));
    assert!(bench.events().contains(&Event::Deactivated { tester: TESTER }));
}

#[test]
fn it_announces_itself_three_times_and_answers_who_asks_for_it() {
    let mut bench = Bench::new(|config| {
        config.announcements = 3;
        config.version = ProtocolVersion::V2019;
    });
    bench.settle();
    assert_eq!(bench.broadcasts, 1);
    bench.pass(ms(999));
    assert_eq!(bench.broadcasts, 2);
    bench.pass(ms(5000));
    assert_eq!(bench.broadcasts, 3);

    let from: SocketAddr = "127.0.0.1:50000".parse().unwrap();
    let mut ask = |version, payload: Payload| {
        let bytes = Message::new(version, payload).encode().unwrap();
        bench.entity.handle_datagram(bench.now, from, &bytes);
        bench.settle();
        std::mem::take(&mut bench.datagrams)
    };
    let who = config().announcement;
    let any = ProtocolVersion::Default;
    assert_eq!(ask(any, Payload::IdentificationRequest), [Payload::Announcement(who)]);
    assert_eq!(ask(any, Payload::IdentificationRequestByEid(who.eid)), [Payload::Announcement(who)]);
    assert_eq!(ask(any, Payload::IdentificationRequestByVin(who.vin)), [Payload::Announcement(who)]);
    assert_eq!(ask(any, Payload::IdentificationRequestByEid(Eid([9; 6]))), []);
    assert_eq!(ask(any, Payload::IdentificationRequestByVin([b'X'; 17])), []);
    let v2 = ProtocolVersion::V2012;
    assert_eq!(ask(v2, Payload::PowerModeRequest), [Payload::PowerModeResponse(PowerMode::Ready)]);
    let status = ask(v2, Payload::EntityStatusRequest);
    assert!(matches!(status[..], [Payload::EntityStatusResponse(status)] if status.open_sockets == 0));
    // what another entity says is not answered: two of them would never end
    assert_eq!(ask(v2, Payload::Announcement(who)), []);
    assert_eq!(ask(v2, Payload::HeaderNack(HeaderNackCode::UnknownPayloadType)), []);
}

#[test]
fn a_slow_entity_says_everything_later_in_the_same_order() {
    let mut bench = Bench::new(|config| config.latency = ms(700));
    let id = bench.open();
    bench.ask_for_routing(id, TESTER);
    bench.ask(id, TESTER, ECU, &[0x3E, 0]);
    bench.pass(ms(699));
    assert_eq!(bench.hear(id), []);
    bench.pass(ms(1));
    let heard = bench.hear(id);
    assert!(matches!(heard[..], [Payload::ActivationResponse(_), Payload::DiagnosticAck(_)]), "{heard:?}");
}

#[test]
fn a_flood_costs_bounded_memory() {
    let mut bench = Bench::new(|config| config.latency = Duration::from_secs(3600));
    let id = bench.open();
    bench.ask_for_routing(id, TESTER);
    for _ in 0..20_000 {
        bench.ask(id, TESTER, LogicalAddress::new(0x4711), &[0x3E, 0]);
    }
    bench.now += Duration::from_secs(3600);
    bench.settle();
    assert_eq!(bench.hear(id).len(), 4096);
}

/// Everything that the recorded gateway said, byte for byte and at its time, by an entity that knows only what the
/// recording tells of it.
#[test]
fn the_recorded_gateway_is_played_byte_for_byte() {
    let recording = DoipRecording::parse(LOG).unwrap();
    let start = Instant::now();
    let mut entity_config = recording.entity();
    // when a recorded gateway announces itself is not the tester's doing
    entity_config.announcements = 0;
    let mut entity = Entity::new(entity_config, start);
    let mut connections: BTreeMap<u16, ConnectionId> = BTreeMap::new();
    let mut said: Vec<(Duration, u16, Vec<u8>)> = Vec::new();
    let collect =
        |entity: &mut Entity, now: Instant, connections: &BTreeMap<u16, ConnectionId>, said: &mut Vec<_>| {
            while let Some(output) = entity.poll_output(now) {
                match output {
                    Output::Datagram { to, bytes } => said.push((now - start, to.port(), bytes)),
                    Output::Send { connection, bytes } => {
                        let port =
                            connections.iter().find(|(_, id)| **id == connection).map(|(port, _)| *port);
                        said.push((now - start, port.unwrap(), bytes));
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
            collect(&mut entity, at, &connections, &mut said);
        }
        match (record.speaker, record.carrier) {
            (Speaker::Announcement, _) => {}
            (Speaker::Vehicle, _) => {
                let is_answer = record.bytes[2..4] == [0x80, 0x01];
                if is_answer {
                    // the ECUs' own words are not the entity's
                    let message = decode_datagram(&record.bytes).unwrap();
                    let Payload::Diagnostic(message) = message.payload else { panic!() };
                    assert!(entity.respond(now, message));
                    collect(&mut entity, now, &connections, &mut said);
                }
                expected.push((record.at, record.tester_port, record.bytes.clone()));
            }
            (Speaker::Tester, Carrier::Udp) => {
                let from = SocketAddr::from(([127, 0, 0, 1], record.tester_port));
                entity.handle_datagram(now, from, &record.bytes);
                collect(&mut entity, now, &connections, &mut said);
            }
            (Speaker::Tester, Carrier::Tcp) => {
                let next = ConnectionId(connections.len() as u64 + 1);
                let id = *connections.entry(record.tester_port).or_insert_with(|| {
                    entity.handle_connected(now, next, false);
                    next
                });
                entity.handle_bytes(now, id, &record.bytes);
                collect(&mut entity, now, &connections, &mut said);
                // an alive check that is not waited for: the tester had closed that connection already
                let following: Vec<_> = records[index + 1..].iter().take(2).collect();
                if let [check, activation] = following[..]
                    && check.bytes == hex("02fd000700000000")
                    && activation.at - check.at < ms(100)
                    && activation.speaker == Speaker::Vehicle
                {
                    entity.handle_closed(now, connections[&check.tester_port]);
                    collect(&mut entity, now, &connections, &mut said);
                }
            }
        }
        while entity.poll_event().is_some() {}
    }
    assert_eq!(said.len(), expected.len());
    for (said, expected) in said.iter().zip(&expected) {
        assert_eq!((said.1, &said.2), (expected.1, &expected.2), "at {:?}", expected.0);
        // the recording's own clock has milliseconds
        assert!(said.0.abs_diff(expected.0) <= ms(3), "{:?} instead of {:?}", said.0, expected.0);
    }
}

fn hex(text: &str) -> Vec<u8> {
    connector_sim::vehicle::hex::parse(text).unwrap()
}

#[test]
fn a_recording_that_cannot_be_read_is_an_error_that_names_the_line() {
    for (text, error) in [
        ("0.0 udp vehicle>tester 1>2", "line 1: five fields"),
        ("x udp vehicle>tester 1>2 00", "line 1: the time"),
        ("\n0.0 sctp vehicle>tester 1>2 00", "line 2: udp or tcp"),
        ("0.0 udp vehicle>tester 1>2 02fe", "line 1"),
        ("# nothing", "no announcement"),
    ] {
        let told = DoipRecording::parse(text).unwrap_err().to_string();
        assert!(told.contains(error), "{told}");
    }
}

#[test]
fn messages_in_any_pieces_are_the_same_messages() {
    let mut bench = Bench::new(|_| {});
    let id = bench.activated(TESTER);
    bench.events();
    let message = DiagnosticMessage { source: TESTER, target: ECU, data: vec![0x22; 300] };
    let bytes = Message::new(ProtocolVersion::V2012, message.clone()).encode().unwrap();
    for piece in bytes.iter().chain(&bytes) {
        bench.say_bytes(id, &[*piece]);
    }
    assert_eq!(bench.events(), [Event::Diagnostic(message.clone()), Event::Diagnostic(message)]);
    assert_eq!(bench.hear(id).len(), 2);
    let mut decoder = StreamDecoder::new(1000);
    decoder.handle_bytes(&bytes);
    assert!(matches!(decoder.poll_message(), Ok(Some(Decoded::Message(_)))));
}
