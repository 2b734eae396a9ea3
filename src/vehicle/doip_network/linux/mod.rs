//! The DoIP network on Linux: an interface or one host, its address, and its sockets.

mod assignment;
mod claim;
mod connect;
mod dhcp;
mod fixed;
mod host_settings;
mod link;
mod off_thread;
mod resolver_settings;
mod sender_filter;
mod sockets;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use connector_hal::board::{Activation, ActivationLine};
use connector_hal::clock::now;
use connector_hal::ethernet::Interface;
use connector_hal::future::BoxFuture;
use rustls::ClientConfig;

use self::connect::connect;
use self::link::{AddressSources, OwnAddress};
use self::off_thread::off_thread;
pub(crate) use self::off_thread::wait_for_removals;
use self::sender_filter::SenderFilter;
pub use self::sockets::Purpose;
use self::sockets::Sockets;
use crate::config::doip::{DiscoveryMethod, DoipConfig, NetworkConfig};
use crate::config::doip_device;
use crate::config::doip_device::DoipDevice;
use crate::protocol::doip::PORT;
use crate::protocol::doip::discovery::Destination;
use crate::tls::gateway as tls;
use crate::vehicle::doip_network::network::{GatewayConnectError, Network, NetworkError, Stream};

/// Opens networks on this machine, and owns the addresses that the agent sets for them.
pub struct LinuxNetworks {
    config: Arc<DoipConfig>,
    activation: Option<ActivationLine>,
    addresses: Arc<AddressSources>,
}

impl LinuxNetworks {
    /// Networks with this configuration and the board's activation line.
    pub fn new(config: Arc<DoipConfig>, activation: Option<ActivationLine>) -> Self {
        Self { config, activation, addresses: Arc::default() }
    }

