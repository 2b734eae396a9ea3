//! The buses that a command works on: named on the command line, or configured.

use std::io;

use anyhow::anyhow;
use connector_hal::can::{CanBus, CanError};
use connector_hal::kline::{DEVICE_PREFIX as KLINE_PREFIX, KLine, KLineError};

use crate::config::{BusKind, ConfiguredBus, DoipPort};

/// The prefix of a DoIP network's or gateway's name.
const DOIP_PREFIX: &str = "doip:";
/// The pins of a DoIP network that is named on the command line. The commands do not use them.
const DOIP_PINS: [u8; 2] = [3, 11];

/// A bus that a command works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedBus {
    /// The name that the user knows.
    pub(super) name: String,
    pub(super) kind: NamedBusKind,
    /// The configured bit rates, the likeliest first, in bit/s; `None` for a bus that is not configured.
    pub(super) bit_rates: Option<Vec<u32>>,
}

/// The device of a bus, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NamedBusKind {
    /// The name of a CAN device.
    Can(String),
    /// The name of a K-line's device, with its prefix.
    Kline(String),
    Doip(DoipPort),
}

impl NamedBus {
    /// The bus with this name: a configured bus, by name or device, or else a device.
    ///
    /// # Errors
    ///
    /// The name begins with `doip:`, and neither an interface nor an address follows.
    pub(super) fn find(name: &str, configured: &[ConfiguredBus]) -> anyhow::Result<Self> {
        let is_meant = |bus: &&ConfiguredBus| bus.name.as_deref() == Some(name) || bus.device == name;
        if let Some(bus) = configured.iter().find(is_meant) {
            return Ok(Self { name: name.to_owned(), ..Self::configured(bus)? });
        }
        let kind = match name {
            _ if name.starts_with(DOIP_PREFIX) => doip(name)?,
            _ if name.starts_with(KLINE_PREFIX) => NamedBusKind::Kline(name.to_owned()),
            _ => NamedBusKind::Can(name.to_owned()),
        };
        Ok(Self { name: name.to_owned(), kind, bit_rates: None })
    }

    /// A configured bus.
    ///
    /// # Errors
    ///
    /// A DoIP bus has neither an interface nor an address.
    pub(super) fn configured(bus: &ConfiguredBus) -> anyhow::Result<Self> {
        let kind = match bus.kind {
            BusKind::Can => NamedBusKind::Can(bus.device.clone()),
            BusKind::Kline if bus.device.starts_with(KLINE_PREFIX) => NamedBusKind::Kline(bus.device.clone()),
            BusKind::Kline => NamedBusKind::Kline(format!("{KLINE_PREFIX}{}", bus.device)),
            BusKind::Doip => doip(&bus.device)?,
        };
        let name = bus.name.clone().unwrap_or_else(|| bus.device.clone());
        Ok(Self { name, kind, bit_rates: Some(bus.bit_rates().to_vec()) })
    }
}

fn doip(device: &str) -> anyhow::Result<NamedBusKind> {
    Ok(NamedBusKind::Doip(DoipPort { name: None, pins: DOIP_PINS, device: device.parse()? }))
}

/// Opens a CAN device. The error begins with `failed`, such as "cannot scan can0", and says what to do.
pub(super) fn open_can(device: &str, failed: &str) -> anyhow::Result<Box<dyn CanBus>> {
    connector_hal::can::open(device).map_err(|error| can_error(error, failed))
}

/// Opens a K-line's device. The error begins with `failed` and says what to do.
pub(super) fn open_kline(device: &str, failed: &str) -> anyhow::Result<Box<dyn KLine>> {
    connector_hal::kline::open(device).map_err(|error| kline_error(error, failed))
}

