//! `run`: the agent, from its configuration to its end, with the process's signals.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use connector_hal::board::{Board, LinuxBoard};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::CONFIG_STATUS;
use super::logging::{self, LogLevel};
use crate::agent::{self, Control, Setup};
use crate::cli::core_dump::disable_core_dumps;
use crate::cloud::login::KeptLogin;
use crate::config::{Config, LogFormat, Severity};
use crate::tls;
use crate::vehicle::hardware::Hardware;

pub(super) async fn run(path: &Path, format: Option<LogFormat>) -> anyhow::Result<ExitCode> {
    if let Err(error) = disable_core_dumps() {
        eprintln!("connector-agent: warning: core dumps could not be switched off: {error}");
    }
    // a large page, for the few kilobytes of a thread's stack, would nearly double what is resident; where the kernel has
    // none, nothing is lost
    let _has_none = rustix::thread::disable_transparent_huge_pages(true);
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return Ok(ExitCode::from(CONFIG_STATUS));
        }
    };
    let level = logging::init(&config.log.level, format.unwrap_or(config.log.format))?;
    let mut signals = Signals::new().context("signals cannot be waited for")?;
    loop {
        let Some(setup) = set_up(&config) else { return Ok(ExitCode::from(CONFIG_STATUS)) };
        tracing::info!(
            uuid = %config.connector.uuid,
            buses = config.buses.len(),
            "connector-agent {} starts",
            env!("CARGO_PKG_VERSION")
        );
        let (commands, mut control) = mpsc::channel(1);
        let agent = async {
            let ended = agent::run(setup, &mut control).await;
            // lets the signals know
            drop(control);
            ended
        };
        let (ended, next) = tokio::join!(agent, signals.watch(path, &config, &level, commands));
        match ended.context("the agent could not be started")? {
            Control::Shutdown => {
                tracing::info!("connector-agent ended");
                return Ok(ExitCode::SUCCESS);
            }
            Control::Restart => config = next.unwrap_or(config),
        }
    }
}

/// Everything that the configuration names, opened; what is wrong is logged.
fn set_up(config: &Config) -> Option<Setup> {
    for problem in config.check() {
        match problem.severity {
            // a device that is not there may yet come
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }
    let pincode = config.pincode().ok()?;
    let mut config = config.clone();
    config.resolve_state_directory(|name| std::env::var_os(name));
    // what is wrong with it is said by the login
    let kept = KeptLogin::new(&config).and_then(|login| login.load().ok().flatten());
    let known_time = Duration::from_secs(kept.map_or(0, |kept| kept.known_time));
    let tls = tls::client_config_after(config.cloud.ca_file.as_deref(), known_time).ok()?;
    let board: Box<dyn Board> = Box::new(LinuxBoard::open(&config.board));
    Some(Setup {
        pincode,
        hardware: Hardware {
            kline_ports: config.kline_ports().into(),
            terminal15: config.terminal15_pin(),
            ..Hardware::new(config.can_ports())
        }
        .with_doip(config.doip_ports(), config.doip.clone(), board.doip_activation()),
        board,
        tls,
        seed: fastrand::u64(..),
        config,
    })
}

/// The signals that the process acts on.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Passes signals on to the agent until it ends; gives the configuration to begin anew with.
    ///
    /// On SIGHUP the file is read again: its log level counts at once, the rest as soon as no connection is open. A
    /// file that cannot be used changes nothing.
    async fn watch(
        &mut self,
        path: &Path,
        current: &Config,
        level: &LogLevel,
        commands: mpsc::Sender<Control>,
    ) -> Option<Config> {
        let mut next = None;
        loop {
            let command = tokio::select! {
                _ = self.terminate.recv() => Control::Shutdown,
                _ = self.interrupt.recv() => Control::Shutdown,
                _ = self.hang_up.recv() => match reload(path, level) {
                    Some(config) if config == *current => {
                        tracing::info!("the configuration is as it was");
                        continue;
                    }
                    Some(config) => {
                        tracing::info!("the configuration has changed; it counts as soon as no connection is open");
                        next = Some(config);
                        Control::Restart
                    }
                    None => continue,
                },
                () = commands.closed() => return next,
            };
            if commands.send(command).await.is_err() {
                return next;
            }
        }
    }
}

fn reload(path: &Path, level: &LogLevel) -> Option<Config> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("the configuration is not taken over:\n{error}");
            return None;
        }
    };
    if let Err(error) = level.set(&config.log.level) {
        tracing::error!("{error:#}");
    }
    Some(config)
}
