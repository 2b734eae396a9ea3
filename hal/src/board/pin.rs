//! Digital inputs and outputs: GPIO lines and files.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use gpiocdev::Request;
use gpiocdev::line::{EdgeDetection, Offset, Value};
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior};

use super::config::{GpioLine, InputConfig, OutputConfig, Source};
use crate::system::async_fd;

/// How often the file of an input is read, because the kernel does not signal its changes. The value is a
/// compromise: each read wakes the processor, and a person who switches the ignition should not notice the
/// delay.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// The greatest length of a number in a file, in bytes: more than any 64-bit number needs.
const MAX_NUMBER_LEN: u64 = 64;
/// The name of a line's user in `gpioinfo`.
const CONSUMER: &str = "connector-agent";

/// A digital input that reports its changes.
pub(super) struct DigitalInput {
    source: Arc<LevelSource>,
    trigger: Trigger,
    active_low: bool,
    /// A reading for [`DigitalInput::poll_change`].
    reading: Option<JoinHandle<io::Result<bool>>>,
    last: Option<bool>,
    broken: bool,
}

/// Reads the level. This may block: a GPIO expander may be behind a stuck bus.
enum LevelSource {
    Line { request: Request, offset: Offset },
    File(PathBuf),
}

impl LevelSource {
    fn read(&self) -> io::Result<bool> {
        match self {
            Self::Line { request, offset } => {
                request.value(*offset).map(|value| value == Value::Active).map_err(io::Error::other)
            }
            Self::File(path) => read_level(path),
        }
    }
}

/// When to read the level again.
enum Trigger {
    /// A duplicate of the request's descriptor, to wait for events.
    Edges(AsyncFd<OwnedFd>),
    Interval(Interval),
}

impl Trigger {
    fn poll(&mut self, cx: &mut Context<'_>, source: &LevelSource) -> Poll<()> {
        match self {
            Self::Edges(events) => {
                let Poll::Ready(Ok(mut guard)) = events.poll_read_ready(cx) else { return Poll::Pending };
                // the level is read afterwards, so missed or duplicate events are harmless
                if let LevelSource::Line { request, .. } = source {
                    while matches!(request.has_edge_event(), Ok(true)) && request.read_edge_event().is_ok() {}
                }
                guard.clear_ready();
                Poll::Ready(())
            }
            Self::Interval(interval) => interval.poll_tick(cx).map(|_| ()),
        }
    }
}

impl DigitalInput {
    /// Opens the input, within a tokio runtime.
    pub(super) fn open(config: &InputConfig) -> io::Result<Self> {
        let (source, trigger) = match &config.source {
            Source::Line { chip, line } => {
                let offset = find_line(chip, line)?;
                let mut builder = Request::builder();
                builder
                    .on_chip(chip)
                    .with_consumer(CONSUMER)
                    .with_line(offset)
                    .as_input()
                    .with_edge_detection(EdgeDetection::BothEdges)
                    .with_debounce_period(Duration::from_millis(config.debounce_ms.into()));
                let request = builder.request().map_err(io::Error::other)?;
                let descriptor = request.as_fd().try_clone_to_owned()?;
                rustix::io::ioctl_fionbio(&descriptor, true)?;
                let edges = async_fd(descriptor, Interest::READABLE)?;
                (LevelSource::Line { request, offset }, Trigger::Edges(edges))
            }
            Source::File(path) => {
                read_level(path)?;
                let mut interval = tokio::time::interval(SAMPLE_INTERVAL);
                interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
                (LevelSource::File(path.clone()), Trigger::Interval(interval))
            }
        };
        let (source, active_low) = (Arc::new(source), config.active_low);
        let mut input = Self { source, trigger, active_low, reading: None, last: None, broken: false };
        input.last = input.read();
        Ok(input)
    }

    /// Whether the input is on; `None` if it cannot be read. This reads the input, and may block.
    pub(super) fn read(&mut self) -> Option<bool> {
        let level = self.source.read();
        self.handle_reading(level)
    }

