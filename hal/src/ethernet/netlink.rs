//! The messages of `rtnetlink(7)` that this crate needs.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::network::IpNetwork;
use crate::system::async_fd;

// linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_OR_REPLACE: u16 = 0x500;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_EXCL: u16 = 0x200;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
const IFA_F_TENTATIVE: u8 = 0x40;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;
/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR.
const ADDRESS_GROUPS: u32 = 0x001 | 0x010 | 0x100;
/// RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE.
const ROUTE_GROUPS: u32 = 0x040 | 0x400;

/// IFF_UP of `netdevice(7)`.
pub(super) const UP: u32 = 1;
/// IFF_LOOPBACK of `netdevice(7)`.
const LOOPBACK: u32 = 0x8;
/// IFF_RUNNING of `netdevice(7)`.
pub(super) const RUNNING: u32 = 0x40;

const HEADER: usize = 16;
/// The size of the receive buffer, in bytes: more than the kernel puts into one message.
const BUFFER: usize = 32 * 1024;
/// How many datagrams an answer may have, so that the loop ends: interfaces have a few addresses, not
/// thousands.
const MAX_DATAGRAMS: usize = 256;

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// The length of the network prefix, in bits.
    pub prefix: u8,
    /// Whether the kernel is still checking that no other node has this address.
    pub is_tentative: bool,
}

impl InterfaceAddress {
    /// Returns the network of the address.
    pub fn network(&self) -> IpNetwork {
        IpNetwork { ip: self.ip, prefix: self.prefix }
    }
}

/// Reports changes of addresses and interfaces, and of routes if wanted.
#[derive(Debug)]
pub struct AddressWatch(AsyncFd<OwnedFd>);

impl AddressWatch {
    /// Starts to listen for addresses and interfaces, within a tokio runtime.
    pub fn new() -> io::Result<Self> {
        Self::listen(ADDRESS_GROUPS)
    }

    /// Starts to listen for addresses, interfaces and routes, within a tokio runtime.
    pub fn with_routes() -> io::Result<Self> {
        Self::listen(ADDRESS_GROUPS | ROUTE_GROUPS)
    }

    fn listen(groups: u32) -> io::Result<Self> {
        let socket = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(async_fd(socket, Interest::READABLE)?))
    }

    /// Waits for the next change on any interface; cancel-safe.
    pub async fn changed(&self) -> io::Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut ready = self.0.readable().await?;
            let mut has_changed = false;
            while recv(self.0.get_ref(), &mut buffer[..], RecvFlags::empty()).is_ok() {
                has_changed = true;
            }
            ready.clear_ready();
            if has_changed {
                return Ok(());
            }
        }
    }
}

fn open(flags: SocketFlags) -> io::Result<OwnedFd> {
    // protocol 0 is NETLINK_ROUTE
    Ok(socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?)
}

#[cfg(feature = "sim")]
std::thread_local! {
    static REQUESTS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How many requests about interfaces this thread has made: the thread of the protocols must not wait for any.
#[cfg(feature = "sim")]
pub fn requests_of_this_thread() -> u64 {
    REQUESTS.get()
}

/// The state of an interface as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The flags of `netdevice(7)`.
    pub(super) flags: u32,
    /// The hardware address; `None` if the interface has none with the length of an Ethernet address.
    pub(super) mac: Option<[u8; 6]>,
}

pub(super) fn index(name: &str) -> io::Result<u32> {
    Ok(name_to_index(open(SocketFlags::CLOEXEC)?, name)?)
}

/// The name of an interface, or its number if the interface is gone.
pub(super) fn name(index: u32) -> String {
    let name = open(SocketFlags::CLOEXEC).ok().and_then(|socket| index_to_name(socket, index).ok());
    name.unwrap_or_else(|| format!("interface {index}"))
}

