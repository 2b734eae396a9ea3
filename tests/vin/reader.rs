//! The VIN reader with scripted ECUs, in virtual time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_agent::vehicle::vin::{
    Candidate, EcuAddress, ReaderEvent, ReaderOutcome, ReaderSettings, VinReader, VinReport, VinSource,
};
use connector_hal::bus::BusState;
use connector_hal::can::CanFrame;
use connector_test_support::id;
use proptest::prelude::*;

use crate::ecu::{Ecu, GMLAN, KWP, OBD, OTHER_VIN, UDS, VIN, positive};

const BUDGET: Duration = Duration::from_millis(1500);
/// The time of a frame on the bus.
const FRAME_TIME: Duration = Duration::from_micros(250);
/// P2 and an allowance for latency.
const STAGE: Duration = Duration::from_millis(70);

/// How an adapter confirms the frames of the reader.
#[derive(Clone, Copy, PartialEq)]
enum Adapter {
    /// Reports when a frame was acknowledged.
    Confirms,
    /// Reports when the adapter accepted a frame.
    TakesOnly,
    /// Reports acknowledgements, but no other node acknowledges.
    Alone,
}

/// A frame on the bus, with its sender.
enum OnWire {
    VinReader(CanFrame),
    Ecu(usize, CanFrame),
    Other(CanFrame),
}

struct Rig {
    reader: VinReader,
    adapter: Adapter,
    ecus: Vec<Ecu>,
    wire: VecDeque<(Instant, OnWire)>,
    start: Instant,
    now: Instant,
    /// The frames that the reader sent, with their times.
    sent: Vec<(Duration, CanFrame)>,
}

impl Rig {
    fn new(alive: bool, adapter: Adapter, ecus: Vec<Ecu>) -> Self {
        let now = Instant::now();
        let confirms_transmission = adapter != Adapter::TakesOnly;
        let reader = VinReader::new(ReaderSettings {
            until: now + BUDGET,
            alive,
            confirms_transmission,
            shares_bus: false,
        });
        Self { reader, adapter, ecus, wire: VecDeque::new(), start: now, now, sent: Vec::new() }
    }

    fn vehicle(ecus: Vec<Ecu>) -> Self {
        Self::new(true, Adapter::Confirms, ecus)
    }

    /// Sets whether channels use the bus too. No frame has been handled yet.
    fn share_bus(&mut self, shares_bus: bool) {
        let (until, confirms_transmission) = (self.now + BUDGET, self.adapter != Adapter::TakesOnly);
        let settings = ReaderSettings { until, alive: true, confirms_transmission, shares_bus };
        self.reader = VinReader::new(settings);
    }

    /// Schedules a frame of another node.
    fn other_node(&mut self, after: Duration, frame: CanFrame) {
        self.wire.push_back((self.start + after, OnWire::Other(frame)));
    }

    /// Runs to the end; returns the outcome and the report.
    fn run(&mut self) -> (ReaderOutcome, VinReport) {
        loop {
            while let Some(frame) = self.reader.poll_transmit(self.now) {
                self.sent.push((self.now - self.start, frame));
                if self.adapter == Adapter::TakesOnly {
                    self.reader.handle_transmitted(self.now);
                }
                if self.adapter != Adapter::Alone {
                    self.wire.push_back((self.now + FRAME_TIME, OnWire::VinReader(frame)));
                }
            }
            while let Some(event) = self.reader.poll_event() {
                if let ReaderEvent::Finished(outcome) = event {
                    let elapsed = self.now - self.start;
                    return (outcome, VinReport::from_candidates(self.reader.candidates(), elapsed));
                }
            }
            for (index, ecu) in self.ecus.iter_mut().enumerate() {
                while let Some(frame) = ecu.poll_transmit(self.now) {
                    self.wire.push_back((self.now + FRAME_TIME, OnWire::Ecu(index, frame)));
                }
            }
            let wire = self.wire.iter().map(|(at, _)| *at);
            let ecus = self.ecus.iter().filter_map(Ecu::wake_at);
            let reader = self.reader.poll_timeout().map(|(at, _)| at);
            let next = wire.chain(ecus).chain(reader).min().unwrap();
            self.now = self.now.max(next);
            self.deliver();
            self.reader.handle_timeout(self.now);
        }
    }

