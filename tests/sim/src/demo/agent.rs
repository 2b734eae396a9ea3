//! The agent as a process of its own: this program again, with a hidden subcommand, or another.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long the agent may take to end: its promise, and a little for a busy machine.
const END: Duration = Duration::from_secs(3);
/// How many lines of its log are shown when something went wrong.
const LOG_LINES: usize = 25;

/// The hidden subcommand: `connector-agent`'s own command line, which ends with the process that started it.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        eprintln!("the agent will not notice if the demo is killed: {error}");
    }
    connector_agent::cli::run(std::iter::once(OsString::from("connector-agent")).chain(arguments))
}

/// The agent's process; dropped, it is killed.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
    log: Option<PathBuf>,
    pub(super) started: Instant,
}

impl Agent {
    /// Starts `command`, or this program's own agent where there is none, with this configuration; without
    /// `show_log`, its log goes to a file in `directory`.
    pub(super) fn start(
        command: Option<&str>,
        config: &Path,
        directory: &Path,
        show_log: bool,
    ) -> anyhow::Result<Self> {
        let mut command = match command {
            Some(command) => {
                let mut words = command.split_whitespace();
                let mut command = Command::new(words.next().context("the agent's command is empty")?);
                command.args(words);
                command
            }
            None => {
                let mut own =
                    Command::new(std::env::current_exe().context("this program cannot be started again")?);
                own.arg("agent");
                own
            }
        };
        let log = (!show_log).then(|| directory.join("agent.log"));
        let stderr = match &log {
            Some(path) => std::fs::File::create(path).context("the agent's log cannot be written")?.into(),
            None => Stdio::inherit(),
        };
        let child = command
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            // Ctrl-C is for the demo, which ends the agent in good order
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("the agent cannot be started")?;
        Ok(Self { child, log, started: Instant::now() })
    }

    /// Its process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends by itself, which it should not.
    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().await.context("the agent cannot be waited for")
    }

    /// The memory that it has of its own, in bytes: not the program's file, of which the simulators are a part here.
    pub(super) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }

    /// Ends it by SIGTERM: its status and how long it took; `None` if it had to be killed.
    pub(super) async fn end(&mut self) -> Option<(ExitStatus, Duration)> {
        let start = Instant::now();
        let pid = self.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            tracing::debug!(%error, "the agent gets no SIGTERM");
        }
        if let Ok(Ok(status)) = tokio::time::timeout(END, self.child.wait()).await {
            return Some((status, start.elapsed()));
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the agent could not be killed");
        }
        None
    }

    /// The end of its log.
    pub(super) fn log_tail(&self) -> Option<String> {
        let log = std::fs::read(self.log.as_ref()?).ok()?;
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        Some(lines.get(lines.len().saturating_sub(LOG_LINES)..)?.join("\n"))
    }
}
