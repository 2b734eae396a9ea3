//! From what an operator asks for to buses and channels, with an error that says what is there instead.

use std::time::Duration;

use super::bus::SessionBus;
use super::can::CanSessionBus;
use super::doip::{DoipBusSetup, DoipSessionBus};
use super::kline::{KlineBusSetup, KlineSessionBus};
use super::terminal15::Terminal15Bus;
use crate::protocol::problem::Problem;
use crate::relay::buses::can::setup::CanBusSetup;
use crate::relay::channel::PduChannelSettings;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::request::{
    BusConfig, DoipChannelConfig, IsotpChannelConfig, KlineChannelConfig, OpenChannel, PduOptions,
    RawChannelConfig, Switch, Terminal15ChannelConfig, Tp20ChannelConfig,
};
use crate::vehicle::hardware::Hardware;

/// How long a chained PDU waits for the response to the one before it, unless told.
const DEFAULT_P2: Duration = Duration::from_secs(1);
/// The longest bus name taken, in bytes.
const MAX_NAME_LEN: usize = 64;
/// The kinds of buses in the protocol's vocabulary.
const BUS_KINDS: [&str; 4] = ["can_bus", "kline_bus", "doip_bus", "terminal15_bus"];
/// The kinds of channels in the protocol's vocabulary.
const CHANNEL_KINDS: [&str; 6] =
    ["raw_channel", "isotp_channel", "tp20_channel", "kline_channel", "doip_channel", "terminal15_channel"];

pub(crate) fn invalid(detail: impl Into<String>) -> Problem {
    ProblemKind::InvalidMessage.problem(detail)
}

pub(crate) fn unsupported(detail: impl Into<String>) -> Problem {
    ProblemKind::Unsupported.problem(detail)
}

pub(crate) fn unknown_pins(detail: impl Into<String>) -> Problem {
    ProblemKind::UnknownPins.problem(detail)
}

/// The channel is of a kind that its bus has not.
pub(crate) fn wrong_kind(bus_name: &str, bus_kind: &str, channel: &ChannelKind) -> Problem {
    let detail = format!("Bus {bus_name:?} is a {bus_kind}, which has no {}.", channel.name());
    ProblemKind::WrongBusKind.problem(detail)
}

/// A bus that an operator asked for, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BusSetup {
    Can(CanBusSetup),
    Kline(KlineBusSetup),
    Doip(DoipBusSetup),
    Terminal15 { name: String, pin: u8 },
}

impl BusSetup {
    /// Checks a bus against what the hardware has.
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
                    let has = has.map_or_else(|| "none".to_owned(), |pin| format!("it at pin {pin}"));
                    let detail = format!(
                        "Bus {name:?}: terminal 15 is not at pin {}; this connector has {has}.",
                        terminal15.pin
                    );
                    Err(unknown_pins(detail))
                }
            },
            (None, None, None, None) => {
                Err(invalid(format!("Bus {name:?} has no kind, which is one of {BUS_KINDS:?}.")))
            }
            _ => Err(invalid(format!("Bus {name:?} is of several kinds."))),
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

    /// The OBD pins that it needs for itself.
    fn pins(&self) -> Vec<u8> {
        match self {
            Self::Can(can) => can.port.pins.to_vec(),
            Self::Kline(kline) => vec![kline.port.pin],
            Self::Terminal15 { pin, .. } => vec![*pin],
            Self::Doip(doip) => doip.port.pins.to_vec(),
        }
    }

    /// The device that it needs for itself.
    fn device(&self) -> Option<String> {
        match self {
            Self::Can(can) => Some(can.port.device.clone()),
            Self::Kline(kline) => Some(kline.port.device.clone()),
            Self::Doip(doip) => Some(format!("doip:{}", doip.port.device)),
            Self::Terminal15 { .. } => None,
        }
    }

    /// What both need for themselves, in words, if that is so: only one of the two can be had at a time.
    pub(crate) fn shared_with(&self, other: &Self) -> Option<String> {
        if let Some(pin) = self.pins().into_iter().find(|pin| other.pins().contains(pin)) {
            return Some(format!("pin {pin}"));
        }
        self.device()
            .filter(|device| other.device().as_ref() == Some(device))
            .map(|device| format!("device {device}"))
    }

    /// Its name, its kind and its pins, for errors.
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

    /// The bus, whose device is opened as it is polled.
    pub(crate) fn build(self, hardware: &Hardware, ignition: Option<bool>) -> Box<dyn SessionBus> {
        match self {
            Self::Can(can) => Box::new(CanSessionBus::new(can, hardware)),
            Self::Kline(kline) => Box::new(KlineSessionBus::new(kline, hardware)),
            Self::Terminal15 { name, .. } => Box::new(Terminal15Bus::new(name, ignition)),
            Self::Doip(doip) => Box::new(DoipSessionBus::new(doip, hardware)),
        }
    }
}