    fn deliver(&mut self) {
        while let Some(index) = self.wire.iter().position(|(at, _)| *at <= self.now) {
            match self.wire.remove(index).unwrap().1 {
                OnWire::VinReader(frame) => {
                    if self.adapter == Adapter::Confirms {
                        self.reader.handle_transmitted(self.now);
                    }
                    for ecu in &mut self.ecus {
                        ecu.handle_frame(self.now, &frame);
                    }
                }
                OnWire::Ecu(index, frame) => {
                    self.ecus[index].endpoint.handle_transmitted(self.now);
                    self.reader.handle_frame(self.now, &frame);
                }
                OnWire::Other(frame) => self.reader.handle_frame(self.now, &frame),
            }
        }
    }

    /// The identifiers and PDUs of the sent requests, without flow controls.
    fn requests(&self) -> Vec<(u32, Vec<u8>)> {
        let frames = self.sent.iter().map(|(_, frame)| frame);
        let single = frames.filter(|frame| frame.data()[0] < 0x10);
        single
            .map(|frame| (frame.id().raw(), frame.data()[1..=usize::from(frame.data()[0])].to_vec()))
            .collect()
    }
}

fn id_of(address: EcuAddress) -> u32 {
    match address {
        EcuAddress::Can(id) => id.raw(),
        // no scripted ECU has this identifier
        _ => u32::MAX,
    }
}

fn answer_of(report: &VinReport) -> (&str, VinSource, u32) {
    (report.vin.as_ref().unwrap().as_str(), report.source.unwrap(), id_of(report.address.unwrap()))
}

#[test]
fn the_vin_is_read_by_obd_with_these_frames() {
    let now = Instant::now();
    let settings =
        ReaderSettings { until: now + BUDGET, alive: true, confirms_transmission: true, shares_bus: false };
    let mut reader = VinReader::new(settings);
    let send = |reader: &mut VinReader| {
        let frame = reader.poll_transmit(now).map(|frame| frame.to_string());
        reader.handle_transmitted(now);
        frame
    };
    assert_eq!(send(&mut reader).unwrap(), "7DF#020902CCCCCCCCCC");
    assert_eq!(send(&mut reader).unwrap(), "18DB33F1#020902CCCCCCCCCC");
    assert_eq!(send(&mut reader), None);
    let frame = |data: &[u8]| CanFrame::new(id(0x7E8), data).unwrap();
    reader.handle_frame(now, &frame(b"\x10\x14\x49\x02\x011M8"));
    assert_eq!(send(&mut reader).unwrap(), "7E0#300000CCCCCCCCCC");
    reader.handle_frame(now, &frame(b"\x21GDM9AXK"));
    assert_eq!(reader.poll_event(), None);
    reader.handle_frame(now, &frame(b"\x22P042788"));
    let candidate =
        Candidate { vin: VIN.parse().unwrap(), source: VinSource::Obd, address: id(0x7E8).into() };
    assert_eq!(reader.poll_event(), Some(ReaderEvent::Answered(candidate)));
    assert_eq!(reader.poll_event(), None);
    reader.handle_timeout(now + STAGE);
    assert_eq!(reader.poll_event(), Some(ReaderEvent::Finished(ReaderOutcome::Answered)));
    assert_eq!(reader.poll_timeout(), None);
}

#[test]
fn a_vin_from_obd_ends_the_reading_after_the_time_for_other_answers() {
    let mut rig = Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, VIN))]);
    let (outcome, report) = rig.run();
    assert_eq!(outcome, ReaderOutcome::Answered);
    assert_eq!(answer_of(&report), (VIN, VinSource::Obd, 0x7E8));
    assert_eq!(report.elapsed, FRAME_TIME + STAGE);
    assert_eq!(rig.requests(), [(0x7DF, OBD.to_vec()), (0x18DB_33F1, OBD.to_vec())]);
}

