//! Checks the configuration of a K-line. Errors list the ports and values that are supported.

use crate::config::{KLINE_BIT_RATES, KlinePort};
use crate::protocol::kline::Initialisation;
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::{invalid, unknown_pins};
use crate::relay::wire::request::{KlineBusConfig, KlineProtocol};
use crate::vehicle::hardware::Hardware;

/// A K-line that an operator requested, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KlineBusSetup {
    pub(crate) name: String,
    pub(crate) port: KlinePort,
    pub(super) initialisation: Initialisation,
    pub(super) bit_rate: u32,
}

impl KlineBusSetup {
    /// Checks the configuration of a bus against the hardware.
    pub(crate) fn new(name: &str, kline: &KlineBusConfig, hardware: &Hardware) -> Result<Self, Problem> {
        let Some(port) = hardware.kline_ports.iter().find(|port| port.pin == kline.pin) else {
            let has: Vec<_> = hardware.kline_ports.iter().map(|port| port.pin.to_string()).collect();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            let pin = kline.pin;
            let detail = format!("Bus {name:?}: no K-line is at pin {pin}; this connector has: {has}.");
            return Err(unknown_pins(detail));
        };
        let bit_rate = kline.kline_bit_rate;
        if !KLINE_BIT_RATES.contains(&bit_rate) {
            let detail =
                format!("Bus {name:?}: kline_bit_rate {bit_rate} is not one of {KLINE_BIT_RATES:?}.");
            return Err(invalid(detail));
        }
        let initialisation = match kline.kline_protocol {
            KlineProtocol::Fast => Initialisation::Fast,
            KlineProtocol::Slow => Initialisation::Slow,
        };
        Ok(Self { name: name.to_owned(), port: port.clone(), initialisation, bit_rate })
    }
}
