//! The bit rates that buses may be set to.

/// The bit rates that a CAN bus may be set to, in bit/s.
pub const CAN_BIT_RATES: [u32; 12] =
    [1_000_000, 500_000, 250_000, 125_000, 100_000, 94_000, 83_300, 50_000, 33_300, 20_000, 10_000, 5_000];

/// The bit rates that a K-line may be set to, in bit/s.
pub const KLINE_BIT_RATES: [u32; 3] = [9_600, 10_400, 15_625];

/// The bit rates to ask at, in bit/s: that of OBD (ISO 14230-4, 5), and those that makers have besides.
pub const KLINE_VIN_BIT_RATES: [u32; 3] = [10_400, 9_600, 15_625];