#[test]
fn every_address_and_service_is_found() {
    for (request, response, service, source) in [
        (0x7E0, 0x7E8, OBD, VinSource::Obd),
        (0x7E7, 0x7EF, OBD, VinSource::Obd),
        (0x18DA_10F1, 0x18DA_F110, OBD, VinSource::Obd),
        (0x7E0, 0x7E8, UDS, VinSource::Uds),
        (0x7E2, 0x7EA, UDS, VinSource::Uds),
        (0x760, 0x768, UDS, VinSource::Uds),
        (0x7C6, 0x7CE, UDS, VinSource::Uds),
        (0x18DA_10F1, 0x18DA_F110, UDS, VinSource::Uds),
        (0x18DA_0EF1, 0x18DA_F10E, UDS, VinSource::Uds),
        (0x74F, 0x7B9, UDS, VinSource::Uds),
        (0x733, 0x773, UDS, VinSource::Uds),
        (0x24B, 0x64B, GMLAN, VinSource::Gmlan),
        (0x797, 0x79A, KWP, VinSource::Kwp),
    ] {
        let ecu = || Ecu::new(request, response).answering(service, positive(service, VIN));
        let mut ecus = vec![ecu().physical_only()];
        if service == OBD || service == UDS {
            ecus.push(ecu());
        }
        for ecu in ecus {
            let functional = ecu.hears_functional;
            if service == OBD && !functional {
                continue;
            }
            let mut rig = Rig::vehicle(vec![ecu]);
            let (_, report) = rig.run();
            let expected = (VIN, source, response);
            assert_eq!(answer_of(&report), expected, "0x{request:X}, functional: {functional}");
        }
    }
}

#[test]
fn a_vehicle_without_a_vin_gets_each_request_once() {
    let mut rig = Rig::vehicle(vec![Ecu::new(0x720, 0x728)]);
    let (outcome, report) = rig.run();
    assert_eq!((outcome, report.vin), (ReaderOutcome::NotAnswered, None));
    assert!(report.elapsed < Duration::from_millis(300), "{:?}", report.elapsed);
    let mut requests = rig.requests();
    assert_eq!(requests.len(), 14);
    requests.sort();
    requests.dedup();
    assert_eq!(requests.len(), 14);
    assert!(rig.sent.iter().all(|(_, frame)| frame.data()[0] < 0x10));
}

#[test]
fn response_pending_is_waited_for() {
    let answers = vec![
        (Duration::from_millis(40), vec![0x7F, 0x22, 0x78]),
        (Duration::from_millis(600), vec![0x7F, 0x22, 0x78]),
        (Duration::from_millis(1000), positive(UDS, VIN)),
    ];
    let mut rig = Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).scripted(UDS, vec![answers])]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Uds, 0x7E8));
    assert!(report.elapsed > Duration::from_secs(1));
    assert_eq!(rig.requests().len(), 4);
}

#[test]
fn an_ecu_that_is_pending_forever_leaves_time_to_ask_the_others() {
    let pending = vec![(Duration::from_millis(10), vec![0x7F, 0x09, 0x78])];
    let mut rig = Rig::vehicle(vec![
        Ecu::new(0x7E0, 0x7E8).scripted(OBD, vec![pending]),
        Ecu::new(0x797, 0x79A).answering(KWP, positive(KWP, VIN)),
    ]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Kwp, 0x79A));
    assert!(report.elapsed <= BUDGET);
}

#[test]
fn a_pending_ecu_is_not_awaited_after_another_sent_the_vin() {
    let pending = vec![(Duration::from_millis(10), vec![0x7F, 0x09, 0x78])];
    let mut rig = Rig::vehicle(vec![
        Ecu::new(0x7E1, 0x7E9).scripted(OBD, vec![pending]),
        Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, VIN)),
    ]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Obd, 0x7E8));
    assert_eq!(report.elapsed, FRAME_TIME + STAGE);
}

