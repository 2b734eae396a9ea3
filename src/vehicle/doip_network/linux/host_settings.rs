//! The routes and the resolvers of the machine, which a vehicle's network must leave alone.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use connector_hal::ethernet::{AddressWatch, Interface, RemoteRoute, remote_routes};

use super::resolver_settings::ResolverSettings;

/// The interval at which the resolvers are read. The kernel reports changes of routes, but not of files.
const READ_EVERY: Duration = Duration::from_secs(5);

/// The settings of the machine at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostSettings {
    /// The routes that lead to hosts beyond the vehicle's network, by the vehicle's interface.
    vehicle: Vec<RemoteRoute>,
    /// The default routes by other interfaces.
    uplinks: Vec<RemoteRoute>,
    /// The other interfaces that have a link.
    linked: BTreeSet<String>,
    resolvers: ResolverSettings,
}

impl HostSettings {
    /// Reads the settings. On a machine with one interface only, routes may lead to it.
    fn read(interface: &Interface, root: &Path) -> io::Result<Self> {
        let others = interface.others()?;
        let (own, others_routes): (Vec<_>, Vec<_>) =
            remote_routes()?.into_iter().partition(|route| route.interface == interface.name());
        let has_link =
            |name: &String| Interface::find(name).and_then(|other| other.has_carrier()).unwrap_or(false);
        Ok(Self {
            vehicle: if others.is_empty() { Vec::new() } else { own },
            uplinks: others_routes.into_iter().filter(RemoteRoute::is_default).collect(),
            linked: others.into_iter().filter(has_link).collect(),
            resolvers: ResolverSettings::read(root, interface.name(), interface.index())?,
        })
    }

    /// The settings without those that concern the vehicle's interface.
    fn without_vehicle(self) -> Self {
        Self { vehicle: Vec::new(), resolvers: self.resolvers.without_vehicle(), ..self }
    }

    /// The differences to the settings `before` that a vehicle's network must not make, in words.
    fn changes_since(&self, before: &Self) -> Vec<String> {
        let is_new = |route: &&RemoteRoute| !before.vehicle.contains(route);
        let added = self.vehicle.iter().filter(is_new).map(|route| {
            let kind =
                if route.is_default() { "a default route leads" } else { "hosts of another network lead" };
            format!("{kind} to the vehicle: {route}")
        });
        // a route whose interface has lost its link is gone with the link
        let is_lost =
            |route: &&RemoteRoute| !self.uplinks.contains(route) && self.linked.contains(&route.interface);
        let lost = before.uplinks.iter().filter(is_lost).map(|route| match self.replacement(route) {
            Some(other) => format!("the default route of another interface is {other}, and was {route}"),
            None => format!("the default route of another interface is gone: {route}"),
        });
        added.chain(lost).chain(self.resolvers.changes_since(&before.resolvers)).collect()
    }

    /// The default route by the same interface, of the same family.
    fn replacement(&self, route: &RemoteRoute) -> Option<&RemoteRoute> {
        self.uplinks.iter().find(|other| {
            other.interface == route.interface
                && other.destination.ip.is_ipv4() == route.destination.ip.is_ipv4()
        })
    }
}

