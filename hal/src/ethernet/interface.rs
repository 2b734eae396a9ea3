//! A network interface by name.

use std::io;
use std::net::IpAddr;

use super::netlink::{self, InterfaceAddress, RUNNING, UP};

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
        netlink::addresses(self.index)
    }

    /// Adds an address; no error if the interface already has it.
    pub fn add_address(&self, ip: IpAddr, prefix: u8) -> io::Result<()> {
        netlink::change_address(self.index, ip, prefix, true)
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
    fn a_missing_interface_is_an_error() {
        for name in ["no-such-if", "", "..", "../lo", "a-name-that-is-too-long"] {
            assert!(Interface::find(name).is_err(), "{name}");
        }
    }
}
