//! The requests of the scanner in virtual time, and the reasons to stop.

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use super::*;
use crate::vehicle::scan::outcome::ScanProgress;
use crate::vehicle::scan::request::IdRange;

mod bounds;
mod standing;

const FRAME_TIME: Duration = Duration::from_micros(250);

fn id(id: u32) -> CanId {
    CanId::try_from(id).unwrap()
}

/// Settings of a scan for which a person made sure that the vehicle stands.
fn settings() -> ScanSettings {
    let request = ScanRequest { vehicle_stands: true, ..ScanRequest::default() };
    ScanSettings { bit_rate: 500_000, request, shares_bus: false }
}

/// Settings that include 0x600 to 0x6FF.
fn with_low_ids() -> ScanSettings {
    let ranges = vec![IdRange::new(0x600, 0x6FF).unwrap()];
    ScanSettings { request: ScanRequest { ranges, vehicle_stands: true }, ..settings() }
}

fn without_consent() -> ScanSettings {
    ScanSettings { request: ScanRequest::default(), ..settings() }
}

/// Scans a vehicle whose answers and delays `answers` returns. Returns the outcome, the sent frames with
/// their times, and the ECUs found.
fn scan(
    answers: impl FnMut(Duration, &CanFrame) -> Vec<(Duration, CanFrame)>,
) -> (ScanOutcome, Vec<(Duration, CanFrame)>, Vec<EcuFound>) {
    scan_with(settings(), Vec::new(), answers)
}

/// Scans as [`scan`], with other settings, and with frames that come unasked at these times.
fn scan_with(
    settings: ScanSettings,
    unasked: Vec<(Duration, CanFrame)>,
    mut answers: impl FnMut(Duration, &CanFrame) -> Vec<(Duration, CanFrame)>,
) -> (ScanOutcome, Vec<(Duration, CanFrame)>, Vec<EcuFound>) {
    let start = Instant::now();
    let mut now = start;
    let mut scanner = Scanner::new(settings, now);
    let mut asked = Vec::new();
    let mut coming: Vec<(Instant, CanFrame)> =
        unasked.into_iter().map(|(at, frame)| (start + at, frame)).collect();
    for _ in 0..100_000 {
        if let Some(outcome) = scanner.outcome() {
            return (outcome, asked, scanner.ecus());
        }
        if let Some(frame) = scanner.poll_transmit(now, |_| false) {
            asked.push((now - start, frame));
            now += FRAME_TIME;
            scanner.handle_transmitted(now);
            coming
                .extend(answers(now - start, &frame).into_iter().map(|(after, frame)| (now + after, frame)));
            coming.sort_by_key(|(at, _)| *at);
            continue;
        }
        let due = scanner.poll_timeout().expect("a scan always has a next deadline");
        match coming.first() {
            Some((at, frame)) if *at <= due => {
                now = now.max(*at);
                scanner.handle_frame(now, &frame.clone());
                coming.remove(0);
            }
            _ => {
                now = now.max(due);
                scanner.handle_timeout(now);
            }
        }
    }
    panic!("the scan never ends");
}

fn frame(of: u32, data: &[u8]) -> CanFrame {
    CanFrame::new(id(of), data).unwrap()
}

fn is_tester_present(frame: &CanFrame, to: u32) -> bool {
    frame.id() == id(to) && frame.data()[..3] == [2, 0x3E, 0]
}

fn is_about_motion(frame: &CanFrame) -> bool {
    matches!(frame.data(), [2, 1, 0x0D, ..] | [3, 0x22, 0xF4, 0x0D, ..])
}

