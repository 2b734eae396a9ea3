//! The hosts that belong to a network. Datagrams of others are dropped.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::ethernet::{Interface, IpNetwork};
use tokio::task::JoinHandle;

/// The addresses of the interface are read again after this time, if they do not explain a sender.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The senders of a network: one host, or the hosts in the networks of an interface's addresses.
pub(super) enum SenderFilter {
    Host(IpAddr),
    Link {
        interface: Interface,
        networks: Vec<IpNetwork>,
        reading: Option<Reading>,
        read_at: Option<Instant>,
    },
}

/// The addresses of an interface that are being read on another thread.
type Reading = JoinHandle<Vec<IpNetwork>>;

impl SenderFilter {
    pub(super) fn host(host: SocketAddr) -> Self {
        Self::Host(host.ip())
    }

    /// A filter by the addresses that the interface has now. Blocks.
    pub(super) fn link(interface: Interface) -> Self {
        let networks = read(&interface);
        Self::Link { interface, networks, reading: None, read_at: None }
    }

    /// Whether a datagram from this address counts. If the known addresses do not explain the sender, they are read
    /// again, for the datagrams that follow: the network is asked and announces itself more than once.
    pub(super) fn includes(&mut self, cx: &mut Context<'_>, now: Instant, from: SocketAddr) -> bool {
        match self {
            Self::Host(host) => *host == from.ip(),
            Self::Link { interface, networks, reading, read_at } => {
                if let Some(Poll::Ready(read)) = reading.as_mut().map(|reading| Pin::new(reading).poll(cx)) {
                    *reading = None;
                    *networks = read.unwrap_or_default();
                }
                if is_explained(networks, from.ip()) == Some(true) {
                    return true;
                }
                if reading.is_none() && read_at.is_none_or(|at| at + READ_AGAIN_AFTER <= now) {
                    *read_at = Some(now);
                    let interface = interface.clone();
                    *reading = Some(tokio::task::spawn_blocking(move || read(&interface)));
                }
                // without an address of the connector's own, there is nothing to compare with
                is_explained(networks, from.ip()).unwrap_or(true)
            }
        }
    }
}

/// The networks of the interface's addresses. Without them, only the link itself is known.
fn read(interface: &Interface) -> Vec<IpNetwork> {
    let addresses = interface.addresses().unwrap_or_default();
    addresses.iter().map(|address| address.network()).collect()
}

/// Whether the sender is in one of the networks; `None` if none of them has the sender's family. A network of one
/// address, as on a point-to-point link, does not show which hosts are on the link.
fn is_explained(networks: &[IpNetwork], from: IpAddr) -> Option<bool> {
    if matches!(from, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        // the socket is bound to the link
        return Some(true);
    }
    let bits = if from.is_ipv4() { 32 } else { 128 };
    let has_hosts = |network: &&IpNetwork| network.ip.is_ipv4() == from.is_ipv4() && network.prefix < bits;
    let mut comparable = networks.iter().filter(has_hosts).peekable();
    comparable.peek()?;
    Some(comparable.any(|network| network.contains(from)))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn network(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn a_sender_counts_if_it_is_in_a_network_of_the_interface() {
        let networks = [network("169.254.9.9/16"), network("fe80::1/64"), network("fd00::1/64")];
        for (from, expected) in [
            ("169.254.1.1", Some(true)),
            ("192.168.0.1", Some(false)),
            ("fe80::77", Some(true)),
            ("fd00::77", Some(true)),
            ("fd01::77", Some(false)),
        ] {
            assert_eq!(is_explained(&networks, from.parse().unwrap()), expected, "{from}");
        }
        assert_eq!(is_explained(&networks[1..2], "192.168.0.1".parse().unwrap()), None);
        let point_to_point = [network("10.0.0.1/32")];
        assert_eq!(is_explained(&point_to_point, "10.0.0.2".parse().unwrap()), None);
    }

    fn includes(senders: &mut SenderFilter, now: Instant, from: &str) -> bool {
        senders.includes(&mut Context::from_waker(Waker::noop()), now, from.parse().unwrap())
    }

    #[test]
    fn only_the_configured_host_counts_on_a_network_of_one_host() {
        let now = Instant::now();
        let mut senders = SenderFilter::host("10.0.0.1:13400".parse().unwrap());
        assert!(includes(&mut senders, now, "10.0.0.1:50000"));
        assert!(!includes(&mut senders, now, "10.0.0.2:13400"));
    }

    #[tokio::test]
    async fn the_addresses_of_an_interface_are_read_again_when_a_sender_is_strange() {
        let now = Instant::now();
        let mut senders = SenderFilter::link(Interface::find("lo").unwrap());
        assert!(includes(&mut senders, now, "127.0.0.9:13400"));
        let SenderFilter::Link { networks, .. } = &mut senders else { panic!() };
        *networks = vec![network("192.0.2.1/24")];
        assert!(!includes(&mut senders, now, "127.0.0.9:13400"), "the addresses are being read");
        while !includes(&mut senders, now, "127.0.0.9:13400") {
            tokio::task::yield_now().await;
        }
        assert!(!includes(&mut senders, now + READ_AGAIN_AFTER, "10.0.0.2:13400"));
    }
}
