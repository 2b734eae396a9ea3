//! Finds faults of the machine, compared with the configuration.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connector_hal::board::{BoardProblem, LinuxBoard};
use connector_hal::can::CanDevice;
use connector_hal::kline;
use rustix::fs::Access;

use crate::config::cloud_tls::CloudTlsError;
use crate::config::configuration::Config;
use crate::config::doip_device::DoipDevice;
use crate::config::pincode::PincodeError;
use crate::config::problem::ConfigProblem;
use crate::config::proxy::ProxyCredentialsError;
use crate::config::sections::{BusKind, ConfiguredBus};
use crate::tls;

/// The connector's UUID in docs/connector-agent.example.toml.
const EXAMPLE_UUID: &str = "5f3d760d-ade2-4a19-aea4-36e097678ae3";
/// The hosts in docs/connector-agent.example.toml (RFC 2606).
const EXAMPLE_HOST: &str = ".example.com";
/// The folders in which only the kernel creates files.
const KERNEL_FOLDERS: [&str; 2] = ["/proc", "/sys"];

/// Where the kernel shows network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Everything that is wrong with the files and devices that the configuration names.
pub(crate) fn machine(config: &Config) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    problems.extend(check_pincode(config));
    problems.extend(examples(config));
    problems.extend(exposed_state_directory(config));
    problems.extend(impossible_state_directory(config));
    problems.extend(check_proxy(config));
    check_certificates(config, &mut problems);
    problems.extend(config.buses.iter().filter_map(missing_device));
    for BoardProblem { part, path, error, remedy } in LinuxBoard::check(&config.board) {
        problems.push(ConfigProblem::error(format!("board.{part}: {error}"), remedy).at_path(&path));
    }
    problems
}

fn check_pincode(config: &Config) -> Option<ConfigProblem> {
    if let Err(error) = config.pincode() {
        return Some(pincode_problem(config, &error));
    }
    config.connector.pincode.as_ref()?;
    let path = config.path.as_ref()?;
    let is_exposed = fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    is_exposed.then(|| {
        let what = "other users can read this file, which contains the pincode";
        let fix = "chmod 600 it, or put the pincode into a separate file";
        ConfigProblem::warning(what, fix).at_path(path).at_key("connector.pincode")
    })
}

fn pincode_problem(config: &Config, error: &PincodeError) -> ConfigProblem {
    let problem = with_remedy(error);
    match error {
        PincodeError::File(error) => problem.at_path(error.path()),
        PincodeError::Missing | PincodeError::Malformed(_) => match &config.path {
            Some(path) => problem.at_path(path).at_key("connector.pincode_file"),
            None => problem,
        },
    }
}

/// The error as a problem: its text ends with the remedy.
fn with_remedy(error: &impl ToString) -> ConfigProblem {
    let text = error.to_string();
    let (what, fix) = text.split_once("; ").unwrap_or((&text, "correct it"));
    ConfigProblem::error(what, fix)
}

fn check_proxy(config: &Config) -> Option<ConfigProblem> {
    let error = config.proxy().err()?;
    let problem = with_remedy(&error).at_key("cloud.proxy_credentials_file");
    Some(match &error {
        ProxyCredentialsError::File(error) => problem.at_path(error.path()),
        ProxyCredentialsError::Malformed(path) => problem.at_path(path),
    })
}

/// The values that are still those of the example configuration.
fn examples(config: &Config) -> Vec<ConfigProblem> {
    let is_example = |host: Option<&str>| host.is_some_and(|host| host.ends_with(EXAMPLE_HOST));
    let found = [
        ("connector.uuid", config.connector.uuid.to_string() == EXAMPLE_UUID, "set the connector's UUID"),
        (
            "cloud.api_url",
            is_example(config.cloud.api_url.as_url().host_str()),
            "set the address of the cloud's REST API",
        ),
        (
            "cloud.websocket_url",
            is_example(config.cloud.websocket_url.as_url().host_str()),
            "set the address of the cloud's websocket",
        ),
    ];
    let mut problems = Vec::new();
    for (key, _, fix) in found.into_iter().filter(|(_, is_example, _)| *is_example) {
        let what = "this is the value of the example configuration";
        // a sandbox may have a connector with the UUID of the vendor's documents, which is the example's too
        let severity = if key == "connector.uuid" { ConfigProblem::warning } else { ConfigProblem::error };
        let problem = severity(what, fix).at_key(key);
        problems.push(match &config.path {
            Some(path) => problem.at_path(path),
            None => problem,
        });
    }
    problems
}

