//! The K-line of `connector-sim vehicle`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use connector_hal::kline::sim::{PtyKLine, SimLine};
use connector_hal::timer::TimerKind;
use serde_json::{Value, json};

use super::config::{DEFAULT_VIN, KlineEcuConfig};
use super::vehicle::KlineVehicle;

/// Tolerance for the tester's times, because its process is scheduled independently of the line.
const TOLERANCE: Duration = Duration::from_millis(500);

/// The vehicle's ECUs on a K-line.
#[derive(Debug, Clone, clap::Args)]
pub struct KlineArgs {
    /// Path of the K-line's serial device: a link to a pseudo-terminal, removed at the end.
    ///
    /// The line echoes a tester's bytes, with their transmission time. A zero byte at 360 baud is the pulse of the
    /// fast initialisation, a byte at 5 baud the address of the slow one.
    #[arg(long, value_name = "PATH")]
    kline: Option<PathBuf>,
    /// Address of an ECU on the K-line; may be repeated. The first ECU also has the emission-related functions
    /// (0x33).
    #[arg(long, value_name = "ADDRESS", default_value = "0x11", value_parser = byte, requires = "kline")]
    kline_ecu: Vec<u8>,
    /// The initialisation that the ECUs accept.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = KlineInit::Both, requires = "kline")]
    kline_init: KlineInit,
    /// Key bytes of the ECUs, key byte 2 first.
    #[arg(long, value_name = "KEYWORD", default_value = "0x8FEF", value_parser = keyword, requires = "kline")]
    kline_keyword: u16,
    /// Bit rate of the K-line, in bit/s.
    #[arg(long, value_name = "N", default_value_t = 10_400, value_parser = clap::value_parser!(u32).range(1_000..=115_200), requires = "kline")]
    kline_bit_rate: u32,
    /// VIN that the ECUs report. A VIN from the file of vehicles takes precedence.
    #[arg(long, value_name = "VIN", default_value = DEFAULT_VIN, requires = "kline")]
    kline_vin: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KlineInit {
    Fast,
    Slow,
    Both,
}

fn hexadecimal(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u16::from_str_radix(digits, 16).map_err(|_| "expected hexadecimal digits, such as 0x11".to_owned())
}

fn byte(text: &str) -> Result<u8, String> {
    u8::try_from(hexadecimal(text)?).map_err(|_| "expected an address from 0x00 to 0xFF".to_owned())
}

fn keyword(text: &str) -> Result<u16, String> {
    hexadecimal(text)
}

/// A running K-line with its ECUs and its device.
pub struct RunningKline {
    /// The VIN that the ECUs report.
    pub vin: String,
    path: PathBuf,
    bit_rate: u32,
    addresses: Vec<u8>,
    vehicle: KlineVehicle,
    _device: PtyKLine,
}

impl KlineArgs {
    /// Starts the K-line if `--kline` is given. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns an error if the pseudo-terminal cannot be created.
    pub fn start(&self, vin: Option<&str>) -> anyhow::Result<Option<RunningKline>> {
        let Some(path) = self.kline.clone() else { return Ok(None) };
        let vin = vin.unwrap_or(&self.kline_vin).to_owned();
        let [second, first] = self.kline_keyword.to_be_bytes();
        let config = |(index, address): (usize, &u8)| KlineEcuConfig {
            functions: if index == 0 { vec![0x33] } else { Vec::new() },
            fast: self.kline_init != KlineInit::Slow,
            slow: self.kline_init != KlineInit::Fast,
            key_bytes: [first, second],
            bit_rate: self.kline_bit_rate,
            tolerance: TOLERANCE,
            vin: Some(vin.clone()),
            ..KlineEcuConfig::new(*address)
        };
        let configs: Vec<_> = self.kline_ecu.iter().enumerate().map(config).collect();
        let line = SimLine::new(TimerKind::Precise);
        let vehicle = KlineVehicle::start(&configs, &line, TimerKind::Precise);
        let device = PtyKLine::new(Some(&path), &line)
            .with_context(|| format!("cannot create the K-line's device at {}", path.display()))?;
        Ok(Some(RunningKline {
            vin,
            path,
            bit_rate: self.kline_bit_rate,
            addresses: self.kline_ecu.clone(),
            vehicle,
            _device: device,
        }))
    }
}

impl RunningKline {
    /// The K-line, as the line of JSON describes it.
    pub fn describe(&self) -> Value {
        let addresses: Vec<_> = self.addresses.iter().map(|address| format!("0x{address:02X}")).collect();
        json!({"path": self.path, "bit_rate": self.bit_rate, "ecus": addresses, "vin": self.vin})
    }

    /// Logs the anomalies that the ECUs recorded.
    pub(crate) fn report_anomalies(&self) {
        for (address, anomalies) in self.vehicle.anomalies() {
            tracing::warn!(ecu = format!("0x{address:02X}"), ?anomalies, "the ECU recorded anomalies");
        }
    }
}
