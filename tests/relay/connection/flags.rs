//! A bus at another bit rate behind an SLCAN adapter that shows errors on the bus only by its status flags.

use std::time::Duration;

use connector_hal::can::slcan::Slcan;
use connector_test_support::hardware::HardwareBuilder;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::{Instant, sleep_until};

use super::common::*;

/// The flag of an error on the bus.
const BUS_ERROR: u8 = 0x80;

/// An adapter and its bus. Each reading of the flags clears them.
#[derive(Clone, Copy)]
struct Flags {
    /// The digit with which `S` sets the bit rate of the bus.
    right: u8,
    /// How often a node sends a frame; `None` on a silent bus.
    period: Option<Duration>,
    /// When the node sends its first frame.
    phase: Duration,
    /// How long the adapter takes to answer `F`; `None` if it refuses the command.
    answers_after: Option<Duration>,
    /// A flag is set from before the adapter was opened, each time.
    is_stale: bool,
}

const PROMPT: Flags = Flags {
    right: b'5',
    period: None,
    phase: Duration::ZERO,
    answers_after: Some(Duration::ZERO),
    is_stale: false,
};

impl Flags {
    /// Serves the host until it is gone.
    async fn serve(self, mut host: DuplexStream) {
        let start = Instant::now();
        let (mut rate, mut is_open, mut flags) = (0, false, 0);
        let (mut line, mut frames) = (Vec::new(), 0_u32);
        loop {
            let next = self.period.map(|period| start + self.phase + period * frames);
            let frame = sleep_until(next.unwrap_or_else(|| start + 3600 * SECOND));
            tokio::select! {
                biased;
                () = frame => {
                    frames += 1;
                    if is_open && rate == self.right {
                        let _ = host.write_all(b"t1231AA\r").await;
                    } else if is_open {
                        flags |= BUS_ERROR;
                    }
                    continue;
                }
                byte = host.read_u8() => match byte {
                    Ok(b'\r') => {}
                    Ok(byte) => {
                        line.push(byte);
                        continue;
                    }
                    Err(_) => return,
                },
            }
            let answer = match line.as_slice() {
                [b'S', digit] => {
                    rate = *digit;
                    "\r".to_owned()
                }
                [b'V'] => "V1013\r".to_owned(),
                [b'L' | b'O'] => {
                    is_open = true;
                    flags = if self.is_stale { BUS_ERROR } else { flags };
                    "\r".to_owned()
                }
                [b'C'] => {
                    is_open = false;
                    "\r".to_owned()
                }
                [b'F'] => match self.answers_after {
                    None => "\x07".to_owned(),
                    Some(after) => {
                        let read = std::mem::take(&mut flags);
                        tokio::time::sleep(after).await;
                        format!("F{read:02X}\r")
                    }
                },
                _ => "\r".to_owned(),
            };
            if host.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            line.clear();
        }
    }

    fn rig(self) -> Rig {
        let hardware = HardwareBuilder::in_runtime_time()
            .can_port([6, 14], "slcan:test", false)
            .open_can(move |device| {
                let (near, far) = duplex(4096);
                tokio::spawn(self.serve(far));
                Ok(Box::new(Slcan::over(device, near)))
            })
            .build();
        Rig::with_hardware(hardware)
    }

    /// The action of the reply to `configureBuses` with 500 kbit/s, and the type of a problem.
    async fn configure(self) -> String {
        let mut rig = self.rig();
        rig.ask("configureBuses", json!({ "buses": [hs()] }));
        assert!(rig.run_until(5 * SECOND, |rig| !rig.texts.is_empty()).await, "no answer");
        match rig.texts[0].action.as_str() {
            "error" => problem(&rig.texts[0]).1,
            action => action.to_owned(),
        }
    }
}

/// The phases of the first frame within a period.
fn phases(period: Duration) -> impl Iterator<Item = Duration> {
    (0..8).map(move |eighth| period * eighth / 8 + 3 * MILLISECOND)
}

#[tokio::test(start_paused = true)]
async fn a_bus_with_rare_frames_at_another_bit_rate_is_refused_by_flags_alone() {
    // another bit rate that the agent tries, and one that it does not know
    for right in [b'5', b'7'] {
        for period in [20, 50, 100, 150, 250].map(Duration::from_millis) {
            for phase in phases(period) {
                let adapter = Flags { right, period: Some(period), phase, ..PROMPT };
                assert_eq!(adapter.configure().await, "wrong-bit-rate", "{period:?} from {phase:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_to_the_request_for_the_flags_counts() {
    for answers_after in [20, 120, 250].map(|after| Some(Duration::from_millis(after))) {
        for period in [20, 100, 250].map(Duration::from_millis) {
            for phase in phases(period) {
                let adapter = Flags { right: b'7', period: Some(period), phase, answers_after, ..PROMPT };
                let outcome = adapter.configure().await;
                assert_eq!(outcome, "wrong-bit-rate", "{period:?} from {phase:?}, {answers_after:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flag_from_before_the_opening_is_harmless() {
    for answers_after in [0, 20, 250].map(|after| Some(Duration::from_millis(after))) {
        let silent = Flags { answers_after, is_stale: true, ..PROMPT };
        assert_eq!(silent.configure().await, "busesConfigured");
        let good = Flags { right: b'6', period: Some(100 * MILLISECOND), ..silent };
        assert_eq!(good.configure().await, "busesConfigured");
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_without_flags_is_used_as_before() {
    for right in [b'5', b'6'] {
        let period = Some(100 * MILLISECOND);
        let adapter = Flags { right, period, answers_after: None, ..PROMPT };
        // a bus at another bit rate shows itself by nothing
        assert_eq!(adapter.configure().await, "busesConfigured");
    }
}