/// The problem that the state directory does not exist and cannot be created, if so.
fn impossible_state_directory(config: &Config) -> Option<ConfigProblem> {
    let path = config.connector.state_directory.as_ref()?;
    let existing = path.ancestors().find(|ancestor| ancestor.exists())?;
    let is_of_kernel = KERNEL_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let can_write = rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    (is_of_kernel || !existing.is_dir() && existing != path || !can_write).then(|| {
        let what = format!("the agent cannot create files here: {} does not allow that", existing.display());
        ConfigProblem::error(what, "name a directory that the agent's user may write to")
            .at_path(path)
            .at_key("connector.state_directory")
    })
}

/// The problem that other users can take away or hold the files in the state directory, if so.
fn exposed_state_directory(config: &Config) -> Option<ConfigProblem> {
    let path = config.connector.state_directory.as_ref()?;
    // the agent creates a directory that does not exist, for itself only
    let metadata = fs::metadata(path).ok()?;
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let problem = |what: String, fix: &str| {
        Some(ConfigProblem::warning(what, fix).at_path(path).at_key("connector.state_directory"))
    };
    if !metadata.is_dir() {
        return problem("this is not a directory".to_owned(), "name a directory; the agent creates it");
    }
    let user = rustix::process::geteuid().as_raw();
    // root cannot know which user will run the agent
    if owner != 0 && owner != user && user != 0 {
        let what = format!("the directory of the login belongs to user {owner}, not to user {user}");
        return problem(what, "chown it to the agent's user");
    }
    if mode & 0o022 != 0 {
        let what =
            format!("other users can change the files in the directory of the login (mode {mode:04o})");
        return problem(what, "chmod 700 it");
    }
    None
}

fn check_certificates(config: &Config, problems: &mut Vec<ConfigProblem>) {
    problems.extend(config.cloud_tls(Duration::ZERO).err().map(|error| cloud_tls_problem(config, &error)));
    if let Err(error) = tls::gateway::client_config(&config.doip.tls) {
        let fix = "put certificates and key there, as PEM";
        problems.push(ConfigProblem::error(error.to_string(), fix).at_key("doip.tls"));
    }
}

fn cloud_tls_problem(config: &Config, error: &CloudTlsError) -> ConfigProblem {
    let error = match error {
        CloudTlsError::Key(error) => {
            return with_remedy(error).at_path(error.path()).at_key("cloud.client_key_file");
        }
        CloudTlsError::Tls(error) => error,
    };
    let problem = |fix: &str| ConfigProblem::error(error.to_string(), fix);
    let cloud = &config.cloud;
    let (path, key, fix) = match error.path() {
        Some(path) if Some(path) == cloud.client_key_file.as_deref() => {
            (path, "cloud.client_key_file", "put the key there, as PEM (PKCS#8, SEC1 or PKCS#1)")
        }
        Some(path) if Some(path) == cloud.client_certificate_file.as_deref() => {
            let fix = "put the connector's certificate with its chain there, as PEM, and its key into client_key_file";
            (path, "cloud.client_certificate_file", fix)
        }
        Some(path) => (path, "cloud.ca_file", "put the CA's certificate there, as PEM"),
        None => return problem("correct the files that [cloud] names"),
    };
    problem(fix).at_path(path).at_key(key)
}

