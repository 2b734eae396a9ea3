//! How an ECU is reached.

use std::time::Duration;

/// The tester's address (ISO 14230-2, annex A).
pub const TESTER_ADDRESS: u8 = 0xF1;
/// The function that every emission-related ECU has (ISO 14230-4).
pub const OBD_FUNCTIONAL_ADDRESS: u8 = 0x33;

/// How the link is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Initialisation {
    /// 25 ms low, 25 ms high, StartCommunication.
    Fast,
    /// The address at 5 baud, answered with a synchronisation byte and the key bytes.
    Slow,
}

/// Whom requests are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// One ECU.
    Physical(u8),
    /// All ECUs of a function.
    Functional(u8),
}

impl Addressing {
    /// How the node with this address is reached: [`OBD_FUNCTIONAL_ADDRESS`] is a function.
    pub fn of(address: u8) -> Self {
        if address == OBD_FUNCTIONAL_ADDRESS { Self::Functional(address) } else { Self::Physical(address) }
    }

    /// The address.
    pub fn address(self) -> u8 {
        match self {
            Self::Physical(address) | Self::Functional(address) => address,
        }
    }
}

/// The configuration of an [`Endpoint`](super::Endpoint).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Whom it talks to.
    pub addressing: Addressing,
    /// The own address.
    pub tester: u8,
    /// How the link is set up.
    pub initialisation: Initialisation,
    /// The line's bit rate, in bit/s.
    pub bit_rate: u32,
    /// The key bytes that the ECU must have, in either order; `None`: any.
    pub keyword: Option<(u8, u8)>,
    /// After how long without traffic TesterPresent is sent; `None`: never, and the ECU ends the link after P3max.
    pub keep_alive: Option<Duration>,
    /// How often an initialisation is tried.
    pub attempts: u32,
}

impl Config {
    /// All defaults: TesterPresent every 2 s, three attempts at a fast and two at a slow initialisation.
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
            keep_alive: Some(Duration::from_secs(2)),
            attempts,
        }
    }
}
