//! The fixed addresses that the agent sets, until their networks are left.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use connector_hal::ethernet::{Interface, IpNetwork};

use super::assignment::{assign, withdraw};
use crate::config::doip::Ipv4Net;

/// An address that the agent has set. Dropping this value removes the address.
pub(super) struct FixedAddress {
    interface: Interface,
    net: Ipv4Net,
}

impl Drop for FixedAddress {
    fn drop(&mut self) {
        let Ipv4Net { address, prefix } = self.net;
        withdraw(&self.interface, address, prefix);
    }
}

/// The addresses that are set now, by interface.
#[derive(Default)]
pub(super) struct FixedAddresses(Mutex<HashMap<String, Vec<Weak<FixedAddress>>>>);

impl FixedAddresses {
    /// Sets the address for as long as the returned value lives. `None` if the interface has the address
    /// already.
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
        of_interface.retain(|address| address.strong_count() > 0);
        if let Some(own) = of_interface.iter().filter_map(Weak::upgrade).find(|own| own.net == net) {
            return Ok(Some(own));
        }
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
        let own = Arc::new(FixedAddress { interface: interface.clone(), net });
        of_interface.push(Arc::downgrade(&own));
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
