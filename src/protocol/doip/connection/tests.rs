use super::*;
use crate::protocol::doip::{
    ActivationCode, ActivationResponse, ActivationType, DiagnosticAck, DiagnosticNack, DiagnosticNackCode,
    HeaderNackCode, ProtocolVersion,
};

const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);
const GATEWAY: LogicalAddress = LogicalAddress::new(0x4010);
const ENGINE: LogicalAddress = LogicalAddress::new(0x4020);
const FUNCTIONAL: LogicalAddress = LogicalAddress::new(0xE400);

/// A connection and the present time.
struct Rig {
    connection: Connection,
    now: Instant,
}

impl Rig {
    fn new() -> Self {
        Self::with(ConnectionSettings::new(TESTER))
    }

    fn with(settings: ConnectionSettings) -> Self {
        let now = Instant::now();
        Self { connection: Connection::new(settings, now), now }
    }

    fn active() -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.transmitted().len(), 1);
        rig.answer_activation(0x10);
        assert_eq!(rig.events(), [Event::Activated { entity: GATEWAY, oem: None }]);
        rig
    }

    fn answer_activation(&mut self, code: u8) {
        self.receive(ActivationResponse { tester: TESTER, entity: GATEWAY, code: code.into(), oem: None });
    }

    fn receive(&mut self, payload: impl Into<Payload>) {
        self.receive_in(ProtocolVersion::V2012, payload);
    }

    fn receive_in(&mut self, version: ProtocolVersion, payload: impl Into<Payload>) {
        let bytes = Message::new(version, payload).encode().unwrap();
        self.connection.handle_bytes(self.now, &bytes);
    }

    fn ack(&mut self, source: LogicalAddress) {
        self.receive(DiagnosticAck { source, target: TESTER, code: 0, previous: vec![] });
    }

    fn respond(&mut self, source: LogicalAddress, data: &[u8]) {
        self.receive(DiagnosticMessage { source, target: TESTER, data: data.to_vec() });
    }

    /// Advances the time, one deadline after the other.
    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((at, _)) = self.connection.poll_timeout().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            self.connection.handle_timeout(self.now);
        }
        self.now = until;
    }

    fn send(&mut self, target: LogicalAddress) -> SendId {
        let id = self.connection.send(target, &[0x3E, 0x00]).unwrap();
        self.transmitted();
        id
    }

    fn transmitted(&mut self) -> Vec<Payload> {
        let mut decoder = StreamDecoder::new(1 << 20);
        while let Some(bytes) = self.connection.poll_transmit(self.now) {
            decoder.handle_bytes(&bytes);
        }
        let next = || match decoder.poll_message().unwrap()? {
            Decoded::Message(message) => Some(message.payload),
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(next).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    fn closed(&mut self) -> ConnectionError {
        match self.events().pop() {
            Some(Event::Closed(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn routing_activation_is_sent_immediately_with_type_and_oem_field() {
    let settings = ConnectionSettings {
        activation_type: ActivationType::CentralSecurity,
        oem: Some([1, 2, 3, 4]),
        ..ConnectionSettings::new(TESTER)
    };
    let mut rig = Rig::with(settings);
    let request = ActivationRequest {
        source: TESTER,
        activation_type: ActivationType::from(0xE0),
        oem: Some([1, 2, 3, 4]),
    };
    assert_eq!(rig.transmitted(), [Payload::ActivationRequest(request)]);
    assert_eq!(rig.connection.send(ENGINE, &[0x3E]), Err(SendError::NotActive));
}

#[test]
fn every_refusal_code_is_distinguished() {
    let mut texts = std::collections::BTreeSet::new();
    for code in (0x00..=0x07).chain([0xE5]) {
        let mut rig = Rig::new();
        rig.answer_activation(code);
        let error = rig.closed();
        assert_eq!(error, ConnectionError::Denied(code.into()));
        assert!(error.to_string().contains(&format!("(0x{code:02X})")), "{error}");
        assert_eq!(error.needs_tls(), code == 0x07);
        texts.insert(error.to_string());
        assert!(rig.connection.is_closed() && rig.connection.poll_timeout().is_none());
    }
    assert_eq!(texts.len(), 9);
}

#[test]
fn the_activation_times_out_after_two_seconds() {
    let mut rig = Rig::new();
    rig.wait(CONTROL_TIME - Duration::from_millis(1));
    assert_eq!(rig.events(), []);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.closed(), ConnectionError::ActivationTimeout);
}

#[test]
fn routing_is_active_after_the_awaited_confirmation() {
    let mut rig = Rig::new();
    rig.answer_activation(0x11);
    assert_eq!(rig.events(), [Event::ConfirmationRequired]);
    rig.wait(Duration::from_secs(20));
    rig.answer_activation(0x10);
    assert_eq!(rig.events(), [Event::Activated { entity: GATEWAY, oem: None }]);
}

#[test]
fn a_confirmation_announced_repeatedly_times_out() {
    let mut rig = Rig::new();
    for _ in 0..29 {
        rig.answer_activation(0x11);
        rig.wait(Duration::from_secs(1));
    }
    assert_eq!(rig.events(), [Event::ConfirmationRequired]);
    rig.answer_activation(0x11);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.closed(), ConnectionError::ConfirmationTimeout(Duration::from_secs(30)));
}

#[test]
fn an_activation_for_another_tester_is_refused() {
    let mut rig = Rig::new();
    let other = LogicalAddress::new(0x0E81);
    rig.receive(ActivationResponse { tester: other, entity: GATEWAY, code: 0x10.into(), oem: None });
    assert_eq!(rig.closed(), ConnectionError::OtherTester { asked: TESTER, answered: other });
}

#[test]
fn repeated_alive_checks_get_one_answer_ahead_of_waiting_messages() {
    let mut rig = Rig::active();
    rig.connection.send(ENGINE, &[0x22, 0xF1, 0x90]).unwrap();
    for _ in 0..1000 {
        rig.receive(Payload::AliveCheckRequest);
    }
    let sent = rig.transmitted();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], Payload::AliveCheckResponse(TESTER));
    assert!(matches!(&sent[1], Payload::Diagnostic(message) if message.target == ENGINE));
}

#[test]
fn an_alive_check_during_activation_is_answered_too() {
    let mut rig = Rig::new();
    rig.transmitted();
    rig.receive(Payload::AliveCheckRequest);
    assert_eq!(rig.transmitted(), [Payload::AliveCheckResponse(TESTER)]);
}

#[test]
fn several_ecus_are_distinguished_on_one_connection() {
    let mut rig = Rig::active();
    let (engine, gateway) = (rig.send(ENGINE), rig.send(GATEWAY));
    rig.wait(Duration::from_millis(7));
    rig.ack(GATEWAY);
    rig.receive(DiagnosticNack { source: ENGINE, target: TESTER, code: 0x06.into(), previous: vec![] });
    rig.respond(GATEWAY, &[0x7E, 0x00]);
    let elapsed = Duration::from_millis(7);
    assert_eq!(
        rig.events(),
        [
            Event::Sent { id: gateway, elapsed },
            Event::SendFailed {
                id: engine,
                failure: SendFailure::Nack(DiagnosticNackCode::TargetUnreachable)
            },
            Event::Received { source: GATEWAY, data: vec![0x7E, 0x00] },
        ]
    );
}

#[test]
fn every_negative_acknowledgement_code_is_distinguished() {
    for code in 0x02..=0x08 {
        let mut rig = Rig::active();
        let id = rig.send(ENGINE);
        rig.receive(DiagnosticNack { source: ENGINE, target: TESTER, code: code.into(), previous: vec![] });
        let failure = SendFailure::Nack(code.into());
        assert_eq!(rig.events(), [Event::SendFailed { id, failure }]);
        assert!(failure.to_string().contains(&format!("(0x{code:02X})")), "{failure}");
    }
}

#[test]
fn a_functional_request_gets_an_answer_from_every_ecu() {
    let mut rig = Rig::active();
    let id = rig.send(FUNCTIONAL);
    rig.ack(FUNCTIONAL);
    rig.respond(ENGINE, &[0x7E, 0x00]);
    rig.respond(GATEWAY, &[0x7E, 0x00]);
    assert_eq!(
        rig.events(),
        [
            Event::Sent { id, elapsed: Duration::ZERO },
            Event::Received { source: ENGINE, data: vec![0x7E, 0x00] },
            Event::Received { source: GATEWAY, data: vec![0x7E, 0x00] },
        ]
    );
}

#[test]
fn an_acknowledgement_from_the_gateway_or_a_group_member_counts() {
    let mut rig = Rig::active();
    let id = rig.send(ENGINE);
    rig.ack(GATEWAY);
    assert_eq!(rig.events(), [Event::Sent { id, elapsed: Duration::ZERO }]);
    let id = rig.send(FUNCTIONAL);
    rig.ack(ENGINE);
    assert_eq!(rig.events(), [Event::Sent { id, elapsed: Duration::ZERO }]);
}

#[test]
fn a_response_before_its_acknowledgement_replaces_it_and_the_late_one_is_ignored() {
    let mut rig = Rig::active();
    let first = rig.send(ENGINE);
    rig.respond(ENGINE, &[0x7E, 0x00]);
    let second = rig.send(ENGINE);
    rig.ack(ENGINE);
    let sent = Event::Sent { id: first, elapsed: Duration::ZERO };
    assert_eq!(rig.events(), [sent, Event::Received { source: ENGINE, data: vec![0x7E, 0x00] }]);
    rig.ack(ENGINE);
    assert_eq!(rig.events(), [Event::Sent { id: second, elapsed: Duration::ZERO }]);
}

#[test]
fn an_unacknowledged_message_fails_after_two_seconds_alone() {
    let mut rig = Rig::active();
    let first = rig.send(ENGINE);
    rig.wait(Duration::from_secs(1));
    let second = rig.send(GATEWAY);
    rig.wait(Duration::from_secs(1));
    let failure = SendFailure::NotAcknowledged;
    assert_eq!(rig.events(), [Event::SendFailed { id: first, failure }]);
    rig.ack(GATEWAY);
    assert_eq!(rig.events(), [Event::Sent { id: second, elapsed: Duration::from_secs(1) }]);
    assert!(rig.connection.is_active());
}

#[test]
fn a_header_nack_belongs_to_the_oldest_message() {
    let mut rig = Rig::active();
    let (first, _) = (rig.send(ENGINE), rig.send(GATEWAY));
    rig.receive(Payload::HeaderNack(HeaderNackCode::MessageTooLarge));
    let failure = SendFailure::HeaderNack(HeaderNackCode::MessageTooLarge);
    assert_eq!(rig.events(), [Event::SendFailed { id: first, failure }]);
}

#[test]
fn waiting_messages_fail_before_the_end_of_the_connection_is_reported() {
    let mut rig = Rig::active();
    let id = rig.send(ENGINE);
    rig.connection.handle_bytes(rig.now, &[]);
    let failure = SendFailure::ConnectionLost;
    assert_eq!(
        rig.events(),
        [Event::SendFailed { id, failure }, Event::Closed(ConnectionError::ClosedByGateway)]
    );
}

#[test]
fn a_connection_without_traffic_for_five_minutes_is_over() {
    let mut rig = Rig::active();
    rig.wait(GENERAL_INACTIVITY - Duration::from_secs(1));
    rig.receive(Payload::AliveCheckRequest);
    rig.transmitted();
    rig.wait(GENERAL_INACTIVITY - Duration::from_secs(1));
    assert_eq!(rig.events(), []);
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.closed(), ConnectionError::Inactive);
}

#[test]
fn an_invalid_header_closes_the_connection_with_a_reason() {
    for (bytes, text) in [
        (&b"\x02\xFD\x80\x01\xFF\xFF\xFF\xFF"[..], "a message of 4294967295 bytes, more than 1048592"),
        (b"\x00\xFF\x80\x01\x00\x00\x00\x05", "protocol version 0x00"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not DoIP: the header begins with 0x48 0x54"),
    ] {
        let mut rig = Rig::active();
        let now = rig.now;
        bytes.chunks(1).for_each(|byte| rig.connection.handle_bytes(now, byte));
        let error = rig.closed().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn messages_for_other_testers_and_before_activation_are_not_relayed() {
    let mut rig = Rig::new();
    rig.respond(ENGINE, &[0x7E, 0x00]);
    assert_eq!(rig.events(), []);
    let mut rig = Rig::active();
    let target = LogicalAddress::new(0x0E81);
    rig.receive(DiagnosticMessage { source: ENGINE, target, data: vec![0x7E, 0x00] });
    assert_eq!(rig.events(), []);
}

#[test]
fn the_number_of_waiting_messages_is_bounded() {
    let mut rig = Rig::active();
    for _ in 0..MAX_UNACKNOWLEDGED {
        rig.connection.send(ENGINE, &[0x3E, 0x00]).unwrap();
    }
    assert_eq!(rig.connection.send(ENGINE, &[0x3E, 0x00]), Err(SendError::Full));
    assert_eq!(rig.connection.send(ENGINE, &[]), Err(SendError::Length { max: 1 << 20 }));
    assert_eq!(rig.connection.send(ENGINE, &vec![0; (1 << 20) + 1]), Err(SendError::Length { max: 1 << 20 }));
}

#[test]
fn a_gateway_that_refuses_our_version_names_its_own() {
    let refusal = || Payload::HeaderNack(HeaderNackCode::IncorrectPattern);
    let mut rig = Rig::new();
    rig.receive_in(ProtocolVersion::V2025, refusal());
    let other = ConnectionError::OtherVersion { asked: ProtocolVersion::V2012, own: ProtocolVersion::V2025 };
    assert_eq!(rig.events(), [Event::Closed(other)]);
    // in our version, the refusal has another reason
    let mut rig = Rig::new();
    rig.receive(refusal());
    let refused = ConnectionError::ActivationRefused(HeaderNackCode::IncorrectPattern);
    assert_eq!(rig.events(), [Event::Closed(refused)]);
}

#[test]
fn a_message_in_another_version_counts_and_leaves_our_version_unchanged() {
    let mut rig = Rig::new();
    rig.transmitted();
    let (tester, entity, code) = (TESTER, GATEWAY, ActivationCode::Activated);
    let activated = ActivationResponse { tester, entity, code, oem: None };
    rig.receive_in(ProtocolVersion::V2025, activated);
    rig.connection.send(ENGINE, &[0x3E, 0x00]).unwrap();
    let sent = rig.connection.poll_transmit(rig.now).unwrap();
    assert_eq!(sent[0], u8::from(ProtocolVersion::V2012));
    rig.receive_in(
        ProtocolVersion::V2019,
        DiagnosticMessage { source: ENGINE, target: TESTER, data: vec![0x7E, 0x00] },
    );
    assert!(rig.events().contains(&Event::Received { source: ENGINE, data: vec![0x7E, 0x00] }));
}

#[test]
fn another_gateway_than_the_required_one_is_refused() {
    let required = LogicalAddress::new(0x4011);
    let mut rig = Rig::with(ConnectionSettings { entity: Some(required), ..ConnectionSettings::new(TESTER) });
    rig.answer_activation(0x10);
    let other = ConnectionError::OtherEntity { asked: required, answered: GATEWAY };
    assert_eq!(rig.events(), [Event::Closed(other)]);
}

#[test]
fn a_late_acknowledgement_does_not_count_for_the_next_message() {
    let mut rig = Rig::active();
    let late = rig.connection.send(ENGINE, &[0x22, 0xF1, 0x90]).unwrap();
    rig.transmitted();
    rig.wait(Duration::from_secs(2));
    let failure = SendFailure::NotAcknowledged;
    assert_eq!(rig.events(), [Event::SendFailed { id: late, failure }]);
    let next = rig.connection.send(ENGINE, &[0x31, 0x01]).unwrap();
    rig.transmitted();
    let acknowledge = |rig: &mut Rig, previous: &[u8]| {
        let previous = previous.to_vec();
        rig.receive(DiagnosticAck { source: ENGINE, target: TESTER, code: 0, previous });
    };
    acknowledge(&mut rig, &[0x22, 0xF1, 0x90]);
    assert_eq!(rig.events(), []);
    acknowledge(&mut rig, &[0x31]);
    assert_eq!(rig.events(), [Event::Sent { id: next, elapsed: Duration::ZERO }]);
    // a repetition that belongs to no message says nothing
    let third = rig.connection.send(ENGINE, &[0x31, 0x02]).unwrap();
    rig.transmitted();
    acknowledge(&mut rig, &[0xEE]);
    assert_eq!(rig.events(), [Event::Sent { id: third, elapsed: Duration::ZERO }]);
}

#[test]
fn a_connection_whose_events_are_not_read_accepts_no_message() {
    let mut rig = Rig::active();
    let mut accepted = 0;
    for _ in 0..2 * MAX_UNACKNOWLEDGED + 100 {
        accepted += usize::from(rig.connection.send(ENGINE, &[0x3E, 0x00]).is_ok());
        rig.transmitted();
        rig.wait(ACKNOWLEDGE_TIME);
    }
    assert!(accepted <= 2 * MAX_UNACKNOWLEDGED, "{accepted}");
    assert_eq!(rig.connection.send(ENGINE, &[0x3E, 0x00]), Err(SendError::Full));
    assert_eq!(rig.events().len(), accepted, "every message has one outcome");
    assert!(rig.connection.send(ENGINE, &[0x3E, 0x00]).is_ok());
}
