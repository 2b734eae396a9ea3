//! A frame that the adapter refuses while older frames of its owner have no outcome.

use connector_hal::can::{CanEvent, CanFrame, CanId, CanSettings};

use super::*;
use crate::config::IsotpStack;
use crate::protocol::isotp::{Addressing, Config, Endpoint};
use crate::relay::buses::channels::Channels as _;
use crate::relay::channel::{
    FrameTransport, Output, PduChannel, PduChannelSettings, PduToSend, ResponseTiming,
};
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};
use crate::vehicle::scan::{EcuFound, FoundEcu, ScanOutcome, ScanRequest};
use crate::vehicle::vin::{EcuAddress, ReaderSettings};

const VIN: &str = "WVWZZZAUZEW000001";

/// A bus without channels.
fn bus() -> CanChannels {
    let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
    CanChannels::new("HS", settings, IsotpStack::Own)
}

fn id(raw: u32) -> CanId {
    CanId::standard(raw).unwrap()
}

fn receive(bus: &mut CanChannels, now: Instant, from: u32, data: &[u8]) {
    let frame = CanFrame::new(id(from), data).unwrap();
    bus.handle_event(now, &CanEvent::Received { frame, at: now });
}

/// The adapter takes the next frame, which has no outcome yet.
fn accept(bus: &mut CanChannels, now: Instant) -> CanFrame {
    let frame = bus.poll_transmit(now).unwrap();
    bus.handle_accepted(now);
    frame
}

/// The oldest frame that the adapter holds was acknowledged.
fn acknowledge(bus: &mut CanChannels, now: Instant) {
    bus.handle_event(now, &CanEvent::Transmitted { at: now });
}

/// Advances to the bus's next deadline.
fn wait(bus: &mut CanChannels, now: &mut Instant) {
    *now = bus.poll_timeout().unwrap();
    bus.handle_timeout(*now);
}

#[test]
fn a_refused_request_for_the_vin_leaves_the_one_before_it_to_be_answered() {
    let (mut bus, mut now) = (bus(), Instant::now());
    let until = now + Duration::from_secs(5);
    let settings = ReaderSettings { until, alive: true, confirms_transmission: true, shares_bus: true };
    bus.start_vin_reader(now, settings);
    assert_eq!(accept(&mut bus, now).id(), id(0x7DF));
    assert!(bus.poll_transmit(now).unwrap().id().is_extended());
    bus.handle_refused(now);
    assert_eq!(bus.take_vins(), None);

    acknowledge(&mut bus, now);
    let pdu = [&[0x49, 0x02, 0x01], VIN.as_bytes()].concat();
    receive(&mut bus, now, 0x7E8, &[&[0x10, 20], &pdu[..6]].concat());
    assert_eq!(accept(&mut bus, now).id(), id(0x7E0), "flow control");
    acknowledge(&mut bus, now);
    for (number, data) in (0x21..).zip(pdu[6..].chunks(7)) {
        receive(&mut bus, now, 0x7E8, &[&[number], data].concat());
    }
    let vins = loop {
        if let Some(vins) = bus.take_vins() {
            break vins;
        }
        wait(&mut bus, &mut now);
    };
    let found: Vec<_> = vins.iter().map(|found| (found.vin.to_string(), found.address)).collect();
    assert_eq!(found, [(VIN.to_owned(), EcuAddress::from(id(0x7E8)))]);
}

#[test]
fn a_refused_question_of_a_scan_leaves_the_one_before_it_to_be_answered() {
    let (mut bus, mut now) = (bus(), Instant::now());
    let (request, response) = (0x700, 0x708);
    let tester_present = |frame: &CanFrame| frame.data().starts_with(&[0x02, 0x3E, 0x00]);
    bus.start_scan(now, &ScanRequest { vehicle_stands: true, ..ScanRequest::default() });
    // listening, and the questions for the speed
    while bus.poll_transmit(now).is_none_or(|frame| frame.id() != id(request)) {
        if bus.poll_transmit(now).is_some() {
            accept(&mut bus, now);
            acknowledge(&mut bus, now);
        }
        wait(&mut bus, &mut now);
    }
    accept(&mut bus, now);
    while bus.poll_transmit(now).is_none() {
        wait(&mut bus, &mut now);
    }
    bus.handle_refused(now);
    acknowledge(&mut bus, now);
    receive(&mut bus, now, response, &[0x02, 0x7E, 0x00]);

    let (outcome, ecus) = loop {
        while bus.poll_transmit(now).is_some() {
            let frame = accept(&mut bus, now);
            acknowledge(&mut bus, now);
            if frame.id() == id(request) && tester_present(&frame) {
                receive(&mut bus, now, response, &[0x02, 0x7E, 0x00]);
            }
        }
        if let Some(end) = bus.take_scan() {
            break end;
        }
        wait(&mut bus, &mut now);
    };
    let found = EcuFound::isotp(id(request), id(response));
    assert_eq!((outcome, ecus), (ScanOutcome::Done, vec![FoundEcu::Can(found)]));
}

