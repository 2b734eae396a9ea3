//! The `[doip]` table: how the connector joins a vehicle's network. The relay protocol's
//! `doip_network_configuration` selects one of nine network configurations.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::protocol::doip::connection::ConnectionSettings;
use crate::protocol::doip::{ActivationType, LogicalAddress, ProtocolVersion};
use crate::tls::gateway::DoipTlsConfig;

/// The numbers that a network configuration may have: one for each of the nine groups of manufacturers (relay
/// protocol, section 3).
pub(crate) const NETWORK_CONFIGURATIONS: std::ops::RangeInclusive<u8> = 1..=9;

/// How the interface gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InterfaceAddressing {
    /// Any address that the interface has, or that the system assigns within `address_wait_ms`.
    #[default]
    System,
    /// An IPv4 link-local address (RFC 3927): the system's, or else one that the agent claims.
    LinkLocal,
    /// An address by DHCP from the system's client. `dhcp_command` starts a client if none is running.
    Dhcp,
    /// The IPv4 address in `address`.
    Fixed,
    /// The IPv6 link-local address that every active interface has.
    Ipv6LinkLocal,
}

/// How the connector looks for gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryMethod {
    /// The connector only listens for announcements.
    Announcement,
    /// The connector asks by IPv4 broadcast.
    Broadcast,
    /// The connector asks by IPv6 multicast.
    Multicast,
}

/// An IPv4 address with the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Net {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of the network's prefix, in bits.
    pub prefix: u8,
}

/// The text is not an IPv4 address with prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an IPv4 address with prefix, like 192.168.7.1/24")]
pub struct Ipv4NetError(String);

impl FromStr for Ipv4Net {
    type Err = Ipv4NetError;

    fn from_str(text: &str) -> Result<Self, Ipv4NetError> {
        let parsed = text.split_once('/').and_then(|(address, prefix)| {
            Some(Self { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
        });
        parsed.filter(|net| (1..=32).contains(&net.prefix)).ok_or_else(|| Ipv4NetError(text.to_owned()))
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
    pub addressing: InterfaceAddressing,
    /// The address, if it is fixed.
    pub address: Option<Ipv4Net>,
    /// How the connector looks for gateways. It always listens for announcements.
    pub discovery: Vec<DiscoveryMethod>,
    /// The tester addresses that an operator may use: the first and the last.
    pub tester_addresses: [u16; 2],
    /// The tester address with which the connector reads the VIN.
    pub tester_address: u16,
    /// The type of the routing activation: 0x00 default, 0x01 WWH-OBD, 0xE0 central security.
    pub activation_type: u8,
    /// The four manufacturer-specific bytes of the routing activation.
    pub activation_oem: Option<[u8; 4]>,
    /// The protocol version while the gateway has announced none, 2 to 4; 2 by default.
    pub protocol_version: u8,
    /// Whether every connection uses TLS; otherwise a connection uses TLS if the gateway demands it.
    pub tls: bool,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            addressing: InterfaceAddressing::System,
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
    /// The network configuration of this number, unless `[doip.network]` replaces it.
    pub fn known(number: u8) -> Self {
        let broadcast = Self { discovery: vec![DiscoveryMethod::Broadcast], ..Self::default() };
        match number {
            2 => Self { addressing: InterfaceAddressing::LinkLocal, ..broadcast },
            3 => Self { addressing: InterfaceAddressing::Dhcp, ..broadcast },
            4 => {
                let address = Some(Ipv4Net { address: Ipv4Addr::new(192, 168, 0, 2), prefix: 24 });
                Self { addressing: InterfaceAddressing::Fixed, address, ..broadcast }
            }
            // 1, and any other number, uses the address that the interface has already
            5 => Self { protocol_version: 3, ..Self::default() },
            6 => Self {
                addressing: InterfaceAddressing::Ipv6LinkLocal,
                discovery: vec![DiscoveryMethod::Multicast],
                ..Self::default()
            },
            7 => Self { addressing: InterfaceAddressing::LinkLocal, activation_type: 0x01, ..broadcast },
            8 => Self { addressing: InterfaceAddressing::LinkLocal, activation_type: 0xE0, ..broadcast },
            9 => Self {
                addressing: InterfaceAddressing::LinkLocal,
                protocol_version: 3,
                tls: true,
                ..broadcast
            },
            _ => Self::default(),
        }
    }

    /// Whether an operator may use this tester address.
    pub(crate) fn allows_tester(&self, tester: LogicalAddress) -> bool {
        let [first, last] = self.tester_addresses;
        (first..=last).contains(&tester.get())
    }

    /// The settings of a DoIP connection for this tester.
    pub fn connection(
        &self,
        tester: LogicalAddress,
        max_data: usize,
        confirmation_time: Duration,
    ) -> ConnectionSettings {
        ConnectionSettings {
            version: ProtocolVersion::from(self.protocol_version),
            tester,
            entity: None,
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
    /// The number of the network configuration for reading the VIN.
    pub network_configuration: u8,
    /// How long to wait until the interface is active and has its address.
    #[serde(rename = "address_wait_ms", with = "crate::config::duration")]
    pub address_wait: Duration,
    /// The command that starts the system's DHCP client; `{interface}` stands for the interface. Without a
    /// command, a client must be running already.
    pub dhcp_command: Vec<String>,
    /// How long to look for a gateway when a channel is opened.
    #[serde(rename = "discovery_ms", with = "crate::config::duration")]
    pub discovery_time: Duration,
    /// How long to wait until a person in the vehicle has confirmed a routing activation.
    #[serde(rename = "confirmation_ms", with = "crate::config::duration")]
    pub confirmation_time: Duration,
    /// TLS with gateways.
    pub tls: DoipTlsConfig,
    /// The network configurations, by their number as text. A table replaces the whole of
    /// [`NetworkConfig::known`].
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

/// The known network configurations, replaced by those in the file.
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
            assert_eq!(
                network.addressing == InterfaceAddressing::Fixed,
                network.address.is_some(),
                "{number}"
            );
            assert!(network.allows_tester(LogicalAddress::new(network.tester_address)), "{number}");
            let version = ProtocolVersion::from(network.protocol_version);
            assert!(matches!(version, ProtocolVersion::V2012 | ProtocolVersion::V2019), "{number}");
        }
    }

    #[test]
    fn a_table_replaces_its_network_configuration_and_missing_keys_have_their_default() {
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
    fn an_invalid_network_address_is_refused() {
        for text in ["10.0.0.1", "10.0.0.1/33", "10.0.0.1/0", "10.0.0/8", "x/8"] {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
    }
}
