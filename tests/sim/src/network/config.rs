//! The configuration of a bad network.

use std::time::Duration;

/// The initial conditions of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BadNetworkConfig {
    /// Round-trip time; half of it in each direction.
    pub round_trip: Duration,
    /// Interval at which all connections are cut.
    pub cut_every: Option<Duration>,
    /// Time after a cut during which no connection is let through.
    pub pause_after_cut: Duration,
    /// Bandwidth of each direction of each connection, in bytes per second.
    pub bytes_per_second: Option<u32>,
}
