use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::check::contradictions;
use super::load::read;
use super::pincode::{PINCODE_CREDENTIAL, PINCODE_VARIABLE};
use super::*;

const EXAMPLE: &str = include_str!("../../docs/connector-agent.example.toml");
const MINIMAL: &str = r#"
[connector]
uuid = "5f3d760d-ade2-4a19-aea4-36e097678ae3"
[cloud]
api_url = "https://api.example.com"
websocket_url = "wss://ws.example.com/connector"
[[bus]]
kind = "can"
pins = [6, 14]
device = "can0"
"#;

/// The minimal configuration without the example's values, which a check of the machine refuses.
fn minimal_of_a_device() -> String {
    MINIMAL.replace("5f3d760d-", "97a00001-").replace("example.com", "cloud.test")
}

#[test]
fn the_example_states_exactly_the_defaults() {
    let config = loaded(EXAMPLE).unwrap();
    assert_eq!(config, defaults(&config));
    let config = loaded(MINIMAL).unwrap();
    assert_eq!(config, defaults(&config), "a file with only the required keys has the defaults too");
}

#[test]
fn every_key_of_the_example_is_understood_also_those_without_a_default() {
    let text = uncommented(EXAMPLE).replace("\npincode = ", "\n#pincode = ");
    let config = loaded(&text).unwrap();
    assert!(config.connector.pincode_file.is_some());
    assert!(config.cloud.ca_file.is_some() && config.cloud.client_id.is_some());
    assert_eq!(config.buses[0].name.as_deref(), Some("HS"));
    let board = &config.board;
    assert!(board.voltage.is_some() && board.ignition.is_some() && board.button.is_some());
    assert!(board.led.is_some() && board.buzzer.is_some() && board.wifi.is_some());
}

#[test]
fn the_example_has_every_key() {
    let text = uncommented(EXAMPLE);
    let document: toml::Table = text.parse().unwrap();
    let mut tables = vec![String::new()];
    let mut seen = 0;
    while let Some(table) = tables.pop() {
        let mut present = keys_at(&document, &table);
        if table.starts_with("board.") {
            // a part is a line or a file, so that only all parts together have every key
            present = keys_at(&document, "board")
                .iter()
                .flat_map(|part| keys_at(&document, &format!("board.{part}")))
                .collect();
        }
        if table == "doip.network" {
            // the keys of this table are numbers, and their tables have equal keys
            tables.push("doip.network.1".to_owned());
            continue;
        }
        for key in understood_keys(&table) {
            assert!(present.contains(&key), "the example lacks {key} in [{table}]");
            seen += 1;
            let path = if table.is_empty() { key } else { format!("{table}.{key}") };
            if !keys_at(&document, &path).is_empty() {
                tables.push(path);
            }
        }
    }
    assert!(seen > 50, "only {seen} keys were looked at");
}

#[test]
fn every_fault_of_a_file_is_reported_with_its_line_and_a_remedy() {
    let text = r#"
[connector]
uuid = "nobody"
pincod = "1234"
hardware_version = "two"

[cloud]
api_url = "http://api.example.com"
request_timeout_ms = 0
[cloud.paths]
login = "v2/login"

[[bus]]
kind = "can"
pins = [6, 6]
device = "can0"
bit_rates = [500000, 123]

[[bus]]
kind = "lin"
pins = [7]
device = "/dev/ttyS1"

[[bus]]
kind = "can"
pins = [3, "11"]
device = "socketcan:can0"
[relais]
x = 1
[log]
level = "info,=loud=="
"#;
    let Err(ConfigError::Invalid(problems)) = loaded(text) else { panic!("accepted") };
    let found: Vec<_> =
        problems.iter().map(|problem| (problem.line, problem.key.clone().unwrap_or_default())).collect();
    let expected = [
        (3, "connector.uuid"),
        (4, "connector.pincod"),
        (5, "connector.hardware_version"),
        (7, "cloud.websocket_url"),
        (8, "cloud.api_url"),
        (9, "cloud.request_timeout_ms"),
        (11, "cloud.paths.login"),
        (15, "bus[0].pins"),
        (17, "bus[0].bit_rates"),
        (20, "bus[1].kind"),
        (26, "bus[2].pins"),
        (27, "bus[2].device"),
        (28, "relais"),
        (31, "log.level"),
    ];
    for (line, key) in expected {
        assert!(found.contains(&(Some(line), key.to_owned())), "{line}: {key} not in {found:#?}");
    }
    assert!(problems.iter().all(|problem| !problem.what.is_empty() && !problem.fix.is_empty()));
    let text = ConfigError::Invalid(problems).to_string();
    assert!(text.contains(
        "connector-agent.toml:8: cloud.api_url: without TLS only a loopback address is allowed; write https:// instead"
    ));
}

