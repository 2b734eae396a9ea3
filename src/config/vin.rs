//! How the VIN is read.

use std::time::Duration;

/// How long reading may take: all pulses, and a slow initialisation at each bit rate.
pub const DEFAULT_KLINE_BUDGET: Duration = Duration::from_secs(12);

/// How the VIN is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VinSettings {
    /// The time it may take in all, from when the adapter is ready; default 1.5 s.
    pub budget: Duration,
    /// The bit rates to try, the likeliest first, in bit/s; default 500 and 250 kbit/s. An adapter that can't listen
    /// without acknowledging is used with the first of them only.
    pub bit_rates: Vec<u32>,
    /// The data bit rate to set where the adapter can do CAN FD, so that FD frames of others are no errors;
    /// default 2 Mbit/s (ISO 15765-4). No FD frame is sent.
    pub data_bit_rate: Option<u32>,
    /// The time it may take on a K-line, where CAN told none; default 12 s.
    pub kline_budget: Duration,
    /// How long to listen at each bit rate for a first frame; default 100 ms.
    pub listen_time: Duration,
}

impl Default for VinSettings {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(1500),
            bit_rates: vec![500_000, 250_000],
            kline_budget: DEFAULT_KLINE_BUDGET,
            data_bit_rate: Some(2_000_000),
            listen_time: Duration::from_millis(100),
        }
    }
}
