//! The bit rates of the buses.

/// The bit rates that a CAN bus can have, in bit/s (relay protocol, section 3).
pub(crate) const CAN_BIT_RATES: [u32; 12] =
    [1_000_000, 500_000, 250_000, 125_000, 100_000, 94_000, 83_300, 50_000, 33_300, 20_000, 10_000, 5_000];

/// The bit rates that a K-line can have, in bit/s (relay protocol, section 3).
pub const KLINE_BIT_RATES: [u32; 3] = [9_600, 10_400, 15_625];

/// The bit rates at which the VIN is asked for on a K-line, in bit/s: first the one of OBD (ISO 14230-4, 5),
/// then the other ones that a K-line can have, the slower one first. Each additional bit rate costs a silent
/// line more time, so that an ECU at a later one takes longer to read (docs/benchmarks.md, VIN by K-line).
pub const KLINE_VIN_BIT_RATES: [u32; 3] = [10_400, 9_600, 15_625];