#[test]
fn a_frame_is_not_sent_after_its_pdu_was_reported_as_failed() {
    let (mut bus, start) = (bus(), Instant::now());
    let config = Config::new(Addressing::normal(id(0x7E0), id(0x7E8)));
    let timing = ResponseTiming { p2: Duration::from_secs(1), p2_star: Duration::from_secs(5) };
    let settings = PduChannelSettings { keep_alive: false, timing };
    let transport: Box<dyn FrameTransport> = Box::new(Endpoint::new(config));
    bus.insert(1, CanChannel::Pdu(Box::new(PduChannel::new(transport, settings, start))));
    let pdu =
        PduToSend { flags: PduFlags::default(), expires: start + Duration::from_secs(30), data: &[0x11, 1] };
    bus.handle_pdu(start, 1, pdu);
    assert!(bus.poll_transmit(start).is_some(), "the frame waits for the adapter");

    let mut now = start;
    wait(&mut bus, &mut now);
    assert_eq!(now, start + Duration::from_secs(1), "N_As");
    let output = bus.poll_output().expect("a report").output;
    assert_eq!(output, Output::send_failed(SendFailedDetail::NotAcknowledged));
    assert_eq!(bus.poll_transmit(now), None);

    // the next PDU is sent and confirmed as usual
    bus.handle_pdu(now, 1, PduToSend { flags: PduFlags { confirm: true, chained: false }, ..pdu });
    accept(&mut bus, now);
    acknowledge(&mut bus, now);
    assert!(matches!(
        bus.poll_output().map(|output| output.output),
        Some(Output::Event { code: EventCode::Sent, .. })
    ));
}

/// Opens an ISO-TP channel to the ECU with these identifiers.
fn open(bus: &mut CanChannels, now: Instant, number: u16, request: u32, response: u32) {
    let config = Config::new(Addressing::normal(id(request), id(response)));
    let timing = ResponseTiming { p2: Duration::from_secs(1), p2_star: Duration::from_secs(5) };
    let settings = PduChannelSettings { keep_alive: false, timing };
    let transport: Box<dyn FrameTransport> = Box::new(Endpoint::new(config));
    bus.insert(number, CanChannel::Pdu(Box::new(PduChannel::new(transport, settings, now))));
}

#[test]
fn a_frame_that_overtakes_that_of_another_channel_is_confirmed_immediately() {
    let (mut bus, start) = (bus(), Instant::now());
    open(&mut bus, start, 1, 0x7E0, 0x7E8);
    open(&mut bus, start, 2, 0x6F1, 0x612);
    let flags = PduFlags { confirm: true, chained: false };
    for number in [1, 2] {
        let pdu = PduToSend { flags, expires: start + Duration::from_secs(30), data: &[0x22, 1, 2] };
        bus.handle_pdu(start, number, pdu);
        accept(&mut bus, start);
    }
    // a bus full of frames that go before 0x7E0
    let now = start + Duration::from_millis(900);
    bus.handle_event(now, &CanEvent::Overtaking { older: 1, is_transmitted: true, at: now });
    let sent = bus.poll_output().expect("a report");
    assert_eq!(sent.channel, 2);
    assert!(matches!(sent.output, Output::Event { code: EventCode::Sent, .. }));
    let now = start + Duration::from_millis(950);
    acknowledge(&mut bus, now);
    assert_eq!(bus.poll_output().map(|output| output.channel), Some(1));
    // the frames that follow are confirmed in their order
    bus.handle_timeout(start + Duration::from_millis(1000));
    assert!(bus.is_quiet());
}

#[test]
fn the_frames_of_one_owner_keep_their_order() {
    let (mut bus, start) = (bus(), Instant::now());
    open(&mut bus, start, 1, 0x7E0, 0x7E8);
    open(&mut bus, start, 2, 0x6F1, 0x612);
    let expires = start + Duration::from_secs(30);
    let pdu = |data| PduToSend { flags: PduFlags { confirm: true, chained: false }, expires, data };
    let raw = CanFrame::new(id(0x100), &[1]).unwrap();
    bus.insert(3, CanChannel::Raw(crate::relay::channel::RawChannel::new(Some(id(0x100)), None, false)));
    bus.handle_pdu(start, 1, pdu(&[0x22, 1, 2]));
    accept(&mut bus, start);
    for _ in 0..2 {
        bus.handle_frame_to_send(start, 3, raw, expires);
        accept(&mut bus, start);
    }
    bus.handle_pdu(start, 2, pdu(&[0x22, 1, 2]));
    accept(&mut bus, start);
    // the second raw frame fails before the first one has an outcome, which a raw channel would take for the first
    let event = |older, is_transmitted| CanEvent::Overtaking { older, is_transmitted, at: start };
    bus.handle_event(start, &event(2, false));
    assert_eq!(bus.poll_output(), None);
    // now the adapter holds three frames
    bus.handle_event(start, &event(2, true));
    assert_eq!(bus.poll_output().map(|output| output.channel), Some(2));
    bus.handle_event(start, &event(1, true));
    let failed = bus.poll_output().expect("the outcome that waited");
    assert_eq!((failed.channel, failed.output), (3, Output::send_failed(SendFailedDetail::NotAcknowledged)));
    acknowledge(&mut bus, start);
    assert_eq!(bus.poll_output().map(|output| output.channel), Some(1));
    assert!(bus.is_quiet());
}

#[test]
fn a_reset_settles_frames_whose_outcome_waits_once() {
    let (mut bus, start) = (bus(), Instant::now());
    let expires = start + Duration::from_secs(30);
    let raw = CanFrame::new(id(0x100), &[1]).unwrap();
    bus.insert(3, CanChannel::Raw(crate::relay::channel::RawChannel::new(Some(id(0x100)), None, false)));
    for _ in 0..3 {
        bus.handle_frame_to_send(start, 3, raw, expires);
        accept(&mut bus, start);
    }
    bus.handle_event(start, &CanEvent::Overtaking { older: 1, is_transmitted: true, at: start });
    bus.handle_reset(start);
    let failed = std::iter::from_fn(|| bus.poll_output()).count();
    assert_eq!(failed, 2, "the second frame was sent");
    assert!(bus.is_quiet());
}
