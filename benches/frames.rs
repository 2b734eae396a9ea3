//! Relays frames without I/O, for `cross/figures`, which counts the processor's instructions. The difference
//! between two frame counts is the cost of the frames, independent of the machine's load.
//!
//! `frames DIRECTION COUNT`, with DIRECTION `from-vehicle`, `batched` or `toward-vehicle`.

use connector_test_support::frames::{Relay, classic};

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let direction = arguments.next();
    let count = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(1000);
    let mut relay = Relay::new(classic(1));
    match direction.as_deref() {
        Some("from-vehicle") | None => relay.carry_from_vehicle(count),
        Some("batched") => {
            relay.frames_a_message = 64;
            relay.in_flight = 40;
            relay.carry_from_vehicle(count);
        }
        Some(_) => relay.toward_vehicle(count),
    }
    std::hint::black_box(relay.relayed);
}
