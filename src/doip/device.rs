//! Where DoIP is found: an Ethernet interface, or one gateway's address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::PORT;

/// What a bus of kind `doip` is reached by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Device {
    /// A network interface, like `eth0`: the vehicle's gateways are looked for on its link.
    Interface(String),
    /// One gateway, like `192.168.7.2` or `127.0.0.1:13400`: only it is asked.
    Host(SocketAddr),
}

/// A name that is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a network interface like eth0 nor a gateway's address like 192.168.7.2:13400")]
pub struct DeviceError(String);

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Self, DeviceError> {
        let text = name.strip_prefix("doip:").unwrap_or(name);
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self::Host(address));
        }
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok(Self::Host(SocketAddr::new(ip, PORT)));
        }
        // Linux: up to 15 bytes, without slash, colon and blanks
        let is_name = (1..16).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:".contains(&byte))
            && !matches!(text, "." | "..");
        if is_name { Ok(Self::Interface(text.to_owned())) } else { Err(DeviceError(name.to_owned())) }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => formatter.write_str(name),
            Self::Host(address) => address.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_an_interface_or_a_gateways_address() {
        let host = |text: &str| Device::Host(text.parse().unwrap());
        for (name, device) in [
            ("eth0", Device::Interface("eth0".to_owned())),
            ("doip:enp3s0f1", Device::Interface("enp3s0f1".to_owned())),
            ("192.168.7.2", host("192.168.7.2:13400")),
            ("doip:127.0.0.1:40000", host("127.0.0.1:40000")),
            ("fe80::1", host("[fe80::1]:13400")),
            ("[::1]:5", host("[::1]:5")),
        ] {
            assert_eq!(name.parse(), Ok(device), "{name}");
        }
        for name in ["", "doip:", "../x", "eth 0", "192.168.7.2:99999", "a-name-that-is-too-long"] {
            assert!(name.parse::<Device>().is_err(), "{name}");
        }
    }
}