#[test]
fn a_busy_ecu_is_asked_again_alone_a_bounded_number_of_times() {
    let busy = || vec![(Duration::from_millis(1), vec![0x7F, 0x09, 0x21])];
    let answer = vec![(Duration::from_millis(1), positive(OBD, VIN))];
    let mut rig = Rig::vehicle(vec![Ecu::new(0x7E2, 0x7EA).scripted(OBD, vec![busy(), busy(), answer])]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Obd, 0x7EA));
    let again = rig.requests().into_iter().filter(|request| *request == (0x7E2, OBD.to_vec()));
    assert_eq!(again.count(), 2);

    let mut rig = Rig::vehicle(vec![Ecu::new(0x7E2, 0x7EA).scripted(OBD, vec![busy()])]);
    let (outcome, report) = rig.run();
    assert_eq!(outcome, ReaderOutcome::NotAnswered);
    assert_eq!(rig.requests().len(), 16);
    assert!(report.elapsed < Duration::from_millis(500), "{:?}", report.elapsed);
}

#[test]
fn an_incomplete_answer_is_requested_again() {
    let mut rig =
        Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).physical_only().answering(OBD, positive(OBD, VIN))]);
    let first_frame = CanFrame::new(id(0x7E8), b"\x10\x14\x49\x02\x011M8").unwrap();
    rig.other_node(Duration::from_millis(2), first_frame);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Obd, 0x7E8));
    let again = rig.requests().into_iter().filter(|request| *request == (0x7E0, OBD.to_vec()));
    assert_eq!(again.count(), 1);
}

#[test]
fn several_ecus_with_the_same_vin_are_no_conflict() {
    let mut rig = Rig::vehicle(vec![
        Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, VIN)),
        Ecu::new(0x7E2, 0x7EA).answering(OBD, positive(OBD, VIN)),
        Ecu::new(0x18DA_10F1, 0x18DA_F110).answering(OBD, positive(OBD, VIN)),
    ]);
    let (_, report) = rig.run();
    assert_eq!(rig.reader.candidates().len(), 3);
    assert_eq!(report.vin.unwrap().as_str(), VIN);
    assert_eq!(report.conflict, []);
}

#[test]
fn all_vins_of_disagreeing_ecus_are_reported() {
    let late = vec![(Duration::from_millis(45), positive(OBD, OTHER_VIN))];
    let mut rig = Rig::vehicle(vec![
        Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, VIN)),
        Ecu::new(0x7E2, 0x7EA).scripted(OBD, vec![late]),
    ]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Obd, 0x7E8));
    let vins: Vec<_> = report.conflict.iter().map(|candidate| candidate.vin.as_str()).collect();
    assert_eq!(vins, [VIN, OTHER_VIN]);
}

#[test]
fn an_ecu_without_a_vin_does_not_hide_an_ecu_with_one() {
    let mut empty = positive(OBD, VIN);
    empty[3..].fill(0);
    let mut padded = vec![0x62, 0xF1, 0x90, 0x11];
    padded.extend_from_slice(VIN.as_bytes());
    padded.extend_from_slice(&[0; 3]);
    let mut rig = Rig::vehicle(vec![
        Ecu::new(0x7E0, 0x7E8).answering(OBD, empty).answering(UDS, vec![0x7F, 0x22, 0x31]),
        Ecu::new(0x7C6, 0x7CE).physical_only().answering(UDS, padded),
    ]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Uds, 0x7CE));
    assert_eq!(report.conflict, []);
    let asked_again = rig.requests().contains(&(0x7E0, UDS.to_vec()));
    assert!(!asked_again, "0x7E8 had refused the functional request");
}