/// The problem that the bus's device is missing, if so.
fn missing_device(bus: &ConfiguredBus) -> Option<ConfigProblem> {
    let path = device_path(bus)?;
    (!path.exists()).then(|| {
        let what = format!("the device {} does not exist", bus.device);
        ConfigProblem::error(what, "connect it, or correct bus.device").at_path(&path)
    })
}

/// The path by which the existence of the bus's device can be checked. `None` if there is none, or if the
/// device's name is invalid, which `check_device` reports.
fn device_path(bus: &ConfiguredBus) -> Option<PathBuf> {
    match bus.kind {
        BusKind::Can => match bus.device.parse().ok()? {
            CanDevice::SocketCan { interface } => Some(Path::new(INTERFACES).join(interface)),
            CanDevice::Slcan { path, .. } => Some(path.into()),
        },
        BusKind::Kline => kline::device_path(&bus.device).ok().map(PathBuf::from),
        BusKind::Doip => {
            // a gateway's address has no path, and the gateway may come later
            let device: DoipDevice = bus.device.parse().ok()?;
            let name = device.interface().filter(|name| name.parse::<u32>().is_err())?;
            Some(Path::new(INTERFACES).join(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{ApiUrl, WebsocketUrl};

    /// The problem with a state directory of this mode; `None` for a directory that does not exist.
    fn problem_with(mode: Option<u32>) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        if let Some(mode) = mode {
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        exposed_state_directory(&config(&path)).map(|problem| problem.to_string())
    }

    fn config(path: &Path) -> Config {
        let mut config = Config::new(
            "5f3d760d-ade2-4a19-aea4-36e097678ae3".parse().unwrap(),
            ApiUrl::try_from("https://example.com".to_owned()).unwrap(),
            WebsocketUrl::try_from("wss://example.com".to_owned()).unwrap(),
        );
        config.connector.state_directory = Some(path.to_owned());
        config
    }

    #[test]
    fn a_state_directory_that_others_can_write_to_causes_a_warning() {
        for mode in [0o770, 0o702, 0o1777] {
            let problem = problem_with(Some(mode)).unwrap();
            assert!(problem.contains("warning: other users can change the files"), "{problem}");
            assert!(problem.contains("chmod 700"), "{problem}");
        }
        for mode in [Some(0o700), Some(0o755), None] {
            assert_eq!(problem_with(mode), None, "{mode:?}");
        }
    }

    #[test]
    fn a_state_directory_that_cannot_be_created_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let problem =
            |path: &Path| impossible_state_directory(&config(path)).map(|problem| problem.to_string());
        for path in
            [&file.path().join("state"), Path::new("/proc/connector"), Path::new("/sys/kernel/connector")]
        {
            let text = problem(path).unwrap();
            assert!(text.contains("the agent cannot create files here"), "{text}");
        }
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(problem(directory.path()), None);
        assert_eq!(problem(&directory.path().join("a/b")), None);
    }

    #[test]
    fn the_values_of_the_example_are_errors_of_the_check() {
        let example = Config::new(
            EXAMPLE_UUID.parse().unwrap(),
            ApiUrl::try_from("https://api.example.com".to_owned()).unwrap(),
            WebsocketUrl::try_from("wss://ws.example.com/connector".to_owned()).unwrap(),
        );
        let keys = |config: &Config| {
            examples(config).into_iter().filter_map(|problem| problem.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(&example), ["connector.uuid", "cloud.api_url", "cloud.websocket_url"]);
        let text = include_str!("../../../docs/connector-agent.example.toml");
        let packed = Config::parse(text, Path::new("example.toml")).unwrap();
        assert_eq!(keys(&packed), keys(&example), "the example has these values");
        let mut own = config(Path::new("/"));
        own.connector.uuid = "97a00001-0000-4000-8000-000000000001".parse().unwrap();
        assert_eq!(keys(&own), [""; 0]);
    }

    #[test]
    fn a_file_in_the_place_of_the_state_directory_causes_a_warning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let problem = exposed_state_directory(&config(file.path())).unwrap().to_string();
        assert!(problem.contains("this is not a directory"), "{problem}");
    }
}