#[test]
fn an_unwise_setting_is_a_warning_and_not_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connector-agent.toml");
    let minimal = minimal_of_a_device();
    let text = minimal.split("[[bus]]").next().unwrap().replace("[cloud]", "pincode = \"1234\"\n[cloud]");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let config = Config::load(&path).unwrap();
    let lines: Vec<_> = config.check().iter().map(ToString::to_string).collect();
    let path = path.display();
    assert_eq!(
        lines,
        [
            format!("{path}: bus: warning: no bus is configured; add a [[bus]] to read the VIN and to relay"),
            format!(
                "{path}: connector.pincode: warning: other users can read this file, which contains the pincode; \
             chmod 600 it, or put the pincode into a separate file"
            ),
        ]
    );
    let lines: Vec<_> = Config::check_file(config.path.as_deref().unwrap());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines.iter().all(ConfigProblem::is_warning));
}

#[test]
fn the_default_vin_settings_are_those_of_the_vin_reader() {
    let config = loaded(MINIMAL).unwrap();
    assert_eq!(config.vin_settings(), VinSettings::default());
    let second = "[[bus]]\nkind = \"can\"\npins = [3, 11]\ndevice = \"can1\"\nbit_rates = [125000, 250000]\n";
    let config = loaded(&format!("{MINIMAL}{second}")).unwrap();
    assert_eq!(config.vin_settings().bit_rates, [500_000, 250_000, 125_000]);
    assert_eq!(config.can_ports()[1].pins, [3, 11]);
    let kline = "[[bus]]\nkind = \"kline\"\npins = [7]\ndevice = \"/dev/ttyUSB0\"\n";
    let config = loaded(&format!("{MINIMAL}{kline}")).unwrap();
    assert_eq!(config.vin_settings(), VinSettings::default(), "a K-line's are not CAN's");
    assert_eq!(config.kline_ports()[0].bit_rates, [10_400, 9_600, 15_625]);
    let config = loaded(&format!("{MINIMAL}{kline}bit_rates = [9600]\n")).unwrap();
    assert_eq!(config.kline_ports()[0].bit_rates, [9_600]);
    assert!(loaded(&format!("{MINIMAL}{kline}bit_rates = [500000]\n")).is_err());
}

#[test]
fn the_times_and_the_voltage_that_end_keep_alives_have_bounds() {
    for (section, line) in [
        ("relay", "operator_silence_ms = 9999"),
        ("relay", "operator_idle_ms = 59999"),
        ("power", "keep_alive_after_last_request_ms = 9999"),
        ("power", "keep_alive_above_volts = 60.1"),
        ("power", "keep_alive_above_volts = -1"),
    ] {
        let Err(ConfigError::Invalid(problems)) = loaded(&format!("{MINIMAL}[{section}]\n{line}\n")) else {
            panic!("accepted: {line}")
        };
        let key = line.split(' ').next().unwrap();
        assert_eq!(problems[0].key.as_deref(), Some(format!("{section}.{key}").as_str()));
    }
}

#[test]
fn an_impossible_bus_is_refused() {
    for (key, value, message) in [
        ("device", "\"pcan:1\"", "`pcan:1` is not a CAN device"),
        ("device", "\"\"", "is not a CAN device"),
        ("pins", "[6]", "not a pair of pins"),
        ("pins", "[0, 14]", "not a pair of pins"),
        ("pins", "[6, 17]", "not a pair of pins"),
        ("pins", "[6, 16]", "pin 16 is the battery's"),
        ("pins", "[4, 14]", "pin 4 is ground"),
        ("bit_rates", "[]", "empty"),
        ("bit_rates", "[500001]", "no such bit rate: 500001"),
    ] {
        let line = MINIMAL.lines().find(|line| line.starts_with(key)).unwrap_or("kind = \"can\"");
        let with = if line.starts_with(key) { String::new() } else { format!("{line}\n") };
        let text = MINIMAL.replace(line, &format!("{with}{key} = {value}"));
        let Err(ConfigError::Invalid(problems)) = loaded(&text) else {
            panic!("{key} = {value} is accepted")
        };
        assert_eq!(problems.len(), 1, "{problems:#?}");
        assert!(problems[0].what.contains(message), "{:?}", problems[0]);
        assert_eq!(problems[0].key, Some(format!("bus[0].{key}")));
    }
}

