//! Functional requests with several responders.

use std::time::{Duration, Instant};

use super::net::{Net, Node};
use super::script::frame;
use super::{id, pdu};
use crate::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FlowControlAddress, FunctionalConfig, FunctionalEndpoint,
    ReceiveFailure, Responder, Responders, SendError, SendFailure, Timer,
};

fn functional(config: FunctionalConfig) -> Node {
    Node::Functional(Box::new(FunctionalEndpoint::new(config)))
}

/// An ECU's answering side.
fn responder(transmit: u32, receive: u32) -> Node {
    Node::Point(Box::new(Endpoint::new(Config::new(Addressing::normal(id(transmit), id(receive))))))
}

/// Passes frames to an endpoint at one time, and returns the frames that it sends and its events.
fn exchange(endpoint: &mut FunctionalEndpoint, now: Instant, frames: &[&str]) -> (Vec<String>, Vec<Event>) {
    let mut sent = Vec::new();
    let mut events = Vec::new();
    for text in frames {
        assert!(endpoint.handle_frame(now, &frame(text)), "{text} is for this endpoint");
        while let Some(frame) = endpoint.poll_transmit(now) {
            sent.push(frame.to_string());
            endpoint.handle_transmitted(now);
        }
        events.extend(std::iter::from_fn(|| endpoint.poll_event()));
    }
    (sent, events)
}

#[test]
fn answers_of_all_eight_obd_responders_are_collected_simultaneously() {
    let config = FunctionalConfig::new(id(0x7DF), Responders::Obd11);
    let ecus = (0x7E8..=0x7EF).map(|response| responder(response, response - 8));
    let mut net = Net::new(std::iter::once(functional(config)).chain(ecus).collect());
    net.send(0, &[0x09, 0x02]).unwrap();
    net.run();
    assert_eq!(net.candump(), ["7DF#020902CCCCCCCCCC"]);
    for ecu in 1..=8 {
        net.send(ecu, &pdu(20 + ecu)).unwrap();
    }
    net.run();
    let mut answers = net.received(0);
    answers.sort_by_key(|answer| answer.len());
    assert_eq!(answers, (1..=8).map(|ecu| pdu(20 + ecu)).collect::<Vec<_>>());
    for ecu in 1..=8 {
        assert!(matches!(net.outcomes(ecu)[..], [Event::Sent { .. }]), "{ecu} got its flow control");
    }
}

#[test]
fn flow_control_goes_to_the_physical_address_of_each_responder() {
    let list = [(0x7B9, 0x74F), (0x640, 0x240)];
    let list = list.map(|(response, request)| Responder::pair(id(response), id(request))).to_vec();
    for (request, responders, response, flow_control) in [
        (0x7DF, Responders::Obd11, "7EA", "7E2#300000CCCCCCCCCC"),
        (0x18DB_33F1, Responders::Obd29, "18DAF110", "18DA10F1#300000CCCCCCCCCC"),
        (0x700, Responders::List(list), "7B9", "74F#300000CCCCCCCCCC"),
    ] {
        let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(request), responders));
        let first = format!("{response}#1014490201314734");
        let (sent, events) = exchange(&mut endpoint, Instant::now(), &[&first]);
        assert_eq!(sent, [flow_control]);
        assert!(matches!(events[..], [Event::ReceptionStarted { .. }]));
    }
}

/// Ford and Volkswagen number their ECUs differently: no rule leads from a response identifier to the request's.
#[test]
fn a_segmented_answer_without_a_known_request_identifier_fails() {
    let now = Instant::now();
    let list = vec![Responder::answering(id(0x77E), None, None)];
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x700), Responders::List(list)));
    let (sent, events) = exchange(&mut endpoint, now, &["77E#1014490201314734"]);
    assert_eq!(sent, [""; 0]);
    let failure = ReceiveFailure::NoFlowControlAddress;
    let address = id(0x77E);
    assert_eq!(events, [Event::ReceptionStarted { address }, Event::ReceiveFailed { address, failure }]);
    let (_, events) = exchange(&mut endpoint, now, &["77E#2141424344454647", "77E#037F2231"]);
    let pdu = vec![0x7F, 0x22, 0x31];
    assert_eq!(events, [Event::ReceptionStarted { address }, Event::Received { address, pdu }]);
    assert_eq!(endpoint.poll_timeout(), None);
}

