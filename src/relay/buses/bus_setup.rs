//! Checks the buses of `configureBuses` against the hardware. Errors list the ports that the connector has.

use super::can::CanBusSetup;
use super::channel_setup::{invalid, unknown_pins};
use super::doip::DoipBusSetup;
use super::kline::KlineBusSetup;
use crate::protocol::problem::Problem;
use crate::relay::wire::request::BusConfig;
use crate::vehicle::hardware::Hardware;

/// The longest bus name, in bytes. Names such as "HS" are short; the limit bounds what replies and logs
/// repeat.
const MAX_NAME_LEN: usize = 64;
/// The kinds of buses in the protocol's vocabulary.
const BUS_KINDS: [&str; 4] = ["can_bus", "kline_bus", "doip_bus", "terminal15_bus"];

/// A bus that an operator requested, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BusSetup {
    Can(CanBusSetup),
    Kline(KlineBusSetup),
    Doip(DoipBusSetup),
    Terminal15 { name: String, pin: u8 },
}

impl BusSetup {
    /// Checks the configuration of a bus against the hardware.
    pub(crate) fn new(config: &BusConfig, hardware: &Hardware) -> Result<Self, Problem> {
        let name = config.bus_name.as_str();
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return Err(invalid(format!("A bus name has 1 to {MAX_NAME_LEN} bytes, not {}.", name.len())));
        }
        let BusConfig { can_bus, kline_bus, doip_bus, terminal15_bus, .. } = config;
        match (can_bus, kline_bus, doip_bus, terminal15_bus) {
            (Some(can), None, None, None) => CanBusSetup::new(name, can, hardware).map(Self::Can),
            (None, Some(kline), None, None) => KlineBusSetup::new(name, kline, hardware).map(Self::Kline),
            (None, None, Some(doip), None) => DoipBusSetup::new(name, doip, hardware).map(Self::Doip),
            (None, None, None, Some(terminal15)) => match hardware.terminal15 {
                Some(pin) if pin == terminal15.pin => Ok(Self::Terminal15 { name: name.to_owned(), pin }),
                has => {
                    let has = has.map_or_else(|| "none".to_owned(), |pin| format!("pin {pin}"));
                    let detail = format!(
                        "Bus {name:?}: terminal 15 is not at pin {}; this connector has: {has}.",
                        terminal15.pin
                    );
                    Err(unknown_pins(detail))
                }
            },
            (None, None, None, None) => {
                Err(invalid(format!("Bus {name:?} needs one of the kinds {BUS_KINDS:?}.")))
            }
            _ => Err(invalid(format!("Bus {name:?} has more than one kind."))),
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Can(can) => &can.name,
            Self::Kline(kline) => &kline.name,
            Self::Terminal15 { name, .. } => name,
            Self::Doip(doip) => &doip.name,
        }
    }

    /// The bus's name in the connector's configuration.
    pub(crate) fn configured_name(&self) -> Option<&str> {
        match self {
            Self::Can(can) => can.port.name.as_deref(),
            Self::Kline(kline) => kline.port.name.as_deref(),
            Self::Doip(doip) => doip.port.name.as_deref(),
            Self::Terminal15 { .. } => None,
        }
    }

    /// The OBD pins that only this bus may use.
    fn pins(&self) -> Vec<u8> {
        match self {
            Self::Can(can) => can.port.pins.to_vec(),
            Self::Kline(kline) => vec![kline.port.pin],
            Self::Terminal15 { pin, .. } => vec![*pin],
            Self::Doip(doip) => doip.port.pins.to_vec(),
        }
    }

    /// The device that only this bus may use.
    fn device(&self) -> Option<String> {
        match self {
            Self::Can(can) => Some(can.port.device.clone()),
            Self::Kline(kline) => Some(kline.port.device.clone()),
            Self::Doip(doip) => Some(format!("doip:{}", doip.port.device)),
            Self::Terminal15 { .. } => None,
        }
    }

    /// The pin or device that both buses need, in words. Such buses cannot be configured together.
    pub(crate) fn shared_with(&self, other: &Self) -> Option<String> {
        if let Some(pin) = self.pins().into_iter().find(|pin| other.pins().contains(pin)) {
            return Some(format!("pin {pin}"));
        }
        self.device()
            .filter(|device| other.device().as_ref() == Some(device))
            .map(|device| format!("device {device}"))
    }

    /// The name, kind and pins of the bus, for error messages.
    pub(crate) fn describe(&self) -> String {
        let kind = match self {
            Self::Can(_) => "can_bus",
            Self::Kline(_) => "kline_bus",
            Self::Doip(_) => "doip_bus",
            Self::Terminal15 { .. } => "terminal15_bus",
        };
        let pins = match self.pins().as_slice() {
            [pin] => format!("pin {pin}"),
            pins => format!("pins {}", pins.iter().map(u8::to_string).collect::<Vec<_>>().join(" and ")),
        };
        format!("{:?} ({kind}, {pins})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn doip_option_1_and_terminal_15_exclude_each_other_at_pin_1_and_not_elsewhere() {
        let setup = |pin, bus: serde_json::Value| {
            let hardware = Hardware::at_pins([1, 9], pin);
            BusSetup::new(&serde_json::from_value(bus).unwrap(), &hardware).unwrap()
        };
        let doip =
            json!({"bus_name": "ETH", "doip_bus": {"doip_option": 1, "doip_network_configuration": 1}});
        for (pin, shared) in [(1, Some("pin 1".to_owned())), (8, None)] {
            let doip = setup(pin, doip.clone());
            let terminal15 = setup(pin, json!({"bus_name": "T15", "terminal15_bus": {"pin": pin}}));
            assert_eq!(doip.shared_with(&terminal15), shared);
            assert_eq!(terminal15.shared_with(&doip), shared);
            assert_eq!(doip.describe(), "\"ETH\" (doip_bus, pins 1 and 9)");
            assert_eq!(terminal15.describe(), format!("\"T15\" (terminal15_bus, pin {pin})"));
        }
    }
}
