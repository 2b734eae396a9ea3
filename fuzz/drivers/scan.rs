//! Reads any bytes as a script: the actions of a bus, a vehicle and a clock on a scan.

use std::time::{Duration, Instant};

use connector_agent::vehicle::scan::{ScanOutcome, ScanRequest, ScanSettings, Scanner};
use connector_hal::can::{CanFrame, CanId};

/// Two answers to the scan's last question.
const TESTER_PRESENT_ANSWER: &[u8] = &[2, 0x7E, 0, 0, 0, 0, 0, 0];
const REFUSAL: &[u8] = &[3, 0x7F, 0x3E, 0x12, 0, 0, 0, 0];

/// Plays the script frame by frame. The scan ends even if the script is short.
pub(super) fn drive(data: &[u8]) {
    let start = Instant::now();
    let mut now = start;
    let mut scanner = Scanner::new(
        ScanSettings {
            bit_rate: 500_000,
            request: ScanRequest { vehicle_stands: !data.len().is_multiple_of(3), ..ScanRequest::default() },
            shares_bus: data.len().is_multiple_of(2),
        },
        now,
    );
    let mut script = data.iter().copied();
    let mut last = CanId::standard_truncated(0x7E0);
    let mut without_outcome = 0_u32;
    while let Some(step) = script.next() {
        let argument = step & 0x1F;
        match step >> 5 {
            // a frame with any identifier
            0 => {
                let [high, low] = [script.next().unwrap_or_default(), script.next().unwrap_or_default()];
                let id = u32::from(high & 7) << 8 | u32::from(low);
                let data: Vec<u8> = script.by_ref().take(usize::from(argument % 9)).collect();
                scanner.handle_frame(now, &frame(CanId::standard_truncated(id), &data));
            }
            // an answer whose identifier has the distance `argument` from the last question's
            1 => {
                let id = if last.is_extended() {
                    CanId::extended_truncated(0x18DA_F100 | (last.raw() >> 8 & 0xFF))
                } else {
                    CanId::standard_truncated(last.raw().wrapping_add(u32::from(argument)) & 0x7FF)
                };
                let data = if argument & 1 == 0 { TESTER_PRESENT_ANSWER } else { REFUSAL };
                scanner.handle_frame(now, &frame(id, data));
            }
            // a TP2.0 ECU's answer to a channel set-up, an answer with an extended address, or a speed
            2 => {
                let (id, data): (u32, &[u8]) = match argument % 4 {
                    0 => (0x200 | u32::from(argument), &[0, 0xD0, 0, 3, 0x40, 7, 1]),
                    1 => (0x200 | u32::from(argument), &[0, 0xD7, 0, 0x10, 0, 0x10, 1]),
                    2 => (0x600 | u32::from(argument), &[0xF1, 2, 0x7E, 0]),
                    _ => (0x7E8, &[3, 0x41, 0x0D, argument >> 4]),
                };
                scanner.handle_frame(now, &frame(CanId::standard_truncated(id), data));
            }
            3 if without_outcome > 0 => {
                without_outcome -= 1;
                scanner.handle_transmitted(now);
            }
            4 if without_outcome > 0 => {
                without_outcome -= 1;
                scanner.handle_transmit_failed(now);
            }
            5 => {
                now += Duration::from_millis(u64::from(argument) * 8);
                scanner.handle_timeout(now);
            }
            6 => match argument {
                0 => scanner.handle_bus_off(),
                1 => scanner.handle_ignition(Some(false)),
                _ => {
                    if let Ok(ecu) = u32::from(argument).try_into() {
                        scanner.handle_tp20_open(ecu);
                    }
                }
            },
            _ => {
                while let Some(frame) =
                    scanner.poll_transmit(now, |id| id.raw() & 0x1F == u32::from(argument))
                {
                    without_outcome += 1;
                    assert!(without_outcome <= 8, "at most 8 frames wait for their outcome");
                    assert_may_be_sent(&frame);
                    last = frame.id();
                }
            }
        }
        check(&scanner);
    }
    finish(scanner, now, without_outcome);
}

/// Asserts that a scan may send this frame.
fn assert_may_be_sent(frame: &CanFrame) {
    let may_be_sent = match frame.id().raw() {
        0x200 => frame.len() == 7 && frame.data()[1] == 0xC0,
        _ => {
            let data = frame.data();
            matches!(
                data,
                [2, 0x3E, 0, ..]
                    | [_, 2, 0x3E, 0, ..]
                    | [2, 0x01, 0x0C | 0x0D, ..]
                    | [3, 0x22, 0xF4, 0x0D, ..]
                    | [0xA8]
            )
        }
    };
    assert!(may_be_sent, "{frame}");
}

fn check(scanner: &Scanner) {
    let progress = scanner.progress();
    assert!(progress.done <= progress.total);
    assert_eq!(progress.found, scanner.ecus().len());
    assert_eq!(scanner.outcome().is_none(), scanner.poll_timeout().is_some());
}

/// Plays a bus that acknowledges every frame and answers none, until the scan ends.
fn finish(mut scanner: Scanner, mut now: Instant, mut without_outcome: u32) {
    let end = now + Duration::from_secs(600);
    while scanner.outcome().is_none() {
        assert!(now < end, "a scan ends");
        while without_outcome > 0 {
            without_outcome -= 1;
            scanner.handle_transmitted(now);
        }
        if let Some(frame) = scanner.poll_transmit(now, |_| false) {
            without_outcome += 1;
            assert_may_be_sent(&frame);
            continue;
        }
        if let Some(at) = scanner.poll_timeout() {
            // at least a millisecond, as the runtime's timers
            now = at.max(now + Duration::from_millis(1));
            scanner.handle_timeout(now);
        }
    }
    assert!(
        scanner.outcome() != Some(ScanOutcome::Done) || scanner.progress().done == scanner.progress().total
    );
}

fn frame(id: CanId, data: &[u8]) -> CanFrame {
    CanFrame::new(id, data.get(..8).unwrap_or(data)).expect("at most 8 bytes")
}
