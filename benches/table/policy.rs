//! The cost of the policy: what the judge adds to a frame and to a PDU.

use std::time::Instant;

use connector_test_support::judge;

use crate::Row;

/// The measurements of each row, of which the fastest counts: the others were interrupted.
const ROUNDS: u32 = 20;
/// The judgements of one measurement.
const JUDGED: usize = 20_000;

/// What each frame and each PDU costs, and each frame of the vehicle.
pub(crate) fn rows() -> [Row; 4] {
    let now = Instant::now();
    let (frames, bus, speed) = (judge::frames_to_an_ecu(), judge::bus_frame(), judge::speed_frame());
    let mut policy = judge::policy(now);
    let row = |what: &str, figure: f64| (format!("policy, {what}"), format!("{figure:.2} µs of CPU"));
    [
        row("a raw frame to an ECU", fastest(&frames, |frame| judge::judge_frame(&mut policy, now, frame))),
        row("another raw frame", fastest(&[bus], |frame| judge::judge_frame(&mut policy, now, frame))),
        row("a PDU", fastest(&judge::REQUESTS, |request| judge::judge_pdu(&mut policy, now, request))),
        row("a frame of the vehicle", fastest(&[speed], |frame| judge::hear(&mut policy, now, frame))),
    ]
}

/// The time for each of these in microseconds.
fn fastest<T>(items: &[T], mut act: impl FnMut(&T)) -> f64 {
    let measure = |_| {
        let started = Instant::now();
        items.iter().cycle().take(JUDGED).for_each(|item| act(std::hint::black_box(item)));
        started.elapsed().as_secs_f64() * 1e6 / JUDGED as f64
    };
    (0..ROUNDS).map(measure).fold(f64::INFINITY, f64::min)
}
