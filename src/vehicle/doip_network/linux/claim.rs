//! Claiming link-local addresses: the shell around [`LinkLocal`].

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use connector_hal::clock::now;
use connector_hal::ethernet::{AddressWatch, ArpSocket, Interface};
use tokio::task::JoinHandle;

use super::assignment::{assign, withdraw};
use crate::protocol::doip::link_local::{LinkLocal, LinkLocalEvent, PREFIX};

/// The addresses that this process claims, by interface.
#[derive(Default)]
pub(crate) struct AddressClaims {
    claims: Mutex<HashMap<String, Weak<Claim>>>,
    /// The claims that outlive the use of their networks.
    kept: Mutex<HashMap<String, Arc<Claim>>>,
}

/// A claim for an interface. Dropping this value removes the address.
pub(crate) struct Claim {
    task: JoinHandle<()>,
    assigned: Arc<AssignedAddress>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.task.abort();
        // not left to the end of the task: the address must be gone when the next claim begins
        let _nothing_to_take_back = self.assigned.set(None);
    }
}

/// The address on the interface. Dropping this value removes the address.
struct AssignedAddress {
    interface: Interface,
    address: Mutex<Option<Ipv4Addr>>,
}

impl AssignedAddress {
    fn set(&self, address: Option<Ipv4Addr>) -> io::Result<()> {
        let mut assigned = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = assigned.take() {
            withdraw(&self.interface, before, PREFIX);
        }
        if let Some(address) = address {
            assign(&self.interface, address, PREFIX)?;
        }
        *assigned = address;
        Ok(())
    }
}

/// Removes the address when the link is lost, or when the claim fails.
struct WhileLinked<'a>(&'a AssignedAddress);

impl Drop for WhileLinked<'_> {
    fn drop(&mut self) {
        let _nothing_to_take_back = self.0.set(None);
    }
}

impl AddressClaims {
    /// The claim for the interface, if one is under way.
    pub(super) fn get(&self, interface: &Interface) -> Option<Arc<Claim>> {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.get(interface.name())?.upgrade().filter(|claim| !claim.task.is_finished())
    }

    /// Begins to claim an address for the interface. Claiming takes some seconds. The claim ends when the returned
    /// value is dropped, unless it is `kept`: then it ends with the agent.
    pub(super) fn claim(&self, interface: &Interface, kept: bool) -> io::Result<Arc<Claim>> {
        let socket = ArpSocket::open(interface)?;
        let (mac, watch) = (interface.mac()?, AddressWatch::new()?);
        let assigned = Arc::new(AssignedAddress { interface: interface.clone(), address: Mutex::default() });
        let own = Arc::clone(&assigned);
        let task = tokio::spawn(async move {
            if let Err(error) = drive(mac, &socket, &watch, &own).await {
                tracing::warn!(interface = own.interface.name(), %error, "cannot claim a link-local address");
            }
        });
        let claim = Arc::new(Claim { task, assigned });
        let name = interface.name();
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.insert(name.to_owned(), Arc::downgrade(&claim));
        if kept {
            self.keep(interface, &claim);
        }
        Ok(claim)
    }

    /// Lets a claim outlive the use of its network.
    pub(super) fn keep(&self, interface: &Interface, claim: &Arc<Claim>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.insert(interface.name().to_owned(), Arc::clone(claim));
    }
}

/// Claims an address each time the link comes up (RFC 3927, 2.2), and keeps the address while the link is up.
async fn drive(
    mac: [u8; 6],
    socket: &ArpSocket,
    watch: &AddressWatch,
    assigned: &AssignedAddress,
) -> io::Result<()> {
    loop {
        if assigned.interface.has_carrier()? {
            tokio::select! {
                ended = claim_and_defend(LinkLocal::new(mac, now()), socket, assigned) => return ended,
                lost = carrier_lost(watch, &assigned.interface) => lost?,
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
    assigned: &AssignedAddress,
) -> io::Result<()> {
    let interface = &assigned.interface;
    let _taken_back_at_the_end = WhileLinked(assigned);
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
