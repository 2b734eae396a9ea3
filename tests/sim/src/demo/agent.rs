//! The agent as a separate process: this program with a hidden subcommand, or another binary.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::print_error_line;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Limit for the agent to exit: the two seconds that it promises, and one for a busy machine.
const END: Duration = Duration::from_secs(3);
/// The number of log lines that a failed demo shows.
const LOG_LINES: usize = 25;

/// The hidden subcommand: `connector-agent`'s own command line. The process ends with the demo that started
/// it.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
        print_error_line!("the agent will keep running if the demo is killed: {error}");
    }
    connector_agent::cli::run(std::iter::once(OsString::from("connector-agent")).chain(arguments))
}

/// The agent's process. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Agent {
    child: Child,
    log: Option<PathBuf>,
    pub(super) started: Instant,
}

impl Agent {
    /// Starts `command`, or by default the agent that is built into this program, with this configuration.
    /// Without `show_log`, the agent's log goes to a file in `directory`.
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
            // the demo handles Ctrl-C, and ends the agent in good order
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("the agent cannot be started")?;
        Ok(Self { child, log, started: Instant::now() })
    }

    /// The process id.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the agent exits, which it should not do before [`Agent::end`].
    pub(super) async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().await.context("the agent cannot be waited for")
    }

    /// The agent's private memory in bytes. It excludes the program's file, which contains the simulators
    /// here.
    pub(super) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }

    /// Ends the agent by SIGTERM. Returns its status and the time that it took; `None` if it had to be
    /// killed.
    pub(super) async fn end(&mut self) -> Option<(ExitStatus, Duration)> {
        let start = Instant::now();
        let pid = self.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            tracing::debug!(%error, "cannot send SIGTERM to the agent");
        }
        if let Ok(Ok(status)) = tokio::time::timeout(END, self.child.wait()).await {
            return Some((status, start.elapsed()));
        }
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "the agent could not be killed");
        }
        None
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> Option<String> {
        let log = std::fs::read(self.log.as_ref()?).ok()?;
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        Some(lines.get(lines.len().saturating_sub(LOG_LINES)..)?.join("\n"))
    }
}