#[test]
fn an_answer_after_its_stage_still_counts() {
    let late = vec![(Duration::from_millis(90), positive(OBD, VIN))];
    let mut rig = Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).scripted(OBD, vec![late])]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Obd, 0x7E8));
}

#[test]
fn one_frame_is_sent_without_an_acknowledgement() {
    let mut rig = Rig::new(false, Adapter::Alone, vec![]);
    let (outcome, report) = rig.run();
    assert_eq!(outcome, ReaderOutcome::NotAcknowledged);
    assert_eq!(rig.sent.len(), 1);
    assert!(report.elapsed < Duration::from_millis(50), "{:?}", report.elapsed);
}

#[test]
fn a_silent_bus_gets_more_requests_after_the_first_acknowledgement() {
    let ecu = Ecu::new(0x797, 0x79A).answering(KWP, positive(KWP, VIN));
    let mut rig = Rig::new(false, Adapter::Confirms, vec![ecu]);
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Kwp, 0x79A));
    assert_eq!(rig.sent[0].0, Duration::ZERO);
    assert_eq!(rig.sent[1].0, FRAME_TIME, "the second frame waits for the acknowledgement of the first");
}

#[test]
fn an_adapter_without_confirmations_continues_at_its_bit_rate_without_errors() {
    let ecu = || Ecu::new(0x797, 0x79A).answering(KWP, positive(KWP, VIN));
    let mut rig = Rig::new(false, Adapter::TakesOnly, vec![ecu()]);
    rig.reader.trust_bit_rate();
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Kwp, 0x79A));
    assert_eq!(rig.sent[1].0, STAGE, "the second frame waits for P2 of the first");

    let mut rig = Rig::new(false, Adapter::TakesOnly, vec![ecu()]);
    rig.reader.trust_bit_rate();
    let no_acknowledgement = CanFrame::new_error(0x20, [0; 8]);
    rig.other_node(Duration::from_millis(1), no_acknowledgement);
    assert_eq!(rig.run().0, ReaderOutcome::NotAcknowledged);
    assert_eq!(rig.sent.len(), 1);
}

#[test]
fn at_an_uncertain_bit_rate_an_adapter_without_confirmations_needs_frames() {
    let ecu = || Ecu::new(0x797, 0x79A).answering(KWP, positive(KWP, VIN));
    let mut rig = Rig::new(false, Adapter::TakesOnly, vec![ecu()]);
    assert_eq!(rig.run().0, ReaderOutcome::NotAcknowledged);
    assert_eq!(rig.sent.len(), 1);

    let mut rig = Rig::new(false, Adapter::TakesOnly, vec![ecu()]);
    rig.other_node(Duration::from_millis(60), CanFrame::new(id(0x123), &[]).unwrap());
    let (_, report) = rig.run();
    assert_eq!(answer_of(&report), (VIN, VinSource::Kwp, 0x79A));
}

#[test]
fn a_vin_reader_whose_frames_are_never_sent_ends_with_its_budget() {
    let now = Instant::now();
    let settings =
        ReaderSettings { until: now + BUDGET, alive: true, confirms_transmission: true, shares_bus: false };
    let mut reader = VinReader::new(settings);
    let (at, _) = reader.poll_timeout().unwrap();
    assert_eq!(at, now + BUDGET);
    reader.handle_timeout(at);
    assert_eq!(reader.poll_event(), Some(ReaderEvent::Finished(ReaderOutcome::NotAnswered)));
    assert_eq!(reader.poll_timeout(), None);
}

#[test]
fn a_vin_reader_stops_when_the_bus_is_off() {
    let now = Instant::now();
    let settings =
        ReaderSettings { until: now + BUDGET, alive: true, confirms_transmission: true, shares_bus: false };
    let mut reader = VinReader::new(settings);
    assert!(reader.poll_transmit(now).is_some());
    reader.handle_bus_state(now, BusState::Off);
    assert_eq!(reader.poll_event(), Some(ReaderEvent::Finished(ReaderOutcome::NotAcknowledged)));
    assert_eq!(reader.poll_transmit(now), None);
}

