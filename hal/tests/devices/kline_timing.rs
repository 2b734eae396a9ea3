//! Measures a UART's timing on this machine: how late a byte is handed over, and how late a break begins and
//! ends. A measurement, not a test: nothing fails on a busy machine.
//!
//! `cargo test -p connector-hal --features sim --test devices -- kline_timing --ignored --nocapture`

use std::future::poll_fn;
use std::time::{Duration, Instant};

use connector_hal::kline::sim::{PtyKLine, SimLine};
use connector_hal::kline::{self, KLineEvent, Signal};
use connector_hal::timer::{Deadline, TimerKind};

fn print(name: &str, mut lateness: Vec<Duration>) {
    lateness.sort();
    let at = |share: usize| lateness[(lateness.len() - 1) * share / 100].as_micros();
    println!("{name:<44} p50 {:>6} µs  p99 {:>6} µs  max {:>6} µs", at(50), at(99), at(100));
}

async fn lateness(kind: TimerKind, period: Duration, count: u32) -> Vec<Duration> {
    let mut deadline = Deadline::new(kind);
    let mut late = Vec::new();
    for _ in 0..count {
        let at = Instant::now() + period;
        deadline.set(Some(at));
        deadline.expired().await;
        late.push(Instant::now().saturating_duration_since(at));
    }
    late
}

/// How late the echo of a byte arrives, beyond the byte's time on the line.
async fn echo(count: u32) -> Vec<Duration> {
    let sim = SimLine::new(TimerKind::Precise);
    let pty = PtyKLine::new(None, &sim).unwrap();
    let mut line = kline::open(pty.device().to_str().unwrap()).unwrap();
    line.set_bit_rate(10_400).unwrap();
    let mut late = Vec::new();
    for byte in 0..count {
        let sent = Instant::now();
        line.transmit(Signal::Byte(byte as u8)).unwrap();
        let event = poll_fn(|cx| line.poll_event(cx)).await.unwrap();
        let KLineEvent::Received { at, .. } = event else { panic!("{event:?}") };
        late.push((at - sent).saturating_sub(kline::byte_time(10_400)));
    }
    late
}

#[tokio::test]
#[ignore = "a measurement of 15 s"]
async fn the_lateness_of_the_precise_timer_is_printed() {
    for (kind, name) in [(TimerKind::Precise, "timerfd"), (TimerKind::Runtime, "runtime")] {
        for (period, use_of_it) in
            [(5, "P4, 5 ms"), (25, "T_iniL by break, 25 ms"), (200, "a bit at 5 baud, 200 ms")]
        {
            let count = 2000 / period as u32;
            let late = lateness(kind, Duration::from_millis(period), count.max(10)).await;
            print(&format!("{use_of_it}, {name}"), late);
        }
    }
    print("echo over a pseudo-terminal, 10400 baud", echo(500).await);
}
