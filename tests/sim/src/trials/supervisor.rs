//! Restarts the agent whenever it exits, as systemd does on a device (`Restart=always`).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::patience::patiently;

/// systemd's default for `RestartSec`.
const RESTART_AFTER: Duration = Duration::from_millis(100);
/// Limit of the log lines that are kept.
const LOG_LINES: usize = 4000;
/// The number of log lines that a failed trial shows.
const SHOWN_LINES: usize = 40;

/// The agent, kept running.
pub(super) struct Supervisor {
    shared: Arc<SupervisorState>,
    task: JoinHandle<()>,
}

struct SupervisorState {
    /// The number of starts, and the agent's process while it runs.
    running: watch::Sender<(u64, Option<Pid>)>,
    /// The number of log lines so far.
    lines: watch::Sender<u64>,
    log: Mutex<VecDeque<String>>,
    /// The exits that were not caused by a trial.
    unexpected: Mutex<Vec<ExitStatus>>,
}

/// A position in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogMark(u64);

impl Supervisor {
    /// Starts the agent.
    pub(super) fn start(command: Vec<OsString>) -> Self {
        let shared = Arc::new(SupervisorState {
            running: watch::Sender::new((0, None)),
            lines: watch::Sender::new(0),
            log: Mutex::default(),
            unexpected: Mutex::default(),
        });
        let task = tokio::spawn(supervise(command, shared.clone()));
        Self { shared, task }
    }

    /// The number of starts.
    pub(super) fn starts(&self) -> u64 {
        self.shared.running.borrow().0
    }

    /// Waits until the agent runs, and returns its process.
    pub(super) async fn pid(&self) -> anyhow::Result<Pid> {
        let mut running = self.shared.running.subscribe();
        let started = running.wait_for(|(_, pid)| pid.is_some());
        patiently("the agent is not started", async { started.await?.1.context("the agent is not running") })
            .await
    }

    /// Kills the agent by SIGKILL, and waits until it has been restarted.
    pub(super) async fn kill(&self) -> anyhow::Result<()> {
        let starts = self.starts();
        rustix::process::kill_process(self.pid().await?, Signal::KILL)
            .context("the agent cannot be killed")?;
        let mut running = self.shared.running.subscribe();
        let again = running.wait_for(|(count, _)| *count > starts);
        patiently("the agent is not restarted", async { Ok(again.await.map(drop)?) }).await
    }

    /// The current end of the log.
    pub(super) fn mark(&self) -> LogMark {
        LogMark(*self.shared.lines.borrow())
    }

    /// Waits until the agent has logged `text` after `mark`.
    pub(super) async fn logged(&self, mark: LogMark, text: &str) -> anyhow::Result<()> {
        patiently(&format!("the agent does not log `{text}`"), self.find_in_log(mark, text)).await
    }

    async fn find_in_log(&self, mark: LogMark, text: &str) -> anyhow::Result<()> {
        let mut lines = self.shared.lines.subscribe();
        loop {
            let count = *lines.borrow_and_update();
            let is_there = {
                let log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
                let new = usize::try_from(count.saturating_sub(mark.0)).unwrap_or(usize::MAX);
                log.iter().rev().take(new).any(|line| line.contains(text))
            };
            if is_there {
                return Ok(());
            }
            lines.changed().await.context("the supervisor has stopped")?;
        }
    }

    /// Returns an error if the agent has ever exited without being killed.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let unexpected = self.shared.unexpected.lock().unwrap_or_else(PoisonError::into_inner);
        match unexpected.as_slice() {
            [] => Ok(()),
            [first, ..] => anyhow::bail!("the agent exited by itself {} times: {first}", unexpected.len()),
        }
    }

    /// The last lines of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = self.shared.log.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = log.len().saturating_sub(SHOWN_LINES);
        log.iter().skip(skipped).fold(String::new(), |text, line| text + line + "\n")
    }

    /// Stops the supervisor, and kills the agent.
    pub(super) async fn stop(self) {
        self.task.abort();
        let _aborted = self.task.await;
        let pid = self.shared.running.borrow().1;
        if let Some(pid) = pid {
            let _gone_already = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

async fn supervise(command: Vec<OsString>, shared: Arc<SupervisorState>) {
    loop {
        match start(&command) {
            Ok(child) => collect_log(child, &shared).await,
            Err(error) => push_line(&shared, format!("the agent cannot be started: {error:#}")),
        }
        tokio::time::sleep(RESTART_AFTER).await;
    }
}

fn start(command: &[OsString]) -> anyhow::Result<Child> {
    let (program, arguments) = command.split_first().context("no command")?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("the agent")
}

/// Collects the agent's log until the agent exits.
async fn collect_log(mut child: Child, shared: &SupervisorState) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    shared.running.send_modify(|(starts, running)| (*starts, *running) = (*starts + 1, pid));
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            push_line(shared, line);
        }
    }
    let status = child.wait().await;
    shared.running.send_modify(|(_, running)| *running = None);
    if let Ok(status) = status
        && status.signal() != Some(Signal::KILL.as_raw())
    {
        push_line(shared, format!("the agent exited by itself: {status}"));
        shared.unexpected.lock().unwrap_or_else(PoisonError::into_inner).push(status);
    }
}

fn push_line(shared: &SupervisorState, line: String) {
    let mut log = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.len() == LOG_LINES {
        log.pop_front();
    }
    log.push_back(line);
    drop(log);
    shared.lines.send_modify(|count| *count += 1);
}