#[test]
fn an_empty_bus_is_scanned_slowly_and_for_a_few_seconds_only() {
    let (outcome, asked, ecus) = scan(|_, _| Vec::new());
    assert_eq!((outcome, ecus), (ScanOutcome::Done, vec![]));
    let last = asked.last().unwrap().0;
    assert!(last < Duration::from_secs(8), "{last:?}");
    assert!(asked[0].0 >= Duration::from_secs(3), "the scan first listens");
    for two in asked.windows(2) {
        assert!(two[1].0 - two[0].0 >= Duration::from_micros(1700));
    }
    for request in (0x700..0x800).filter(|id| *id != 0x7DF).chain(0x241..0x260) {
        let count = asked.iter().filter(|(_, frame)| is_tester_present(frame, request)).count();
        assert_eq!(count, 1, "0x{request:03X}");
    }
    assert!(
        asked
            .iter()
            .all(|(_, frame)| frame.id().is_extended() || !(0x600..0x700).contains(&frame.id().raw()))
    );
    let services = asked.iter().filter(|(_, frame)| frame.id() != id(0x200)).map(|(_, frame)| frame.data());
    for data in services {
        assert!(
            matches!(data[..4], [2, 0x3E, 0, _] | [_, 2, 0x3E, 0] | [2, 1, 0x0D, _] | [3, 0x22, 0xF4, 0x0D]),
            "{data:02X?}"
        );
    }
}

#[test]
fn an_ecu_at_any_known_offset_is_asked_twice() {
    for (request, response) in
        [(0x7E0, 0x7E8), (0x712, 0x77C), (0x742, 0x4C2), (0x797, 0x79A), (0x24B, 0x64B)]
    {
        let (_, asked, ecus) = scan(|_, question| {
            let answer = (Duration::from_millis(30), frame(response, &[2, 0x7E, 0]));
            if is_tester_present(question, request) { vec![answer] } else { vec![] }
        });
        assert_eq!(ecus.len(), 1);
        assert_eq!((ecus[0].request, ecus[0].response), (id(request), id(response)));
        let count = asked.iter().filter(|(_, frame)| is_tester_present(frame, request)).count();
        assert_eq!(count, 2);
    }
}

#[test]
fn an_odd_offset_is_found_however_slow_the_ecu_is() {
    for (request, response, millis) in
        [(0x6A3, 0x51D, 2), (0x7F1, 0x600, 50), (0x600, 0x7FF, 95), (0x73B, 0x737, 20)]
    {
        let (_, asked, ecus) = scan_with(with_low_ids(), vec![], |_, question| {
            let answer = (Duration::from_millis(millis), frame(response, &[3, 0x7F, 0x3E, 0x12]));
            if is_tester_present(question, request) { vec![answer] } else { vec![] }
        });
        assert_eq!(ecus.len(), 1, "{ecus:?}");
        assert_eq!((ecus[0].request, ecus[0].response), (id(request), id(response)));
        let count = asked.iter().filter(|(_, frame)| is_tester_present(frame, request)).count();
        assert!(count <= 9, "{count}");
    }
}

#[test]
fn many_ecus_that_answer_simultaneously_are_distinguished() {
    let ecus: Vec<(u32, u32)> = (0..20).map(|n| (0x700 + n, 0x500 + (n * 7) % 20)).collect();
    let (_, asked, found) = scan(|_, question| {
        let asked = ecus.iter().filter(|(request, _)| is_tester_present(question, *request));
        asked.map(|(_, response)| (Duration::from_millis(40), frame(*response, &[2, 0x7E, 0]))).collect()
    });
    let found: Vec<(u32, u32)> = found.iter().map(|ecu| (ecu.request.raw(), ecu.response.raw())).collect();
    assert_eq!(found, ecus, "{:?}", asked.last());
}

#[test]
fn ecus_that_answer_one_shared_identifier_are_found_by_their_own() {
    let ecus = [(0x710, 0x71A), (0x713, 0x71D), (0x7E0, 0x7E8)];
    let (_, _, found) = scan(|_, question| {
        let asked = ecus.iter().filter(|(request, _)| {
            is_tester_present(question, *request) || is_tester_present(question, 0x700)
        });
        asked.map(|(_, response)| (Duration::from_millis(5), frame(*response, &[2, 0x7E, 0]))).collect()
    });
    let found: Vec<(u32, u32)> = found.iter().map(|ecu| (ecu.request.raw(), ecu.response.raw())).collect();
    assert_eq!(found, ecus);
}

#[test]
fn bmw_style_extended_addresses_are_found_by_the_testers_address() {
    let (_, _, found) = scan_with(with_low_ids(), vec![], |_, question| {
        let is_it = question.id() == id(0x6F1) && question.data()[..4] == [0x12, 2, 0x3E, 0];
        if is_it { vec![(Duration::from_millis(20), frame(0x612, &[0xF1, 2, 0x7E, 0]))] } else { vec![] }
    });
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].extended_request_address, found[0].extended_response_address),
        (Some(0x12), Some(0xF1))
    );
}

