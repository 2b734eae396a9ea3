use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::timeout;

use super::super::BoardExt;
use super::super::config::{GpioLine, Number, VoltageConfig};
use super::*;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // in one step, as files in sysfs change: a thread of the board may be reading
        let new = path.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }

    /// Waits until a file has this content.
    async fn becomes(&self, name: &str, text: &str) {
        let becomes = async {
            while self.read(name) != text {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), becomes).await.expect(name);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }
}

fn input(path: PathBuf, active_low: bool) -> InputConfig {
    InputConfig { source: Source::File(path), active_low, debounce_ms: 0 }
}

fn output(path: PathBuf, active_low: bool) -> OutputConfig {
    OutputConfig { source: Source::File(path), active_low }
}

#[tokio::test(start_paused = true)]
async fn a_board_without_parts_has_no_values_and_sends_no_event() {
    let mut board = LinuxBoard::open(&BoardConfig { wifi: Some(true), ..BoardConfig::default() });
    assert_eq!((board.voltage(), board.ignition(), board.has_wifi()), (None, None, Some(true)));
    board.set_led(Led::On);
    board.set_buzzer(true);
    assert!(timeout(Duration::from_secs(3600), board.event()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_ignition_and_button_files_are_reported() {
    let files = Files::new();
    let config = BoardConfig {
        ignition: Some(input(files.write("ignition", "1\n"), true)),
        button: Some(input(files.write("button", "0\n"), false)),
        ..BoardConfig::default()
    };
    let mut board = LinuxBoard::open(&config);
    assert_eq!(board.ignition(), Some(false));
    assert!(timeout(Duration::from_secs(10), board.event()).await.is_err());
    files.write("ignition", "0\n");
    assert_eq!(board.event().await, BoardEvent::Ignition(Some(true)));
    assert_eq!(board.ignition(), Some(true));
    files.write("button", "1\n");
    assert_eq!(board.event().await, BoardEvent::Button(Some(true)));
    assert!(timeout(Duration::from_secs(10), board.event()).await.is_err(), "held");
    files.write("button", "0\n");
    assert_eq!(board.event().await, BoardEvent::Button(Some(false)));
    assert!(timeout(Duration::from_secs(10), board.event()).await.is_err());
    // a missing file reads as unknown until the file exists again
    fs::remove_file(files.0.path().join("ignition")).unwrap();
    assert_eq!(board.event().await, BoardEvent::Ignition(None));
    files.write("ignition", "0\n");
    assert_eq!(board.event().await, BoardEvent::Ignition(Some(true)));
}

#[tokio::test]
async fn the_voltage_is_scaled_and_its_changes_are_reported() {
    let files = Files::new();
    let file = files.write("in_voltage0_raw", "1500\n");
    let number = |value| Number::try_from(value).unwrap();
    let voltage = VoltageConfig { file, scale: number(0.008), offset: number(50.0) };
    let config = BoardConfig { voltage: Some(voltage), ..BoardConfig::default() };
    let mut board = LinuxBoard::open(&config);
    assert_eq!(board.voltage(), Some(12.4));
    for (text, volts) in [("1700\n", Some(14.0)), ("rubbish", None), ("1500", Some(12.4))] {
        files.write("in_voltage0_raw", text);
        let followed = async {
            while board.voltage() != volts {
                // the board reads the voltage while its events are polled
                let _ = timeout(Duration::from_millis(10), board.event()).await;
            }
        };
        timeout(Duration::from_secs(20), followed).await.expect(text);
    }
}

#[tokio::test(start_paused = true)]
async fn an_led_blinks_by_itself_and_goes_dark_when_its_board_is_dropped() {
    let files = Files::new();
    files.write("leds/status/max_brightness", "255\n");
    let led = files.write("leds/status/brightness", "77");
    let mut board =
        LinuxBoard::open(&BoardConfig { led: Some(output(led, false)), ..BoardConfig::default() });
    let lit = || files.read("leds/status/brightness");
    assert_eq!(lit(), "0");
    board.set_led(Led::Blink { on: Duration::from_millis(100), off: Duration::from_millis(900) });
    let mut seen = Vec::new();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        seen.push(lit() == "255");
    }
    assert_eq!(seen.iter().filter(|lit| **lit).count(), 2, "{seen:?}");
    board.set_led(Led::On);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(lit(), "255");
    drop(board);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(lit(), "0");
}

#[tokio::test(start_paused = true)]
async fn a_button_that_can_no_longer_be_read_is_neither_pressed_nor_released() {
    let files = Files::new();
    let button = files.write("button", "0\n");
    let config = BoardConfig { button: Some(input(button.clone(), false)), ..BoardConfig::default() };
    let mut board = LinuxBoard::open(&config);
    files.write("button", "1\n");
    assert_eq!(board.event().await, BoardEvent::Button(Some(true)));
    fs::remove_file(button).unwrap();
    assert_eq!(board.event().await, BoardEvent::Button(None));
    files.write("button", "0\n");
    assert_eq!(board.event().await, BoardEvent::Button(Some(false)));
}

#[tokio::test(start_paused = true)]
async fn an_led_flashes_several_times_and_then_pauses() {
    let files = Files::new();
    let led = files.write("brightness", "0");
    let mut board =
        LinuxBoard::open(&BoardConfig { led: Some(output(led, false)), ..BoardConfig::default() });
    let [on, off, pause] = [100, 200, 700].map(Duration::from_millis);
    board.set_led(Led::Flashes { count: 3, on, off, pause });
    let mut seen = String::new();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..20 {
        seen.push_str(&files.read("brightness"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(seen, "10010010000000100100");
}

#[tokio::test]
async fn an_active_low_buzzer_sounds_and_stops_when_its_board_is_dropped() {
    let files = Files::new();
    let config =
        BoardConfig { buzzer: Some(output(files.write("buzzer", "0"), true)), ..BoardConfig::default() };
    let mut board = LinuxBoard::open(&config);
    assert_eq!(files.read("buzzer"), "1");
    board.set_buzzer(true);
    files.becomes("buzzer", "0").await;
    drop(board);
    files.becomes("buzzer", "1").await;
}

/// A named pipe without a peer blocks the process that opens it, like a GPIO expander behind a stuck bus.
#[tokio::test]
async fn parts_that_block_stop_nothing_else() {
    let files = Files::new();
    let ignition = files.write("ignition", "0");
    let buzzer = files.write("buzzer", "0");
    let mut board = LinuxBoard::open(&BoardConfig {
        ignition: Some(input(ignition.clone(), false)),
        buzzer: Some(output(buzzer.clone(), false)),
        ..BoardConfig::default()
    });
    for path in [&ignition, &buzzer] {
        fs::remove_file(path).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    }
    board.set_buzzer(true);
    // reads the ignition now and then
    assert!(timeout(Duration::from_millis(500), board.event()).await.is_err());
    // the peers let the threads continue
    fs::write(&ignition, "1").unwrap();
    assert_eq!(board.event().await, BoardEvent::Ignition(Some(true)));
    assert_eq!(fs::read_to_string(&buzzer).unwrap(), "1");
    for path in [&ignition, &buzzer] {
        fs::remove_file(path).unwrap();
    }
}

#[tokio::test]
async fn a_check_reports_every_fault_in_one_run() {
    let files = Files::new();
    let missing = files.0.path().join("missing");
    let line = |line| Source::Line { chip: "/dev/gpiochip-none".into(), line };
    let config = BoardConfig {
        voltage: Some(VoltageConfig {
            file: files.write("text", "no number"),
            scale: Number::default(),
            offset: Number::default(),
        }),
        ignition: Some(InputConfig { source: line(GpioLine::Offset(3)), active_low: false, debounce_ms: 20 }),
        button: Some(input(missing.clone(), false)),
        led: Some(OutputConfig { source: line(GpioLine::Name("LED".into())), active_low: false }),
        buzzer: Some(output(missing.clone(), false)),
        doip_activation: None,
        wifi: None,
    };
    let problems = LinuxBoard::check(&config);
    let parts: Vec<_> = problems.iter().map(|problem| problem.part).collect();
    assert_eq!(parts, ["voltage", "ignition", "button", "led", "buzzer"]);
    assert!(problems[1].to_string().contains("/dev/gpiochip-none"), "{}", problems[1]);
    // the check creates no file, and the board opens without the missing parts
    assert!(!missing.exists());
    let mut board = LinuxBoard::open(&config);
    assert_eq!((board.voltage(), board.ignition()), (None, None));
    assert!(LinuxBoard::check(&BoardConfig::default()).is_empty());
}

#[test]
fn a_check_reads_no_pipe_and_no_device_without_an_end() {
    let files = Files::new();
    let pipe = files.0.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let config = BoardConfig {
        voltage: Some(VoltageConfig {
            file: "/dev/zero".into(),
            scale: Number::default(),
            offset: Number::default(),
        }),
        button: Some(input(pipe, false)),
        ..BoardConfig::default()
    };
    let problems = LinuxBoard::check(&config);
    assert_eq!(problems.len(), 2, "{problems:?}");
    for problem in problems {
        assert!(problem.to_string().contains("not a regular file"), "{problem}");
    }
}

#[tokio::test]
async fn a_device_without_an_end_gives_no_voltage() {
    let file = "/dev/zero".into();
    let voltage = VoltageConfig { file, scale: Number::default(), offset: Number::default() };
    let mut board = LinuxBoard::open(&BoardConfig { voltage: Some(voltage), ..BoardConfig::default() });
    assert_eq!(board.voltage(), None);
}

#[test]
fn wifi_is_detected_by_its_network_interfaces() {
    let files = Files::new();
    files.write("net/eth0/address", "");
    let interfaces = files.0.path().join("net");
    assert_eq!(has_wireless(&interfaces), Some(false));
    files.write("net/wlan0/wireless/status", "");
    assert_eq!(has_wireless(&interfaces), Some(true));
    assert_eq!(has_wireless(&files.0.path().join("none")), None);
}