#[test]
fn flow_control_has_the_address_of_the_ecu_and_not_of_the_functional_request() {
    let to = |address| Some(FlowControlAddress { id: id(0x750), address: Some(address) });
    // two ECUs share their identifiers and are distinguished by the address byte
    let ecu = |address| Responder {
        response: id(0x758),
        response_address: Some(address),
        flow_control: to(address),
    };
    let config = FunctionalConfig {
        transmit_address: Some(0xDF),
        ..FunctionalConfig::new(id(0x750), Responders::List(vec![ecu(0x0F), ecu(0x40)]))
    };
    let mut endpoint = FunctionalEndpoint::new(config);
    let now = Instant::now();
    let (sent, _) = exchange(&mut endpoint, now, &["758#0F10084902013147", "758#4010084902013148"]);
    assert_eq!(sent, ["750#0F300000CCCCCCCC", "750#40300000CCCCCCCC"]);
    let (_, events) = exchange(&mut endpoint, now, &["758#4021AABBCC", "758#0F21DDEEFF"]);
    let pdus: Vec<_> = events
        .into_iter()
        .filter_map(|event| match event {
            Event::Received { pdu, .. } => Some(pdu),
            _ => None,
        })
        .collect();
    assert_eq!(pdus, [b"\x49\x02\x01\x31\x48\xAA\xBB\xCC", b"\x49\x02\x01\x31\x47\xDD\xEE\xFF"]);
    assert!(!endpoint.handle_frame(now, &frame("758#4110084902013148")));
}

#[test]
fn with_extended_addresses_an_obd_responder_has_no_known_address() {
    for (to, from, flow_control) in [(0x33, 0xF1, None), (0x99, 0x99, Some("7E0#99300000CCCCCCCC"))] {
        let config = FunctionalConfig {
            transmit_address: Some(to),
            receive_address: Some(from),
            ..FunctionalConfig::new(id(0x7DF), Responders::Obd11)
        };
        let mut endpoint = FunctionalEndpoint::new(config);
        let first = format!("7E8#{from:02X}10084902013147");
        let (sent, _) = exchange(&mut endpoint, Instant::now(), &[&first]);
        assert_eq!(sent, Vec::from_iter(flow_control), "{to:02X} {from:02X}");
    }
}

#[test]
fn an_answer_that_another_endpoint_receives_too_is_collected_without_flow_control() {
    let list = vec![Responder::answering(id(0x77E), None, None), Responder::pair(id(0x77F), id(0x715))];
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x700), Responders::List(list)));
    let now = Instant::now();
    for sender in ["77E", "77F"] {
        let first = frame(&format!("{sender}#1008490201314734"));
        endpoint.handle_frame(now, &first);
        endpoint.skip_flow_control(now, &first);
        let (sent, events) = exchange(&mut endpoint, now, &[&format!("{sender}#21AABB")]);
        assert_eq!(sent, [""; 0]);
        assert!(
            matches!(&events[..], [Event::ReceptionStarted { .. }, Event::Received { .. }]),
            "{events:?}"
        );
    }
}

#[test]
fn only_frames_of_possible_responders_are_accepted() {
    let now = Instant::now();
    for (responders, heard, unheard) in [
        (Responders::Obd11, vec!["7E8#00", "7EF#00"], vec!["7E7#0100", "7F0#0100", "000007E8#0100"]),
        (
            Responders::Obd29,
            vec!["18DAF100#00", "18DAF1FF#00"],
            vec!["18DAF210#0100", "7E8#0100", "18DBF110#0100"],
        ),
        (Responders::List(vec![]), vec![], vec!["7E8#0100", "18DAF110#0100"]),
    ] {
        let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), responders));
        for text in heard {
            assert!(endpoint.handle_frame(now, &frame(text)), "{text}");
        }
        for text in unheard {
            let extended = text.len() > 8 && text.starts_with('0');
            let mut frame = frame(text);
            if extended {
                let id = connector_hal::can::CanId::extended(0x7E8).unwrap();
                frame = connector_hal::can::CanFrame::new(id, frame.data()).unwrap();
            }
            assert!(!endpoint.handle_frame(now, &frame), "{text}");
        }
        assert_eq!(endpoint.poll_event(), None);
    }
}