#[test]
fn buses_that_share_a_pin_are_refused() {
    let second = "[[bus]]\nkind = \"can\"\npins = [14, 3]\ndevice = \"can1\"\n";
    let Err(ConfigError::Invalid(problems)) = loaded(&format!("{MINIMAL}{second}")) else {
        panic!("accepted")
    };
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(
        (problems[0].key.as_deref(), problems[0].what.as_str()),
        (Some("bus[1].pins"), "bus[0] has pin 14 too")
    );
}

#[test]
fn voltages_at_which_the_agent_never_sleeps_or_never_rests_are_refused() {
    let board = "[board]\nvoltage = { file = \"/sys/bus/iio/devices/iio:device0/in_voltage0_raw\" }\n";
    let keys = |power: &str, board: &str| match loaded(&format!("{MINIMAL}[power]\n{power}\n{board}")) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid(problems)) => {
            problems.into_iter().filter_map(|problem| problem.key).collect()
        }
        Err(error) => panic!("{error}"),
    };
    assert_eq!(keys("sleep_below_volts = 11.8", ""), ["power.sleep_below_volts"]);
    for wake in ["11.8", "11.0"] {
        let power = format!("sleep_below_volts = 11.8\nwake_above_volts = {wake}");
        assert_eq!(keys(&power, board), ["power.wake_above_volts"]);
    }
    assert_eq!(keys("sleep_below_volts = 11.8\nwake_above_volts = 12.0", board), [""; 0]);
    assert_eq!(keys("sleep_below_volts = 11.8", board), [""; 0]);
}

#[test]
fn a_bus_at_the_pin_of_terminal_15_is_a_warning() {
    let doip = "[[bus]]\nkind = \"doip\"\npins = [1, 9]\ndevice = \"192.168.7.2\"\n";
    let ignition = "[board]\nignition = { file = \"/dev/null\" }\n";
    let warned = |text: &str| {
        let problems = contradictions(&loaded(text).unwrap());
        let of_pins =
            problems.into_iter().filter(|problem| problem.key.as_deref() == Some("power.terminal15_pin"));
        of_pins.map(|problem| problem.what).collect::<Vec<_>>()
    };
    let lines = warned(&format!("{MINIMAL}{doip}{ignition}"));
    assert_eq!(lines, ["bus[1] needs pin 1 too, so operators can use only one of the two at a time"]);
    assert_eq!(warned(&format!("{MINIMAL}{doip}{ignition}[power]\nterminal15_pin = 8\n")), [""; 0]);
    assert_eq!(warned(&format!("{MINIMAL}{doip}")), [""; 0], "no board reports terminal 15");
}

#[test]
fn the_kernels_isotp_needs_a_network_interface() {
    let with = format!("{MINIMAL}isotp = \"kernel\"\n");
    assert_eq!(loaded(&with).unwrap().can_ports()[0].isotp, IsotpStack::Kernel);
    let Err(ConfigError::Invalid(problems)) = loaded(&with.replace("can0", "slcan:/dev/ttyACM0")) else {
        panic!("accepted")
    };
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!(problems[0].key.as_deref(), Some("bus[0].isotp"));
    assert_eq!(loaded(MINIMAL).unwrap().can_ports()[0].isotp, IsotpStack::Auto);
}

