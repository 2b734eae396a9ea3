//! How the VIN is read.

use std::time::Duration;

/// How long a reading on a K-line may take. The slowest wake-up takes 8.4 s (docs/benchmarks.md, VIN by
/// K-line); the rest is for an ECU that is busy and is asked again.
pub const DEFAULT_KLINE_BUDGET: Duration = Duration::from_secs(12);

/// How the VIN is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VinSettings {
    /// How long one reading may take in total, from when the adapter is ready; 1.5 s by default.
    pub budget: Duration,
    /// The bit rates to try, the likeliest first, in bit/s; 500 and 250 kbit/s by default. An adapter that
    /// cannot listen without acknowledging uses only the first.
    pub bit_rates: Vec<u32>,
    /// The data bit rate to set if the adapter supports CAN FD, so that FD frames of other nodes cause no
    /// errors; 2 Mbit/s by default (ISO 15765-4). Reading the VIN sends no FD frame.
    pub data_bit_rate: Option<u32>,
    /// How long a reading on a K-line may take, if there is no VIN on CAN; 12 s by default.
    pub kline_budget: Duration,
    /// How long to listen for a first frame at each bit rate; 100 ms by default.
    pub listen_time: Duration,
    /// How long to listen for another tester before the first question; by default not at all, because the VIN
    /// is awaited.
    pub listen_first: Duration,
}

impl Default for VinSettings {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(1500),
            bit_rates: vec![500_000, 250_000],
            kline_budget: DEFAULT_KLINE_BUDGET,
            data_bit_rate: Some(2_000_000),
            listen_time: Duration::from_millis(100),
            listen_first: Duration::ZERO,
        }
    }
}
