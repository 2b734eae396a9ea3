//! The ways to wake an ECU on a K-line, in the order in which they are tried.

use std::collections::VecDeque;

use crate::protocol::kline::{Addressing, Initialisation, OBD_FUNCTIONAL_ADDRESS};

/// The engine's addresses (SAE J2178-1).
const ENGINES: [u8; 2] = [0x11, 0x10];

/// One way to wake an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WakeAttempt {
    pub(super) addressing: Addressing,
    pub(super) initialisation: Initialisation,
    /// In bit/s.
    pub(super) bit_rate: u32,
}

/// All attempts at these bit rates, in order.
pub(super) fn attempts(bit_rates: &[u32]) -> VecDeque<WakeAttempt> {
    let functional = Addressing::Functional(OBD_FUNCTIONAL_ADDRESS);
    let engines = ENGINES.map(Addressing::Physical);
    let mut attempts = VecDeque::new();
    for (index, &bit_rate) in bit_rates.iter().enumerate() {
        let mut push = |addressing, initialisation| {
            attempts.push_back(WakeAttempt { addressing, initialisation, bit_rate });
        };
        push(functional, Initialisation::Fast);
        engines.into_iter().for_each(|engine| push(engine, Initialisation::Fast));
        if index == 0 {
            push(functional, Initialisation::Slow);
        }
    }
    attempts
}
