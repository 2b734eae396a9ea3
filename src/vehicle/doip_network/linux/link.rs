//! Bringing an interface up, with the address of the network configuration.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use connector_hal::ethernet::{AddressWatch, Interface, InterfaceAddress};

use super::claim::AddressClaims;
use super::dhcp::DhcpClients;
use crate::config::doip::{DoipConfig, InterfaceAddressing, NetworkConfig};

/// Switches the interface on and waits for its address. The error names what is missing.
pub(super) async fn prepare(
    interface: &Interface,
    network: &NetworkConfig,
    config: &DoipConfig,
    claims: &AddressClaims,
    dhcp: &DhcpClients,
) -> Result<(), String> {
    if !interface.is_up().map_err(|error| error.to_string())? {
        interface.set_up().map_err(|error| {
            let fix = "switch it on with `ip link set … up`, or give the agent CAP_NET_ADMIN";
            format!("it is off and cannot be switched on ({error}); {fix}")
        })?;
    }
    match (network.addressing, network.address) {
        (InterfaceAddressing::Fixed, Some(net)) => fix(interface, net.address, net.prefix)?,
        (InterfaceAddressing::LinkLocal, _) => {
            let has_one = find(interface, is_v4_link_local).map_err(|error| error.to_string())?.is_some();
            if !has_one {
                claims.claim(interface).map_err(|error| {
                    format!(
                        "it has no link-local address, and none can be claimed ({error}); have the system's network \
                         manager assign one, or give the agent CAP_NET_ADMIN and CAP_NET_RAW"
                    )
                })?;
            }
        }
        (InterfaceAddressing::Dhcp, _) => {
            let has_one = find(interface, is_global_v4).map_err(|error| error.to_string())?.is_some();
            if !has_one {
                dhcp.start(interface, &config.dhcp_command)?;
            }
        }
        _ => {}
    }
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
            Ok(())
        }
        Ok(Err(error)) => Err(format!("its addresses cannot be read: {error}")),
        Err(_) => {
            let failure = dhcp.failure(interface).map(|failure| format!("; {failure}"));
            let without = no_address(network.addressing, config.address_wait);
            Err(without + failure.as_deref().unwrap_or_default())
        }
    }
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

fn fix(interface: &Interface, address: Ipv4Addr, prefix: u8) -> Result<(), String> {
    let ip = IpAddr::V4(address);
    let is_meant = |candidate: &InterfaceAddress| candidate.ip == ip;
    if interface.addresses().is_ok_and(|addresses| addresses.iter().any(is_meant)) {
        return Ok(());
    }
    interface.add_address(ip, prefix).map_err(|error| {
        let fix = "assign that address, or give the agent CAP_NET_ADMIN";
        format!("it does not have the address {address}, which cannot be set ({error}); {fix}")
    })
}

async fn wait_for(
    interface: &Interface,
    wanted: fn(&InterfaceAddress) -> bool,
) -> io::Result<InterfaceAddress> {
    // watches before the first look, so that no change is missed
    let watch = AddressWatch::new()?;
    loop {
        if let Some(address) = find(interface, wanted)? {
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

    fn config() -> DoipConfig {
        DoipConfig { address_wait: Duration::from_millis(1), ..DoipConfig::default() }
    }

    #[tokio::test]
    async fn an_address_that_the_system_set_is_used_unchanged() {
        let loopback = Interface::find("lo").unwrap();
        let network = NetworkConfig::known(1);
        prepare(&loopback, &network, &config(), &AddressClaims::default(), &DhcpClients::default())
            .await
            .unwrap();
        let net = "127.0.0.1/8".parse().unwrap();
        let fixed = NetworkConfig { address: Some(net), ..NetworkConfig::known(4) };
        prepare(&loopback, &fixed, &config(), &AddressClaims::default(), &DhcpClients::default())
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_missing_address_is_an_error_that_names_the_reason() {
        let loopback = Interface::find("lo").unwrap();
        let network = NetworkConfig::known(6);
        let error =
            prepare(&loopback, &network, &config(), &AddressClaims::default(), &DhcpClients::default())
                .await
                .unwrap_err();
        assert!(error.contains("no IPv6 link-local address within 0.001 s"), "{error}");
    }

    #[tokio::test]
    async fn a_failed_dhcp_client_is_reported() {
        let loopback = Interface::find("lo").unwrap();
        let network = NetworkConfig::known(3);
        let dhcp = DhcpClients::default();
        for (command, expected) in [
            (vec!["/no/such/client"], "the DHCP client /no/such/client cannot be started"),
            (vec!["sh", "-c", "test {interface} != lo"], "the DHCP client gave up (exit status: 1)"),
        ] {
            let dhcp_command = command.into_iter().map(str::to_owned).collect();
            let config = DoipConfig { dhcp_command, address_wait: Duration::ZERO, ..DoipConfig::default() };
            let error = loop {
                // loopback's address is not one by DHCP
                let claims = AddressClaims::default();
                let error = prepare(&loopback, &network, &config, &claims, &dhcp).await.unwrap_err();
                if !error.ends_with("awake?") {
                    break error;
                }
            };
            assert!(error.contains(expected), "{error}");
        }
    }
}
