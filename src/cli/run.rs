//! `run`: runs the agent, reloads its configuration, and handles the process's signals.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use connector_hal::board::{Board, LinuxBoard};
use connector_hal::clock::now;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::core_dump::disable_core_dumps;
use super::exit_status::CONFIG_STATUS;
use super::logging::{self, LogLevel};
use crate::agent::{self, Control, Notifier, Setup};
use crate::cloud::dial::Dialer;
use crate::cloud::login::LoginStore;
use crate::config::{Config, LogFormat, Severity};
use crate::print_error_line;
use crate::vehicle::hardware::Hardware;

/// The pause before the files of a configuration that cannot be used are tried again: replacing them takes seconds.
const RETRY: Duration = Duration::from_secs(10);

pub(super) async fn run(path: &Path, format: Option<LogFormat>) -> anyhow::Result<ExitCode> {
    if let Err(error) = disable_core_dumps() {
        print_error_line!("connector-agent: warning: cannot disable core dumps: {error}");
    }
    // One huge page, for the few kilobytes of a thread's stack, would nearly double the resident memory. The
    // call fails harmlessly on a kernel without huge pages.
    let _no_huge_pages = rustix::thread::disable_transparent_huge_pages(true);
    let mut config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            print_error_line!("{error}");
            return Ok(ExitCode::from(CONFIG_STATUS));
        }
    };
    let level = logging::init(&config.log.level, format.unwrap_or(config.log.format))?;
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let Some(mut setup) = set_up(&config) else { return Ok(ExitCode::from(CONFIG_STATUS)) };
    loop {
        tracing::info!(
            uuid = %config.connector.uuid,
            buses = config.buses.len(),
            "connector-agent {} starts",
            env!("CARGO_PKG_VERSION")
        );
        let (commands, mut control) = mpsc::channel(1);
        let agent = async {
            let ended = agent::run(setup, &mut control).await;
            // ends the wait for signals
            drop(control);
            ended
        };
        let (ended, next) = tokio::join!(agent, signals.watch(path, &config, &level, commands));
        match ended.context("cannot start the agent")? {
            Control::Shutdown => {
                tracing::info!("connector-agent ended");
                return Ok(ExitCode::SUCCESS);
            }
            Control::Restart => config = next.unwrap_or(config),
        }
        let Some(again) = set_up_again(&mut config, path, &level, &mut signals).await else {
            tracing::info!("connector-agent ended");
            return Ok(ExitCode::SUCCESS);
        };
        setup = again;
    }
}

/// Sets up the agent again, and tries until the files can be used: they may be about to be replaced, and an agent that
/// ended now would not be started again. Returns `None` if the process is asked to end meanwhile.
async fn set_up_again(
    config: &mut Config,
    path: &Path,
    level: &LogLevel,
    signals: &mut Signals,
) -> Option<Setup> {
    let mut notifier = Notifier::from_environment(now());
    loop {
        if let Some(setup) = set_up(config) {
            return Some(setup);
        }
        tracing::error!(
            "a file that the configuration names cannot be used now; trying again in {} s",
            RETRY.as_secs()
        );
        notifier.report_unusable();
        tokio::select! {
            _ = signals.terminate.recv() => return None,
            _ = signals.interrupt.recv() => return None,
            _ = signals.hang_up.recv() => *config = reload(path, level).unwrap_or_else(|| config.clone()),
            () = wait_watched(&mut notifier, now() + RETRY) => {}
        }
    }
}

/// Waits, and reports to the watchdog meanwhile.
async fn wait_watched(notifier: &mut Notifier, until: Instant) {
    while now() < until {
        notifier.handle_timeout(now());
        let next = notifier.poll_timeout().map_or(until, |due| due.min(until));
        tokio::time::sleep_until(next.into()).await;
    }
}

/// Opens everything that the configuration names, and logs every problem.
fn set_up(config: &Config) -> Option<Setup> {
    let mut config = config.clone();
    config.resolve_state_directory(|name| std::env::var_os(name));
    for problem in config.check() {
        match problem.severity {
            // not fatal: a missing device may come later
            Severity::Error => tracing::error!("{problem}"),
            Severity::Warning => tracing::warn!("{problem}"),
        }
    }
    let pincode = config.pincode().ok()?;
    let proxy = config.proxy().ok()?;
    // the login task logs problems with the store
    let stored = LoginStore::new(&config).and_then(|store| store.load().ok().flatten());
    let known_time = Duration::from_secs(stored.map_or(0, |login| login.known_time));
    let tls = config.cloud_tls(known_time).ok()?;
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
        dialer: Dialer::new(tls).with_proxy(proxy),
        seed: fastrand::u64(..),
        config,
    })
}

/// The signals that the process handles.
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

    /// Passes signals on to the agent until the agent ends. Returns the configuration for the next start, if
    /// it has changed.
    ///
    /// SIGHUP reads the file again, and looks whether a file for the cloud that it names has changed. The log level
    /// counts immediately, the rest as soon as no connection is open. A file with errors changes nothing.
    async fn watch(
        &mut self,
        path: &Path,
        current: &Config,
        level: &LogLevel,
        commands: mpsc::Sender<Control>,
    ) -> Option<Config> {
        let mut next = None;
        let files = current.cloud_files();
        loop {
            let command = tokio::select! {
                _ = self.terminate.recv() => Control::Shutdown,
                _ = self.interrupt.recv() => Control::Shutdown,
                _ = self.hang_up.recv() => match reload(path, level) {
                    Some(config) if config == *current && config.cloud_files() == files => {
                        tracing::info!("the configuration has not changed");
                        continue;
                    }
                    Some(config) => {
                        tracing::info!("the configuration has changed, or a file that it names; it takes effect as soon as no connection is open");
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
            tracing::error!("cannot use the new configuration");
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            return None;
        }
    };
    if !has_usable_files(&config) {
        tracing::error!("cannot use the new configuration");
        return None;
    }
    if let Err(error) = level.set(&config.log.level) {
        tracing::error!("{error:#}");
    }
    Some(config)
}

/// Whether the agent could start with the files that the configuration names for the cloud; logs the problems.
fn has_usable_files(config: &Config) -> bool {
    let is_usable =
        config.pincode().is_ok() && config.proxy().is_ok() && config.cloud_tls(Duration::ZERO).is_ok();
    if !is_usable {
        let problems = config.check().into_iter().filter(|problem| problem.severity == Severity::Error);
        problems.for_each(|problem| tracing::error!("{problem}"));
    }
    is_usable
}
