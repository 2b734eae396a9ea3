//! The routes of the system.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{
    AF_INET, AF_INET6, Attributes, ip_address, name, push_attribute, request_change, request_dump,
};
use super::network::{IpNetwork, first};

// linux/rtnetlink.h
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_MULTIPATH: u16 = 9;
const RTA_TABLE: u16 = 15;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_LINK: u8 = 253;
// linux/fib_rules.h
const FRA_SRC: u16 = 2;
const FRA_TABLE: u16 = 15;
const FR_ACT_TO_TBL: u8 = 1;
/// The routing table of the interface with number 0. Other programs hardly use such numbers.
const FIRST_TABLE: u32 = 1_340_000;
const RTN_UNICAST: u8 = 1;
const RT_TABLE_LOCAL: u8 = 255;
/// The size of `rtmsg` and of `rtnexthop`, in bytes.
const MESSAGE: usize = 12;
const NEXT_HOP: usize = 8;

/// A way to the hosts of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// The network; the prefix of a default route is 0.
    pub(super) destination: IpNetwork,
    /// The number of the interface by which packets leave.
    pub(super) interface: u32,
    /// The router to which packets go; `None` if they go to the hosts themselves.
    pub(super) gateway: Option<IpAddr>,
    /// The smaller number wins.
    pub(super) metric: u32,
}

impl Route {
    /// Returns whether this is a default route.
    pub(super) fn is_default(&self) -> bool {
        self.destination.prefix == 0
    }
}

/// A way to hosts beyond the network of an interface: a default route, or a route by a router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRoute {
    /// The name of the interface by which packets leave.
    pub interface: String,
    /// The network; the prefix of a default route is 0.
    pub destination: IpNetwork,
    /// The router to which packets go; `None` if they go to the hosts themselves.
    pub gateway: Option<IpAddr>,
    /// The smaller number wins.
    pub metric: u32,
}

impl RemoteRoute {
    /// Whether this is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.prefix == 0
    }
}

impl fmt::Display for RemoteRoute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.destination)?;
        if let Some(gateway) = self.gateway {
            write!(formatter, " via {gateway}")?;
        }
        write!(formatter, " dev {} metric {}", self.interface, self.metric)
    }
}

/// Returns the routes to hosts beyond the networks of the interfaces, in all tables and of both families.
pub fn remote_routes() -> io::Result<Vec<RemoteRoute>> {
    let remote = routes()?.into_iter().filter(|route| route.is_default() || route.gateway.is_some());
    let named = remote.map(|route| RemoteRoute {
        interface: name(route.interface),
        destination: route.destination,
        gateway: route.gateway,
        metric: route.metric,
    });
    Ok(named.collect())
}

/// Returns the routes to other hosts, in all tables and of both families.
pub(super) fn routes() -> io::Result<Vec<Route>> {
    let messages = request_dump(RTM_GETROUTE, &[0; MESSAGE])?;
    Ok(messages.iter().flat_map(|(kind, body)| parse(*kind, body)).collect())
}

/// Adds or removes a route to the network of an address that only packets from this address use: a table of the
/// interface's own, and a rule that leads there.
pub(super) fn change_source_route(index: u32, address: Ipv4Addr, prefix: u8, add: bool) -> io::Result<()> {
    let table = FIRST_TABLE.saturating_add(index).to_ne_bytes();
    let IpAddr::V4(network) = first(address.into(), prefix) else { return Ok(()) };
    let mut route = vec![AF_INET, prefix, 0, 0, 0, RTPROT_STATIC, RT_SCOPE_LINK, RTN_UNICAST, 0, 0, 0, 0];
    push_attribute(&mut route, RTA_DST, &network.octets());
    push_attribute(&mut route, RTA_OIF, &index.to_ne_bytes());
    push_attribute(&mut route, RTA_TABLE, &table);
    let mut rule = vec![AF_INET, 0, 32, 0, 0, 0, 0, FR_ACT_TO_TBL, 0, 0, 0, 0];
    push_attribute(&mut rule, FRA_SRC, &address.octets());
    push_attribute(&mut rule, FRA_TABLE, &table);
    let (route_kind, rule_kind) = if add { (RTM_NEWROUTE, RTM_NEWRULE) } else { (RTM_DELROUTE, RTM_DELRULE) };
    let changed = request_change(rule_kind, &rule, add);
    // one may be there without the other
    request_change(route_kind, &route, add).and(changed)
}

