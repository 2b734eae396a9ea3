//! The times of ISO 14230-2, tables 2 to 6.

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// What goes on top of every time that somebody else has to keep: the latency of a USB adapter and of a busy machine.
///
/// An FTDI adapter hands bytes over every 16 ms unless told otherwise.
pub(super) const LATENCY_ALLOWANCE: Duration = ms(100);
/// The same for our own byte to come back. An ECU has given the request up by then, after P4max; but whether the line or
/// only this machine is at fault, the answer will tell.
pub(super) const ECHO_ALLOWANCE: Duration = ms(250);

/// The timing parameters of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// P1: between two bytes of an ECU, at most.
    pub p1_max: Duration,
    /// P2: between a request and its answer, or between two answers, at most.
    pub p2_max: Duration,
    /// P2 after response pending: P3max (ISO 14230-3, 5.2.4).
    pub p2_star: Duration,
    /// P3: between the last answer and the next request, at least.
    pub p3_min: Duration,
    /// The same at most: then the ECU ends the communication.
    pub p3_max: Duration,
    /// P4: between two bytes of the tester, at least.
    pub p4_min: Duration,
    /// W1: between the 5-baud address and the synchronisation byte, at most.
    pub w1_max: Duration,
    /// W2: between the synchronisation byte and key byte 1, at most.
    pub w2_max: Duration,
    /// W3: between the key bytes, at most.
    pub w3_max: Duration,
    /// W4: between key byte 2 and its complement: within 25 to 50 ms, with room for latency on either side.
    pub w4: Duration,
    /// W4: between that and the address' complement, at most.
    pub w4_max: Duration,
    /// W5: the line's idle time before a slow initialisation, and before the first fast one.
    pub w5: Duration,
    /// T_iniL: the low level of the fast initialisation.
    pub t_ini_low: Duration,
    /// T_wup: from the pulse's start to StartCommunication.
    pub t_wup: Duration,
}

impl Timing {
    /// The normal set.
    pub const NORMAL: Self = Self {
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

    /// The extended set, which an ECU may choose by its key bytes: P2 up to 1 s. P3 keeps its normal minimum, which is
    /// within the extended limits.
    pub const EXTENDED: Self = Self { p2_max: ms(1000), ..Self::NORMAL };
}
