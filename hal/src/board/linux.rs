//! The board of a Linux device, by GPIO lines and files.

use std::io;
use std::path::Path;
use std::task::{Context, Poll};

use tokio::sync::watch;

use super::activation::ActivationLine;
use super::check::{self, BoardProblem};
use super::config::{BoardConfig, InputConfig, OutputConfig, Source};
use super::output::{drive_led, drive_switch};
use super::pin::{DigitalInput, DigitalOutput};
use super::traits::{Board, BoardEvent, Led};
use super::voltage::Voltage;

const NETWORK_INTERFACES: &str = "/sys/class/net";

/// The board of a Linux device.
pub struct LinuxBoard {
    voltage: Option<Voltage>,
    ignition: Option<DigitalInput>,
    button: Option<DigitalInput>,
    led: Option<watch::Sender<Led>>,
    buzzer: Option<watch::Sender<bool>>,
    doip_activation: Option<ActivationLine>,
    wifi: Option<bool>,
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
            buzzer: output("buzzer", &config.buzzer).map(switch),
            doip_activation: output("doip_activation", &config.doip_activation).map(|line| {
                let line = switch(line);
                ActivationLine::new(move |on| _ = line.send_replace(on))
            }),
            wifi: config.wifi.or_else(|| has_wireless(Path::new(NETWORK_INTERFACES))),
        }
    }

    /// Checks all parts and returns every problem. Opens files and devices only for the check.
    pub fn check(config: &BoardConfig) -> Vec<BoardProblem> {
        check::check(config)
    }
}

/// Sets this output in the background, as the sender says.
fn switch(output: DigitalOutput) -> watch::Sender<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(drive_switch(output, receiver));
    sender
}

fn present<T>(part: &str, source: &Source, opened: io::Result<T>) -> Option<T> {
    opened
        .inspect_err(
            |error| tracing::warn!(part, path = %check::path(source).display(), %error, "cannot open a part"),
        )
        .ok()
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

impl Board for LinuxBoard {
    /// The voltage at the last reading: about once a second while events are polled.
    fn voltage(&mut self) -> Option<f32> {
        self.voltage.as_ref().and_then(Voltage::last)
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
        if let Some(buzzer) = &self.buzzer {
            buzzer.send_replace(on);
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
        match &mut self.button {
            Some(button) => button.poll_change(cx).map(BoardEvent::Button),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
#[path = "linux_tests.rs"]
mod tests;
