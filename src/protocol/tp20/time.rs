//! The encoding of times in channel parameters: two bits of unit, six bits of count.

use std::fmt;
use std::time::Duration;

/// A time as encoded on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeByte(pub u8);

impl TimeByte {
    /// The value of a parameter that is not used; T2 and T4 always have it.
    pub(crate) const UNUSED: Self = Self(0xFF);

    /// Returns the time, or `None` if the parameter is not used.
    pub(crate) fn to_duration(self) -> Option<Duration> {
        (self != Self::UNUSED).then(|| self.longest())
    }

    /// Returns the time; a parameter that is not used counts as the longest time, 6.3 s.
    pub fn longest(self) -> Duration {
        let unit = [100, 1_000, 10_000, 100_000];
        let micros = unit.get(usize::from(self.0 >> 6)).copied().unwrap_or_default();
        Duration::from_micros(micros) * u32::from(self.0 & 0x3F)
    }
}

impl fmt::Debug for TimeByte {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimeByte(0x{:02X} = {:?})", self.0, self.longest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_known_parameters_mean_the_known_times() {
        for (byte, micros) in [
            (0x8A, 100_000),
            (0x32, 5_000),
            (0x4A, 10_000),
            (0x0A, 1_000),
            (0xCA, 1_000_000),
            (0xFE, 6_200_000),
            (0x00, 0),
        ] {
            assert_eq!(TimeByte(byte).to_duration(), Some(Duration::from_micros(micros)), "{byte:#04X}");
        }
        assert_eq!(TimeByte::UNUSED.to_duration(), None);
        assert_eq!(TimeByte::UNUSED.longest(), Duration::from_millis(6_300));
    }
}
