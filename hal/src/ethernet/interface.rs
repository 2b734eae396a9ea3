//! A network interface by name.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::netlink::{self, InterfaceAddress, RUNNING, UP};
use super::network::IpNetwork;
use super::routes::{change_source_route, routes};

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    name: String,
    index: u32,
}

impl Interface {
    /// Finds an interface by name; an error if it does not exist.
    pub fn find(name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), index: netlink::index(name)? })
    }

    /// The name of the interface.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the interface is up.
    pub fn is_up(&self) -> io::Result<bool> {
        Ok(netlink::link(self.index)?.flags & UP != 0)
    }

    /// Whether the interface is up and has a link.
    pub fn has_carrier(&self) -> io::Result<bool> {
        Ok(netlink::link(self.index)?.flags & (UP | RUNNING) == UP | RUNNING)
    }

    /// The hardware address.
    pub fn mac(&self) -> io::Result<[u8; 6]> {
        netlink::link(self.index)?.mac.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Brings the interface up.
    pub fn set_up(&self) -> io::Result<()> {
        netlink::set_up(self.index)
    }

    /// The addresses of the interface.
    pub fn addresses(&self) -> io::Result<Vec<InterfaceAddress>> {
        let all = netlink::addresses()?.into_iter();
        Ok(all.filter(|(index, _)| *index == self.index).map(|(_, address)| address).collect())
    }

    /// The names of the other interfaces of the machine, without loopback.
    pub fn others(&self) -> io::Result<Vec<String>> {
        Ok(netlink::names()?.into_iter().filter(|name| *name != self.name).collect())
    }

    /// A network of another interface that overlaps this one, with the name of the interface: the network of an
    /// address, or one that a route leads to.
    pub fn overlap(&self, network: &IpNetwork) -> io::Result<Option<(String, IpNetwork)>> {
        let addresses = netlink::addresses()?.into_iter().map(|(index, address)| (index, address.network()));
        let routes = routes()?.into_iter().filter(|route| !route.is_default());
        let routes = routes.map(|route| (route.interface, route.destination));
        let is_other = |(index, other): &(u32, IpNetwork)| *index != self.index && other.overlaps(network);
        let found = addresses.chain(routes).find(is_other);
        Ok(found.map(|(index, other)| (netlink::name(index), other)))
    }

    /// Adds an address, without a route to its network; no error if the interface already has it.
    pub fn add_address(&self, ip: IpAddr, prefix: u8) -> io::Result<()> {
        netlink::change_address(self.index, ip, prefix, true)
    }

    /// Adds a route to the network of an address, for packets from this address only; no error if there is one.
    pub fn add_source_route(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        change_source_route(self.index, address, prefix, true)
    }

    /// Removes a route of [`Interface::add_source_route`].
    pub fn remove_source_route(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        change_source_route(self.index, address, prefix, false)
    }

    /// Removes an address.
    pub fn remove_address(&self, ip: IpAddr, prefix: u8) -> io::Result<()> {
        netlink::change_address(self.index, ip, prefix, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_up_and_has_its_address() {
        let loopback = Interface::find("lo").unwrap();
        assert!(loopback.is_up().unwrap());
        let addresses = loopback.addresses().unwrap();
        let own = addresses.iter().find(|address| address.ip == IpAddr::from([127, 0, 0, 1])).unwrap();
        assert_eq!((own.prefix, own.is_tentative), (8, false));
        assert_eq!(loopback.mac().unwrap(), [0; 6]);
    }

    #[test]
    fn networks_of_other_interfaces_overlap_and_the_own_ones_do_not() {
        let loopback = Interface::find("lo").unwrap();
        let network = IpNetwork { ip: [127, 0, 0, 9].into(), prefix: 32 };
        assert_eq!(loopback.overlap(&network).unwrap(), None);
        let other = Interface { name: "other".to_owned(), index: u32::MAX };
        let (name, found) = other.overlap(&network).unwrap().unwrap();
        assert_eq!((name.as_str(), found.to_string().as_str()), ("lo", "127.0.0.0/8"));
        assert!(!loopback.others().unwrap().contains(&"lo".to_owned()));
    }

    #[test]
    fn a_missing_interface_is_an_error() {
        for name in ["no-such-if", "", "..", "../lo", "a-name-that-is-too-long"] {
            assert!(Interface::find(name).is_err(), "{name}");
        }
    }
}