/// What `openChannel` asks for: on which bus, and what.
pub(crate) struct ChannelSetup {
    pub(crate) bus_name: String,
    pub(crate) kind: ChannelKind,
    max_age: Option<Duration>,
}

/// A channel of one of the kinds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ChannelKind {
    Raw(RawChannelConfig),
    Isotp(IsotpChannelConfig),
    Tp20(Tp20ChannelConfig),
    Kline(KlineChannelConfig),
    Doip(DoipChannelConfig),
    Terminal15(Terminal15ChannelConfig),
}

impl ChannelKind {
    /// As the protocol calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Raw(_) => "raw_channel",
            Self::Isotp(_) => "isotp_channel",
            Self::Tp20(_) => "tp20_channel",
            Self::Kline(_) => "kline_channel",
            Self::Doip(_) => "doip_channel",
            Self::Terminal15(_) => "terminal15_channel",
        }
    }

    /// Its bus.
    fn bus_name(&self) -> &str {
        match self {
            Self::Raw(raw) => &raw.bus_name,
            Self::Isotp(isotp) => &isotp.bus_name,
            Self::Tp20(tp20) => &tp20.bus_name,
            Self::Kline(kline) => &kline.bus_name,
            Self::Doip(doip) => &doip.bus_name,
            Self::Terminal15(terminal15) => &terminal15.bus_name,
        }
    }

    /// How old its records may be, in ms, where it says so itself.
    fn max_age_ms(&self) -> Option<u32> {
        match self {
            Self::Raw(raw) => raw.max_age_ms,
            Self::Isotp(isotp) => isotp.options().max_age_ms,
            Self::Tp20(tp20) => tp20.options.max_age_ms,
            Self::Kline(kline) => kline.options.max_age_ms,
            Self::Doip(doip) => doip.options.max_age_ms,
            Self::Terminal15(_) => None,
        }
    }
}

impl ChannelSetup {
    /// The one kind of channel that a request names.
    pub(crate) fn new(request: &OpenChannel) -> Result<Self, Problem> {
        if request.channel == 0 {
            return Err(invalid("A channel's number is 1 to 65535."));
        }
        let OpenChannel { raw_channel, isotp_channel, tp20_channel, kline_channel, doip_channel, .. } =
            request;
        let kinds = [
            raw_channel.clone().map(ChannelKind::Raw),
            isotp_channel.clone().map(ChannelKind::Isotp),
            tp20_channel.clone().map(ChannelKind::Tp20),
            kline_channel.clone().map(ChannelKind::Kline),
            doip_channel.clone().map(ChannelKind::Doip),
            request.terminal15_channel.clone().map(ChannelKind::Terminal15),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let Some(kind) = kinds.next() else {
            return Err(invalid(format!("A channel needs a kind, which is one of {CHANNEL_KINDS:?}.")));
        };
        if let Some(other) = kinds.next() {
            let (kind, other) = (kind.name(), other.name());
            return Err(invalid(format!("A channel is of one kind, not both {kind} and {other}.")));
        }
        let max_age = request.max_age_ms.or(kind.max_age_ms()).map(|ms| Duration::from_millis(u64::from(ms)));
        Ok(Self { bus_name: kind.bus_name().to_owned(), kind, max_age })
    }

    /// How old a record may be that goes to the vehicle.
    pub(crate) fn max_age(&self, limits: &SessionLimits) -> Duration {
        self.max_age.unwrap_or(match self.kind {
            ChannelKind::Raw(_) => limits.raw_max_age,
            _ => limits.pdu_max_age,
        })
    }
}

/// What a channel's options mean for its PDUs.
pub(crate) fn pdu_settings(options: &PduOptions) -> PduChannelSettings {
    PduChannelSettings {
        keep_alive: options.keep_alive == Switch::Enabled,
        p2: options.p2_ms.map_or(DEFAULT_P2, |ms| Duration::from_millis(u64::from(ms))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::DoipPort;
    use crate::config::doip_device::Device;

    #[test]
    fn doip_option_1_and_terminal_15_exclude_each_other_at_pin_1_and_not_elsewhere() {
        let setup = |pin, bus: serde_json::Value| {
            let port = DoipPort { pins: [1, 9], device: Device::Interface("eth0".to_owned()) };
            let hardware = Hardware { doip_ports: [port].into(), terminal15: Some(pin), ..Hardware::new([]) };
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
