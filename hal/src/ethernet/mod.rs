//! Ethernet interfaces: whether they are up, which addresses they have, and giving them one.
//!
//! Looking needs no rights; changing needs `CAP_NET_ADMIN`, and ARP `CAP_NET_RAW`. All is asked by rtnetlink: what sysfs
//! shows depends on where it was mounted, and in a network namespace that may be another one's interfaces.

mod arp;
mod interface;
mod netlink;

pub use arp::{ArpPacket, ArpSocket};
pub use interface::Interface;
pub use netlink::{AddressWatch, InterfaceAddress};