#[test]
fn interleaved_answers_are_distinguished() {
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
    let (sent, events) = exchange(
        &mut endpoint,
        Instant::now(),
        &["7E8#1008010203040506", "7E9#1009112233445566", "7EA#017F", "7E9#21778899", "7E8#210708"],
    );
    assert_eq!(sent, ["7E0#300000CCCCCCCCCC", "7E1#300000CCCCCCCCCC"]);
    let received = |address, pdu: &[u8]| Event::Received { address: id(address), pdu: pdu.to_vec() };
    let whole: Vec<Event> =
        events.into_iter().filter(|event| matches!(event, Event::Received { .. })).collect();
    let long = received(0x7E9, &[0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99]);
    assert_eq!(whole, [received(0x7EA, &[0x7F]), long, received(0x7E8, &[1, 2, 3, 4, 5, 6, 7, 8])]);
    assert!(!endpoint.is_receiving());
}

#[test]
fn a_failed_answer_does_not_affect_the_others() {
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
    let start = Instant::now();
    let ms = |ms| start + Duration::from_millis(ms);
    exchange(&mut endpoint, start, &["7E8#1010010203040506"]);
    exchange(&mut endpoint, ms(500), &["7E9#1008010203040506", "7EA#1010010203040506"]);
    assert_eq!(endpoint.poll_timeout(), Some((ms(1000), Timer::NCr)));
    endpoint.handle_timeout(ms(1000));
    let (_, events) = exchange(&mut endpoint, ms(1000), &["7E9#210708", "7EA#22"]);
    let failed = |address, failure| Event::ReceiveFailed { address: id(address), failure };
    assert_eq!(events[0], failed(0x7E8, ReceiveFailure::ConsecutiveFrameTimeout));
    assert!(matches!(&events[1], Event::Received { pdu, .. } if pdu.len() == 8));
    assert_eq!(events.len(), 2, "a consecutive frame without data is ignored");
    let (_, events) = exchange(&mut endpoint, ms(1000), &["7EA#2201020304050607"]);
    assert_eq!(events, [failed(0x7EA, ReceiveFailure::WrongSequenceNumber)]);
    assert_eq!(endpoint.poll_timeout(), None);
}

#[test]
fn a_new_answer_of_a_responder_replaces_its_old_one() {
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
    let now = Instant::now();
    let (_, events) = exchange(
        &mut endpoint,
        now,
        &["7E8#1010010203040506", "7E8#1009010203040506", "7E8#017F", "7E8#21070809"],
    );
    let interrupted = Event::ReceiveFailed { address: id(0x7E8), failure: ReceiveFailure::Interrupted };
    assert_eq!(events.iter().filter(|event| **event == interrupted).count(), 2);
    assert!(matches!(events.last(), Some(Event::Received { pdu, .. }) if *pdu == [0x7F]));
}

#[test]
fn the_number_of_simultaneous_answers_is_bounded() {
    let config =
        FunctionalConfig { max_receptions: 2, ..FunctionalConfig::new(id(0x18DB_33F1), Responders::Obd29) };
    let mut endpoint = FunctionalEndpoint::new(config);
    let now = Instant::now();
    let frames = ["18DAF101#1010010203040506", "18DAF102#1010010203040506", "18DAF103#1010010203040506"];
    let (sent, events) = exchange(&mut endpoint, now, &frames);
    assert_eq!((sent.len(), events.len()), (2, 2), "the third one is ignored");
    let (_, events) = exchange(&mut endpoint, now, &["18DAF103#017F"]);
    assert!(matches!(events[..], [_, Event::Received { .. }]), "a single frame needs no room");
    let (sent, _) = exchange(&mut endpoint, now, &["18DAF101#1010010203040506"]);
    assert_eq!(sent.len(), 1, "a responder that starts again keeps its place");
}