    /// Opens the network behind a device. The interface gets the address of the network configuration.
    pub async fn open(
        &self,
        device: &DoipDevice,
        network: &NetworkConfig,
        purpose: Purpose,
    ) -> Result<LinuxNetwork, NetworkError> {
        let failed = |problem: String| NetworkError { device: device.to_string(), problem };
        let activation = (purpose == Purpose::Talk)
            .then(|| self.activation.as_ref().map(ActivationLine::activate))
            .flatten();
        let tls = match tls::client_config(&self.config.tls) {
            Ok(Some(client)) => Ok(client),
            Ok(None) => Err("no certificates are trusted; set doip.tls.ca_file".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let no_interface = |_| failed("there is no such interface; `ip link` lists them".to_owned());
        let mut address = OwnAddress::default();
        let (interface, host) = match device {
            DoipDevice::Host(host) => (None, Some(*host)),
            DoipDevice::LinkLocalHost { ip, port, interface } => {
                let name = interface.clone();
                let index = off_thread(move || doip_device::scope_id(&name)).await.map_err(no_interface)?;
                (None, Some(SocketAddrV6::new(*ip, *port, 0, index).into()))
            }
            DoipDevice::Interface(name) => {
                let name = name.clone();
                let interface = off_thread(move || Interface::find(&name)).await.map_err(no_interface)?;
                if purpose == Purpose::Talk {
                    let prepared = link::prepare(&interface, network, &self.config, &self.addresses);
                    address = prepared.await.map_err(failed)?;
                }
                (Some(interface), None)
            }
        };
        let opening = {
            let (interface, network) = (interface.clone(), network.clone());
            off_thread(move || {
                let sockets = Sockets::open(interface.as_ref(), host, &network, purpose)?;
                let link = || interface.map(SenderFilter::link);
                Ok((sockets, host.map(SenderFilter::host).or_else(link)))
            })
        };
        let (sockets, senders) = opening.await.map_err(|error| failed(format!("no UDP socket: {error}")))?;
        let tls = (tls, self.config.tls.port);
        Ok(LinuxNetwork {
            sockets,
            senders,
            foreign: None,
            interface,
            host,
            discovery: network.discovery.clone(),
            tls,
            _address: address,
            _activation: activation,
        })
    }
}

/// A network on this machine.
pub struct LinuxNetwork {
    sockets: Sockets,
    /// The senders whose datagrams count.
    senders: Option<SenderFilter>,
    /// The sender of a datagram that did not count.
    foreign: Option<SocketAddr>,
    interface: Option<Interface>,
    host: Option<SocketAddr>,
    discovery: Vec<DiscoveryMethod>,
    tls: (Result<Arc<ClientConfig>, String>, u16),
    _address: OwnAddress,
    _activation: Option<Activation>,
}

impl Network for LinuxNetwork {
    fn destinations(&self) -> Vec<Destination> {
        if let Some(host) = self.host {
            return vec![Destination::Host(host)];
        }
        let destination = |method: &DiscoveryMethod| match method {
            DiscoveryMethod::Announcement => None,
            DiscoveryMethod::Broadcast => Some(Destination::Broadcast),
            DiscoveryMethod::Multicast => Some(Destination::Multicast),
        };
        self.discovery.iter().filter_map(destination).collect()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        // the runtime's budget ends a flood of foreign datagrams
        loop {
            let (length, from) = ready!(self.sockets.poll_receive(cx, buffer))?;
            if self.senders.as_mut().is_none_or(|senders| senders.includes(cx, now(), from)) {
                return Poll::Ready(Ok((length, from)));
            }
            self.foreign = Some(from);
        }
    }

    fn take_foreign(&mut self) -> Option<SocketAddr> {
        self.foreign.take()
    }

    fn send(&mut self, destination: Destination, datagram: &[u8]) -> io::Result<()> {
        let to: SocketAddr = match destination {
            Destination::Broadcast => (Ipv4Addr::BROADCAST, PORT).into(),
            Destination::Multicast => {
                let index = self.interface.as_ref().map_or(0, Interface::index);
                let all_nodes = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
                SocketAddrV6::new(all_nodes, PORT, 0, index).into()
            }
            Destination::Host(host) => host,
        };
        self.sockets.send(to, datagram)
    }

    fn connect(
        &self,
        gateway: SocketAddr,
        tls: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>> {
        let (client, port) = self.tls.clone();
        let mut address = gateway;
        if tls {
            address.set_port(port);
        }
        let interface = self.interface.clone();
        Box::pin(async move {
            let client = match client {
                Ok(client) => Some(client).filter(|_| tls),
                Err(error) if tls => return Err(GatewayConnectError::NoTls(error)),
                Err(_) => None,
            };
            connect(address, interface, client).await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use connector_hal::ethernet::requests_of_this_thread;
    use tokio::net::UdpSocket;

    use super::*;

    /// Opens a network on the loopback interface, receives a datagram, connects, and leaves the network.
    async fn use_network(config: DoipConfig, network: NetworkConfig) {
        let networks = LinuxNetworks::new(Arc::new(config), None);
        let device = DoipDevice::Interface("lo".to_owned());
        let Ok(mut network) = networks.open(&device, &network, Purpose::Talk).await else { return };
        let sender = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        sender.send_to(b"?", ("127.0.0.1", PORT)).await.unwrap();
        let mut buffer = [0; 16];
        let _received = std::future::poll_fn(|cx| network.poll_receive(cx, &mut buffer)).await.unwrap();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(network.poll_receive(&mut cx, &mut buffer).is_pending());
        assert!(network.connect("127.0.0.1:9".parse().unwrap(), false).await.is_err());
    }

    #[tokio::test]
    async fn no_request_about_interfaces_holds_the_thread_of_the_protocols() {
        let before = requests_of_this_thread();
        let loopback = Some("127.0.0.1/8".parse().unwrap());
        for network in [
            NetworkConfig::known(1),
            NetworkConfig::known(3),
            NetworkConfig { address: loopback, ..NetworkConfig::known(4) },
            NetworkConfig::known(6),
        ] {
            let config = DoipConfig { address_wait: Duration::from_millis(1), ..DoipConfig::default() };
            use_network(config, network).await;
        }
        assert_eq!(requests_of_this_thread() - before, 0);
    }
}
