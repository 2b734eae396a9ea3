//! ARP (RFC 826) on an interface, to probe whether an address is in use (RFC 5227).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, recv};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::interface::Interface;
use crate::system::async_fd;

const ETHERTYPE_ARP: u16 = 0x0806;
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: u16 = 1;
const REPLY: u16 = 2;
const PACKET: usize = 28;
const BROADCAST: [u8; 6] = [0xFF; 6];

/// An ARP packet for IPv4 on Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArpPacket {
    /// Whether the packet is a reply; otherwise it is a request.
    pub is_reply: bool,
    /// The sender's hardware address.
    pub sender_mac: [u8; 6],
    /// The sender's IP address; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// The target's hardware address; all zeros in a request.
    pub target_mac: [u8; 6],
    /// The target's IP address.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Encodes the packet.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = ETHERNET_IPV4.to_vec();
        bytes.extend(if self.is_reply { REPLY } else { REQUEST }.to_be_bytes());
        bytes.extend(self.sender_mac);
        bytes.extend(self.sender_ip.octets());
        bytes.extend(self.target_mac);
        bytes.extend(self.target_ip.octets());
        bytes
    }

    /// Decodes a packet and ignores padding after it; `None` if the packet is of another kind.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.get(..PACKET)?.split_at_checked(ETHERNET_IPV4.len())?;
        let (operation, rest) = rest.split_first_chunk()?;
        let (sender_mac, rest) = rest.split_first_chunk()?;
        let (sender_ip, rest) = rest.split_first_chunk::<4>()?;
        let (target_mac, rest) = rest.split_first_chunk()?;
        let (target_ip, _) = rest.split_first_chunk::<4>()?;
        let is_reply = match u16::from_be_bytes(*operation) {
            REQUEST => false,
            REPLY => true,
            _ => return None,
        };
        (kind == ETHERNET_IPV4).then_some(Self {
            is_reply,
            sender_mac: *sender_mac,
            sender_ip: Ipv4Addr::from(*sender_ip),
            target_mac: *target_mac,
            target_ip: Ipv4Addr::from(*target_ip),
        })
    }
}

/// A socket for ARP packets on one interface.
pub struct ArpSocket {
    socket: AsyncFd<OwnedFd>,
    broadcast: SockAddr,
}

impl ArpSocket {
    /// Opens the socket, within a tokio runtime; needs `CAP_NET_RAW`.
    pub fn open(interface: &Interface) -> io::Result<Self> {
        let protocol = ETHERTYPE_ARP.to_be();
        let kind = Type::DGRAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(i32::from(protocol))))?;
        let broadcast = broadcast_address(interface, protocol)?;
        socket.bind(&broadcast)?;
        Ok(Self { socket: async_fd(socket.into(), Interest::READABLE)?, broadcast })
    }

    /// Broadcasts a packet.
    pub fn send(&self, packet: &ArpPacket) -> io::Result<()> {
        SockRef::from(self.socket.get_ref()).send_to(&packet.encode(), &self.broadcast).map(|_| ())
    }

    /// Waits for the next packet; cancel-safe.
    pub async fn receive(&self) -> io::Result<ArpPacket> {
        let mut buffer = [0; 64];
        loop {
            let mut ready = self.socket.readable().await?;
            match recv(self.socket.get_ref(), &mut buffer[..], RecvFlags::empty()) {
                Ok((_, length)) => {
                    if let Some(packet) = ArpPacket::decode(buffer.get(..length).unwrap_or_default()) {
                        return Ok(packet);
                    }
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The broadcast address of the interface's link.
#[allow(unsafe_code, reason = "socket2 has no safe constructor for link-layer addresses")]
fn broadcast_address(interface: &Interface, protocol: u16) -> io::Result<SockAddr> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: sockaddr_ll is one of the platform's sockaddr types.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(interface.index()).map_err(io::Error::other)?;
    address.sll_halen = BROADCAST.len() as u8;
    for (to, from) in address.sll_addr.iter_mut().zip(BROADCAST) {
        *to = from;
    }
    // SAFETY: the storage holds one sockaddr_ll with its family set.
    Ok(unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_encoding_and_decoding_with_or_without_padding() {
        for is_reply in [false, true] {
            let packet = ArpPacket {
                is_reply,
                sender_mac: [2, 0, 0, 0, 0, 1],
                sender_ip: Ipv4Addr::UNSPECIFIED,
                target_mac: [0; 6],
                target_ip: Ipv4Addr::new(169, 254, 1, 2),
            };
            let mut bytes = packet.encode();
            assert_eq!(bytes.len(), PACKET);
            bytes.resize(46, 0);
            assert_eq!(ArpPacket::decode(&bytes), Some(packet));
            assert_eq!(ArpPacket::decode(&bytes[..PACKET - 1]), None);
            bytes[7] = 9;
            assert_eq!(ArpPacket::decode(&bytes), None);
        }
    }
}
