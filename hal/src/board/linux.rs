//! The board of a Linux device, by GPIO lines and files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::activation::ActivationLine;
use super::config::{BoardConfig, InputConfig, OutputConfig, Source, VoltageConfig};
use super::pin::{DigitalInput, DigitalOutput, find_line, read_number};
use super::traits::{Board, BoardEvent, Led};

/// How often the voltage is read. Reading may be slow, so a separate thread reads it. The voltage only
/// decides when to sleep, after a minute by default, so that a second is exact enough.
const VOLTAGE_INTERVAL: Duration = Duration::from_secs(1);
const NETWORK_INTERFACES: &str = "/sys/class/net";

/// The board of a Linux device.
pub struct LinuxBoard {
    voltage: Option<Voltage>,
    ignition: Option<DigitalInput>,
    button: Option<DigitalInput>,
    led: Option<watch::Sender<Led>>,
    buzzer: Option<DigitalOutput>,
    doip_activation: Option<ActivationLine>,
    wifi: Option<bool>,
}

/// A part of the board that does not match the configuration.
#[derive(Debug)]
pub struct BoardProblem {
    /// The part: `voltage`, `ignition`, `button`, `led`, `buzzer` or `doip_activation`.
    pub part: &'static str,
    /// The configured file or device.
    pub path: PathBuf,
    /// The error on opening or reading it.
    pub error: io::Error,
    /// How to solve the problem.
    pub remedy: &'static str,
}

impl fmt::Display for BoardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "board.{}: {}: {}; {}", self.part, self.path.display(), self.error, self.remedy)
    }
}

impl LinuxBoard {
    /// Opens the configured parts, within a tokio runtime. A part that cannot be opened is logged and stays
    /// absent.
    pub fn open(config: &BoardConfig) -> Self {
        let input = |part, config: &Option<InputConfig>| {
            config.as_ref().and_then(|config| present(part, &config.source, DigitalInput::open(config)))
        };
        let output = |part, config: &Option<OutputConfig>| {
            config.as_ref().and_then(|config| present(part, &config.source, DigitalOutput::open(config)))
        };
        Self {
            voltage: config.voltage.clone().map(Voltage::new),
            ignition: input("ignition", &config.ignition),
            button: input("button", &config.button),
            led: output("led", &config.led).map(|led| {
                let (sender, receiver) = watch::channel(Led::Off);
                tokio::spawn(drive_led(led, receiver));
                sender
            }),
            buzzer: output("buzzer", &config.buzzer),
            doip_activation: output("doip_activation", &config.doip_activation)
                .map(|mut line| ActivationLine::new(move |on| line.set(on))),
            wifi: config.wifi.or_else(|| has_wireless(Path::new(NETWORK_INTERFACES))),
        }
    }

    /// Checks all parts and returns every problem. Opens files and devices only for the check.
    pub fn check(config: &BoardConfig) -> Vec<BoardProblem> {
        let mut problems = Vec::new();
        if let Some(voltage) = &config.voltage
            && let Err(error) = read_number(&voltage.file)
        {
            let remedy = "name a readable file of IIO (in_voltage*_raw) or hwmon (in*_input)";
            problems.push(BoardProblem { part: "voltage", path: voltage.file.clone(), error, remedy });
        }
        for (part, input) in [("ignition", &config.ignition), ("button", &config.button)] {
            let source = input.as_ref().map(|input| &input.source);
            problems.extend(
                source.and_then(|source| problem(part, source, |path| read_number(path).map(|_| ()))),
            );
        }
        let outputs =
            [("led", &config.led), ("buzzer", &config.buzzer), ("doip_activation", &config.doip_activation)];
        for (part, output) in outputs {
            let source = output.as_ref().map(|output| &output.source);
            problems.extend(source.and_then(|source| {
                problem(part, source, |path| std::fs::OpenOptions::new().write(true).open(path).map(|_| ()))
            }));
        }
        problems
    }
}

fn present<T>(part: &str, source: &Source, opened: io::Result<T>) -> Option<T> {
    opened
        .inspect_err(
            |error| tracing::warn!(part, path = %path(source).display(), %error, "cannot open a part"),
        )
        .ok()
}

fn path(source: &Source) -> &Path {
    match source {
        Source::Line { chip, .. } => chip,
        Source::File(path) => path,
    }
}

fn problem(
    part: &'static str,
    source: &Source,
    check_file: impl Fn(&Path) -> io::Result<()>,
) -> Option<BoardProblem> {
    let (error, remedy) = match source {
        Source::Line { chip, line } => (
            find_line(chip, line).err()?,
            "name a chip and a line that `gpioinfo` lists, and permit the agent's user to open the chip",
        ),
        Source::File(path) => {
            (check_file(path).err()?, "name an existing file, and permit the agent's user to open it")
        }
    };
    Some(BoardProblem { part, path: path(source).to_owned(), error, remedy })
}

