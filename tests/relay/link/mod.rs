//! Both ends of a connection, with a cloud and two bad networks between them, in virtual time and for many
//! seeds.
//!
//! Each seed decides a course of events: traffic both ways, delays, stalls, and links cut after any byte. At
//! the end, no PDU is lost, duplicated or out of order. Every frame from the vehicle has arrived or is
//! reported as a gap. No frame has reached the vehicle late.
//!
//! A seed is replayed by number: `CONNECTOR_TEST_SEED=1234 cargo test --test relay link:: -- --nocapture`.

mod age;
mod hop;
mod rig;
mod slow_uplink;

use rig::Rig;

const SEEDS: u64 = 10_000;
/// Every seed divisible by this number floods the link with frames while it is down, so that the link drops
/// the oldest.
const FLOOD_EVERY: u64 = 100;

fn run(seed: u64) -> rig::Summary {
    Rig::new(seed, seed % FLOOD_EVERY == FLOOD_EVERY - 1).run()
}

/// Runs every `step`th seed from `first` on.
fn run_share(first: u64, step: u64) -> rig::Summary {
    let mut total = rig::Summary::default();
    for seed in (first..SEEDS).step_by(step as usize) {
        // the error names the seed
        total += std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| {
            panic!("seed {seed} failed; replay it with CONNECTOR_TEST_SEED={seed}");
        });
    }
    total
}

#[test]
fn no_pdu_is_lost_duplicated_or_reordered_and_no_frame_is_late() {
    if let Some(seed) = std::env::var("CONNECTOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let total = std::thread::scope(|scope| {
        let shares: Vec<_> =
            (0..workers).map(|first| scope.spawn(move || run_share(first, workers))).collect();
        shares.into_iter().map(|share| share.join().unwrap()).fold(
            rig::Summary::default(),
            |mut total, share| {
                total += share;
                total
            },
        )
    });
    println!("{SEEDS} seeds: {total:?}");
    // the courses of events must have contained enough of each event
    assert!(total.cuts > SEEDS, "links were cut {} times", total.cuts);
    assert!(total.stalls > SEEDS / 10, "links stalled {} times", total.stalls);
    assert!(total.messages_cut_off > SEEDS / 10, "{} messages were cut off", total.messages_cut_off);
    assert!(total.frames_too_old > SEEDS / 10, "{} frames were too old", total.frames_too_old);
    assert!(total.gap_frames > 1000, "{} frames were dropped and reported", total.gap_frames);
    assert!(total.pdus > 20 * SEEDS, "{} PDUs arrived", total.pdus);
}
