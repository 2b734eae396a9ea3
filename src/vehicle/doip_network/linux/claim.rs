//! Claiming link-local addresses: the shell around [`LinkLocal`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};

use connector_hal::clock::now;
use connector_hal::ethernet::{AddressWatch, ArpSocket, Interface};
use tokio::task::JoinHandle;

use crate::protocol::doip::link_local::{LinkLocal, LinkLocalEvent, PREFIX};

/// The addresses that this process has claimed, by interface. Dropping this value removes them.
#[derive(Default)]
pub(crate) struct AddressClaims(Mutex<HashMap<String, Claim>>);

struct Claim(JoinHandle<()>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The address on the interface. Dropping this value removes the address.
struct AssignedAddress<'a> {
    interface: &'a Interface,
    address: Option<Ipv4Addr>,
}

impl AssignedAddress<'_> {
    fn set(&mut self, address: Option<Ipv4Addr>) -> io::Result<()> {
        if let Some(before) = self.address.take() {
            // others may have removed the address, as when the interface went down
            let _gone = self.interface.remove_address(IpAddr::V4(before), PREFIX);
        }
        if let Some(address) = address {
            self.interface.add_address(IpAddr::V4(address), PREFIX)?;
        }
        self.address = address;
        Ok(())
    }
}

impl Drop for AssignedAddress<'_> {
    fn drop(&mut self) {
        let _nothing_to_take_back = self.set(None);
    }
}

impl AddressClaims {
    /// Begins to claim an address for the interface, unless a claim is under way. Claiming takes some
    /// seconds.
    pub(super) fn claim(&self, interface: &Interface) -> io::Result<()> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.get(interface.name()).is_some_and(|claim| !claim.0.is_finished()) {
            return Ok(());
        }
        let socket = ArpSocket::open(interface)?;
        let (mac, watch) = (interface.mac()?, AddressWatch::new()?);
        let own = interface.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = drive(mac, &socket, &watch, &own).await {
                tracing::warn!(interface = own.name(), %error, "cannot claim a link-local address");
            }
        });
        claims.insert(interface.name().to_owned(), Claim(task));
        Ok(())
    }
}

/// Claims an address each time the link comes up (RFC 3927, 2.2), and keeps the address while the link is up.
async fn drive(
    mac: [u8; 6],
    socket: &ArpSocket,
    watch: &AddressWatch,
    interface: &Interface,
) -> io::Result<()> {
    loop {
        if interface.has_carrier()? {
            tokio::select! {
                ended = claim_and_defend(LinkLocal::new(mac, now()), socket, interface) => return ended,
                lost = carrier_lost(watch, interface) => lost?,
            }
        } else {
            watch.changed().await?;
        }
    }
}

async fn carrier_lost(watch: &AddressWatch, interface: &Interface) -> io::Result<()> {
    while interface.has_carrier()? {
        watch.changed().await?;
    }
    tracing::debug!(interface = interface.name(), "the link is down; its address is removed");
    Ok(())
}

async fn claim_and_defend(
    mut machine: LinkLocal,
    socket: &ArpSocket,
    interface: &Interface,
) -> io::Result<()> {
    let mut assigned = AssignedAddress { interface, address: None };
    loop {
        while let Some(packet) = machine.poll_transmit() {
            socket.send(&packet)?;
        }
        while let Some(event) = machine.poll_event() {
            match event {
                LinkLocalEvent::Claimed(address) => {
                    tracing::info!(interface = interface.name(), %address, "claimed a link-local address");
                    assigned.set(Some(address))?;
                }
                LinkLocalEvent::Lost(address) => {
                    tracing::warn!(interface = interface.name(), %address, "another host uses the address");
                    assigned.set(None)?;
                }
            }
        }
        let due = async {
            match machine.poll_timeout() {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            packet = socket.receive() => machine.handle_packet(now(), &packet?),
            () = due => machine.handle_timeout(now()),
        }
    }
}
