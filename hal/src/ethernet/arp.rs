//! ARP (RFC 826) on an interface, for probing whether somebody has an address (RFC 5227).

use std::io;
use std::mem::size_of;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::net::{RecvFlags, recv};
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
    /// Whether it is a reply, else a request.
    pub is_reply: bool,
    /// Who sends it.
    pub sender_mac: [u8; 6],
    /// The sender's address; 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// Whose hardware address it is about; all 0 in a request.
    pub target_mac: [u8; 6],
    /// The address it is about.
    pub target_ip: Ipv4Addr,
}

impl ArpPacket {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = ETHERNET_IPV4.to_vec();
        bytes.extend(if self.is_reply { REPLY } else { REQUEST }.to_be_bytes());
        bytes.extend(self.sender_mac);
        bytes.extend(self.sender_ip.octets());
        bytes.extend(self.target_mac);
        bytes.extend(self.target_ip.octets());
        bytes
    }

    /// From bytes, of which there may be more, as short Ethernet frames are padded; `None` if it is another kind.
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
    everybody: libc::sockaddr_ll,
}

impl ArpSocket {
    /// Opens it, within a tokio runtime; needs `CAP_NET_RAW`.
    #[allow(unsafe_code)]
    pub fn open(interface: &Interface) -> io::Result<Self> {
        let protocol = ETHERTYPE_ARP.to_be();
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: `socket` takes numbers only.
        let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else has it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let address = everybody(interface, protocol)?;
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: address and length are those of one sockaddr_ll, which lives until the call is over.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
        if bound < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { socket: async_fd(socket, Interest::READABLE)?, everybody: address })
    }

    /// Broadcasts a packet.
    #[allow(unsafe_code)]
    pub fn send(&self, packet: &ArpPacket) -> io::Result<()> {
        let bytes = packet.encode();
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: bytes and address live until the call is over, and the lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                bytes.as_ptr().cast(),
                bytes.len(),
                libc::MSG_DONTWAIT,
                (&raw const self.everybody).cast(),
                length,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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

/// Everybody on the interface's link.
#[allow(unsafe_code)]
fn everybody(interface: &Interface, protocol: u16) -> io::Result<libc::sockaddr_ll> {
    // SAFETY: a sockaddr_ll of zeros is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = i32::try_from(interface.index()).map_err(io::Error::other)?;
    address.sll_halen = BROADCAST.len() as u8;
    for (to, from) in address.sll_addr.iter_mut().zip(BROADCAST) {
        *to = from;
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_survives_the_way_there_and_back_and_padding_does_not_matter() {
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
