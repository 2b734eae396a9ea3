//! Addresses that the agent puts on an interface, without a route that other programs would use.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use connector_hal::ethernet::Interface;

/// Gives the interface an address. Only packets from this address find the network by the interface: the sockets of
/// the agent, which are bound to the interface, and the kernel's check of senders (`rp_filter`).
pub(super) fn assign(interface: &Interface, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    interface.add_address(IpAddr::V4(address), prefix)?;
    if let Err(error) = interface.add_source_route(address, prefix) {
        tracing::warn!(
            interface = interface.name(),
            %error,
            "the kernel has no routes by source; it may drop what the vehicle sends unless net.ipv4.conf.*.rp_filter is 0"
        );
    }
    Ok(())
}

/// Takes the address back. The interface may be gone, with its addresses.
pub(super) fn withdraw(interface: &Interface, address: Ipv4Addr, prefix: u8) {
    let removed = [
        interface.remove_source_route(address, prefix),
        interface.remove_address(IpAddr::V4(address), prefix),
    ];
    for error in removed.into_iter().filter_map(Result::err) {
        tracing::debug!(interface = interface.name(), %address, %error, "not all of the address could be removed");
    }
}
