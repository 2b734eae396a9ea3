//! The evidence that the vehicle stands, without which a bus in use is not scanned.

use super::*;

#[test]
fn a_bus_in_use_is_not_scanned_if_no_ecu_reports_that_the_vehicle_stands() {
    let heard = || vec![(Duration::from_millis(2900), frame(0x3D0, &[1, 2, 3]))];
    let (outcome, asked, _) = scan_with(settings(), heard(), |_, _| vec![]);
    assert_eq!(outcome, ScanOutcome::MayMove);
    assert!(asked.iter().all(|(_, frame)| is_about_motion(frame)), "{asked:?}");
    let running: &[u8] = &[4, 0x41, 0x0C, 0x0C, 0x80];
    let (outcome, ..) = scan_with(settings(), heard(), |_, question| match question.data() {
        [2, 1, 0x0C, ..] => vec![(Duration::from_millis(20), frame(0x7E8, running))],
        _ => vec![],
    });
    assert_eq!(outcome, ScanOutcome::MayMove, "the engine runs");
    assert_eq!(scan_with(with_consent(), heard(), |_, _| vec![]).0, ScanOutcome::Done);
}

#[test]
fn speed_zero_or_an_engine_that_is_off_is_evidence_that_the_vehicle_stands() {
    let heard = || vec![(Duration::from_millis(10), frame(0x3D0, &[1, 2, 3]))];
    for (question, answer) in [
        (&[2, 1, 0x0D][..], &[3, 0x41, 0x0D, 0][..]),
        (&[2, 1, 0x0C], &[4, 0x41, 0x0C, 0, 0]),
        (&[3, 0x22, 0xF4, 0x0D], &[4, 0x62, 0xF4, 0x0D, 0]),
    ] {
        let (outcome, ..) = scan_with(settings(), heard(), |_, frame_of_scan| {
            let is_it = frame_of_scan.id() == id(0x7DF) && frame_of_scan.data().starts_with(question);
            if is_it { vec![(Duration::from_millis(20), frame(0x7E8, answer))] } else { vec![] }
        });
        assert_eq!(outcome, ScanOutcome::Done, "{question:02X?}");
    }
}

#[test]
fn consent_does_not_outweigh_an_ecu_that_reports_a_speed() {
    for (question, answer) in
        [([2, 1, 0x0D], &[3, 0x41, 0x0D, 9][..]), ([3, 0x22, 0xF4], &[4, 0x62, 0xF4, 0x0D, 9])]
    {
        let (outcome, ..) = scan_with(with_consent(), vec![], |_, asked| {
            let is_it = asked.id() == id(0x7DF) && asked.data().starts_with(&question);
            if is_it { vec![(Duration::from_millis(20), frame(0x7E8, answer))] } else { vec![] }
        });
        assert_eq!(outcome, ScanOutcome::VehicleMoves, "{question:02X?}");
    }
}

#[test]
fn a_vehicle_that_a_scan_wakes_is_asked_again_whether_it_stands() {
    let traffic =
        || (0..200).map(|n| (Duration::from_millis(3300 + 20 * n), frame(0x3D0, &[1, 2, 3]))).collect();
    let (outcome, asked, _) = scan_with(settings(), traffic(), |_, _| vec![]);
    assert_eq!(outcome, ScanOutcome::MayMove);
    let last = asked.last().unwrap();
    assert!(last.0 < Duration::from_millis(3500) && is_about_motion(&last.1), "{last:?}");
    let (outcome, ..) = scan_with(settings(), traffic(), |at, question| {
        let is_it =
            at > Duration::from_millis(3300) && question.id() == id(0x7DF) && is_about_motion(question);
        if is_it { vec![(Duration::from_millis(20), frame(0x7E8, &[3, 0x41, 0x0D, 0]))] } else { vec![] }
    });
    assert_eq!(outcome, ScanOutcome::Done);
}