pub(super) fn link(index: u32) -> io::Result<LinkInfo> {
    // ifinfomsg: family, padding, type, index, flags, mask of the flags to change
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend([0; 8]);
    let messages = request(RTM_GETLINK, NLM_F_ACK, &body)?;
    let link = messages.iter().find_map(|(kind, body)| parse_link(*kind, body));
    link.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Parses an RTM_NEWLINK message.
fn parse_link(kind: u16, body: &[u8]) -> Option<LinkInfo> {
    let (message, attributes) = body.split_at_checked(16)?;
    let flags = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    let address = Attributes(attributes).find(|(kind, _)| *kind == IFLA_ADDRESS);
    let mac = address.and_then(|(_, bytes)| bytes.try_into().ok());
    (kind == RTM_NEWLINK).then_some(LinkInfo { flags, mac })
}

/// The names of all interfaces but loopback.
pub(super) fn names() -> io::Result<Vec<String>> {
    let messages = request_dump(RTM_GETLINK, &[0; 16])?;
    Ok(messages.iter().filter_map(|(kind, body)| parse_name(*kind, body)).collect())
}

/// Parses an RTM_NEWLINK message; `None` for loopback.
fn parse_name(kind: u16, body: &[u8]) -> Option<String> {
    let (message, attributes) = body.split_at_checked(16)?;
    let flags = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    let (_, name) = Attributes(attributes).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    let name = name.strip_suffix(&[0]).unwrap_or(name);
    (kind == RTM_NEWLINK && flags & LOOPBACK == 0).then(|| String::from_utf8_lossy(name).into_owned())
}

/// Iterates over the attributes of a message, as kind and value; stops at an invalid one.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [low, high, kind_low, kind_high, ..] = *self.0 else { return None };
        let length = usize::from(u16::from_ne_bytes([low, high]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([kind_low, kind_high]), value))
    }
}

pub(super) fn set_up(index: u32) -> io::Result<()> {
    // ifinfomsg: family, padding, type, index, flags, mask of the flags to change
    let mut body = vec![0; 4];
    body.extend(index.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    body.extend(UP.to_ne_bytes());
    request(RTM_NEWLINK, NLM_F_ACK, &body).map(|_| ())
}

pub(super) fn change_address(index: u32, ip: IpAddr, prefix: u8, add: bool) -> io::Result<()> {
    let (family, bytes, scope) = match ip {
        IpAddr::V4(ip) => {
            let scope = if ip.is_link_local() { RT_SCOPE_LINK } else { RT_SCOPE_UNIVERSE };
            (AF_INET, ip.octets().to_vec(), scope)
        }
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec(), RT_SCOPE_UNIVERSE),
    };
    let mut body = vec![family, prefix, 0, scope];
    body.extend(index.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        push_attribute(&mut body, kind, &bytes);
    }
    // no route to the network, which might lead packets of other interfaces to this one
    push_attribute(&mut body, IFA_FLAGS, &IFA_F_NOPREFIXROUTE.to_ne_bytes());
    let (message, flags) =
        if add { (RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_OR_REPLACE) } else { (RTM_DELADDR, NLM_F_ACK) };
    request(message, flags, &body).map(|_| ())
}