/// Whether one of the interfaces is wireless; `None` if they cannot be listed.
fn has_wireless(interfaces: &Path) -> Option<bool> {
    let interfaces = std::fs::read_dir(interfaces).ok()?;
    Some(
        interfaces.flatten().any(|interface| {
            ["wireless", "phy80211"].iter().any(|mark| interface.path().join(mark).exists())
        }),
    )
}

/// Shows the LED's pattern until the board is dropped, which switches the LED off.
async fn drive_led(mut led: DigitalOutput, mut pattern: watch::Receiver<Led>) {
    loop {
        let current = *pattern.borrow_and_update();
        let changed = match current {
            Led::Off => {
                led.set(false);
                pattern.changed().await
            }
            Led::On => {
                led.set(true);
                pattern.changed().await
            }
            Led::Blink { on, off } => blink(&mut led, &mut pattern, on, off).await,
        };
        if changed.is_err() {
            return;
        }
    }
}

async fn blink(
    led: &mut DigitalOutput,
    pattern: &mut watch::Receiver<Led>,
    on: Duration,
    off: Duration,
) -> Result<(), watch::error::RecvError> {
    // shorter flashes are invisible, and a pattern of zero duration must not spin
    const SHORTEST: Duration = Duration::from_millis(10);
    for (lit, duration) in [(true, on), (false, off)].into_iter().cycle() {
        led.set(lit);
        if let Ok(changed) = tokio::time::timeout(duration.max(SHORTEST), pattern.changed()).await {
            return changed;
        }
    }
    Ok(())
}

/// The supply voltage, read periodically.
struct Voltage {
    config: VoltageConfig,
    interval: Interval,
    reading: Option<JoinHandle<io::Result<f64>>>,
    last: Option<f32>,
    broken: bool,
}

impl Voltage {
    fn new(config: VoltageConfig) -> Self {
        let mut interval = tokio::time::interval(VOLTAGE_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let first = read_number(&config.file);
        let mut voltage = Self { config, interval, reading: None, last: None, broken: false };
        voltage.handle_reading(first);
        voltage
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = reading.poll_unpin(cx) else { return };
                self.reading = None;
                self.handle_reading(read.unwrap_or_else(|error| Err(error.into())));
            }
            if self.interval.poll_tick(cx).is_pending() {
                return;
            }
            let file = self.config.file.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || read_number(&file)));
        }
    }

    fn handle_reading(&mut self, reading: io::Result<f64>) {
        match reading {
            Ok(number) => {
                self.broken = false;
                let volts = (number + self.config.offset.get()) * self.config.scale.get();
                self.last = Some(volts as f32);
            }
            Err(error) => {
                self.last = None;
                if !std::mem::replace(&mut self.broken, true) {
                    let file = self.config.file.display();
                    tracing::warn!(%file, %error, "the supply voltage cannot be read");
                }
            }
        }
    }
}

impl Board for LinuxBoard {
    /// The voltage at the last reading: about once a second while events are polled.
    fn voltage(&mut self) -> Option<f32> {
        self.voltage.as_ref().and_then(|voltage| voltage.last)
    }

    fn ignition(&mut self) -> Option<bool> {
        self.ignition.as_mut().and_then(DigitalInput::read)
    }

    fn has_wifi(&self) -> Option<bool> {
        self.wifi
    }

    fn set_led(&mut self, pattern: Led) {
        if let Some(led) = &self.led {
            led.send_if_modified(|current| std::mem::replace(current, pattern) != pattern);
        }
    }

    fn set_buzzer(&mut self, on: bool) {
        if let Some(buzzer) = &mut self.buzzer {
            buzzer.set(on);
        }
    }

    fn doip_activation(&self) -> Option<ActivationLine> {
        self.doip_activation.clone()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<BoardEvent> {
        if let Some(voltage) = &mut self.voltage {
            voltage.poll(cx);
        }
        if let Some(Poll::Ready(on)) = self.ignition.as_mut().map(|ignition| ignition.poll_change(cx)) {
            return Poll::Ready(BoardEvent::Ignition(on));
        }
        while let Some(Poll::Ready(pressed)) = self.button.as_mut().map(|button| button.poll_change(cx)) {
            if pressed == Some(true) {
                return Poll::Ready(BoardEvent::Button);
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
#[path = "linux_tests.rs"]
mod tests;