#[test]
fn identifiers_that_other_nodes_send_are_not_used() {
    // ordinary messages, with neither a request nor a response in them
    let data = |raw: u32| CanFrame::new(id(raw), &[0xA5; 8]).unwrap();
    let heard_first = [0x7DF, 0x773];
    let heard_later = [0x24B, 0x760];
    let mut rig = Rig::vehicle(vec![]);
    for raw in heard_first {
        rig.reader.handle_frame(rig.now, &data(raw));
    }
    for raw in heard_later {
        rig.other_node(Duration::from_millis(20), data(raw));
    }
    assert_eq!(rig.run().0, ReaderOutcome::NotAnswered);
    let asked: Vec<u32> = rig.sent.iter().map(|(_, frame)| frame.id().raw()).collect();
    for raw in [0x7DF, 0x733, 0x24B, 0x760] {
        assert!(!asked.contains(&raw), "0x{raw:X}");
    }
    assert!(asked.contains(&0x7E0) && asked.contains(&0x797));
}

/// A reader that shares its bus with channels hears the responses to their requests.
#[test]
fn an_answer_to_something_else_counts_as_that_of_another_tester_or_of_a_channel() {
    // an FD frame with a whole VIN, of a service that was not asked for
    let mut data = vec![0x00, 0x13];
    data.extend_from_slice(b"\x61\x81");
    data.extend_from_slice(VIN.as_bytes());
    data.resize(24, 0xCC);
    let frame = CanFrame::new_fd(id(0x7E8), Default::default(), &data).unwrap();
    for (shares_bus, expected) in [(false, ReaderOutcome::OtherTester), (true, ReaderOutcome::NotAnswered)] {
        let mut rig = Rig::vehicle(vec![]);
        rig.share_bus(shares_bus);
        rig.other_node(Duration::from_millis(5), frame);
        assert_eq!(rig.run().0, expected);
    }
}

/// The frames of another tester and of the ECU that responds to it.
fn foreign_traffic() -> Vec<CanFrame> {
    [
        (0x7DF, &[2, 1, 0x0D][..]),
        (0x7E0, &[2, 0x3E, 0x80]),
        (0x7E5, &[0x10, 0x14, 0x2E, 0xF1, 0x90, 1, 2, 3]),
        (0x7E0, &[0x30, 0, 0]),
        (0x7E0, &[0x27, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A, 0x5A]),
        (0x18DA_10F1, &[0x20, 1, 2, 3, 4, 5, 6, 7]),
        (0x760, &[3, 0x22, 0xF1, 0x90]),
        (0x18DB_33F1, &[2, 9, 2]),
        (0x18DA_10F1, &[2, 0x3E, 0x80]),
    ]
    .map(|(raw, data)| CanFrame::new(id(raw), data).unwrap())
    .to_vec()
}

#[test]
fn another_testers_frame_before_the_first_question_stops_the_reading() {
    let responses = [
        (0x7E8, &[3, 0x41, 0x0D, 0][..]),
        (0x768, &[3, 0x7F, 0x22, 0x31]),
        (0x18DA_F110, &[2, 0x7E, 0]),
        // the middle of a transfer
        (0x7E8, &[0x25, 1, 2, 3, 4, 5, 6, 7]),
        (0x7EF, &[0x30, 8, 0]),
        (0x18DA_F110, &[0x2F, 1, 2, 3, 4, 5, 6, 7]),
    ];
    let responses = responses.map(|(raw, data)| CanFrame::new(id(raw), data).unwrap());
    for frame in foreign_traffic().into_iter().chain(responses) {
        let mut rig = Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, VIN))]);
        rig.reader.handle_frame(rig.now, &frame);
        assert_eq!(rig.run().0, ReaderOutcome::OtherTester, "{frame}");
        assert_eq!(rig.sent, [], "{frame}");
    }
}

