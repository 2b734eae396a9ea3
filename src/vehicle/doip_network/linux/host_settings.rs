//! The default route and the resolver of the machine, which a vehicle's network must leave alone.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::time::Duration;

use connector_hal::ethernet::{AddressWatch, Interface};

/// The file with the addresses of the resolvers (`resolv.conf(5)`).
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The interval at which the resolvers are read. The kernel reports changes of routes, but not of files.
const READ_EVERY: Duration = Duration::from_secs(5);

/// The settings of the machine at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct HostSettings {
    /// Whether a default route leads to the vehicle.
    has_default_route: bool,
    resolvers: BTreeSet<String>,
}

impl HostSettings {
    /// Reads the settings. On a machine with one interface only, the default route may lead to it.
    fn read(interface: &Interface, resolv_conf: &Path) -> io::Result<Self> {
        let has_default_route = interface.has_default_route()? && !interface.others()?.is_empty();
        let resolvers = match std::fs::read_to_string(resolv_conf) {
            Ok(text) => resolvers(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { has_default_route, resolvers })
    }

    /// What has changed since `before` that a vehicle's network must not change, in words.
    fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        if self.has_default_route && !before.has_default_route {
            changes.push("a default route leads to the vehicle".to_owned());
        }
        let new: Vec<_> = self.resolvers.difference(&before.resolvers).map(String::as_str).collect();
        if !new.is_empty() {
            changes.push(format!("{RESOLV_CONF} names other resolvers: {}", new.join(", ")));
        }
        changes
    }
}

/// The addresses of the resolvers in the text of a `resolv.conf`.
fn resolvers(text: &str) -> BTreeSet<String> {
    let address = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["nameserver", address, ..] => Some((*address).to_owned()),
        _ => None,
    };
    text.lines().filter_map(address).collect()
}

/// Reports each change by a DHCP client, until the returned future is dropped. The settings before the client's start
/// are read immediately.
pub(super) fn watch(interface: Interface) -> impl Future<Output = ()> + Send {
    let before = HostSettings::read(&interface, Path::new(RESOLV_CONF));
    async move {
        let watched = match before {
            // a default route that an earlier client left is one too many as well
            Ok(before) => run(&interface, HostSettings { has_default_route: false, ..before }).await,
            Err(error) => Err(error),
        };
        if let Err(error) = watched {
            tracing::warn!(interface = interface.name(), %error, "cannot watch the default route and the resolver");
        }
    }
}

async fn run(interface: &Interface, mut before: HostSettings) -> io::Result<()> {
    let watch = AddressWatch::with_routes()?;
    loop {
        let own = interface.clone();
        let reading = tokio::task::spawn_blocking(move || HostSettings::read(&own, Path::new(RESOLV_CONF)));
        let settings = reading.await??;
        for change in settings.changes_since(&before) {
            tracing::warn!(
                interface = interface.name(),
                "since the DHCP client of the vehicle's network was started, {change}; its script should set only the address"
            );
        }
        before = settings;
        // at least one of both is due
        let _changed_or_due = tokio::time::timeout(READ_EVERY, watch.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(has_default_route: bool, resolv_conf: &str) -> HostSettings {
        HostSettings { has_default_route, resolvers: resolvers(resolv_conf) }
    }

    #[test]
    fn a_default_route_and_a_new_resolver_are_each_reported() {
        let before = settings(false, "# by hand\nsearch example\nnameserver 192.0.2.1\n");
        assert_eq!(before.changes_since(&before), [] as [&str; 0]);
        let after =
            settings(true, "nameserver 10.77.0.1 # vehicle\nnameserver 192.0.2.1\n nameserver\tfd00::1\n");
        let changes = after.changes_since(&before);
        assert_eq!(
            changes,
            [
                "a default route leads to the vehicle",
                "/etc/resolv.conf names other resolvers: 10.77.0.1, fd00::1"
            ]
        );
        // what is gone again is no news
        assert_eq!(before.changes_since(&after), [] as [&str; 0]);
    }

    #[test]
    fn the_settings_of_this_machine_can_be_read_without_a_resolver() {
        let loopback = Interface::find("lo").unwrap();
        let missing = HostSettings::read(&loopback, Path::new("/no/such/file")).unwrap();
        assert_eq!(missing, HostSettings::default());
    }
}