#[test]
fn a_scan_of_a_moving_vehicle_ends_with_the_first_answer() {
    let (outcome, asked, _) = scan(|_, question| {
        let is_it = question.id() == id(0x7DF);
        if is_it { vec![(Duration::from_millis(20), frame(0x7E8, &[3, 0x41, 0x0D, 30]))] } else { vec![] }
    });
    assert_eq!(outcome, ScanOutcome::VehicleMoves);
    assert!(asked.iter().all(|(_, frame)| is_about_motion(frame)), "only the speed was asked for: {asked:?}");
}

#[test]
fn a_vehicle_that_starts_to_move_stops_the_scan_within_a_second() {
    let moves_at = Duration::from_millis(4100);
    let (outcome, asked, _) = scan(|at, question| {
        let speed = u8::from(at >= moves_at);
        let is_it = question.id() == id(0x7DF);
        if is_it { vec![(Duration::from_millis(20), frame(0x7E8, &[3, 0x41, 0x0D, speed]))] } else { vec![] }
    });
    assert_eq!(outcome, ScanOutcome::VehicleMoves);
    let last = asked.last().unwrap().0;
    assert!(last < moves_at + Duration::from_millis(1200), "{last:?}");
}

#[test]
fn ignition_off_and_bus_off_end_a_scan_immediately() {
    let now = Instant::now();
    let mut scanner = Scanner::new(settings(), now);
    scanner.handle_ignition(None);
    scanner.handle_ignition(Some(true));
    assert_eq!(scanner.outcome(), None);
    scanner.handle_ignition(Some(false));
    assert_eq!(scanner.outcome(), Some(ScanOutcome::IgnitionOff));
    assert_eq!(scanner.poll_transmit(now, |_| false), None);
    let mut scanner = Scanner::new(settings(), now);
    scanner.handle_bus_off();
    assert_eq!(scanner.outcome(), Some(ScanOutcome::BusOff));
}

#[test]
fn a_scan_of_an_empty_bus_sends_one_frame() {
    let mut now = Instant::now();
    let mut scanner = Scanner::new(settings(), now);
    now += Duration::from_secs(3);
    scanner.handle_timeout(now);
    assert!(scanner.poll_transmit(now, |_| false).is_some());
    now += Duration::from_millis(100);
    assert_eq!(scanner.poll_transmit(now, |_| false), None);
    scanner.handle_transmit_failed(now);
    assert_eq!(scanner.outcome(), Some(ScanOutcome::NotAcknowledged));
}

#[test]
fn identifiers_that_other_nodes_send_are_neither_scanned_nor_answers() {
    let mut now = Instant::now();
    let mut scanner = Scanner::new(settings(), now);
    let traffic = [
        frame(0x710, &[1, 2, 3, 4, 5, 6, 7, 8]),
        // looks like an answer, but is sent continuously
        frame(0x748, &[2, 0x7E, 0, 0, 0, 0, 0, 0]),
        frame(0x200, &[0; 8]),
    ];
    let start = now;
    let mut asked = Vec::new();
    while scanner.outcome().is_none() && now - start < Duration::from_secs(20) {
        now += Duration::from_millis(1);
        if (now - start).as_millis().is_multiple_of(20) {
            traffic.iter().for_each(|frame| scanner.handle_frame(now, frame));
        }
        if scanner.poll_timeout().is_some_and(|at| at <= now) {
            scanner.handle_timeout(now);
        }
        if let Some(frame) = scanner.poll_transmit(now, |_| false) {
            asked.push(frame.id());
            scanner.handle_transmitted(now);
        }
    }
    assert_eq!((scanner.outcome(), scanner.ecus()), (Some(ScanOutcome::Done), vec![]));
    for other in traffic {
        assert!(!asked.contains(&other.id()), "{other}");
    }
    assert!(asked.contains(&id(0x740)));
}