/// Parses an RTM_NEWROUTE message: one route for each interface.
fn parse(kind: u16, body: &[u8]) -> Vec<Route> {
    let Some((message, attributes)) = body.split_at_checked(MESSAGE) else { return Vec::new() };
    let [family, prefix, _, _, table, _, _, route_type, ..] = *message else { return Vec::new() };
    if kind != RTM_NEWROUTE || route_type != RTN_UNICAST || table == RT_TABLE_LOCAL {
        return Vec::new();
    }
    let mut ip: IpAddr = match family {
        AF_INET => Ipv4Addr::UNSPECIFIED.into(),
        AF_INET6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Vec::new(),
    };
    let (mut hops, mut gateway, mut metric) = (Vec::new(), None, 0);
    for (kind, value) in Attributes(attributes) {
        match kind {
            RTA_DST => ip = ip_address(value).unwrap_or(ip),
            RTA_OIF => hops.extend(number(value).map(|interface| (interface, None))),
            RTA_GATEWAY => gateway = ip_address(value),
            RTA_PRIORITY => metric = number(value).unwrap_or(metric),
            RTA_MULTIPATH => hops.extend(next_hops(value)),
            _ => {}
        }
    }
    let destination = IpNetwork { ip, prefix };
    let route = |(interface, own): (u32, Option<IpAddr>)| Route {
        destination,
        interface,
        gateway: own.or(gateway),
        metric,
    };
    hops.into_iter().map(route).collect()
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

/// The interfaces and routers of the next hops of a route with several paths.
fn next_hops(mut bytes: &[u8]) -> Vec<(u32, Option<IpAddr>)> {
    let mut hops = Vec::new();
    while let Some([low, high, ..]) = bytes.get(..NEXT_HOP) {
        let length = usize::from(u16::from_ne_bytes([*low, *high])).max(NEXT_HOP);
        let mut attributes = Attributes(bytes.get(NEXT_HOP..length).unwrap_or_default());
        let gateway = attributes.find(|(kind, _)| *kind == RTA_GATEWAY).and_then(|(_, ip)| ip_address(ip));
        hops.extend(bytes.get(4..).and_then(number).map(|interface| (interface, gateway)));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(prefix: u8, table: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![AF_INET, prefix, 0, 0, table, 3, 0, RTN_UNICAST, 0, 0, 0, 0];
        for (kind, value) in attributes {
            body.extend((4 + value.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
        }
        body
    }

    #[test]
    fn a_default_route_with_several_paths_has_each_interface() {
        let gateway = [&8u16.to_ne_bytes()[..], &RTA_GATEWAY.to_ne_bytes(), &[10, 1, 2, 9]].concat();
        let hop = |interface: u32, attributes: &[u8]| {
            let length = (NEXT_HOP + attributes.len()) as u16;
            [&length.to_ne_bytes()[..], &[0, 0], &interface.to_ne_bytes(), attributes].concat()
        };
        let body = message(0, 254, &[(RTA_MULTIPATH, &[hop(3, &gateway), hop(4, &[])].concat())]);
        let found = parse(RTM_NEWROUTE, &body);
        let hops: Vec<_> = found.iter().map(|route| (route.interface, route.gateway)).collect();
        assert_eq!(hops, [(3, Some([10, 1, 2, 9].into())), (4, None)]);
        assert!(found.iter().all(Route::is_default));
    }

    #[test]
    fn a_route_has_its_router_and_metric_and_is_written_like_that_of_the_system() {
        let attributes: [(u16, &[u8]); 3] = [
            (RTA_GATEWAY, &[10, 77, 0, 1]),
            (RTA_OIF, &7u32.to_ne_bytes()),
            (RTA_PRIORITY, &600u32.to_ne_bytes()),
        ];
        let found = parse(RTM_NEWROUTE, &message(0, 254, &attributes));
        let [Route { destination, gateway, metric, .. }] = *found else { panic!("{found:?}") };
        let remote = RemoteRoute { interface: "eth1".to_owned(), destination, gateway, metric };
        assert!(remote.is_default());
        assert_eq!(remote.to_string(), "0.0.0.0/0 via 10.77.0.1 dev eth1 metric 600");
    }

    #[test]
    fn routes_to_the_hosts_own_addresses_are_left_out() {
        let attributes: [(u16, &[u8]); 2] = [(RTA_DST, &[10, 1, 2, 0]), (RTA_OIF, &7u32.to_ne_bytes())];
        let destination = IpNetwork { ip: [10, 1, 2, 0].into(), prefix: 24 };
        let expected = [Route { destination, interface: 7, gateway: None, metric: 0 }];
        assert_eq!(parse(RTM_NEWROUTE, &message(24, 254, &attributes)), expected);
        assert_eq!(parse(RTM_NEWROUTE, &message(24, RT_TABLE_LOCAL, &attributes)), []);
        assert_eq!(parse(RTM_GETROUTE, &message(24, 254, &attributes)), []);
    }

    #[test]
    fn bytes_that_no_kernel_sends_do_not_panic() {
        for length in 0..64usize {
            assert_eq!(parse(RTM_NEWROUTE, &vec![0xFF; length]), []);
            next_hops(&vec![0; length]);
            next_hops(&vec![0xFF; length]);
        }
    }

    #[test]
    fn the_routes_of_this_machine_can_be_read() {
        routes().unwrap();
    }
}
