//! The configuration of the board: files and GPIO lines of the system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The section `[board]`. Every part is optional; a part without configuration is absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BoardConfig {
    /// The vehicle's supply voltage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub voltage: Option<VoltageConfig>,
    /// Terminal 15.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignition: Option<InputConfig>,
    /// The button, by which the person at the vehicle calls for attention, or answers a request for consent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub button: Option<InputConfig>,
    /// The LED.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub led: Option<OutputConfig>,
    /// The buzzer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buzzer: Option<OutputConfig>,
    /// The line to pin 8 that wakes a vehicle's DoIP gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doip_activation: Option<OutputConfig>,
    /// Whether the device has Wi-Fi. By default, the network interfaces show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wifi: Option<bool>,
}

/// A file that contains a number: `in_voltage0_raw` of IIO or `in0_input` of hwmon. The voltage is (number +
/// offset) × scale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoltageConfig {
    /// The file.
    pub file: PathBuf,
    /// Volts per unit of the number; 0.001 by default, since hwmon counts millivolts.
    #[serde(default = "Number::thousandth")]
    pub scale: Number,
    /// Added to the number before scaling, like `in_voltage0_offset` of IIO.
    #[serde(default)]
    pub offset: Number,
}

/// A finite number.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Number(f64);

// a finite number equals itself
impl Eq for Number {}

impl Number {
    /// The value of the number.
    pub fn get(self) -> f64 {
        self.0
    }

    /// The number of these thousandths.
    pub fn from_thousandths(value: i32) -> Self {
        Self(f64::from(value) / 1000.0)
    }

    fn thousandth() -> Self {
        Self(0.001)
    }
}

impl TryFrom<f64> for Number {
    type Error = &'static str;

    fn try_from(value: f64) -> Result<Self, Self::Error> {
        if value.is_finite() { Ok(Self(value)) } else { Err("the number must be finite") }
    }
}

impl From<Number> for f64 {
    fn from(number: Number) -> f64 {
        number.0
    }
}

/// A digital input: a line of a GPIO chip, or a file that contains 0 or another number.
///
/// A line reports its changes. A file is read every 200 ms while the board's events are polled, because most
/// files in sysfs do not report changes. A button behind a file must be pressed for that long, and
/// needs no debouncing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawInput", into = "RawInput")]
pub struct InputConfig {
    /// The line or file to read.
    pub source: Source,
    /// Whether a low level, or 0, means on.
    pub active_low: bool,
    /// How long a new level of a line must last, in ms; 20 by default. Not for files.
    pub debounce_ms: u32,
}

/// A digital output: a line of a GPIO chip, or a file like `/sys/class/leds/status/brightness`. On is the
/// value in the file `max_brightness` in the same directory, or 1 without such a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawOutput", into = "RawOutput")]
pub struct OutputConfig {
    /// The line or file to write.
    pub source: Source,
    /// Whether a low level, or 0, means on.
    pub active_low: bool,
}

/// The source of a digital input or the target of a digital output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A line of a GPIO chip.
    Line {
        /// The device of the chip, like `/dev/gpiochip0`.
        chip: PathBuf,
        /// The line.
        line: GpioLine,
    },
    /// A file.
    File(PathBuf),
}

/// A line of a GPIO chip, by number or by its name in the device tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GpioLine {
    /// The number of the line.
    Offset(u32),
    /// The name of the line.
    Name(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chip: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<GpioLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(default)]
    active_low: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    debounce_ms: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOutput {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    chip: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<GpioLine>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<PathBuf>,
    #[serde(default)]
    active_low: bool,
}

/// How long a line must be stable by default, in milliseconds. The contacts of a switch bounce for a few
/// milliseconds, and a person does not notice this delay.
const DEFAULT_DEBOUNCE_MS: u32 = 20;

impl Source {
    fn new(
        chip: Option<PathBuf>,
        line: Option<GpioLine>,
        file: Option<PathBuf>,
    ) -> Result<Self, &'static str> {
        match (chip, line, file) {
            (Some(chip), Some(line), None) => Ok(Self::Line { chip, line }),
            (None, None, Some(file)) => Ok(Self::File(file)),
            _ => Err("give either `chip` and `line`, or `file`"),
        }
    }

    fn into_parts(self) -> (Option<PathBuf>, Option<GpioLine>, Option<PathBuf>) {
        match self {
            Self::Line { chip, line } => (Some(chip), Some(line), None),
            Self::File(file) => (None, None, Some(file)),
        }
    }
}

impl TryFrom<RawInput> for InputConfig {
    type Error = &'static str;

    fn try_from(raw: RawInput) -> Result<Self, Self::Error> {
        if raw.file.is_some() && raw.debounce_ms.is_some() {
            return Err("`debounce_ms` is for lines; a file is read every 200 ms");
        }
        Ok(Self {
            source: Source::new(raw.chip, raw.line, raw.file)?,
            active_low: raw.active_low,
            debounce_ms: raw.debounce_ms.unwrap_or(DEFAULT_DEBOUNCE_MS),
        })
    }
}

impl From<InputConfig> for RawInput {
    fn from(config: InputConfig) -> Self {
        let debounce_ms = matches!(config.source, Source::Line { .. }).then_some(config.debounce_ms);
        let (chip, line, file) = config.source.into_parts();
        Self { chip, line, file, active_low: config.active_low, debounce_ms }
    }
}

impl TryFrom<RawOutput> for OutputConfig {
    type Error = &'static str;

    fn try_from(raw: RawOutput) -> Result<Self, Self::Error> {
        Ok(Self { source: Source::new(raw.chip, raw.line, raw.file)?, active_low: raw.active_low })
    }
}

impl From<OutputConfig> for RawOutput {
    fn from(config: OutputConfig) -> Self {
        let (chip, line, file) = config.source.into_parts();
        Self { chip, line, file, active_low: config.active_low }
    }
}
