//! The encoding of times in channel parameters: two bits of unit, six bits of count.

use std::fmt;
use std::time::Duration;

/// A time as encoded on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeByte(pub u8);

impl TimeByte {
    /// The value of a parameter that is not used; T2 and T4 always have it.
    pub const UNUSED: Self = Self(0xFF);

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

    /// Returns the shortest encodable time that is at least `duration`, but at most 6.2 s.
    pub fn at_least(duration: Duration) -> Self {
        let fitting = (0..=3u8).find_map(|unit| {
            let micros = 100 * 10u128.pow(u32::from(unit));
            let count = duration.as_micros().div_ceil(micros);
            u8::try_from(count).ok().filter(|count| *count <= 0x3F).map(|count| Self(unit << 6 | count))
        });
        fitting.filter(|time| *time != Self::UNUSED).unwrap_or(Self(0xFE))
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

    #[test]
    fn an_encoded_time_is_never_shorter_and_never_the_unused_value() {
        for micros in (0..6_200_000).step_by(1_777) {
            let duration = Duration::from_micros(micros);
            let read = TimeByte::at_least(duration).to_duration().unwrap();
            let longest = duration * 7 / 6 + Duration::from_micros(100);
            assert!(read >= duration && read <= longest, "{micros}: {read:?}");
        }
        for millis in [6_250, 6_300, 100_000] {
            assert_eq!(TimeByte::at_least(Duration::from_millis(millis)), TimeByte(0xFE));
        }
    }
}
