//! Addresses that the agent puts on an interface, without a route that other programs would use.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Condvar, Mutex, PoisonError};

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

/// Whether an address that was on an interface is gone again.
#[derive(Default)]
pub(super) struct Departure {
    has_ended: Mutex<bool>,
    ended: Condvar,
}

impl Departure {
    /// The address is gone.
    pub(super) fn end(&self) {
        *self.has_ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }

    /// Waits until the address is gone. Blocks, and must not be called before the address is being taken back.
    pub(super) fn wait(&self) {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*has_ended {
            has_ended = self.ended.wait(has_ended).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
