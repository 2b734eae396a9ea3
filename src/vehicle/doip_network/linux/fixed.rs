//! The fixed addresses that the agent sets, until their networks are left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use connector_hal::ethernet::{Interface, IpNetwork};

use super::assignment::{Departure, assign, withdraw};
use super::off_thread::drop_off_thread;
use crate::config::doip::Ipv4Net;

/// An address that the agent has set. Dropping this value removes the address, on another thread.
pub(super) struct FixedAddress(Option<SetAddress>);

/// An address on an interface. Dropping this value removes the address. Blocks.
struct SetAddress {
    interface: Interface,
    net: Ipv4Net,
    departure: Arc<Departure>,
}

impl Drop for FixedAddress {
    fn drop(&mut self) {
        if let Some(set) = self.0.take() {
            drop_off_thread(set);
        }
    }
}

impl Drop for SetAddress {
    fn drop(&mut self) {
        let Ipv4Net { address, prefix } = self.net;
        withdraw(&self.interface, address, prefix);
        self.departure.end();
    }
}

/// An address that is set, or being removed.
struct KnownFixed {
    net: Ipv4Net,
    address: Weak<FixedAddress>,
    departure: Arc<Departure>,
}

/// The addresses that are set now, by interface.
#[derive(Default)]
pub(super) struct FixedAddresses(Mutex<HashMap<String, Vec<KnownFixed>>>);

impl FixedAddresses {
    /// Sets the address for as long as the returned value lives. `None` if the interface has the address
    /// already. Blocks.
    ///
    /// # Errors
    ///
    /// The address belongs to the network of another interface, or cannot be set.
    pub(super) fn set(
        &self,
        interface: &Interface,
        net: Ipv4Net,
    ) -> Result<Option<Arc<FixedAddress>>, String> {
        let mut set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_interface = set.entry(interface.name().to_owned()).or_default();
        let same = of_interface.iter().filter(|known| known.net == net);
        if let Some(own) = same.into_iter().find_map(|known| known.address.upgrade()) {
            return Ok(Some(own));
        }
        // an address that is being removed must be gone, or it would look like one of the system
        of_interface.retain(|known| {
            let is_set = known.address.strong_count() > 0;
            if !is_set {
                known.departure.wait();
            }
            is_set
        });
        let Ipv4Net { address, prefix } = net;
        let ip = IpAddr::V4(address);
        if interface.addresses().is_ok_and(|addresses| addresses.iter().any(|has| has.ip == ip)) {
            return Ok(None);
        }
        refuse_overlap(interface, &IpNetwork { ip, prefix })?;
        assign(interface, address, prefix).map_err(|error| {
            let fix = "assign that address, or give the agent CAP_NET_ADMIN";
            format!("it does not have the address {address}, which cannot be set ({error}); {fix}")
        })?;
        let departure = Arc::<Departure>::default();
        let set = SetAddress { interface: interface.clone(), net, departure: Arc::clone(&departure) };
        let own = Arc::new(FixedAddress(Some(set)));
        of_interface.push(KnownFixed { net, address: Arc::downgrade(&own), departure });
        Ok(Some(own))
    }
}

/// Refuses an address in a network of another interface: packets of one network might go to the other.
///
/// # Errors
///
/// Another interface has such a network, or the networks cannot be read.
pub(super) fn refuse_overlap(interface: &Interface, network: &IpNetwork) -> Result<(), String> {
    match interface.overlap(network) {
        Ok(None) => Ok(()),
        Ok(Some((other, taken))) => Err(format!(
            "its address {}/{} belongs to the network {taken} of {other}; connect {other} to another network, or \
             choose another address for the vehicle",
            network.ip, network.prefix
        )),
        Err(error) => Err(format!("the networks of the other interfaces cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use connector_hal::ethernet::requests_of_this_thread;

    use super::*;

    #[tokio::test]
    async fn an_address_is_taken_back_on_another_thread() {
        // no interface has this address, which is taken back nevertheless
        let (interface, net) = (Interface::find("lo").unwrap(), "127.9.9.9/32".parse().unwrap());
        let departure = Arc::<Departure>::default();
        let set = SetAddress { interface, net, departure: Arc::clone(&departure) };
        let before = requests_of_this_thread();
        drop(FixedAddress(Some(set)));
        tokio::task::spawn_blocking(move || departure.wait()).await.unwrap();
        assert_eq!(requests_of_this_thread(), before);
    }

    #[test]
    fn an_address_is_taken_back_without_a_runtime_too() {
        let (interface, net) = (Interface::find("lo").unwrap(), "127.9.9.9/32".parse().unwrap());
        let departure = Arc::<Departure>::default();
        let set = SetAddress { interface, net, departure: Arc::clone(&departure) };
        drop(FixedAddress(Some(set)));
        departure.wait();
    }
}