#[test]
fn a_busy_bus_is_scanned_more_slowly() {
    let pauses = |busy: bool| {
        let mut now = Instant::now();
        let mut scanner = Scanner::new(settings(), now);
        let start = now;
        let mut asked = 0;
        while now - start < Duration::from_millis(3500) {
            now += Duration::from_micros(250);
            if busy {
                scanner.handle_frame(now, &frame(0x100, &[0; 8]));
            }
            if scanner.poll_timeout().is_some_and(|at| at <= now) {
                scanner.handle_timeout(now);
            }
            if scanner.poll_transmit(now, |_| false).is_some() {
                asked += 1;
                scanner.handle_transmitted(now);
            }
        }
        asked
    };
    let (idle, busy) = (pauses(false), pauses(true));
    assert!(busy * 3 < idle, "{busy} and {idle}");
    assert!(busy > 0);
}

#[test]
fn identifiers_that_a_channel_uses_are_scanned_later_or_skipped() {
    let mut now = Instant::now();
    let mut scanner = Scanner::new(settings(), now);
    let start = now;
    let mut at_busy = Vec::new();
    while scanner.outcome().is_none() && now - start < Duration::from_secs(40) {
        now += Duration::from_millis(1);
        if scanner.poll_timeout().is_some_and(|at| at <= now) {
            scanner.handle_timeout(now);
        }
        let is_free_at = start + Duration::from_secs(5);
        let is_busy = |request: CanId| request == id(0x740) && now < is_free_at || request == id(0x758);
        if let Some(frame) = scanner.poll_transmit(now, is_busy) {
            if frame.id() == id(0x740) || frame.id() == id(0x758) {
                at_busy.push((now - start, frame.id()));
            }
            scanner.handle_transmitted(now);
        }
    }
    assert_eq!(scanner.outcome(), Some(ScanOutcome::Done));
    assert_eq!(at_busy.len(), 1, "{at_busy:?}");
    assert!(at_busy[0].0 >= Duration::from_secs(5) && at_busy[0].1 == id(0x740));
}

#[test]
fn progress_grows_and_ends_at_its_announced_total() {
    let now = Instant::now();
    let scanner = Scanner::new(settings(), now);
    let ScanProgress { done, total, found } = scanner.progress();
    assert_eq!((done, found), (0, 0));
    assert!(total > 1000);
}

#[test]
fn another_tester_stops_a_scan_before_and_after_its_first_question() {
    let frame = |raw: u32, data: &[u8]| CanFrame::new(id(raw), data).unwrap();
    let requests = [
        frame(0x7DF, &[2, 0x3E, 0x80]),
        frame(0x7E3, &[0x10, 0x14, 0x2E, 0xF1, 0x90, 1, 2, 3]),
        frame(0x18DA_10F1, &[2, 0x3E, 0]),
        frame(0x7E3, &[0x25, 1, 2, 3, 4, 5, 6, 7]),
    ];
    let responses = [
        frame(0x7E8, &[2, 0x7E, 0]),
        frame(0x18DA_F110, &[0x10, 0x14, 0x62, 0xF1, 0x90, 1, 2, 3]),
        frame(0x7EB, &[0x25, 1, 2, 3, 4, 5, 6, 7]),
        frame(0x7EB, &[0x30, 8, 0]),
    ];
    let second = Duration::from_secs(1);
    for frame in requests.into_iter().chain(responses) {
        let (outcome, asked, _) = scan_with(settings(), vec![(second, frame)], |_, _| vec![]);
        assert_eq!((outcome, asked), (ScanOutcome::OtherTester, vec![]), "{frame}");
    }
    for frame in requests {
        let at = 4 * second;
        let (outcome, asked, _) = scan_with(settings(), vec![(at, frame)], |_, _| vec![]);
        assert_eq!(outcome, ScanOutcome::OtherTester, "{frame}");
        assert!(!asked.is_empty() && asked.iter().all(|(sent, _)| *sent <= at + FRAME_TIME));
    }
    // in a session, ECUs respond to the channels
    let shared = || ScanSettings { shares_bus: true, ..settings() };
    for frame in responses {
        assert_eq!(scan_with(shared(), vec![(second, frame)], |_, _| vec![]).0, ScanOutcome::Done, "{frame}");
    }
}
