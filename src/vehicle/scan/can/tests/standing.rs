//! The evidence that the vehicle stands, without which no bus is scanned.

use super::*;

/// Frames of the vehicle that come unasked; a bus behind a gateway has none.
fn traffic() -> [Vec<(Duration, CanFrame)>; 2] {
    [vec![], vec![(Duration::from_millis(2900), frame(0x3D0, &[1, 2, 3]))]]
}

#[test]
fn a_bus_is_not_scanned_if_no_ecu_reports_that_the_vehicle_stands() {
    for unasked in traffic() {
        let (outcome, asked, _) = scan_with(without_consent(), unasked.clone(), |_, _| vec![]);
        assert_eq!(outcome, ScanOutcome::MayMove, "{unasked:?}");
        assert!(asked.iter().all(|(_, frame)| is_about_motion(frame)), "{asked:?}");
        assert_eq!(scan_with(settings(), unasked, |_, _| vec![]).0, ScanOutcome::Done);
    }
}

#[test]
fn only_speed_zero_is_evidence_that_the_vehicle_stands() {
    for (answer, outcome) in [
        (&[3, 0x41, 0x0D, 0][..], ScanOutcome::Done),
        (&[4, 0x62, 0xF4, 0x0D, 0], ScanOutcome::Done),
        (&[3, 0x41, 0x0D, 1], ScanOutcome::VehicleMoves),
        // an engine that is off: the vehicle rolls, or is a hybrid or an electric one
        (&[4, 0x41, 0x0C, 0, 0], ScanOutcome::MayMove),
        (&[3, 0x7F, 1, 0x12], ScanOutcome::MayMove),
    ] {
        for unasked in traffic() {
            let asked_for = answer[1] & !0x40;
            let (is, ..) = scan_with(without_consent(), unasked, |_, question| {
                let is_it = question.id() == id(0x7DF) && [asked_for, 1].contains(&question.data()[1]);
                if is_it { vec![(Duration::from_millis(20), frame(0x7E8, answer))] } else { vec![] }
            });
            assert_eq!(is, outcome, "{answer:02X?}");
        }
    }
}

#[test]
fn consent_does_not_outweigh_an_ecu_that_reports_a_speed() {
    for (question, answer) in
        [([2, 1, 0x0D], &[3, 0x41, 0x0D, 9][..]), ([3, 0x22, 0xF4], &[4, 0x62, 0xF4, 0x0D, 9])]
    {
        let (outcome, ..) = scan_with(settings(), vec![], |_, asked| {
            let is_it = asked.id() == id(0x7DF) && asked.data().starts_with(&question);
            if is_it { vec![(Duration::from_millis(20), frame(0x7E8, answer))] } else { vec![] }
        });
        assert_eq!(outcome, ScanOutcome::VehicleMoves, "{question:02X?}");
    }
}
