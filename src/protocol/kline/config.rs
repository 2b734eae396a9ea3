//! Configuration of an endpoint.

use std::time::Duration;

use super::timing::LONGEST_P2;

/// Default address of the tester (ISO 14230-2, annex A).
const TESTER_ADDRESS: u8 = 0xF1;
/// Functional address of all emission-related ECUs (ISO 14230-4).
pub(crate) const OBD_FUNCTIONAL_ADDRESS: u8 = 0x33;

/// Longest configured P2: the longest that AccessTimingParameters can set. The line is in use for that time.
pub(super) const MAX_P2: Duration = LONGEST_P2;

/// The way in which the communication with an ECU is initialised (ISO 14230-2, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initialisation {
    /// Fast initialisation: 25 ms low, 25 ms high, then StartCommunication.
    Fast,
    /// Slow initialisation: the address at 5 baud, which the ECU answers with a synchronisation byte and the
    /// key bytes.
    Slow,
}

/// The target of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// One ECU.
    Physical(u8),
    /// All ECUs with a function.
    Functional(u8),
}

impl Addressing {
    /// Returns the addressing of the node with this address; only 0x33, the emission-related ECUs, is a
    /// function.
    pub fn of(address: u8) -> Self {
        if address == OBD_FUNCTIONAL_ADDRESS { Self::Functional(address) } else { Self::Physical(address) }
    }

    /// Returns whether the target can have this address as a source.
    pub(super) fn includes(self, source: u8) -> bool {
        match self {
            Self::Physical(address) => address == source,
            Self::Functional(_) => true,
        }
    }

    /// Returns the address.
    pub fn address(self) -> u8 {
        match self {
            Self::Physical(address) | Self::Functional(address) => address,
        }
    }
}

/// The configuration of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// The target of requests.
    pub addressing: Addressing,
    /// Address of the tester.
    pub tester: u8,
    /// The way in which the communication is initialised.
    pub initialisation: Initialisation,
    /// Bit rate of the line, in bit/s.
    pub bit_rate: u32,
    /// Key bytes that the ECU must have, in either order; `None` accepts any.
    pub keyword: Option<(u8, u8)>,
    /// Time in which an ECU begins its answer (P2max); `None` for that of the ECU's key bytes and of
    /// AccessTimingParameters.
    pub p2: Option<Duration>,
    /// Time without traffic after which TesterPresent is sent.
    ///
    /// With `None`, no TesterPresent is sent, and the ECU ends the communication after P3max.
    pub keep_alive: Option<Duration>,
    /// Number of attempts at an initialisation.
    pub attempts: u32,
}

impl Config {
    /// Creates a configuration with all defaults: TesterPresent after 2 s, and three attempts at a fast or
    /// two at a slow initialisation.
    pub fn new(addressing: Addressing, initialisation: Initialisation, bit_rate: u32) -> Self {
        let attempts = match initialisation {
            Initialisation::Fast => 3,
            Initialisation::Slow => 2,
        };
        Self {
            addressing,
            tester: TESTER_ADDRESS,
            initialisation,
            bit_rate,
            keyword: None,
            p2: None,
            keep_alive: Some(Duration::from_secs(2)),
            attempts,
        }
    }
}
