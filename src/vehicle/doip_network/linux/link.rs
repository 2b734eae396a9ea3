//! Bringing an interface up, with the address of the network configuration.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use connector_hal::ethernet::{AddressWatch, Interface, InterfaceAddress};

use super::claim::{AddressClaims, Claim};
use super::dhcp::DhcpClients;
use super::fixed::{FixedAddress, FixedAddresses, refuse_overlap};
use super::off_thread::off_thread;
use crate::config::doip::{DoipConfig, InterfaceAddressing, NetworkConfig};

/// The sources of addresses.
#[derive(Default)]
pub(super) struct AddressSources {
    claims: AddressClaims,
    fixed: FixedAddresses,
    dhcp: DhcpClients,
}

/// The addresses that the agent has set for a network. Dropping this value takes them back, unless another network
/// uses them.
#[derive(Default)]
pub(super) struct OwnAddress {
    _fixed: Option<Arc<FixedAddress>>,
    _claim: Option<Arc<Claim>>,
}

/// Switches the interface on and waits for its address. The error names what is missing.
pub(super) async fn prepare(
    interface: &Interface,
    network: &NetworkConfig,
    config: &Arc<DoipConfig>,
    sources: &Arc<AddressSources>,
) -> Result<OwnAddress, String> {
    let dhcp = &sources.dhcp;
    let setting = {
        let (interface, network) = (interface.clone(), network.clone());
        let (config, sources) = (Arc::clone(config), Arc::clone(sources));
        off_thread(move || Ok(set_address(&interface, &network, &config, &sources)))
    };
    let own = setting.await.map_err(|error| error.to_string())??;
    let wanted = match network.addressing {
        InterfaceAddressing::System => is_any,
        InterfaceAddressing::LinkLocal => is_v4_link_local,
        InterfaceAddressing::Dhcp => is_global_v4,
        InterfaceAddressing::Fixed => is_v4,
        InterfaceAddressing::Ipv6LinkLocal => is_v6_link_local,
    };
    let waiting = wait_for(interface, wanted);
    match tokio::time::timeout(config.address_wait, waiting).await {
        Ok(Ok(address)) => {
            tracing::debug!(interface = interface.name(), ip = %address.ip, "the interface has its address");
            if network.addressing == InterfaceAddressing::Dhcp {
                let (own, sources) = (interface.clone(), Arc::clone(sources));
                let checked = off_thread(move || Ok(refuse_lease(&own, &address, &sources.dhcp)));
                checked.await.map_err(|error| error.to_string())??;
            }
            Ok(own)
        }
        Ok(Err(error)) => Err(format!("its addresses cannot be read: {error}")),
        Err(_) => {
            let failure = dhcp.failure(interface).map(|failure| format!("; {failure}"));
            let without = no_address(network.addressing, config.address_wait);
            Err(without + failure.as_deref().unwrap_or_default())
        }
    }
}

/// Switches the interface on, and begins to set its address. Blocks.
fn set_address(
    interface: &Interface,
    network: &NetworkConfig,
    config: &DoipConfig,
    sources: &AddressSources,
) -> Result<OwnAddress, String> {
    if !interface.is_up().map_err(|error| error.to_string())? {
        interface.set_up().map_err(|error| {
            let fix = "switch it on with `ip link set … up`, or give the agent CAP_NET_ADMIN";
            format!("it is off and cannot be switched on ({error}); {fix}")
        })?;
    }
    let mut own = OwnAddress::default();
    match (network.addressing, network.address) {
        (InterfaceAddressing::Fixed, Some(net)) => own._fixed = sources.fixed.set(interface, net)?,
        (InterfaceAddressing::LinkLocal, _) => {
            own._claim = claim(interface, network, config, &sources.claims)?;
        }
        (InterfaceAddressing::Dhcp, _) => {
            let has_one = find(interface, is_global_v4).map_err(|error| error.to_string())?.is_some();
            if !has_one {
                sources.dhcp.start(interface, &config.dhcp_command)?;
            }
        }
        _ => {}
    }
    Ok(own)
}

fn no_address(addressing: InterfaceAddressing, waited: Duration) -> String {
    let seconds = waited.as_secs_f32();
    let what = match addressing {
        InterfaceAddressing::System | InterfaceAddressing::Fixed => "it has no address",
        InterfaceAddressing::LinkLocal => "it got no IPv4 link-local address",
        InterfaceAddressing::Dhcp => "it got no address by DHCP",
        InterfaceAddressing::Ipv6LinkLocal => "it got no IPv6 link-local address",
    };
    format!("{what} within {seconds} s; is the cable in, and the vehicle awake?")
}

