//! Reports the agent's state to the service manager (`sd_notify(3)`), if it asked for reports.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use super::led::Indication;
use crate::cloud::CloudState;

/// Reports to the service manager.
#[derive(Debug)]
pub(crate) struct Notifier {
    /// The service manager's socket, if it has one.
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// The interval of the watchdog reports, and when the next one is due.
    watchdog: Option<(Duration, Instant)>,
}

impl Notifier {
    /// The service manager that the environment names. The first report to the watchdog is due now: an agent before this
    /// one in the process may have reported half a limit ago.
    pub(crate) fn from_environment(now: Instant) -> Self {
        Self::new(now, |name| std::env::var_os(name))
    }

    /// Reads the environment by `variable`.
    fn new(now: Instant, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let manager = variable("NOTIFY_SOCKET").and_then(|name| {
            let opened = address(name.as_bytes()).and_then(|address| Ok((UnixDatagram::unbound()?, address)));
            opened.inspect_err(|error| tracing::warn!("NOTIFY_SOCKET={}: {error}", name.display())).ok()
        });
        // half of the limit, as sd_watchdog_enabled(3) recommends
        let interval = watchdog_limit(variable).map(|limit| limit / 2);
        Self { manager, watchdog: interval.map(|interval| (interval, now)) }
    }

    fn notify(&self, state: &str) {
        let Some((socket, address)) = &self.manager else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            tracing::debug!(%error, "cannot report to the service manager");
        }
    }

    pub(super) fn report_ready(&self) {
        self.notify("READY=1");
    }

    pub(super) fn report_stopping(&self) {
        self.notify("STOPPING=1");
    }

    pub(super) fn report_waiting(&self) {
        self.notify("STATUS=about to end: waiting for the end of a download");
    }

    pub(crate) fn report_unusable(&self) {
        self.notify("STATUS=a file that the configuration names cannot be used");
    }

    pub(super) fn report_sleeping(&self) {
        self.notify("STATUS=asleep: the supply voltage is low");
    }

    pub(super) fn report_status(&self, indication: Indication) {
        self.notify(match (indication.cloud, indication.has_operator) {
            (CloudState::Online, true) => "STATUS=online, an operator is connected",
            (CloudState::Online, false) => "STATUS=online",
            (CloudState::Connecting, _) => "STATUS=connecting",
            (CloudState::Unreachable, _) => "STATUS=the cloud cannot be reached",
            (CloudState::LoginRejected, _) => "STATUS=the cloud rejects UUID or pincode",
        });
    }

    /// Reports to the watchdog if that is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some((interval, due)) = &mut self.watchdog
            && *due <= now
        {
            *due = now + *interval;
            self.notify("WATCHDOG=1");
        }
    }

    /// When [`Notifier::handle_timeout`] is due; `None` without a watchdog.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.watchdog.map(|(_, due)| due)
    }
}

/// The address that `NOTIFY_SOCKET` names: a path, or after `@` the name of an abstract socket (`unix(7)`).
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name)),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract socket")),
    }
}

/// After how long without a report the service manager restarts this process; `None` if it does not.
fn watchdog_limit(variable: impl Fn(&str) -> Option<OsString>) -> Option<Duration> {
    let number = |name| variable(name)?.to_str()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|limit| *limit > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A notifier with these variables.
    fn notifier(now: Instant, variables: &[(&str, &str)]) -> Notifier {
        Notifier::new(now, |name| {
            let (_, value) = variables.iter().find(|(other, _)| *other == name)?;
            Some(OsString::from(value))
        })
    }

    fn received(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_service_managers_socket_may_be_a_path_or_an_abstract_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("@connector-agent-test-{}", std::process::id());
        for (variable, manager) in [
            (path.to_str().unwrap(), UnixDatagram::bind(&path)),
            (name.as_str(), UnixDatagram::bind_addr(&address(name.as_bytes()).unwrap())),
        ] {
            let manager = manager.unwrap();
            let now = Instant::now();
            let variables = [("NOTIFY_SOCKET", variable), ("WATCHDOG_USEC", "2000000")];
            let mut notifier = notifier(now, &variables);
            notifier.report_ready();
            assert_eq!(received(&manager), "READY=1", "{variable}");
            notifier.handle_timeout(now);
            notifier.handle_timeout(now + Duration::from_secs(1));
            assert_eq!(received(&manager), "WATCHDOG=1", "{variable}");
        }
    }

    #[test]
    fn an_agent_that_starts_again_in_its_process_reports_to_the_watchdog_first() {
        let now = Instant::now();
        // the agent before may have reported half a limit ago, and its end takes seconds
        assert_eq!(notifier(now, &[("WATCHDOG_USEC", "2000000")]).poll_timeout(), Some(now));
    }

    #[test]
    fn without_a_service_manager_nothing_is_reported() {
        let now = Instant::now();
        for variables in [&[][..], &[("NOTIFY_SOCKET", "")], &[("NOTIFY_SOCKET", "vsock:2:1234")]] {
            let notifier = notifier(now, variables);
            notifier.report_ready();
            assert!(notifier.manager.is_none() && notifier.poll_timeout().is_none());
        }
        let other = (std::process::id() + 1).to_string();
        let variables = [("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", other.as_str())];
        assert_eq!(notifier(now, &variables).poll_timeout(), None, "another process is watched");
    }
}