#[test]
fn another_testers_request_while_asking_stops_the_questions() {
    for shares_bus in [false, true] {
        for frame in foreign_traffic() {
            let mut rig = Rig::vehicle(vec![]);
            rig.share_bus(shares_bus);
            rig.other_node(STAGE + Duration::from_millis(10), frame);
            assert_eq!(rig.run().0, ReaderOutcome::OtherTester, "{frame}");
            assert_eq!(rig.now - rig.start, STAGE + Duration::from_millis(10));
        }
    }
}

#[test]
fn a_vin_before_another_testers_request_is_reported() {
    let mut rig = Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).answering(OBD, positive(OBD, VIN))]);
    rig.other_node(Duration::from_millis(30), foreign_traffic()[0]);
    let (outcome, report) = rig.run();
    assert_eq!((outcome, answer_of(&report).0), (ReaderOutcome::Answered, VIN));
}

fn flow_controls(rig: &Rig) -> Vec<u32> {
    let frames = rig.sent.iter().map(|(_, frame)| frame);
    frames.filter(|frame| frame.data()[0] >> 4 == 3).map(|frame| frame.id().raw()).collect()
}

/// The identifiers are those of Ford, Toyota and Hyundai.
#[test]
fn every_ecu_that_answers_the_obd_request_gets_flow_control() {
    for (request, response) in [(0x730, 0x738), (0x7C0, 0x7C8), (0x7A0, 0x7A8)] {
        let vin = positive(OBD, VIN);
        let mut rig = Rig::vehicle(vec![Ecu::new(request, response).answering(OBD, vin.clone())]);
        assert_eq!(rig.run().0, ReaderOutcome::Answered, "{response:X}");
        assert_eq!(flow_controls(&rig), [request]);

        let engine = Ecu::new(0x7E0, 0x7E8).answering(OBD, vin.clone());
        let mut rig = Rig::vehicle(vec![engine, Ecu::new(request, response).answering(OBD, vin)]);
        let (outcome, report) = rig.run();
        assert_eq!((outcome, report.conflict.is_empty()), (ReaderOutcome::Answered, true));
        let mut to = flow_controls(&rig);
        to.sort_unstable();
        assert_eq!(to, [request, 0x7E0], "none is left hanging");
    }
}

/// On a Volkswagen, 0x776 belongs to another ECU than 0x77E.
#[test]
fn no_flow_control_is_sent_with_an_identifier_that_another_node_uses() {
    let first = CanFrame::new(id(0x77E), b"\x10\x14\x49\x02\x01WVW").unwrap();
    let other = CanFrame::new(id(0x776), &[3, 0x7F, 0x09, 0x11]).unwrap();
    let mut rig = Rig::vehicle(vec![]);
    rig.other_node(Duration::from_millis(4), other);
    rig.other_node(Duration::from_millis(5), first);
    rig.run();
    assert_eq!(flow_controls(&rig), [0; 0]);
    // a response identifier is none of a request
    let first = CanFrame::new(id(0x763), b"\x10\x14\x49\x02\x01JN1").unwrap();
    let mut rig = Rig::vehicle(vec![]);
    rig.other_node(Duration::from_millis(5), first);
    rig.run();
    assert_eq!(flow_controls(&rig), [0; 0]);
}

#[test]
fn a_vin_in_another_form_is_normalised() {
    let lower = VIN.to_lowercase();
    let spaces = format!("   {VIN}");
    let behind = format!("{lower}  \0");
    for text in [lower.as_str(), &spaces, &behind] {
        let mut rig = Rig::vehicle(vec![Ecu::new(0x7E0, 0x7E8).answering(UDS, positive(UDS, text))]);
        let (_, report) = rig.run();
        assert_eq!(answer_of(&report).0, VIN, "{text:?}");
    }
}

