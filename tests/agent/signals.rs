//! The agent's program, and the signals that its process receives.

use std::path::PathBuf;
use std::process::Stdio;

use connector_operator::client::{CloseReason, Connection, LinkState};
use connector_test_support::agent::{Connector, Sandbox, closed};
use connector_test_support::soon;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::UnixDatagram;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc;

/// The program, online with a sandbox cloud.
struct Rig {
    sandbox: Sandbox,
    connector: Connector,
    directory: tempfile::TempDir,
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
}

impl Rig {
    /// The program with this log level.
    async fn start(level: &str) -> Self {
        Self::start_with(level, &[]).await
    }

    /// The program with this log level and these variables.
    async fn start_with(level: &str, variables: &[(&str, &str)]) -> Self {
        let sandbox = Sandbox::start(1).await;
        let connector = sandbox.connectors[0].clone();
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_connector-agent"));
        command.arg("run").arg("--config").arg(directory.path().join("agent.toml"));
        command.env("CONNECTOR_PINCODE", &connector.pincode).env_remove("RUST_LOG");
        command.env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET").envs(variables.iter().copied());
        std::fs::write(directory.path().join("agent.toml"), config(&sandbox, &connector, level, 1)).unwrap();
        let mut process =
            command.kill_on_drop(true).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap()).lines();
        sandbox.portal(&connector).await.sees_online().await;
        Self { sandbox, connector, directory, process, log }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    /// The configuration file with this log level and this version of the hardware.
    fn config(&self, level: &str, hardware_version: u32) -> String {
        config(&self.sandbox, &self.connector, level, hardware_version)
    }

    /// Replaces the configuration file, and sends SIGHUP.
    fn reload(&self, text: &str) {
        std::fs::write(self.file(), text).unwrap();
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Reads the log up to the next line with this text.
    async fn logs(&mut self, text: &str) {
        let line = async {
            while let Some(line) = self.log.next_line().await.unwrap() {
                if line.contains(text) {
                    return;
                }
            }
            panic!("the process ended without logging {text:?}");
        };
        soon(text, line).await;
    }

    /// The hardware's version that the agent has reported to the cloud.
    async fn reported_version(&self) -> u64 {
        self.sandbox.record(&self.connector).await["hardware_version"].as_u64().unwrap()
    }

    async fn connect(&self) -> (String, Connection) {
        let ticket = self.sandbox.ticket(&self.connector, None).await;
        let connection = self.sandbox.operator.connect(ticket.connection().unwrap());
        (ticket.id.clone(), soon("the connection", connection).await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_becomes_unusable_before_a_restart_does_not_end_the_agent() {
    let directory = tempfile::tempdir().unwrap();
    let manager_path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&manager_path).unwrap();
    let variables = [("NOTIFY_SOCKET", manager_path.to_str().unwrap()), ("WATCHDOG_USEC", "1000000")];
    let (sender, mut reports) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut bytes = [0; 256];
        while let Ok(len) = manager.recv(&mut bytes).await {
            if sender.send(bytes[..len].to_vec()).is_err() {
                return;
            }
        }
    });
    let mut rig = Rig::start_with("info", &variables).await;
    let (ticket, _connection) = rig.connect().await;
    let authorities = rig.directory.path().join("ca.pem");
    let certificate = std::fs::read(&rig.sandbox.cloud.ca_file).unwrap();
    std::fs::write(&authorities, &certificate).unwrap();
    let original = rig.sandbox.cloud.ca_file.display().to_string();
    rig.reload(&rig.config("info", 2).replace(&original, authorities.to_str().unwrap()));
    rig.logs("the configuration has changed").await;
    std::fs::write(&authorities, "being replaced").unwrap();
    rig.sandbox.operator.complete(&ticket).await.unwrap();
    rig.logs("cannot be used now").await;
    let mut alive = None;
    while alive.is_none_or(|count| count < 3) {
        // otherwise the service manager would kill the process, and a new one ends with status 78
        let report = soon("a report to the service manager", reports.recv()).await.unwrap();
        match (&mut alive, report.as_slice()) {
            (None, b"STATUS=a file that the configuration names cannot be used") => alive = Some(0),
            (Some(count), b"WATCHDOG=1") => *count += 1,
            _ => {}
        }
    }
    std::fs::write(&authorities, &certificate).unwrap();
    rig.signal(Signal::HUP);
    rig.logs(" starts").await;
    let is_new = async { while rig.reported_version().await != 2 {} };
    soon("the new configuration", is_new).await;
}

fn config(sandbox: &Sandbox, connector: &Connector, level: &str, hardware_version: u32) -> String {
    let (uuid, cloud) = (connector.uuid, &sandbox.cloud);
    let (address, ca_file) = (cloud.address, cloud.ca_file.display());
    format!(
        "[connector]\nuuid = \"{uuid}\"\nhardware_version = {hardware_version}\n\
         [cloud]\napi_url = \"https://{address}\"\nwebsocket_url = \"wss://{address}/sandbox/ws\"\n\
         ca_file = \"{ca_file}\"\n[log]\nlevel = \"{level}\"\n"
    )
}

/// Asks the agent something on the connection, which must be open.
async fn is_open(connection: &Connection) {
    soon("an answer", connection.identify_vehicle()).await.unwrap();
    assert_eq!(*connection.state().borrow(), LinkState::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_changes_the_log_level_immediately_and_the_rest_after_the_connection() {
    let mut rig = Rig::start("error").await;
    let (ticket, connection) = rig.connect().await;
    rig.reload(&rig.config("info", 2));
    // a message of the level INFO
    rig.logs("the configuration has changed").await;
    is_open(&connection).await;
    assert_eq!(rig.reported_version().await, 1);
    rig.sandbox.operator.complete(&ticket).await.unwrap();
    assert_eq!(closed(&connection).await, CloseReason::Remote("closed".to_owned()));
    rig.logs("connection closed").await;
    rig.logs(" starts").await;
    let is_new = async { while rig.reported_version().await != 2 {} };
    soon("the new configuration", is_new).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_sighup_a_file_that_cannot_be_used_changes_nothing() {
    let mut rig = Rig::start("info").await;
    rig.logs(" starts").await;
    let (ticket, connection) = rig.connect().await;
    let config = rig.config("info", 1);
    let missing = config.replace("ca_file = \"", "ca_file = \"/missing");
    for unusable in [config.replace("wss://", "ftp://"), config.replace("level", "="), missing] {
        rig.reload(&unusable);
        rig.logs("cannot use the new configuration").await;
        is_open(&connection).await;
    }
    rig.reload(&config);
    rig.logs("the configuration has not changed").await;
    is_open(&connection).await;
    // nothing waits for the end of the connection either
    rig.sandbox.operator.complete(&ticket).await.unwrap();
    assert_eq!(closed(&connection).await, CloseReason::Remote("closed".to_owned()));
    rig.logs("connection closed").await;
    let (_, connection) = rig.connect().await;
    is_open(&connection).await;
    rig.signal(Signal::TERM);
    let mut rest = Vec::new();
    while let Some(line) = soon("the end of the log", rig.log.next_line()).await.unwrap() {
        rest.push(line);
    }
    assert!(!rest.iter().any(|line| line.contains(" starts")), "{rest:#?}");
    assert!(soon("the end", rig.process.wait()).await.unwrap().success());
}
