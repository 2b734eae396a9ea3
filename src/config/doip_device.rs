//! The device of a DoIP bus: an Ethernet interface, or one gateway's address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::str::FromStr;

use connector_hal::ethernet::Interface;

use crate::protocol::doip::PORT;

/// The device of a bus of kind `doip`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DoipDevice {
    /// A network interface, like `eth0`. The connector looks for the vehicle's gateways on its link.
    Interface(String),
    /// One gateway, like `192.168.7.2` or `127.0.0.1:13400`. The connector asks only this gateway.
    Host(SocketAddr),
    /// One gateway by its IPv6 link-local address, like `fe80::1%eth0` or `[fe80::1%3]:13400`.
    LinkLocalHost {
        /// The gateway's address.
        ip: Ipv6Addr,
        /// The gateway's port.
        port: u16,
        /// The name of the interface on whose link the gateway is. A removable interface may have another
        /// number each time.
        interface: String,
    },
}

/// Why the name of a DoIP device cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoipDeviceError {
    /// The name is neither an interface nor an address.
    #[error(
        "`{0}` is neither a network interface like eth0 nor a gateway's address like 192.168.7.2:13400 or fe80::1%eth0"
    )]
    Neither(String),
    /// A link-local address without the interface on whose link it is.
    #[error("`{0}` is a link-local address and needs its interface: write it like fe80::1%eth0")]
    NoInterface(String),
}

impl DoipDevice {
    /// The interface, if the device names one.
    pub(crate) fn interface(&self) -> Option<&str> {
        match self {
            Self::Interface(interface) | Self::LinkLocalHost { interface, .. } => Some(interface),
            Self::Host(_) => None,
        }
    }
}

impl FromStr for DoipDevice {
    type Err = DoipDeviceError;

    fn from_str(name: &str) -> Result<Self, DoipDeviceError> {
        let text = name.strip_prefix("doip:").unwrap_or(name);
        if let Some((ip, scope)) = text.split_once('%') {
            return link_local(ip, scope).ok_or_else(|| DoipDeviceError::Neither(name.to_owned()));
        }
        let ip = || text.trim_matches(['[', ']']).parse::<IpAddr>();
        if let Some(address) =
            text.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(ip().ok()?, PORT)))
        {
            let needs_interface = matches!(address, SocketAddr::V6(v6) if v6.ip().is_unicast_link_local());
            return if needs_interface {
                Err(DoipDeviceError::NoInterface(name.to_owned()))
            } else {
                Ok(Self::Host(address))
            };
        }
        if is_interface(text) {
            Ok(Self::Interface(text.to_owned()))
        } else {
            Err(DoipDeviceError::Neither(name.to_owned()))
        }
    }
}

/// Parses `fe80::1%eth0`, `[fe80::1%eth0]` or `[fe80::1%eth0]:13400`, split at the percent sign.
fn link_local(front: &str, back: &str) -> Option<DoipDevice> {
    let (ip, scope, port) = match front.strip_prefix('[') {
        Some(ip) => {
            let (scope, behind) = back.split_once(']')?;
            let port = if behind.is_empty() { PORT } else { behind.strip_prefix(':')?.parse().ok()? };
            (ip, scope, port)
        }
        None => (front, back, PORT),
    };
    let ip: Ipv6Addr = ip.parse().ok()?;
    let interface = scope.to_owned();
    (ip.is_unicast_link_local() && is_interface(scope)).then_some(DoipDevice::LinkLocalHost {
        ip,
        port,
        interface,
    })
}

/// Whether the text can be an interface's name or number. Linux allows up to 15 bytes, without slash, colon
/// and blanks.
fn is_interface(text: &str) -> bool {
    (1..16).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%[]".contains(&byte))
        && !matches!(text, "." | "..")
}

/// Why a text is not a socket address.
#[derive(Debug, thiserror::Error)]
pub enum SocketAddressError {
    /// The text has another form.
    #[error("not a socket address, like 192.168.7.1:13400 or [fe80::1%eth0]:13400")]
    Syntax,
    /// The interface cannot be found.
    #[error("interface {interface}: {source}")]
    Interface {
        /// The interface's name.
        interface: String,
        /// The I/O error that caused this.
        source: io::Error,
    },
}