/// A CAN device's error with advice. The error begins with `failed`.
pub(super) fn can_error(error: CanError, failed: &str) -> anyhow::Error {
    let advice = match &error {
        CanError::Name(_) => "",
        CanError::Device { source, .. } => match device_advice(source.kind()) {
            Some(advice) => advice,
            None if source.kind() == io::ErrorKind::NotFound => {
                ": there is no such device; is it plugged in? `ip link` lists CAN interfaces, `ls /dev/tty*` serial adapters"
            }
            None if source.kind() == io::ErrorKind::NetworkDown => {
                ": the interface is down; bring it up with `ip link set DEVICE up type can bitrate 500000`"
            }
            None => ": is it plugged in, and does no other program use it?",
        },
        CanError::Protocol { .. } => ": is it an SLCAN adapter? Unplug it, and plug it in again",
        CanError::Unsupported { .. } => ": choose a bit rate that the adapter supports with --bit-rate",
    };
    anyhow!(error).context(format!("{failed}{advice}"))
}

/// A K-line device's error with advice. The error begins with `failed`.
pub(super) fn kline_error(error: KLineError, failed: &str) -> anyhow::Error {
    let advice = match &error {
        KLineError::Name(_) => "",
        KLineError::Device { source, .. } => match device_advice(source.kind()) {
            Some(advice) => advice,
            None if source.kind() == io::ErrorKind::NotFound => {
                ": there is no such device; is it plugged in? `ls /dev/tty*` lists serial devices"
            }
            None => ": is it plugged in, and does no other program use it?",
        },
        KLineError::Unsupported { .. } => ": use an adapter whose UART supports any bit rate",
    };
    anyhow!(error).context(format!("{failed}{advice}"))
}

/// The advice that is the same for devices of every kind.
fn device_advice(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::PermissionDenied => {
            Some(": no permission; run as root, or join the group that owns the device (often dialout)")
        }
        io::ErrorKind::ResourceBusy => Some(": another program uses the device; end that program first"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str) -> NamedBusKind {
        NamedBus::find(name, &[]).unwrap().kind
    }

    #[test]
    fn the_kind_of_a_bus_shows_in_its_name() {
        assert_eq!(kind("can0"), NamedBusKind::Can("can0".to_owned()));
        assert_eq!(kind("slcan:/dev/ttyACM0"), NamedBusKind::Can("slcan:/dev/ttyACM0".to_owned()));
        assert_eq!(kind("kline:/dev/ttyUSB0"), NamedBusKind::Kline("kline:/dev/ttyUSB0".to_owned()));
        assert!(matches!(kind("doip:eth0"), NamedBusKind::Doip(_)));
        assert!(NamedBus::find("doip:not/a/name", &[]).is_err());
    }

    #[test]
    fn a_configured_bus_is_found_by_name_and_by_device() {
        let kline =
            ConfiguredBus { kind: BusKind::Kline, pins: vec![7], ..ConfiguredBus::can("/dev/ttyUSB0") };
        let can = ConfiguredBus {
            name: Some("powertrain".to_owned()),
            bit_rates: Some(vec![125_000]),
            ..ConfiguredBus::can("can0")
        };
        let configured = [kline, can];
        for name in ["powertrain", "can0"] {
            let bus = NamedBus::find(name, &configured).unwrap();
            assert_eq!((bus.name.as_str(), bus.bit_rates), (name, Some(vec![125_000])));
            assert_eq!(bus.kind, NamedBusKind::Can("can0".to_owned()));
        }
        let bus = NamedBus::find("/dev/ttyUSB0", &configured).unwrap();
        assert_eq!(bus.kind, NamedBusKind::Kline("kline:/dev/ttyUSB0".to_owned()));
        assert_eq!(NamedBus::find("can1", &configured).unwrap().bit_rates, None);
    }

    #[test]
    fn an_error_names_the_bus_and_a_remedy() {
        let source = |kind: io::ErrorKind| (String::from("can7"), io::Error::from(kind));
        let text = |kind| {
            let (device, source) = source(kind);
            format!("{:#}", can_error(CanError::Device { device, source }, "cannot scan can7"))
        };
        let missing = text(io::ErrorKind::NotFound);
        assert!(missing.starts_with("cannot scan can7: ") && missing.contains("ip link"), "{missing}");
        assert!(text(io::ErrorKind::PermissionDenied).contains("dialout"));
        assert!(text(io::ErrorKind::NetworkDown).contains("ip link set"));
    }
}
