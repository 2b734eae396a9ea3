//! Ethernet interfaces: their state, addresses and routes, and ARP.
//!
//! Reading needs no privilege. Changing an interface needs `CAP_NET_ADMIN`, and ARP needs `CAP_NET_RAW`. All
//! requests use rtnetlink, not sysfs: a mounted sysfs may show the interfaces of another network namespace.

mod arp;
mod interface;
mod netlink;
mod network;
mod routes;

pub use arp::{ArpPacket, ArpSocket};
pub use interface::Interface;
#[cfg(feature = "sim")]
pub use netlink::requests_of_this_thread;
pub use netlink::{AddressWatch, InterfaceAddress};
pub use network::IpNetwork;
pub use routes::{RemoteRoute, remote_routes};
