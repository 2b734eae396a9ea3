//! The files of the packages that run on the device.

use std::path::Path;
use std::process::Command;

const GENERATOR: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/cross/packaging/systemd/connector-agent-generator");
const UNIT: &str = include_str!("../../cross/packaging/systemd/connector-agent.service");

const OPENRC: &str = include_str!("../../cross/packaging/openrc/connector-agent");
const PROCD: &str = include_str!("../../cross/packaging/procd/connector-agent");

/// What the generator adds to the unit for this configuration; `None` if nothing.
fn generated(configuration: &str) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("connector-agent.toml");
    std::fs::write(&file, configuration).unwrap();
    let generator = Command::new("sh").arg(GENERATOR).arg(directory.path()).env("config", &file).status();
    assert!(generator.unwrap().success());
    read(&directory.path().join("connector-agent.service.d/board.conf"))
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

#[test]
fn the_unit_may_write_only_the_files_of_the_board_that_the_configuration_names() {
    assert!(!UNIT.contains("ReadWritePaths="), "{UNIT}");
    let configuration = r#"
        [cloud]
        ca_file = "/sys/not/this"
        [board]
        #led = { file = "/sys/class/leds/commented/brightness" }
        led = { file = "/sys/class/leds/status/brightness", active_low = false }
        buzzer.file = '/sys/class/gpio/gpio27/value'
        button = { file = "/sys/class/gpio/gpio28/value" }
        [board.ignition]
        file = "/sys/class/gpio/gpio29/value"
        [log]
        level = "info"
    "#;
    let paths = ["-/sys/class/leds/status/brightness", "-/sys/class/gpio/gpio27/value"];
    let text = generated(configuration).unwrap();
    let writable: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("ReadWritePaths=")).collect();
    assert_eq!(writable, paths);
    assert!(text.contains("[Service]"), "{text}");

    let table = "[board.led]\nfile = \"/sys/class/leds/own/brightness\"\n";
    assert!(generated(table).unwrap().contains("ReadWritePaths=-/sys/class/leds/own/brightness\n"));
    for nothing in [
        "",
        "[board]\nled = { chip = \"/dev/gpiochip0\", line = 1 }\n",
        "[board]\nled = { file = \"/etc/shadow\" }\n",
        "[board]\nled = { file = \"/sys/../etc/shadow\" }\n",
    ] {
        assert_eq!(generated(nothing), None, "{nothing}");
    }
}

#[test]
fn every_init_system_gives_the_agent_time_for_the_end_of_a_download() {
    // the agent waits for 60 s, and needs two seconds to end
    assert!(UNIT.contains("\nTimeoutStopSec=75\n"), "{UNIT}");
    assert!(OPENRC.contains("\nretry=\"TERM/75/KILL/5\"\n"), "{OPENRC}");
    assert!(PROCD.contains("\tprocd_set_param term_timeout 75\n"), "{PROCD}");
}
