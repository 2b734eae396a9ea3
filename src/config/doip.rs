//! The `[doip]` table: how a vehicle's network is entered, by the protocol's `doip_network_configuration`.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::protocol::doip::connection::ConnectionSettings;
use crate::protocol::doip::{ActivationType, LogicalAddress, ProtocolVersion};
use crate::tls::gateway::DoipTlsConfig;

/// The numbers that a network configuration may have.
pub const NETWORK_CONFIGURATIONS: std::ops::RangeInclusive<u8> = 1..=9;

/// How the interface gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// As the system has it: whatever address the interface has, or gets within `address_wait_ms`.
    #[default]
    System,
    /// An IPv4 link-local address (RFC 3927): the system's, or else one of our own.
    LinkLocal,
    /// An address by DHCP, from the system's client; `dhcp_command` starts one where none runs.
    Dhcp,
    /// The IPv4 address in `address`.
    Fixed,
    /// The IPv6 link-local address, which every interface that is up has.
    Ipv6LinkLocal,
}

/// How gateways are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryMethod {
    /// Announcements are heard; nobody is asked.
    Announcement,
    /// Everybody is asked by IPv4 broadcast.
    Broadcast,
    /// Everybody is asked by IPv6 multicast.
    Multicast,
}

/// An IPv4 address with its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Net {
    /// The address.
    pub address: Ipv4Addr,
    /// How many bits of it are the network's.
    pub prefix: u8,
}

impl FromStr for Ipv4Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            Some(Self { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
        });
        parsed
            .filter(|net| (1..=32).contains(&net.prefix))
            .ok_or_else(|| format!("`{text}` is no IPv4 address with prefix, like 192.168.7.1/24"))
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Ipv4Net {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `[doip.network.N]`: one network configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkConfig {
    /// How the interface gets its address.
    pub addressing: Addressing,
    /// The address where it is fixed.
    pub address: Option<Ipv4Net>,
    /// How gateways are looked for; announcements are always heard.
    pub discovery: Vec<DiscoveryMethod>,
    /// The addresses that an operator may use as tester: the first and the last.
    pub tester_addresses: [u16; 2],
    /// The address that the connector itself uses, for reading the VIN.
    pub tester_address: u16,
    /// The routing activation's type: 0x00 default, 0x01 WWH-OBD, 0xE0 central security.
    pub activation_type: u8,
    /// The manufacturer's four bytes in the routing activation.
    pub activation_oem: Option<[u8; 4]>,
    /// The protocol version that is spoken: 2 or 3; 2 unless told.
    pub protocol_version: u8,
    /// Whether connections are made by TLS from the beginning; else when the gateway demands it.
    pub tls: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            addressing: Addressing::System,
            address: None,
            discovery: vec![DiscoveryMethod::Broadcast, DiscoveryMethod::Multicast],
            tester_addresses: [0x0E00, 0x0FFF],
            tester_address: 0x0E80,
            activation_type: 0x00,
            activation_oem: None,
            protocol_version: 2,
            tls: false,
        }
    }
}

impl NetworkConfig {
    /// The configuration of this number, where `[doip.network]` does not say otherwise.
    pub fn known(number: u8) -> Self {
        let broadcast = Self { discovery: vec![DiscoveryMethod::Broadcast], ..Self::default() };
        match number {
            2 => Self { addressing: Addressing::LinkLocal, ..broadcast },
            3 => Self { addressing: Addressing::Dhcp, ..broadcast },
            4 => {
                let address = Some(Ipv4Net { address: Ipv4Addr::new(192, 168, 0, 2), prefix: 24 });
                Self { addressing: Addressing::Fixed, address, ..broadcast }
            }
            // 1 is as good as any: what the interface has already
            5 => Self { protocol_version: 3, ..Self::default() },
            6 => Self {
                addressing: Addressing::Ipv6LinkLocal,
                discovery: vec![DiscoveryMethod::Multicast],
                ..Self::default()
            },
            7 => Self { addressing: Addressing::LinkLocal, activation_type: 0x01, ..broadcast },
            8 => Self { addressing: Addressing::LinkLocal, activation_type: 0xE0, ..broadcast },
            9 => Self { addressing: Addressing::LinkLocal, protocol_version: 3, tls: true, ..broadcast },
            _ => Self::default(),
        }
    }