proptest::proptest! {
    #[test]
    fn a_damaged_file_never_panics_the_parser(
        at in 0..EXAMPLE.len(),
        len in 0usize..200,
        by in "[\\[\\]=\"'{}.,#a-z0-9\n ]{0,12}",
    ) {
        let (start, end) = (floor(at), floor(at + len));
        let text = format!("{}{by}{}", &EXAMPLE[..start], &EXAMPLE[end..]);
        let parsed = parse::parse(&text);
        proptest::prop_assert!(parsed.config.is_some() || !parsed.problems.is_empty());
    }
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_line() {
    let Err(ConfigError::Invalid(problems)) = loaded("[connector]\nuuid = = 3\n[log\n") else {
        panic!("accepted")
    };
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [Some(2), Some(3)]);
}

#[test]
fn a_section_that_is_not_a_table_is_reported_as_such() {
    let Err(ConfigError::Invalid(problems)) = loaded("connector = 5\nbus = 3\n[cloud]\n") else {
        panic!("accepted")
    };
    let keys: Vec<_> = problems.iter().filter_map(|problem| problem.key.as_deref()).collect();
    assert!(keys.contains(&"connector") && keys.contains(&"bus"), "{keys:?}");
}

#[test]
fn no_error_ever_quotes_the_pincode() {
    let values = [
        "987654321",
        "98765.4321",
        "-987654321",
        "true987654321",
        "\"987 654321\"",
        "[987654321]",
        "[\"987654321\"]",
        "{ a = \"987654321\" }",
        "\"987654321",
        "987x654321",
        "0987654321",
        "9876-54-32",
        "2026-09-87T65:43:21",
    ];
    for value in values {
        for table in ["connector", "cloud", "log"] {
            let text = format!("{MINIMAL}\n[{table}2]\n[{table}3]\n")
                .replace(&format!("[{table}]"), &format!("[{table}]\npincode = {value}\npin_code = {value}"));
            let (config, problems) = read_text(&text);
            let lines = format!("{config:?} {problems:?}");
            for digits in ["9876", "987 ", "987x", "6543", "5432", "0987"] {
                assert!(!lines.contains(digits), "{value} in [{table}]: {lines}");
            }
        }
    }
}

#[test]
fn a_debug_print_hides_the_pincode() {
    let text = MINIMAL.replace("[cloud]", "pincode = \"987654\"\n[cloud]");
    let config = loaded(&text).unwrap();
    assert_eq!(config.connector.pincode.as_ref().unwrap().expose(), "987654");
    assert!(!format!("{config:?} {config:#?}").contains("987654"));
}

#[test]
fn a_pincode_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pincode");
    fs::write(&file, "0042\n").unwrap();
    let mut connector = loaded(MINIMAL).unwrap().connector;
    connector.pincode_file = Some(file.clone());
    for mode in [0o604, 0o640, 0o644, 0o660, 0o606] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let error = Pincode::find(&connector, |_| None).unwrap_err();
        assert!(
            matches!(error, PincodeError::File(SecretFileError::Exposed { mode: found, .. }) if found == mode),
            "{error}"
        );
        assert!(error.to_string().contains("chmod 600"));
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Pincode::find(&connector, |_| None).unwrap().expose(), "0042");
    }
    fs::write(&file, " \n").unwrap();
    assert!(matches!(Pincode::find(&connector, |_| None), Err(PincodeError::Malformed(_))));
    connector.pincode_file = Some(directory.path().to_owned());
    assert!(matches!(
        Pincode::find(&connector, |_| None),
        Err(PincodeError::File(SecretFileError::NotAFile { .. }))
    ));
    connector.pincode_file = Some(directory.path().join("none"));
    assert!(matches!(
        Pincode::find(&connector, |_| None),
        Err(PincodeError::File(SecretFileError::Read { .. }))
    ));
}

#[test]
fn the_pincode_comes_from_environment_then_credential_then_file() {
    let directory = tempfile::tempdir().unwrap();
    let credential = directory.path().join(PINCODE_CREDENTIAL);
    fs::write(&credential, "from-systemd").unwrap();
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o440)).unwrap();
    let mut connector = loaded(MINIMAL).unwrap().connector;
    assert!(matches!(Pincode::find(&connector, |_| None), Err(PincodeError::Missing)));
    connector.pincode = Pincode::new("from-configuration");
    let credentials =
        |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().as_os_str().to_owned());
    let both = |name: &str| match name {
        PINCODE_VARIABLE => Some(OsString::from("from-environment")),
        other => credentials(other),
    };
    assert_eq!(Pincode::find(&connector, |_| None).unwrap().expose(), "from-configuration");
    assert_eq!(Pincode::find(&connector, credentials).unwrap().expose(), "from-systemd");
    assert_eq!(Pincode::find(&connector, both).unwrap().expose(), "from-environment");
    fs::remove_file(&credential).unwrap();
    assert_eq!(Pincode::find(&connector, credentials).unwrap().expose(), "from-configuration");
}

