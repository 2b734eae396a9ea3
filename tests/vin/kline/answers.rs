//! Answers that are out of order, repeated, incomplete, disturbed, or to another question.

use std::time::Duration;

use connector_agent::config::DEFAULT_KLINE_BUDGET;
use connector_agent::vehicle::vin::{EcuAddress, VinSource};
use connector_sim::vehicle::kline::{AnswerScript, KlineEcuConfig, Misbehaviour};
use proptest::prelude::*;

use super::{VIN, ecu, read_from};

const MS: Duration = Duration::from_millis(1);
const OTHER_VIN: &str = "1M8GDM9AXKP042788";

/// The message of mode 09 with this counter.
fn piece(vin: &str, count: u8) -> Vec<u8> {
    let field = [&[0; 3], vin.as_bytes()].concat();
    let start = 4 * (usize::from(count) - 1);
    [&[0x49, 0x02, count], &field[start..start + 4]].concat()
}

fn pieces(vin: &str, counts: &[u8]) -> Vec<Vec<u8>> {
    counts.iter().map(|count| piece(vin, *count)).collect()
}

/// An ECU that refuses `1A 90` and answers mode 09 with these messages.
fn obd(address: u8, answers: &[Vec<u8>]) -> KlineEcuConfig {
    let refusal = AnswerScript::new(&[0x1A, 0x90], &[vec![0x7F, 0x1A, 0x11]]);
    KlineEcuConfig { scripts: vec![refusal, AnswerScript::new(&[0x09, 0x02], answers)], ..ecu(address) }
}

/// Two ECUs whose answers do not collide, without messages of mode 09.
fn two_ecus() -> [KlineEcuConfig; 2] {
    [obd(0x10, &[]), KlineEcuConfig { p2: 48 * MS, ..obd(0x11, &[]) }]
}