/// Parses a socket address, in which a link-local IPv6 address may name its interface:
/// `[fe80::1%eth0]:13400`.
///
/// # Errors
///
/// The text is not a socket address, or the interface does not exist.
pub fn socket_address(text: &str) -> Result<SocketAddr, SocketAddressError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let device =
        text.split_once('%').filter(|_| text.starts_with('[')).and_then(|(ip, scope)| link_local(ip, scope));
    match device {
        Some(DoipDevice::LinkLocalHost { ip, port, interface }) => match scope_id(&interface) {
            Ok(index) => Ok(SocketAddrV6::new(ip, port, 0, index).into()),
            Err(source) => Err(SocketAddressError::Interface { interface, source }),
        },
        _ => Err(SocketAddressError::Syntax),
    }
}

/// The number of the interface with this name or number.
pub(crate) fn scope_id(interface: &str) -> io::Result<u32> {
    match interface.parse() {
        Ok(index) => Ok(index),
        Err(_) => Ok(Interface::find(interface)?.index()),
    }
}

impl fmt::Display for DoipDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(name) => formatter.write_str(name),
            Self::Host(address) => address.fmt(formatter),
            Self::LinkLocalHost { ip, port, interface } => write!(formatter, "[{ip}%{interface}]:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_an_interface_or_a_gateways_address() {
        let host = |text: &str| DoipDevice::Host(text.parse().unwrap());
        let link_local = |ip: &str, port, interface: &str| DoipDevice::LinkLocalHost {
            ip: ip.parse().unwrap(),
            port,
            interface: interface.to_owned(),
        };
        for (name, device) in [
            ("eth0", DoipDevice::Interface("eth0".to_owned())),
            ("doip:enp3s0f1", DoipDevice::Interface("enp3s0f1".to_owned())),
            ("192.168.7.2", host("192.168.7.2:13400")),
            ("doip:127.0.0.1:40000", host("127.0.0.1:40000")),
            ("fd00::1", host("[fd00::1]:13400")),
            ("[fd00::1]", host("[fd00::1]:13400")),
            ("[::1]:5", host("[::1]:5")),
            ("fe80::1%eth0", link_local("fe80::1", 13400, "eth0")),
            ("doip:fe80::1%3", link_local("fe80::1", 13400, "3")),
            ("[fe80::1%eth0]", link_local("fe80::1", 13400, "eth0")),
            ("[fe80::a:b%enp3s0.7]:40000", link_local("fe80::a:b", 40000, "enp3s0.7")),
        ] {
            assert_eq!(name.parse(), Ok(device), "{name}");
        }
        for name in [
            "",
            "doip:",
            "../x",
            "eth 0",
            "192.168.7.2:99999",
            "a-name-that-is-too-long",
            "fe80::1%",
            "fe80::1%a/b",
            "[fe80::1%eth0",
            "[fe80::1%eth0]:x",
            "[fe80::1%eth0]5",
            "fd00::1%eth0",
            "192.168.7.2%eth0",
            "%eth0",
        ] {
            let error = name.parse::<DoipDevice>().unwrap_err();
            assert_eq!(error, DoipDeviceError::Neither(name.to_owned()), "{name}");
        }
    }

    #[test]
    fn a_link_local_address_needs_its_interface() {
        for name in ["fe80::1", "doip:[fe80::1]:13400"] {
            let error = name.parse::<DoipDevice>().unwrap_err();
            assert_eq!(error, DoipDeviceError::NoInterface(name.to_owned()));
            assert!(error.to_string().contains("fe80::1%eth0"), "{error}");
        }
    }

    #[test]
    fn a_socket_address_may_name_the_interface_by_name_or_number() {
        let lo = scope_id("lo").unwrap();
        for text in ["[fe80::1%lo]:13400".to_owned(), format!("[fe80::1%{lo}]:13400")] {
            let address = socket_address(&text).unwrap();
            assert_eq!(address, SocketAddrV6::new("fe80::1".parse().unwrap(), 13400, 0, lo).into());
        }
        assert_eq!(socket_address("127.0.0.1:5").unwrap(), SocketAddr::from(([127, 0, 0, 1], 5)));
        for text in ["eth0", "fe80::1%lo", "[fe80::1%no-such-if]:5", "[::1%lo]:5", "127.0.0.1"] {
            assert!(socket_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_is_displayed_in_its_configuration_syntax() {
        for text in ["eth0", "192.168.7.2:13400", "[fd00::1]:13400", "[fe80::1%eth0]:13400"] {
            assert_eq!(text.parse::<DoipDevice>().unwrap().to_string(), text);
        }
    }
}
