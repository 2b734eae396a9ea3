//! Claiming link-local addresses: the shell around [`LinkLocal`].

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use connector_hal::clock::now;
use connector_hal::ethernet::{AddressWatch, ArpSocket, Interface};
use tokio::task::JoinHandle;

use super::assignment::{Departure, assign, withdraw};
use super::off_thread::{drop_off_thread, off_thread};
use crate::protocol::doip::link_local::{LinkLocal, LinkLocalEvent, PREFIX};

/// The addresses that this process claims, by interface.
#[derive(Default)]
pub(crate) struct AddressClaims {
    claims: Mutex<HashMap<String, KnownClaim>>,
    /// The claims that outlive the use of their networks.
    kept: Mutex<HashMap<String, Arc<Claim>>>,
}

/// A claim under way, or one whose address is being removed.
struct KnownClaim {
    claim: Weak<Claim>,
    departure: Arc<Departure>,
}

/// A claim for an interface. Dropping this value removes the address, on another thread.
pub(crate) struct Claim {
    task: JoinHandle<()>,
    assigned: Arc<AssignedAddress>,
    departure: Arc<Departure>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.task.abort();
        // not left to the end of the task: the next claim waits for the departure
        self.assigned.take_back_later(Some(Arc::clone(&self.departure)));
    }
}

/// The address on the interface. Each change has the number of the claim's present turn, so that a change that was
/// overtaken by the end of its turn does nothing.
struct AssignedAddress {
    interface: Interface,
    turn: AtomicU64,
    /// The address with its turn. Held during calls to the kernel: only for threads that may block.
    address: Mutex<Option<(Ipv4Addr, u64)>>,
}

impl AssignedAddress {
    /// Puts the address on the interface, unless this turn is over.
    fn assign(&self, address: Ipv4Addr, turn: u64) -> io::Result<()> {
        let mut assigned = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if self.turn.load(Ordering::SeqCst) != turn {
            return Ok(());
        }
        if let Some((before, _)) = assigned.take() {
            withdraw(&self.interface, before, PREFIX);
        }
        assign(&self.interface, address, PREFIX)?;
        *assigned = Some((address, turn));
        Ok(())
    }

    /// Removes the address of a turn before this one.
    fn take_back(&self, turn: u64) {
        let mut assigned = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((address, _)) = assigned.take_if(|(_, of)| *of < turn) {
            withdraw(&self.interface, address, PREFIX);
        }
    }

    /// Ends the present turn, and removes its address on another thread.
    fn take_back_later(self: &Arc<Self>, departure: Option<Arc<Departure>>) {
        let before = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
        drop_off_thread(TakeBack { assigned: Arc::clone(self), before, departure });
    }
}

/// Removes an address when it is dropped. Blocks.
struct TakeBack {
    assigned: Arc<AssignedAddress>,
    before: u64,
    departure: Option<Arc<Departure>>,
}

impl Drop for TakeBack {
    fn drop(&mut self) {
        self.assigned.take_back(self.before);
        if let Some(departure) = &self.departure {
            departure.end();
        }
    }
}

/// Removes the address when the link is lost, or when the claim fails.
struct WhileLinked<'a>(&'a Arc<AssignedAddress>);

impl Drop for WhileLinked<'_> {
    fn drop(&mut self) {
        self.0.take_back_later(None);
    }
}

impl AddressClaims {
    /// The claim for the interface, if one is under way. Waits until the address of an earlier claim is gone: it
    /// would look like one of the system. Blocks.
    pub(super) fn get(&self, interface: &Interface) -> Option<Arc<Claim>> {
        let ended = {
            let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
            let known = claims.get(interface.name())?;
            if let Some(claim) = known.claim.upgrade() {
                if !claim.task.is_finished() {
                    return Some(claim);
                }
                claim.assigned.take_back(u64::MAX);
                return None;
            }
            claims.remove(interface.name())?
        };
        ended.departure.wait();
        None
    }

    /// Begins to claim an address for the interface. Claiming takes some seconds. The claim ends when the returned
    /// value is dropped, unless it is `kept`: then it ends with the agent. Blocks.
    pub(super) fn claim(&self, interface: &Interface, kept: bool) -> io::Result<Arc<Claim>> {
        let socket = ArpSocket::open(interface)?;
        let (mac, watch) = (interface.mac()?, AddressWatch::new()?);
        let assigned = Arc::new(AssignedAddress {
            interface: interface.clone(),
            turn: AtomicU64::default(),
            address: Mutex::default(),
        });
        let own = Arc::clone(&assigned);
        let task = tokio::spawn(async move {
            if let Err(error) = drive(mac, &socket, &watch, &own).await {
                tracing::warn!(interface = own.interface.name(), %error, "cannot claim a link-local address");
            }
        });
        let departure = Arc::<Departure>::default();
        let claim = Arc::new(Claim { task, assigned, departure: Arc::clone(&departure) });
        let name = interface.name();
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.insert(name.to_owned(), KnownClaim { claim: Arc::downgrade(&claim), departure });
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
    assigned: &Arc<AssignedAddress>,
) -> io::Result<()> {
    loop {
        if has_carrier(&assigned.interface).await? {
            tokio::select! {
                ended = claim_and_defend(LinkLocal::new(mac, now()), socket, assigned) => return ended,
                lost = carrier_lost(watch, &assigned.interface) => lost?,
            }
        } else {
            watch.changed().await?;
        }
    }
}

async fn has_carrier(interface: &Interface) -> io::Result<bool> {
    let interface = interface.clone();
    off_thread(move || interface.has_carrier()).await
}

async fn carrier_lost(watch: &AddressWatch, interface: &Interface) -> io::Result<()> {
    while has_carrier(interface).await? {
        watch.changed().await?;
    }
    tracing::debug!(interface = interface.name(), "the link is down; its address is removed");
    Ok(())
}

async fn claim_and_defend(
    mut machine: LinkLocal,
    socket: &ArpSocket,
    assigned: &Arc<AssignedAddress>,
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
                    let (own, turn) = (Arc::clone(assigned), assigned.turn.load(Ordering::SeqCst));
                    off_thread(move || own.assign(address, turn)).await?;
                }
                LinkLocalEvent::Lost(address) => {
                    tracing::warn!(interface = interface.name(), %address, "another host uses the address");
                    assigned.take_back_later(None);
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