#[test]
fn an_answer_beyond_the_bound_is_refused_with_overflow_to_its_responder() {
    let config = FunctionalConfig { max_pdu: 15, ..FunctionalConfig::new(id(0x7DF), Responders::Obd11) };
    let mut endpoint = FunctionalEndpoint::new(config);
    let (sent, events) = exchange(&mut endpoint, Instant::now(), &["7EB#1010010203040506"]);
    assert_eq!(sent, ["7E3#320000CCCCCCCCCC"]);
    let failed = Event::ReceiveFailed { address: id(0x7EB), failure: ReceiveFailure::TooLong };
    assert_eq!(events, [Event::ReceptionStarted { address: id(0x7EB) }, failed]);
    assert!(!endpoint.is_receiving());
}

#[test]
fn a_request_is_one_single_frame() {
    let now = Instant::now();
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
    assert_eq!(endpoint.send(now, &[0; 8]), Err(SendError::TooLong { len: 8, max: 7 }));
    assert_eq!(endpoint.send(now, &[]), Err(SendError::Empty));
    endpoint.send(now, &[0; 7]).unwrap();
    assert_eq!(endpoint.send(now, &[0x3E]), Err(SendError::Busy));
    assert!(endpoint.poll_transmit(now).is_some());
    endpoint.handle_transmitted(now);
    assert_eq!(endpoint.poll_event(), Some(Event::Sent { elapsed: Duration::ZERO }));

    let address = FunctionalConfig {
        transmit_address: Some(0xFE),
        receive_address: Some(0xF1),
        ..FunctionalConfig::new(id(0x7DF), Responders::Obd11)
    };
    let mut endpoint = FunctionalEndpoint::new(address);
    assert_eq!(endpoint.send(now, &[0; 7]), Err(SendError::TooLong { len: 7, max: 6 }));
    endpoint.send(now, &[0x3E]).unwrap();
    assert_eq!(endpoint.poll_transmit(now).unwrap().to_string(), "7DF#FE013ECCCCCCCCCC");
    endpoint.handle_transmitted(now);
    endpoint.poll_event();
    assert!(!endpoint.handle_frame(now, &frame("7E8#FE017E")));
    let (_, events) = exchange(&mut endpoint, now, &["7E8#F1017E"]);
    assert!(matches!(&events[..], [_, Event::Received { pdu, .. }] if *pdu == [0x7E]));
}

#[test]
fn bus_off_ends_the_request_and_answers_that_await_a_flow_control() {
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
    let now = Instant::now();
    exchange(&mut endpoint, now, &["7E8#1008010203040506"]);
    endpoint.handle_frame(now, &frame("7E9#1008010203040506"));
    endpoint.send(now, &[0x3E]).unwrap();
    endpoint.handle_transmit_failed(now, SendFailure::BusOff);
    assert_eq!(endpoint.poll_transmit(now), None);
    let (_, events) = exchange(&mut endpoint, now, &["7E8#210708"]);
    let failure = ReceiveFailure::NotAcknowledged;
    assert_eq!(events[1], Event::SendFailed { failure: SendFailure::BusOff });
    assert_eq!(events[2], Event::ReceiveFailed { address: id(0x7E9), failure });
    assert!(matches!(events[3], Event::Received { .. }));
}

#[test]
fn a_flow_control_given_up_by_the_adapter_ends_only_its_answer() {
    let mut endpoint = FunctionalEndpoint::new(FunctionalConfig::new(id(0x7DF), Responders::Obd11));
    let now = Instant::now();
    for text in ["7E8#1008010203040506", "7E9#1008010203040506"] {
        endpoint.handle_frame(now, &frame(text));
        assert!(endpoint.poll_transmit(now).is_some());
    }
    endpoint.handle_transmitted(now);
    endpoint.handle_transmit_failed(now, SendFailure::NotAcknowledged);
    let events: Vec<Event> = std::iter::from_fn(|| endpoint.poll_event()).collect();
    let failure = ReceiveFailure::NotAcknowledged;
    assert_eq!(events[2..], [Event::ReceiveFailed { address: id(0x7E9), failure }]);
    assert!(matches!(endpoint.poll_timeout(), Some((_, Timer::NCr))));
}