#[test]
fn a_check_reports_faults_of_the_file_and_of_the_machine_together() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connector-agent.toml");
    let text = minimal_of_a_device()
        .replace("[cloud]", "pincode_file = \"pincode\"\n[cloud]\nca_file = \"ca.pem\"\nca_dir = \"x\"")
        .replace("can0", "slcan:/nowhere/tty0")
        + "[board]\nled = { file = \"/nowhere/led\" }\n";
    fs::write(&path, text).unwrap();
    let problems = Config::check_file(&path);
    let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
    let has = |part: &str| lines.iter().any(|line| line.contains(part));
    assert!(has("unknown field `ca_dir`"), "{lines:#?}");
    assert!(has(&format!("{}: cannot read the pincode file", directory.path().join("pincode").display())));
    assert!(has(&format!("{}: ", directory.path().join("ca.pem").display())), "{lines:#?}");
    assert!(has("/nowhere/tty0: "), "{lines:#?}");
    assert!(has("/nowhere/led: board.led: "), "{lines:#?}");
    assert_eq!(problems.len(), 5, "{lines:#?}");
    let lines: Vec<_> = Config::check_file(&directory.path().join("none.toml"));
    assert_eq!(lines.len(), 1);
}

/// The defaults, with the required values of this configuration.
fn defaults(config: &Config) -> Config {
    Config {
        buses: vec![ConfiguredBus::can("can0")],
        path: config.path.clone(),
        ..Config::new(config.connector.uuid, config.cloud.api_url.clone(), config.cloud.websocket_url.clone())
    }
}

fn loaded(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connector-agent.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path)
}

fn read_text(text: &str) -> (Option<Config>, Vec<ConfigProblem>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connector-agent.toml");
    fs::write(&path, text).unwrap();
    read(&path).unwrap()
}

/// The last character boundary of the example at or before this position.
fn floor(at: usize) -> usize {
    (0..=at.min(EXAMPLE.len())).rev().find(|at| EXAMPLE.is_char_boundary(*at)).unwrap()
}

/// The text with each `#key = value` changed to `key = value`. Prose has a space after the `#`.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_lowercase() || first == '[') => {
            format!("{rest}\n")
        }
        Some(rest) if rest.trim_start().starts_with('{') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// The keys of the table at this path; those of all its elements if the path leads to an array of tables.
fn keys_at(document: &toml::Table, path: &str) -> BTreeSet<String> {
    let mut tables = vec![document];
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let values = tables.iter().filter_map(|table| table.get(key));
        let inner = values.flat_map(|value| match value {
            toml::Value::Table(inner) => vec![inner],
            toml::Value::Array(elements) => elements.iter().filter_map(toml::Value::as_table).collect(),
            _ => Vec::new(),
        });
        tables = inner.collect();
    }
    tables.into_iter().flat_map(toml::Table::keys).cloned().collect()
}

/// The keys that the code accepts in this table, as it lists them in the error about an unknown key.
fn understood_keys(table: &str) -> Vec<String> {
    let key = if table.is_empty() { "zzz".to_owned() } else { format!("{table}.zzz") };
    let text = match table.strip_prefix("bus") {
        Some(rest) => format!(
            "[[bus]]\nkind = \"can\"\npins = [6, 14]\ndevice = \"can0\"\n{}zzz = 1",
            rest.trim_start_matches('.')
        ),
        None if ["policy.rule", "policy.facts.speed"].contains(&table) => format!("[[{table}]]\nzzz = 1"),
        None => format!("{key} = 1"),
    };
    let (_, problems) = read_text(&text);
    let problem = problems.iter().find(|problem| problem.what.contains("zzz")).unwrap();
    problem.fix.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn credentials_without_a_proxy_or_in_a_wrong_file_are_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("connector-agent.toml");
    let with = |keys: &str| {
        fs::write(&path, MINIMAL.replace("[cloud]", &format!("[cloud]\n{keys}"))).unwrap();
        let lines: Vec<_> = Config::check_file(&path).iter().map(ToString::to_string).collect();
        lines.into_iter().filter(|line| line.contains("proxy")).collect::<Vec<_>>().join("\n")
    };
    fs::write(directory.path().join("secret"), "me:open-sesame").unwrap();
    let alone = with("proxy_credentials_file = \"secret\"");
    assert!(alone.contains("toml:5: cloud.proxy_credentials_file: there is no proxy"), "{alone}");
    let exposed = with("proxy = \"http://proxy:3128\"\nproxy_credentials_file = \"secret\"");
    assert!(exposed.contains("other users can read or change the credentials of the proxy"), "{exposed}");
    assert!(!exposed.contains("open-sesame"), "{exposed}");
    let in_address = with("proxy = \"http://me:open-sesame@proxy:3128\"");
    assert!(in_address.contains("put them into proxy_credentials_file"), "{in_address}");
    assert!(!in_address.contains("open-sesame"), "{in_address}");
}