    /// Whether an operator may use this tester address.
    pub fn allows_tester(&self, tester: LogicalAddress) -> bool {
        let [first, last] = self.tester_addresses;
        (first..=last).contains(&tester.get())
    }

    /// How a connection for this tester is activated.
    pub fn connection(
        &self,
        tester: LogicalAddress,
        max_data: usize,
        confirmation_time: Duration,
    ) -> ConnectionSettings {
        ConnectionSettings {
            version: ProtocolVersion::from(self.protocol_version),
            tester,
            activation_type: ActivationType::from(self.activation_type),
            oem: self.activation_oem,
            confirmation_time,
            max_data,
        }
    }
}

/// `[doip]`: diagnostics over IP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DoipConfig {
    /// The network configuration that the VIN is read with.
    pub network_configuration: u8,
    /// How long to wait for the interface to be up and to have its address.
    #[serde(rename = "address_wait_ms", with = "crate::config::duration")]
    pub address_wait: Duration,
    /// Starts the system's DHCP client; `{interface}` stands for the interface. Without it, one is running.
    pub dhcp_command: Vec<String>,
    /// How long a gateway is looked for when a channel is opened.
    #[serde(rename = "discovery_ms", with = "crate::config::duration")]
    pub discovery_time: Duration,
    /// How long somebody in the vehicle has to confirm a routing activation.
    #[serde(rename = "confirmation_ms", with = "crate::config::duration")]
    pub confirmation_time: Duration,
    /// TLS with gateways.
    pub tls: DoipTlsConfig,
    /// The network configurations, by their number as text; a table replaces [`NetworkConfig::known`] as a whole.
    #[serde(deserialize_with = "networks")]
    pub network: BTreeMap<String, NetworkConfig>,
}

impl Default for DoipConfig {
    fn default() -> Self {
        Self {
            network_configuration: 1,
            address_wait: Duration::from_secs(10),
            dhcp_command: Vec::new(),
            discovery_time: Duration::from_secs(3),
            confirmation_time: Duration::from_secs(30),
            tls: DoipTlsConfig::default(),
            network: known_networks(),
        }
    }
}

fn known_networks() -> BTreeMap<String, NetworkConfig> {
    NETWORK_CONFIGURATIONS.map(|number| (number.to_string(), NetworkConfig::known(number))).collect()
}

/// The known ones, with those in their place that the file has.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, NetworkConfig>, D::Error> {
    let mut networks = known_networks();
    networks.extend(BTreeMap::deserialize(deserializer)?);
    Ok(networks)
}

impl DoipConfig {
    /// The network configuration of this number.
    pub fn network(&self, number: u8) -> NetworkConfig {
        self.network.get(&number.to_string()).cloned().unwrap_or_else(|| NetworkConfig::known(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_configuration_has_a_default_that_can_be_used() {
        for number in NETWORK_CONFIGURATIONS {
            let network = NetworkConfig::known(number);
            assert_eq!(network.addressing == Addressing::Fixed, network.address.is_some(), "{number}");
            assert!(network.allows_tester(LogicalAddress::new(network.tester_address)), "{number}");
            let version = ProtocolVersion::from(network.protocol_version);
            assert!(matches!(version, ProtocolVersion::V2012 | ProtocolVersion::V2019), "{number}");
        }
    }

    #[test]
    fn the_table_replaces_what_it_names_and_what_it_leaves_out_is_the_default() {
        let config: DoipConfig = toml::from_str(
            "network_configuration = 4\n[network.4]\naddressing = \"fixed\"\naddress = \"10.1.2.3/16\"\n\
             activation_oem = [1, 2, 3, 4]\n",
        )
        .unwrap();
        let network = config.network(4);
        assert_eq!(network.address.unwrap().to_string(), "10.1.2.3/16");
        let settings = network.connection(LogicalAddress::new(0x0E81), 4096, Duration::from_secs(1));
        assert_eq!((settings.oem, settings.max_data), (Some([1, 2, 3, 4]), 4096));
        assert_eq!(config.network(2), NetworkConfig::known(2));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0.1/0", "10.0.0/8", "x/8"] {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
    }
}
