//! A line on which another tester is at work.

use std::time::Duration;

use connector_agent::config::DEFAULT_KLINE_BUDGET;
use connector_agent::vehicle::vin::kline::{LineReading, read_line};
use connector_hal::kline::Signal;
use connector_hal::kline::sim::{LineNode, SimLine, WireEvent};
use connector_hal::timer::TimerKind;

use super::line_to_ask;

const MS: Duration = Duration::from_millis(1);
const CLOCK: TimerKind = TimerKind::Runtime;

/// Reads from a line without ECUs on which these bytes appear at these times; returns the signals that the
/// reader sent.
async fn read_beside(foreign: &[(Duration, Vec<u8>)]) -> (LineReading, Vec<WireEvent>) {
    let line = SimLine::new(CLOCK);
    let tester = line.attach("kline0", 10_400);
    let mut other = line.attach("other", 10_400);
    let mut witness = line.attach("witness", 10_400);
    let start = CLOCK.now();
    for (after, bytes) in foreign {
        for (index, byte) in (0u32..).zip(bytes) {
            other.transmit_at(start + *after + index * 2 * MS, Signal::Byte(*byte));
        }
    }
    let reading = read_line(line_to_ask(tester), DEFAULT_KLINE_BUDGET, CLOCK).await;
    let events = seen(&mut witness).await;
    (reading, events)
}

/// The events on the line until now.
async fn seen(witness: &mut LineNode) -> Vec<WireEvent> {
    let mut events = Vec::new();
    while let Ok(event) = tokio::time::timeout(MS, std::future::poll_fn(|cx| witness.poll_wire(cx))).await {
        events.push(event);
    }
    events
}

fn signals(events: &[WireEvent]) -> usize {
    events.iter().filter(|event| matches!(event, WireEvent::Level { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn the_reading_is_silent_if_any_byte_was_heard() {
    let every = |pause: u32, count: u32| (0..count).map(|index| (index * pause * MS, vec![0x42])).collect();
    let cases: [Vec<(Duration, Vec<u8>)>; 4] =
        [every(100, 100), every(5, 2000), vec![(150 * MS, vec![0x00])], vec![(299 * MS, vec![0x83])]];
    for foreign in cases {
        let (reading, events) = read_beside(&foreign).await;
        assert!(reading.is_in_use && reading.candidates.is_empty() && reading.error.is_none());
        assert_eq!(signals(&events), 0, "{:?}", foreign[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_reading_ends_when_a_message_of_another_tester_is_heard() {
    // TesterPresent of another tester to an ECU, while the reader waits for its next turn or for an answer
    let request = vec![0x81, 0x11, 0xF1, 0x3E, 0xC1];
    for after in [380, 400, 450, 480, 600, 700] {
        let (reading, events) = read_beside(&[(after * MS, request.clone())]).await;
        // one pulse has two levels
        assert!(signals(&events) <= 6, "{after} ms: {}", signals(&events));
        if !reading.is_in_use {
            // the message was destroyed by bytes of the reader, and no further one was heard
            assert!(after < 450, "{after} ms");
        }
    }
    let answer = vec![0x81, 0xF2, 0x11, 0x7E, 0x02];
    let (reading, _) = read_beside(&[(600 * MS, answer)]).await;
    assert!(reading.is_in_use, "an answer to another tester");
}
