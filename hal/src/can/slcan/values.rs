//! The codes in SLCAN lines: bit rates, states, flags and errors.

/// The bit rate that `S` with this number sets, in bit/s. Lawicel defines 7 as 800 kbit/s; some adapters use
/// 750.
pub(super) fn bit_rate(number: u8) -> Option<u32> {
    Some(match number {
        0 => 10_000,
        1 => 20_000,
        2 => 50_000,
        3 => 100_000,
        4 => 125_000,
        5 => 250_000,
        6 => 500_000,
        7 => 800_000,
        8 => 1_000_000,
        9 => 83_300,
        _ => return None,
    })
}

/// The number with which `S` sets this bit rate.
pub(super) fn bit_rate_number(rate: u32) -> Option<u8> {
    // 83⅓ kbit/s is written as 83,300 and as 83,333
    let rate = if rate == 83_333 { 83_300 } else { rate };
    (0..=9).find(|number| bit_rate(*number) == Some(rate))
}

/// The bit rates that `S` can set, in bit/s, in ascending order.
pub(super) fn bit_rates() -> impl Iterator<Item = u32> {
    let mut rates: Vec<u32> = (0..=9).filter_map(bit_rate).collect();
    rates.sort_unstable();
    rates.into_iter()
}

/// BTR0 and BTR1 with which `s` sets a bit rate that has no number, within 0.13 %. The command is defined for
/// the SJA1000 at 16 MHz (Lawicel's CANUSB manual); the sample point is at 68 to 82 %.
pub(super) fn bit_timing(rate: u32) -> Option<u16> {
    Some(match rate {
        // 94,118: 5 clock cycles, 17 quanta
        94_000 => 0x442C,
        // 33,333: 12 cycles, 20 quanta
        33_300 | 33_333 => 0x4B3E,
        // 64 cycles, 25 quanta
        5_000 => 0x7F7F,
        _ => return None,
    })
}

/// The bit rate that BTR0 and BTR1 set, in bit/s.
#[cfg(feature = "sim")]
pub(super) fn bit_rate_of_timing(registers: u16) -> u32 {
    /// Half the oscillator's frequency, in Hz.
    const CLOCK: u32 = 8_000_000;
    let [btr0, btr1] = registers.to_be_bytes().map(u32::from);
    let prescaler = (btr0 & 0x3F) + 1;
    let quanta = 1 + (btr1 & 0xF) + 1 + (btr1 >> 4 & 7) + 1;
    CLOCK / (prescaler * quanta)
}

/// The data bit rate that `Y` with this number sets, in bit/s.
pub(super) fn data_bit_rate(number: u8) -> Option<u32> {
    Some(match number {
        0 => 500_000,
        1..=5 | 8 => u32::from(number) * 1_000_000,
        _ => return None,
    })
}

/// The number with which `Y` sets this data bit rate.
pub(super) fn data_bit_rate_number(rate: u32) -> Option<u8> {
    (0..=8).find(|number| data_bit_rate(*number) == Some(rate))
}

/// The flags that `F` returns (Lawicel's CANUSB manual).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusFlags(pub u8);

impl StatusFlags {
    /// The receive buffer was full.
    pub(super) const RECEIVE_FULL: u8 = 1 << 0;
    /// An error counter is above 96.
    pub(super) const WARNING: u8 = 1 << 2;
    /// The controller lost a frame.
    pub(super) const OVERRUN: u8 = 1 << 3;
    /// The controller is error passive.
    pub(super) const PASSIVE: u8 = 1 << 5;
    /// Bus errors occurred.
    pub(super) const BUS_ERROR: u8 = 1 << 7;
    /// What a frame that no node acknowledges sets.
    pub(super) const TROUBLE: u8 = Self::WARNING | Self::PASSIVE | Self::BUS_ERROR;

    /// Whether one of these flags is set.
    pub(super) fn has_any(self, flags: u8) -> bool {
        self.0 & flags != 0
    }
}

/// The state of a controller, as the adapter reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerState {
    /// Error active.
    Active,
    /// Error active with an error counter above 96.
    Warning,
    /// Error passive.
    Passive,
    /// Bus off.
    Off,
    /// The driver reports a failure.
    Failed,
}

/// The letter of each state.
pub(super) const STATES: [(u8, ControllerState); 5] = [
    (b'a', ControllerState::Active),
    (b'w', ControllerState::Warning),
    (b'p', ControllerState::Passive),
    (b'b', ControllerState::Off),
    (b'f', ControllerState::Failed),
];

/// A set of bus errors: a bit for each letter of `abBcfoOs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BusErrors(pub u8);

impl BusErrors {
    /// The letter of each bit, the lowest bit first.
    pub(super) const LETTERS: [u8; 8] = *b"abBcfoOs";
    /// No node acknowledged the frame.
    pub(super) const ACKNOWLEDGEMENT: u8 = 1 << 0;
    /// A dominant bit was read as recessive.
    pub(super) const BIT0: u8 = 1 << 1;
    /// A recessive bit was read as dominant.
    pub(super) const BIT1: u8 = 1 << 2;
    /// The checksum is wrong.
    pub(super) const CRC: u8 = 1 << 3;
    /// A bit with a fixed value had the wrong value.
    pub(super) const FORM: u8 = 1 << 4;
    /// The receive buffer overran.
    pub(super) const RECEIVE_OVERRUN: u8 = 1 << 5;
    /// The transmit buffer overran.
    pub(super) const TRANSMIT_OVERRUN: u8 = 1 << 6;
    /// Six equal bits in a row.
    pub(super) const STUFF: u8 = 1 << 7;
}