#[test]
fn a_policy_that_cannot_work_is_reported_with_its_key() {
    let problems = |toml: &str| {
        let (_, problems) = read_text(&format!("{MINIMAL}name = \"HS\"\n{toml}"));
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for (toml, expected) in [
        ("[policy]\nmode = \"strict\"", "policy.mode"),
        ("[policy.require]\nreading = []", "policy.require.reading"),
        ("[policy.facts]\nmin_volts = -1.0", "policy.facts.min_volts: -1 is out of range; set 0 to 60"),
        ("[policy.facts]\nmoving_above_kmh = nan", "policy.facts.moving_above_kmh"),
        ("[policy.consent]\nask_seconds = 0", "policy.consent.ask_seconds"),
        (
            "[policy.facts]\nspeed = [{ bus = \"HS\" }]",
            "a signal is incomplete; set bus, id, start, bits and scale",
        ),
        ("[policy.facts]\nspeed = [{ obd = true, doip_did = 1 }]", "not one source of the speed"),
        (
            "[policy.facts]\nspeed = [{ bus = \"LS\", id = 1, start = 0, bits = 8, scale = 1.0 }]",
            "policy.facts.speed[0]: no bus is named LS",
        ),
        (
            "[policy.facts]\nspeed = [{ bus = \"HS\", id = 1, start = 0, bits = 33, scale = 1.0 }]",
            "33 bits are out of range; set bits to 1 to 32",
        ),
        (
            "[policy.facts]\nspeed = [{ bus = \"HS\", id = 1, start = 510, bits = 8, scale = 1.0 }]",
            "the signal ends behind bit 512",
        ),
        (
            "[[policy.rule]]\nids = [0x7E0, 0x20000000]",
            "policy.rule[0].ids: 20000000 is not a CAN identifier; set id to at most 0x1FFFFFFF",
        ),
        (
            "[policy.facts]\ndiagnostic_ids = [0x40000000]",
            "policy.facts.diagnostic_ids: 40000000 is not a CAN identifier",
        ),
        (
            "[[policy.rule]]\nrequire = [\"never\"]\n[[policy.rule]]\nservices = [0x2E]",
            "policy.rule[0]: warning: the rule matches everything, so that no later rule is reached",
        ),
        (
            "[policy.require]\nintrusive = [\"stationary\"]\n[policy.facts]\nspeed = []",
            "policy.require.intrusive: warning: this device has no source of the speed",
        ),
        ("[[policy.rule]]\nbus = \"LS\"", "policy.rule[0].bus: no bus is named LS"),
        ("[[policy.rule]]\ndata_prefix = \"2F 1\"", "is not a number of bytes"),
        (
            "[policy.consent]\nby = [\"button\"]\n[[policy.rule]]\nrequire = [\"consent\"]",
            "policy.rule[0].require: warning: no one can give consent on this device",
        ),
        ("[policy.require]\nintrusive = [\"ignition-on\"]", "this device cannot read the ignition"),
    ] {
        let found = problems(toml);
        assert!(found.contains(expected), "{toml}: {found}");
    }
    assert_eq!(problems("[[policy.rule]]\nbus = \"HS\"\nservices = [0x2F]\nrequire = [\"stationary\"]"), "");
}