/// Reports each change by a DHCP client, until the returned future is dropped. The settings before the client's start
/// are read immediately.
pub(super) fn watch(interface: Interface) -> impl Future<Output = ()> + Send {
    let before = HostSettings::read(&interface, Path::new("/"));
    async move {
        let watched = match before {
            // what an earlier client left at the vehicle's interface is one too many as well
            Ok(before) => run(&interface, before.without_vehicle()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = watched {
            tracing::warn!(interface = interface.name(), %error, "cannot watch the routes and the resolvers");
        }
    }
}

async fn run(interface: &Interface, before: HostSettings) -> io::Result<()> {
    let watch = AddressWatch::with_routes()?;
    let mut reported = BTreeSet::new();
    loop {
        let own = interface.clone();
        let reading = tokio::task::spawn_blocking(move || HostSettings::read(&own, Path::new("/")));
        // a difference that goes and comes back is reported again
        let changes: BTreeSet<_> = reading.await??.changes_since(&before).into_iter().collect();
        for change in changes.difference(&reported) {
            tracing::warn!(
                interface = interface.name(),
                "since the DHCP client of the vehicle's network was started, {change}; its script should set only the address"
            );
        }
        reported = changes;
        // at least one of both is due
        let _changed_or_due = tokio::time::timeout(READ_EVERY, watch.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(text: &str) -> RemoteRoute {
        let words: Vec<_> = text.split(' ').collect();
        let after = |word: &str| words.iter().skip_while(|other| **other != word).nth(1);
        let (ip, prefix) = words[0].split_once('/').unwrap();
        RemoteRoute {
            interface: (*after("dev").unwrap()).to_owned(),
            destination: connector_hal::ethernet::IpNetwork {
                ip: ip.parse().unwrap(),
                prefix: prefix.parse().unwrap(),
            },
            gateway: after("via").map(|gateway| gateway.parse().unwrap()),
            metric: after("metric").unwrap().parse().unwrap(),
        }
    }

    fn settings(vehicle: &[&str], uplinks: &[&str]) -> HostSettings {
        HostSettings {
            vehicle: vehicle.iter().map(|text| route(text)).collect(),
            uplinks: uplinks.iter().map(|text| route(text)).collect(),
            linked: ["wlan0".to_owned(), "wwan0".to_owned()].into(),
            resolvers: ResolverSettings::default(),
        }
    }

    const WLAN: &str = "0.0.0.0/0 via 192.168.1.1 dev wlan0 metric 600";
    const WLAN_IPV6: &str = "::/0 via fe80::1 dev wlan0 metric 1024";
    const WWAN: &str = "0.0.0.0/0 dev wwan0 metric 700";

    #[test]
    fn routes_that_lead_beyond_the_vehicles_network_are_reported() {
        let before = settings(&[], &[WLAN, WLAN_IPV6]);
        assert_eq!(before.changes_since(&before), [] as [&str; 0]);
        let routes = [
            "0.0.0.0/0 via 10.77.0.1 dev eth1 metric 0",
            "::/0 via fe80::2 dev eth1 metric 1024",
            "198.51.100.0/24 via 10.77.0.1 dev eth1 metric 0",
        ];
        let after = settings(&routes, &[WLAN, WLAN_IPV6]);
        assert_eq!(
            after.changes_since(&before),
            [
                format!("a default route leads to the vehicle: {}", routes[0]),
                format!("a default route leads to the vehicle: {}", routes[1]),
                format!("hosts of another network lead to the vehicle: {}", routes[2]),
            ]
        );
        // what is gone again is no news, and what an earlier client left is
        assert_eq!(before.changes_since(&after), [] as [&str; 0]);
        assert_eq!(after.changes_since(&after.clone().without_vehicle()).len(), 3);
    }

    #[test]
    fn default_routes_of_other_interfaces_that_go_or_change_are_reported() {
        let before = settings(&[], &[WLAN, WLAN_IPV6, WWAN]);
        let other = "0.0.0.0/0 via 10.77.0.1 dev wlan0 metric 0";
        let mut after = settings(&[], &[other, WWAN]);
        assert_eq!(
            after.changes_since(&before),
            [
                format!("the default route of another interface is {other}, and was {WLAN}"),
                format!("the default route of another interface is gone: {WLAN_IPV6}"),
            ]
        );
        // one more uplink harms nothing, and a lost link takes its routes along
        assert_eq!(before.changes_since(&settings(&[], &[WWAN])), [] as [&str; 0]);
        after.linked.clear();
        assert_eq!(after.changes_since(&before), [] as [&str; 0]);
    }

    #[test]
    fn the_settings_of_this_machine_can_be_read_without_a_resolver() {
        let loopback = Interface::find("lo").unwrap();
        let missing = HostSettings::read(&loopback, Path::new("/no/such/directory")).unwrap();
        assert_eq!((missing.vehicle, missing.resolvers), (Vec::new(), ResolverSettings::default()));
    }
}