/// Appends an attribute whose length is a multiple of four bytes.
pub(super) fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend((4 + value.len() as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
}

/// The addresses of all interfaces, each with the number of its interface.
pub(super) fn addresses() -> io::Result<Vec<(u32, InterfaceAddress)>> {
    let messages = request_dump(RTM_GETADDR, &[0; 8])?;
    Ok(messages.iter().filter_map(|(kind, body)| address(*kind, body)).collect())
}

/// The address in the value of an attribute.
pub(super) fn ip_address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// Parses an RTM_NEWADDR message: the number of the interface, and its address.
fn address(kind: u16, body: &[u8]) -> Option<(u32, InterfaceAddress)> {
    let (message, attributes) = body.split_at_checked(8)?;
    let [_, prefix, flags, _, number @ ..] = message else { return None };
    if kind != RTM_NEWADDR {
        return None;
    }
    let index = u32::from_ne_bytes(number.try_into().ok()?);
    let (mut local, mut other) = (None, None);
    for (kind, value) in Attributes(attributes) {
        let ip = ip_address(value);
        match kind {
            IFA_LOCAL => local = ip,
            IFA_ADDRESS => other = ip,
            _ => {}
        }
    }
    // on a point-to-point link, IFA_ADDRESS is the address of the other end
    let is_tentative = flags & IFA_F_TENTATIVE != 0;
    Some((index, InterfaceAddress { ip: local.or(other)?, prefix: *prefix, is_tentative }))
}

/// Requests a list from the kernel.
pub(super) fn request_dump(kind: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
    request(kind, NLM_F_DUMP, body)
}

/// Asks the kernel to add something, which is no error if it is there already, or to remove it.
pub(super) fn request_change(kind: u16, body: &[u8], add: bool) -> io::Result<()> {
    let flags = if add { NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL } else { NLM_F_ACK };
    match request(kind, flags, body) {
        Err(error) if add && error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        changed => changed.map(|_| ()),
    }
}

/// Sends a request to the kernel, which answers immediately; returns the messages of the answer.
fn request(kind: u16, flags: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
    #[cfg(feature = "sim")]
    REQUESTS.set(REQUESTS.get() + 1);
    let socket = open(SocketFlags::CLOEXEC)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    receive_answer(&socket)
}

fn receive_answer(socket: impl AsFd) -> io::Result<Vec<(u16, Vec<u8>)>> {
    let mut buffer = vec![0; BUFFER];
    let mut answer = Vec::new();
    for _ in 0..MAX_DATAGRAMS {
        let (_, received) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = buffer.get(..received).unwrap_or_default();
        while let Some((kind, body, behind)) = split(rest) {
            match kind {
                NLMSG_DONE => return Ok(answer),
                NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(answer) } else { Err(io::Error::from_raw_os_error(-code)) };
                }
                _ => answer.push((kind, body.to_vec())),
            }
            rest = behind;
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Splits off the first message: its type, its body, and the bytes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_no_kernel_sends_do_not_panic() {
        for length in 0..64usize {
            let bytes = vec![0xFF; length];
            assert_eq!(split(&bytes).map(|(kind, ..)| kind), None);
            assert_eq!(address(RTM_NEWADDR, &bytes), None);
            assert_eq!(parse_link(RTM_NEWLINK, &bytes).and_then(|link| link.mac), None);
            assert_eq!(parse_name(RTM_NEWLINK, &bytes), None);
        }
        // an attribute with a length of zero
        let mut body = vec![AF_INET, 8, 0, 0];
        body.extend(1u32.to_ne_bytes());
        body.extend([0; 8]);
        assert_eq!(address(RTM_NEWADDR, &body), None);
    }

    #[test]
    fn the_local_address_is_preferred_to_that_of_the_other_end() {
        let mut body = vec![AF_INET, 30, IFA_F_TENTATIVE, 0];
        body.extend(7u32.to_ne_bytes());
        for (kind, last) in [(IFA_ADDRESS, 2), (IFA_LOCAL, 1)] {
            body.extend(8u16.to_ne_bytes());
            body.extend(u16::to_ne_bytes(kind));
            body.extend([10, 0, 0, last]);
        }
        let ip = IpAddr::from([10, 0, 0, 1]);
        let expected = InterfaceAddress { ip, prefix: 30, is_tentative: true };
        assert_eq!(address(RTM_NEWADDR, &body), Some((7, expected)));
        assert_eq!(address(RTM_GETADDR, &body), None);
    }

    #[tokio::test]
    async fn addresses_can_be_watched_without_privileges() {
        let watch = AddressWatch::new().unwrap();
        let nothing = tokio::time::timeout(std::time::Duration::ZERO, watch.changed()).await;
        assert!(nothing.is_err() || nothing.unwrap().is_ok());
    }
}