#[test]
fn an_ecu_that_sends_long_frames_only_may_be_pending_and_busy() {
    let long = |data: &[u8]| {
        let mut data = data.to_vec();
        data.resize(12, 0xCC);
        CanFrame::new_fd(id(0x7E8), Default::default(), &data).unwrap()
    };
    let mut rig = Rig::vehicle(vec![]);
    rig.other_node(Duration::from_millis(5), long(&[0, 3, 0x7F, 0x09, 0x78]));
    rig.run();
    assert!(rig.sent.last().unwrap().0 > Duration::from_millis(800), "response pending is waited for");
}

#[test]
fn a_stalled_answer_does_not_delay_the_reading() {
    let mut rig = Rig::vehicle(vec![]);
    for raw in [0x7E8, 0x7E9, 0x18DA_F110] {
        let frame = CanFrame::new(id(raw), b"\x10\x14\x49\x02\x011M8").unwrap();
        rig.other_node(Duration::from_millis(5), frame);
    }
    let (outcome, report) = rig.run();
    assert_eq!(outcome, ReaderOutcome::NotAnswered);
    assert!(report.elapsed < Duration::from_millis(700), "{:?}", report.elapsed);
}

/// Frames that look like answers, and other frames.
fn hostile_frame() -> impl Strategy<Value = CanFrame> {
    let ids = prop_oneof![
        Just(0x7E8u32),
        Just(0x7E9),
        Just(0x7EA),
        Just(0x7CE),
        Just(0x768),
        Just(0x7B9),
        Just(0x64B),
        Just(0x79A),
        Just(0x18DA_F110),
        0x18DA_F100u32..=0x18DA_F1FF,
        0u32..0x800,
        Just(0x7DF),
        Just(0x7E0),
    ];
    let answers = prop_oneof![
        Just(vec![0x03, 0x7F, 0x22, 0x78]),
        Just(vec![0x03, 0x7F, 0x09, 0x78]),
        Just(vec![0x03, 0x7F, 0x09, 0x21]),
        Just(vec![0x03, 0x7F, 0x22, 0x21]),
        Just(b"\x10\x14\x49\x02\x011M8".to_vec()),
        Just(b"\x21GDM9AXK".to_vec()),
        Just(b"\x22P042788".to_vec()),
        Just(vec![0x10, 0x14, 0x62, 0xF1, 0x90, 0, 0, 0]),
        Just(vec![0x30, 0, 0]),
        Just(vec![0x1F, 0xFF, 0x62, 0xF1, 0x90, 0, 0, 0]),
        proptest::collection::vec(any::<u8>(), 0..=8),
    ];
    (ids, answers).prop_map(|(raw, data)| CanFrame::new(id(raw), &data).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn with_any_traffic_the_reader_sends_a_bounded_number_of_valid_requests(
        frames in proptest::collection::vec((0u64..60_000, hostile_frame()), 0..200),
        confirms in any::<bool>(),
        alive in any::<bool>(),
    ) {
        let adapter = if confirms { Adapter::Confirms } else { Adapter::TakesOnly };
        let mut rig = Rig::new(alive, adapter, vec![]);
        let mut at = Duration::ZERO;
        for (after, frame) in frames {
            at += Duration::from_micros(after / 4);
            rig.other_node(at, frame);
        }
        let (outcome, report) = rig.run();
        prop_assert!(report.elapsed <= BUDGET);
        prop_assert_eq!(outcome == ReaderOutcome::Answered, report.vin.is_some());
        prop_assert!(rig.sent.len() <= 64);
        for (_, frame) in &rig.sent {
            let kind = frame.data()[0];
            let is_flow_control = kind & 0xF0 == 0x30;
            let request = frame.data().get(1..=usize::from(kind)).unwrap_or_default();
            prop_assert!(is_flow_control || [OBD, UDS, GMLAN, KWP].contains(&request), "{}", frame);
            let raw = frame.id().raw();
            let diagnostic = (0x700..0x800).contains(&raw) || raw == 0x24B || raw >> 16 == 0x18DA || raw == 0x18DB_33F1;
            prop_assert!(diagnostic, "{}", frame);
        }
    }
}
