//! The Linux board on GPIO lines of a real kernel, simulated by the kernel's gpio-sim driver.
//!
//! `CONNECTOR_TEST_GPIO_SIM` names a chip with at least 4 lines, the second called BUTTON, and the chip's
//! directory in sysfs: `/dev/gpiochip0,/sys/devices/platform/gpio-sim.0/gpiochip0`.

use std::path::PathBuf;
use std::time::Duration;

use connector_hal::board::{
    Board, BoardConfig, BoardEvent, BoardExt, GpioLine, InputConfig, Led, LinuxBoard, OutputConfig, Source,
};
use tokio::time::timeout;

use crate::support::environment;

struct Chip {
    device: PathBuf,
    lines: PathBuf,
}

impl Chip {
    fn find() -> Option<Self> {
        let both = environment("CONNECTOR_TEST_GPIO_SIM")?;
        let (device, lines) = both.split_once(',').expect("device,directory");
        Some(Self { device: device.into(), lines: lines.into() })
    }

    fn source(&self, line: GpioLine) -> Source {
        Source::Line { chip: self.device.clone(), line }
    }

    fn input(&self, line: GpioLine, active_low: bool) -> InputConfig {
        InputConfig { source: self.source(line), active_low, debounce_ms: 5 }
    }

    fn output(&self, line: u32, active_low: bool) -> OutputConfig {
        OutputConfig { source: self.source(GpioLine::Offset(line)), active_low }
    }

    /// Pulls an input up or down.
    fn pull(&self, line: u32, up: bool) {
        let file = self.lines.join(format!("sim_gpio{line}/pull"));
        std::fs::write(file, if up { "pull-up" } else { "pull-down" }).unwrap();
    }

    /// The level of an output.
    fn level(&self, line: u32) -> bool {
        std::fs::read_to_string(self.lines.join(format!("sim_gpio{line}/value"))).unwrap().trim() == "1"
    }
}

async fn event(board: &mut LinuxBoard) -> BoardEvent {
    timeout(Duration::from_secs(10), board.event()).await.expect("an event in time")
}

#[tokio::test]
async fn lines_are_read_awaited_and_set() {
    let Some(chip) = Chip::find() else { return };
    chip.pull(0, true);
    chip.pull(1, true);
    let config = BoardConfig {
        ignition: Some(chip.input(GpioLine::Offset(0), false)),
        button: Some(chip.input(GpioLine::Name("BUTTON".into()), true)),
        led: Some(chip.output(2, false)),
        buzzer: Some(chip.output(3, true)),
        ..BoardConfig::default()
    };
    let problems = LinuxBoard::check(&config);
    assert!(problems.is_empty(), "{problems:?}");
    let mut board = LinuxBoard::open(&config);
    assert_eq!(board.ignition(), Some(true));
    assert!(timeout(Duration::from_millis(100), board.event()).await.is_err());
    chip.pull(0, false);
    assert_eq!(event(&mut board).await, BoardEvent::Ignition(Some(false)));
    assert_eq!(board.ignition(), Some(false));
    chip.pull(1, false);
    assert_eq!(event(&mut board).await, BoardEvent::Button(Some(true)));
    chip.pull(1, true);
    assert_eq!(event(&mut board).await, BoardEvent::Button(Some(false)));
    assert!(timeout(Duration::from_millis(100), board.event()).await.is_err());

    assert_eq!((chip.level(2), chip.level(3)), (false, true));
    board.set_buzzer(true);
    let sounds = async {
        while chip.level(3) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), sounds).await.expect("the buzzer sounds");
    board.set_led(Led::Blink { on: Duration::from_millis(20), off: Duration::from_millis(20) });
    let mut changes = 0;
    let mut last = chip.level(2);
    for _ in 0..100 {
        let _ = timeout(Duration::from_millis(5), board.event()).await;
        changes += u32::from(last != chip.level(2));
        last = chip.level(2);
    }
    assert!(changes > 5, "{changes} changes in half a second");
}

#[tokio::test]
async fn a_missing_or_taken_line_is_absent() {
    let Some(chip) = Chip::find() else { return };
    let config = BoardConfig {
        ignition: Some(chip.input(GpioLine::Offset(5000), false)),
        button: Some(chip.input(GpioLine::Name("NONE".into()), false)),
        ..BoardConfig::default()
    };
    let problems: Vec<_> = LinuxBoard::check(&config).iter().map(ToString::to_string).collect();
    assert!(problems[0].contains("no line 5000") && problems[1].contains("NONE"), "{problems:?}");
    let mut board = LinuxBoard::open(&config);
    assert_eq!(board.ignition(), None);
}