/// The VINs that are read from these ECUs, with the number of requests of the first one.
async fn vins(ecus: &[KlineEcuConfig]) -> (Vec<String>, usize) {
    let (reading, vehicle, elapsed) = read_from(ecus, DEFAULT_KLINE_BUDGET).await;
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
    let vins = reading.candidates.iter().map(|candidate| candidate.vin.to_string()).collect();
    (vins, vehicle.with_ecu(0, |ecu| ecu.requests().len()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn messages_of_mode_09_are_ordered_by_counter_and_repeated_ones_count_once() {
    for counts in [&[1, 2, 3, 4, 5][..], &[1, 2, 4, 3, 5], &[1, 2, 2, 3, 4, 5], &[5, 4, 3, 2, 1, 1]] {
        let (vins, requests) = vins(&[obd(0x11, &pieces(VIN, counts))]).await;
        assert_eq!(vins, [VIN], "{counts:?}");
        assert_eq!(requests, 3, "each question is asked once, then the communication is stopped");
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_or_contradicting_message_leaves_no_vin() {
    let contradiction = [pieces(VIN, &[1, 2, 3, 4, 5]), pieces(OTHER_VIN, &[3])].concat();
    let foreign = [pieces(VIN, &[1, 2, 3, 4, 5]), vec![vec![0x49, 0x02, 6, 65, 66, 67, 68]]].concat();
    let short = [pieces(VIN, &[1, 2, 3, 4]), vec![vec![0x49, 0x02, 5, 65, 66, 67]]].concat();
    for messages in [pieces(VIN, &[1, 2, 4, 5]), pieces(VIN, &[1, 1, 1, 1, 1]), contradiction, foreign, short]
    {
        let (vins, requests) = vins(&[obd(0x11, &messages)]).await;
        assert_eq!((vins, requests), (vec![], 3), "{messages:02X?}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_of_two_ecus_are_not_combined() {
    // a message takes 23 ms, so each ECU sends one in 110 ms
    let every_110_ms = |first: u32, p2: u32, vin: &str, counts: &[u8]| {
        let pause = (110 - 23 - p2) * MS;
        let mut answers: Vec<_> = pieces(vin, counts).into_iter().map(|piece| (pause, piece)).collect();
        answers[0].0 = first * MS;
        answers
    };
    let two = |first: &[u8], second: &[u8]| {
        let mut ecus = two_ecus();
        ecus[0].scripts[1].answers = every_110_ms(0, 30, VIN, first);
        ecus[1].scripts[1].answers = every_110_ms(37, 48, OTHER_VIN, second);
        ecus
    };
    let (found, _) = vins(&two(&[1, 2, 4, 5], &[1, 2, 3, 5])).await;
    assert_eq!(found, Vec::<String>::new());
    let (found, _) = vins(&two(&[1, 2, 4, 5], &[2, 3, 1, 4, 5])).await;
    assert_eq!(found, [OTHER_VIN]);
    let (mut found, _) = vins(&two(&[1, 2, 3, 4, 5], &[5, 4, 3, 2, 1])).await;
    found.sort();
    assert_eq!(found, [OTHER_VIN, VIN]);
}

#[tokio::test(start_paused = true)]
async fn an_ecu_that_refuses_does_not_hide_the_answer_of_another() {
    for request in [[0x1A, 0x90], [0x09, 0x02]] {
        let refusing = KlineEcuConfig {
            scripts: vec![
                AnswerScript::new(&[0x1A, 0x90], &[vec![0x7F, 0x1A, 0x11]]),
                AnswerScript::new(&[0x09, 0x02], &[vec![0x7F, 0x09, 0x11]]),
            ],
            ..ecu(0x10)
        };
        let mut answering = obd(0x11, &pieces(VIN, &[1, 2, 3, 4, 5]));
        if request == [0x1A, 0x90] {
            answering.scripts.remove(0);
        }
        // behind the answers of the other ECU
        answering.p2 = 48 * MS;
        let (found, _) = vins(&[refusing, answering]).await;
        assert_eq!(found, [VIN], "{request:02X?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_something_else_neither_ends_nor_hangs_the_question() {
    let vin = [&[0x5A, 0x90], VIN.as_bytes()].concat();
    for other in [vec![0x7E], vec![0x7F, 0x3E, 0x11], vec![0x5A, 0x9B, 65], vec![0x61, 0x81, 0], vec![0xC1]] {
        for delay in [Duration::ZERO, 60 * MS, 100 * MS, 150 * MS, 300 * MS] {
            let script = AnswerScript {
                answers: vec![(Duration::ZERO, other.clone()), (delay, vin.clone())],
                ..AnswerScript::new(&[0x1A, 0x90], &[])
            };
            let (mut found, _) = vins(&[KlineEcuConfig { scripts: vec![script], ..ecu(0x11) }]).await;
            // a very late VIN is read besides that of mode 09
            found.dedup();
            assert_eq!(found, [VIN], "{other:02X?}, then the VIN after {delay:?}");
        }
        // in place of the answer: the next question is asked
        let script = AnswerScript::new(&[0x1A, 0x90], std::slice::from_ref(&other));
        let (reading, _, elapsed) =
            read_from(&[KlineEcuConfig { scripts: vec![script], ..ecu(0x11) }], DEFAULT_KLINE_BUDGET).await;
        let candidate = reading.candidates[0];
        assert_eq!((candidate.vin.as_str(), candidate.source), (VIN, VinSource::Obd), "{other:02X?}");
        assert!(elapsed < Duration::from_secs(2), "{elapsed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_vin_of_mode_09_in_one_message_is_named_as_such() {
    let whole = [&[0x49, 0x02, 0x01], VIN.as_bytes()].concat();
    let (reading, ..) = read_from(&[obd(0x11, &[whole])], DEFAULT_KLINE_BUDGET).await;
    let candidate = reading.candidates[0];
    assert_eq!((candidate.vin.as_str(), candidate.source), (VIN, VinSource::Obd));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_question_that_was_not_asked_is_no_vin() {
    for foreign in
        [[&[0x62, 0xF1, 0x90], OTHER_VIN.as_bytes()].concat(), [&[0x61, 0x81], OTHER_VIN.as_bytes()].concat()]
    {
        let refusal = vec![0x7F, 0x1A, 0x11];
        let ecu = KlineEcuConfig {
            scripts: vec![
                AnswerScript::new(&[0x1A, 0x90], &[foreign, refusal]),
                AnswerScript::new(&[0x09, 0x02], &[vec![0x7F, 0x09, 0x11]]),
            ],
            ..ecu(0x11)
        };
        assert_eq!(vins(&[ecu]).await.0, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_byte_of_noise_around_every_answer_does_not_lose_the_vin() {
    // every kind of header: 0xE5 and 0xD5 have no addresses
    for first in [0xEF, 0xE9, 0xEA, 0xE5, 0xD5] {
        for noise in [0x00, 0x01, 0x48, 0x83, 0x87, 0xF1, 0xFF] {
            for (before, after) in [(Some(noise), None), (None, Some(noise)), (Some(noise), Some(noise))] {
                let misbehaviour =
                    Misbehaviour { noise_before: before, noise_after: after, ..Misbehaviour::default() };
                let noisy = KlineEcuConfig { key_bytes: [first, 0x8F], misbehaviour, ..ecu(0x11) };
                let (found, requests) = vins(&[noisy]).await;
                assert_eq!(
                    (found, requests),
                    (vec![VIN.to_owned()], 2),
                    "0x{first:02X}: {before:02X?} {after:02X?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn noise_between_the_messages_of_mode_09_does_not_lose_the_vin() {
    for noise in [0x00, 0x48, 0x87, 0xFF] {
        let misbehaviour =
            Misbehaviour { noise_before: Some(noise), noise_after: Some(noise), ..Misbehaviour::default() };
        let noisy = KlineEcuConfig { misbehaviour, ..obd(0x11, &pieces(VIN, &[1, 2, 3, 4, 5])) };
        assert_eq!(vins(&[noisy]).await.0, [VIN], "0x{noise:02X}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disturbed_answer_is_asked_for_again() {
    let vin = [&[0x5A, 0x90], VIN.as_bytes()].concat();
    let identification = AnswerScript { disturbed: Some(0), ..AnswerScript::new(&[0x1A, 0x90], &[vin]) };
    let mut cases = vec![(0x1A, KlineEcuConfig { scripts: vec![identification], ..ecu(0x11) })];
    for disturbed in 0..5 {
        let mut ecu = obd(0x11, &pieces(VIN, &[1, 2, 3, 4, 5]));
        ecu.scripts[1].disturbed = Some(disturbed);
        cases.push((0x09, ecu));
    }
    for (question, ecu) in cases {
        let (reading, vehicle, _) = read_from(&[ecu], DEFAULT_KLINE_BUDGET).await;
        assert_eq!(reading.candidates.len(), 1, "0x{question:02X}");
        assert_eq!(reading.candidates[0].address, EcuAddress::Kline(0x11));
        let asked =
            vehicle.with_ecu(0, |ecu| ecu.requests().iter().filter(|data| data[0] == question).count());
        assert_eq!(asked, Some(2), "0x{question:02X}");
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_disturbed_answer_to_the_initialisation_is_asked_for_again() {
    let misbehaviour = Misbehaviour { wrong_checksums: 1, ..Misbehaviour::default() };
    let only = KlineEcuConfig { misbehaviour, slow: false, ..ecu(0x58) };
    assert_eq!(vins(&[only]).await.0, [VIN]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two ECUs send in answer to mode 09, a VIN that is read is one of theirs.
    #[test]
    fn a_vin_that_is_read_is_that_of_one_ecu(
        counts in prop::array::uniform2(prop::collection::vec(1..=5u8, 0..8)),
        starts in prop::array::uniform2(0..40u32),
        disturbed in 0..6usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut ecus = two_ecus();
        ecus[0].scripts[1] = AnswerScript::new(&[0x09, 0x02], &pieces(VIN, &counts[0]));
        ecus[1].scripts[1] = AnswerScript::new(&[0x09, 0x02], &pieces(OTHER_VIN, &counts[1]));
        for (ecu, start) in ecus.iter_mut().zip(starts) {
            if let Some(first) = ecu.scripts[1].answers.first_mut() {
                first.0 = start * MS;
            }
            ecu.scripts[1].disturbed = disturbed.checked_sub(1);
        }
        let (reading, ..) = runtime.block_on(read_from(&ecus, DEFAULT_KLINE_BUDGET));
        for candidate in reading.candidates {
            let of = match candidate.address { EcuAddress::Kline(0x10) => VIN, _ => OTHER_VIN };
            prop_assert_eq!(candidate.vin.as_str(), of);
        }
    }
}
