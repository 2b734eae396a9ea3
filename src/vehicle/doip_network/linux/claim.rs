//! Link-local addresses of our own: the shell around [`LinkLocal`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use connector_hal::ethernet::{AddressWatch, ArpSocket, Interface};
use tokio::task::JoinHandle;

use crate::protocol::doip::link_local::{LinkLocal, LinkLocalEvent, PREFIX};

/// The addresses that this process has claimed, by interface; they are given back when this is dropped.
#[derive(Default)]
pub struct Claims(Mutex<HashMap<String, Claim>>);

struct Claim(JoinHandle<()>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes its address back when claiming ends in whatever way.
struct Given<'a> {
    interface: &'a Interface,
    address: Option<Ipv4Addr>,
}

impl Given<'_> {
    fn set(&mut self, address: Option<Ipv4Addr>) -> io::Result<()> {
        if let Some(before) = self.address.take() {
            // it may have been taken away by others, as when the interface went down
            let _gone = self.interface.remove_address(IpAddr::V4(before), PREFIX);
        }
        if let Some(address) = address {
            self.interface.add_address(IpAddr::V4(address), PREFIX)?;
        }
        self.address = address;
        Ok(())
    }
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let _nothing_to_take_back = self.set(None);
    }
}

impl Claims {
    /// Begins to claim an address for the interface, unless that is under way; it takes some seconds.
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
                tracing::warn!(interface = own.name(), %error, "no link-local address is claimed");
            }
        });
        claims.insert(interface.name().to_owned(), Claim(task));
        Ok(())
    }
}

/// Claims an address whenever there is a link (RFC 3927, 2.2: each time that it comes up), and keeps it as long as there is.
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
    tracing::debug!(interface = interface.name(), "the link is gone, and our address with it");
    Ok(())
}

async fn claim_and_defend(
    mut machine: LinkLocal,
    socket: &ArpSocket,
    interface: &Interface,
) -> io::Result<()> {
    let mut given = Given { interface, address: None };
    loop {
        while let Some(packet) = machine.poll_transmit() {
            socket.send(&packet)?;
        }
        while let Some(event) = machine.poll_event() {
            match event {
                LinkLocalEvent::Claimed(address) => {
                    tracing::info!(interface = interface.name(), %address, "claimed a link-local address");
                    given.set(Some(address))?;
                }
                LinkLocalEvent::Lost(address) => {
                    tracing::warn!(interface = interface.name(), %address, "somebody else has our address");
                    given.set(None)?;
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