    /// The new state after a change. A separate thread reads the input.
    pub(super) fn poll_change(&mut self, cx: &mut Context<'_>) -> Poll<Option<bool>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let Poll::Ready(read) = reading.poll_unpin(cx) else { return Poll::Pending };
                self.reading = None;
                let now = self.handle_reading(read.unwrap_or_else(|error| Err(error.into())));
                if now != self.last {
                    self.last = now;
                    return Poll::Ready(now);
                }
            }
            if self.trigger.poll(cx, &self.source).is_pending() {
                return Poll::Pending;
            }
            let source = self.source.clone();
            self.reading = Some(tokio::task::spawn_blocking(move || source.read()));
        }
    }

    fn handle_reading(&mut self, level: io::Result<bool>) -> Option<bool> {
        match level {
            Ok(level) => {
                self.broken = false;
                Some(level != self.active_low)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::warn!(%error, "an input of the board cannot be read");
                }
                None
            }
        }
    }
}

/// A digital output. Dropping switches it off. Setting it may block: see [`super::output`].
pub(super) struct DigitalOutput {
    writer: LevelWriter,
    active_low: bool,
    broken: bool,
}

enum LevelWriter {
    Line { request: Request, offset: Offset },
    File { path: PathBuf, on: String },
}

impl DigitalOutput {
    /// Opens the output and switches it off.
    pub(super) fn open(config: &OutputConfig) -> io::Result<Self> {
        let writer = match &config.source {
            Source::Line { chip, line } => {
                let offset = find_line(chip, line)?;
                let off = if config.active_low { Value::Active } else { Value::Inactive };
                let mut builder = Request::builder();
                builder.on_chip(chip).with_consumer(CONSUMER).with_line(offset).as_output(off);
                LevelWriter::Line { request: builder.request().map_err(io::Error::other)?, offset }
            }
            Source::File(path) => LevelWriter::File { path: path.clone(), on: value_for_on(path) },
        };
        let mut output = Self { writer, active_low: config.active_low, broken: false };
        output.write(false)?;
        Ok(output)
    }

    pub(super) fn set(&mut self, on: bool) {
        match self.write(on) {
            Ok(()) => self.broken = false,
            Err(error) => {
                if !std::mem::replace(&mut self.broken, true) {
                    tracing::warn!(%error, "an output of the board cannot be set");
                }
            }
        }
    }

    fn write(&mut self, on: bool) -> io::Result<()> {
        let level = on != self.active_low;
        match &self.writer {
            LevelWriter::Line { request, offset } => {
                let value = if level { Value::Active } else { Value::Inactive };
                request.set_value(*offset, value).map(|_| ()).map_err(io::Error::other)
            }
            // a missing file is not created
            LevelWriter::File { path, on } => {
                let text = if level { on.as_str() } else { "0" };
                let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path)?;
                io::Write::write_all(&mut file, text.as_bytes())
            }
        }
    }
}

impl Drop for DigitalOutput {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// The number of a line; an error if the chip or the line does not exist.
pub(super) fn find_line(chip: &Path, line: &GpioLine) -> io::Result<Offset> {
    let chip = gpiocdev::chip::Chip::from_path(chip).map_err(io::Error::other)?;
    let lines = chip.info().map_err(io::Error::other)?.num_lines;
    let missing = |what: String| io::Error::new(io::ErrorKind::NotFound, what);
    match line {
        GpioLine::Offset(offset) if *offset < lines => Ok(*offset),
        GpioLine::Offset(offset) => {
            Err(missing(format!("the chip has no line {offset}, only 0 to {}", lines.max(1) - 1)))
        }
        GpioLine::Name(name) => chip
            .find_line_info(name)
            .map(|info| info.offset)
            .ok_or_else(|| missing(format!("the chip has no line called {name}"))),
    }
}

/// The number in a file; an error if the file does not contain a number.
pub(super) fn read_number(path: &Path) -> io::Result<f64> {
    let mut text = String::new();
    // a device may have no end
    fs::File::open(path)?.take(MAX_NUMBER_LEN).read_to_string(&mut text)?;
    let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file does not contain a number"))
}

fn read_level(path: &Path) -> io::Result<bool> {
    Ok(read_number(path)? != 0.0)
}

/// The value that switches a file on: the maximum brightness of an LED, or 1.
fn value_for_on(path: &Path) -> String {
    let beside = path.with_file_name("max_brightness");
    let brightness = fs::read_to_string(beside).ok().map(|text| text.trim().to_owned());
    brightness
        .filter(|text| text.parse::<u32>().is_ok_and(|value| value > 0))
        .unwrap_or_else(|| "1".to_owned())
}
