//! Timing parameters (ISO 14230-2, tables 2 to 6).

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Allowance on every time limit of an ECU, for the latency of a USB adapter and of a busy machine.
///
/// By default, an FTDI adapter delivers bytes every 16 ms, and on a busy machine a timer is up to 12 ms late
/// (docs/benchmarks.md). The rest is for a process that gets no processor time for a while. A longer
/// allowance would only delay the report of a silent ECU.
pub(super) const LATENCY_ALLOWANCE: Duration = ms(100);
/// Allowance for the echo of our own byte: longer than [`LATENCY_ALLOWANCE`], because a missing echo ends the
/// request and is reported as a fault of the interface.
///
/// By then, P4max is over, and the ECU may have abandoned the request. If the ECU answers all the same, only this
/// machine was slow.
pub(super) const ECHO_ALLOWANCE: Duration = ms(250);

/// The timing parameters of the communication with an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timing {
    /// P1: longest time between two bytes of an ECU.
    pub(super) p1_max: Duration,
    /// P2: longest time between a request and its answer, or between two answers.
    pub(super) p2_max: Duration,
    /// P2 after response pending: P3max (ISO 14230-3, 5.2.4).
    pub(super) p2_star: Duration,
    /// P3: shortest time between the last answer and the next request.
    pub(super) p3_min: Duration,
    /// P3: longest time between the last answer and the next request, after which the ECU ends the
    /// communication.
    pub(super) p3_max: Duration,
    /// P4: shortest time between two bytes of the tester.
    pub(super) p4_min: Duration,
    /// W1: longest time between the 5-baud address and the synchronisation byte.
    pub(super) w1_max: Duration,
    /// W2: longest time between the synchronisation byte and key byte 1.
    pub(super) w2_max: Duration,
    /// W3: longest time between the key bytes.
    pub(super) w3_max: Duration,
    /// W4: time between key byte 2 and its complement, within 25 to 50 ms with room for latency on either
    /// side.
    pub(super) w4: Duration,
    /// W4: longest time between the complement of key byte 2 and that of the address.
    pub(super) w4_max: Duration,
    /// W5: idle time of the line before a slow initialisation, and before the first fast one.
    pub(super) w5: Duration,
    /// T_iniL: low level of the fast initialisation.
    pub(super) t_ini_low: Duration,
    /// T_wup: time from the start of the pulse to StartCommunication.
    pub(super) t_wup: Duration,
}

impl Timing {
    /// The normal set.
    pub(super) const NORMAL: Self = Self {
        p1_max: ms(20),
        p2_max: ms(50),
        p2_star: ms(5000),
        p3_min: ms(55),
        p3_max: ms(5000),
        p4_min: ms(5),
        w1_max: ms(300),
        w2_max: ms(20),
        w3_max: ms(20),
        w4: ms(32),
        w4_max: ms(50),
        w5: ms(300),
        t_ini_low: ms(25),
        t_wup: ms(50),
    };

    /// The extended set with P2 up to 1 s, which an ECU may choose by its key bytes.
    ///
    /// P3 keeps its normal minimum, which is within the extended limits.
    pub(super) const EXTENDED: Self = Self { p2_max: ms(1000), ..Self::NORMAL };
}

/// P2max for "infinite": the longest finite value.
pub(super) const LONGEST_P2: Duration = ms(14 * 256 * 25);
/// P3max for "infinite". No link stays without a request for so long.
const LONGEST_P3: Duration = Duration::from_secs(24 * 60 * 60);

/// The parameters of AccessTimingParameters (ISO 14230-2, 5.4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimingParameters {
    p2_max: Duration,
    p3_min: Duration,
    p3_max: Duration,
    p4_min: Duration,
}

impl TimingParameters {
    /// Decodes P2min, P2max, P3min, P3max and P4min. P2min is of no use to a tester.
    pub(super) fn new([_p2_min, p2_max, p3_min, p3_max, p4_min]: [u8; 5]) -> Self {
        let half_milliseconds = |value: u8| Duration::from_micros(500 * u64::from(value));
        Self {
            p2_max: match p2_max {
                0xFF => LONGEST_P2,
                0xF1.. => ms(u64::from(p2_max & 0x0F) * 256 * 25),
                _ => ms(u64::from(p2_max) * 25),
            },
            p3_min: half_milliseconds(p3_min),
            p3_max: if p3_max == 0xFF { LONGEST_P3 } else { ms(u64::from(p3_max) * 250) },
            p4_min: half_milliseconds(p4_min),
        }
    }
}

impl Timing {
    /// Returns the timing with these parameters.
    pub(super) fn with(self, parameters: TimingParameters) -> Self {
        let TimingParameters { p2_max, p3_min, p3_max, p4_min } = parameters;
        let p2_star = self.p2_star.max(p3_max.min(LONGEST_P2));
        Self { p2_max, p2_star, p3_min, p3_max, p4_min, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timing_parameters_have_the_units_of_the_standard() {
        // the normal set: P2 25 to 50 ms, P3 55 ms to 5 s, P4 from 5 ms
        let normal = TimingParameters::new([0x32, 0x02, 0x6E, 0x14, 0x0A]);
        assert_eq!(Timing::NORMAL.with(normal), Timing::NORMAL);
        let of = |p2_max, p3_max| Timing::NORMAL.with(TimingParameters::new([0, p2_max, 0, p3_max, 0]));
        assert_eq!((of(0xF0, 1).p2_max, of(0xF0, 1).p3_max), (ms(6000), ms(250)));
        assert_eq!((of(0xF2, 0xFE).p2_max, of(0xF2, 0xFE).p3_max), (ms(12_800), ms(63_500)));
        let infinite = of(0xFF, 0xFF);
        assert_eq!((infinite.p2_max, infinite.p2_star), (LONGEST_P2, LONGEST_P2));
        assert_eq!(infinite.p3_max, LONGEST_P3);
        assert_eq!((of(1, 1).p3_min, of(1, 1).p4_min, of(1, 1).p2_star), (ms(0), ms(0), ms(5000)));
    }
}