/// Claims a link-local address, unless the system has set one. The address of the connector's own network
/// configuration is kept for the next reading of the VIN, because claiming takes seconds.
fn claim(
    interface: &Interface,
    network: &NetworkConfig,
    config: &DoipConfig,
    claims: &AddressClaims,
) -> Result<Option<Arc<Claim>>, String> {
    let kept = config.network(config.network_configuration) == *network;
    if let Some(claim) = claims.get(interface) {
        if kept {
            claims.keep(interface, &claim);
        }
        return Ok(Some(claim));
    }
    if find(interface, is_v4_link_local).map_err(|error| error.to_string())?.is_some() {
        return Ok(None);
    }
    let claimed = claims.claim(interface, kept).map_err(|error| {
        format!(
            "it has no link-local address, and none can be claimed ({error}); have the system's network \
             manager assign one, or give the agent CAP_NET_ADMIN and CAP_NET_RAW"
        )
    })?;
    Ok(Some(claimed))
}

/// Ends the use of an address by DHCP that belongs to the network of another interface.
fn refuse_lease(interface: &Interface, address: &InterfaceAddress, dhcp: &DhcpClients) -> Result<(), String> {
    refuse_overlap(interface, &address.network()).inspect_err(|_| {
        dhcp.end(interface);
        if let Err(error) = interface.remove_address(address.ip, address.prefix) {
            tracing::warn!(interface = interface.name(), ip = %address.ip, %error, "the address cannot be removed");
        }
    })
}

async fn wait_for(
    interface: &Interface,
    wanted: fn(&InterfaceAddress) -> bool,
) -> io::Result<InterfaceAddress> {
    // watches before the first look, so that no change is missed
    let watch = AddressWatch::new()?;
    loop {
        let own = interface.clone();
        if let Some(address) = off_thread(move || find(&own, wanted)).await? {
            return Ok(address);
        }
        watch.changed().await?;
    }
}

fn find(
    interface: &Interface,
    wanted: fn(&InterfaceAddress) -> bool,
) -> io::Result<Option<InterfaceAddress>> {
    let addresses = interface.addresses()?;
    Ok(addresses.into_iter().find(|address| !address.is_tentative && wanted(address)))
}

fn is_any(_: &InterfaceAddress) -> bool {
    true
}

fn is_v4(address: &InterfaceAddress) -> bool {
    address.ip.is_ipv4()
}

fn is_v4_link_local(address: &InterfaceAddress) -> bool {
    matches!(address.ip, IpAddr::V4(ip) if ip.is_link_local())
}

fn is_global_v4(address: &InterfaceAddress) -> bool {
    matches!(address.ip, IpAddr::V4(ip) if !ip.is_link_local() && !ip.is_loopback())
}

fn is_v6_link_local(address: &InterfaceAddress) -> bool {
    matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_the_system_set_is_used_unchanged() {
        let loopback = Interface::find("lo").unwrap();
        let config = Arc::<DoipConfig>::default();
        let network = NetworkConfig::known(1);
        assert!(prepare(&loopback, &network, &config, &Arc::default()).await.is_ok());
        let net = "127.0.0.1/8".parse().unwrap();
        let fixed = NetworkConfig { address: Some(net), ..NetworkConfig::known(4) };
        assert!(prepare(&loopback, &fixed, &config, &Arc::default()).await.is_ok());
    }

    #[tokio::test]
    async fn a_missing_address_is_an_error_that_names_the_reason() {
        let loopback = Interface::find("lo").unwrap();
        let network = NetworkConfig::known(6);
        let config = Arc::new(DoipConfig { address_wait: Duration::from_millis(1), ..DoipConfig::default() });
        let error = prepare(&loopback, &network, &config, &Arc::default()).await.err().unwrap();
        assert!(error.contains("no IPv6 link-local address within 0.001 s"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_dhcp_client_is_reported() {
        let loopback = Interface::find("lo").unwrap();
        let network = NetworkConfig::known(3);
        let sources = Arc::<AddressSources>::default();
        for (command, expected) in [
            (vec!["/no/such/client"], "the DHCP client /no/such/client cannot be started"),
            (vec!["sh", "-c", "test {interface} != lo"], "the DHCP client gave up (exit status: 1)"),
        ] {
            let dhcp_command = command.into_iter().map(str::to_owned).collect();
            let config =
                Arc::new(DoipConfig { dhcp_command, address_wait: Duration::ZERO, ..DoipConfig::default() });
            let error = loop {
                // loopback's address is not one by DHCP
                let error = prepare(&loopback, &network, &config, &sources).await.err().unwrap();
                if !error.ends_with("awake?") {
                    break error;
                }
            };
            assert!(error.contains(expected), "{error}");
        }
    }
}
