//! IP networks: an address with the length of its prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IP network. The address may be that of the network or of any host in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpNetwork {
    /// An address in the network.
    pub ip: IpAddr,
    /// The length of the prefix, in bits.
    pub prefix: u8,
}

impl IpNetwork {
    /// Returns whether the address belongs to this network.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && first(self.ip, self.prefix) == first(ip, self.prefix)
    }

    /// Returns whether an address belongs to both networks.
    pub fn overlaps(&self, other: &Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        Self { prefix, ..*self }.contains(other.ip)
    }
}

/// The first address of the network with this prefix.
pub(super) fn first(ip: IpAddr, prefix: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128_u32.saturating_sub(prefix.into())).unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

/// Reads `10.1.2.3/24`. Only tests need that.
#[cfg(any(test, feature = "sim"))]
impl std::str::FromStr for IpNetwork {
    type Err = std::io::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (ip, prefix) = text.split_once('/').ok_or(std::io::ErrorKind::InvalidInput)?;
        let ip = ip.parse().map_err(std::io::Error::other)?;
        Ok(Self { ip, prefix: prefix.parse().map_err(std::io::Error::other)? })
    }
}

impl fmt::Display for IpNetwork {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", first(self.ip, self.prefix), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn networks_overlap_if_one_contains_the_other() {
        for (one, other, expected) in [
            ("192.168.0.2/24", "192.168.0.77/24", true),
            ("192.168.0.2/24", "192.168.1.2/24", false),
            ("10.0.0.0/8", "10.1.2.3/24", true),
            ("10.1.2.3/32", "10.1.2.3/32", true),
            ("10.1.2.3/32", "10.1.2.4/32", false),
            ("0.0.0.0/0", "10.1.2.4/32", true),
            ("fd00::1/64", "fd00::2:1/128", true),
            ("fd00::1/64", "fd00:1::1/64", false),
            ("::/0", "10.1.2.4/32", false),
        ] {
            assert_eq!(network(one).overlaps(&network(other)), expected, "{one} {other}");
            assert_eq!(network(other).overlaps(&network(one)), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_network_is_displayed_by_its_first_address() {
        for (text, expected) in [
            ("192.168.0.2/24", "192.168.0.0/24"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("fd00::7/64", "fd00::/64"),
        ] {
            assert_eq!(network(text).to_string(), expected);
        }
    }
}
