//! The DHCP clients of the system that the agent has started.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use connector_hal::ethernet::Interface;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use super::host_settings;

/// The clients, by interface. Dropping this value ends those that still run.
#[derive(Default)]
pub(super) struct DhcpClients(Mutex<HashMap<String, DhcpClient>>);

/// A client, and the task that watches what the client changes.
struct DhcpClient {
    process: Child,
    watch: JoinHandle<()>,
}

impl Drop for DhcpClient {
    fn drop(&mut self) {
        self.watch.abort();
        if matches!(self.process.try_wait(), Ok(None))
            && let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
        {
            // by SIGTERM, so that the client can release its lease
            let _gone_meanwhile = kill_process(pid, Signal::TERM);
        }
    }
}

impl DhcpClients {
    /// Starts the command for the interface, unless the command runs already. `{interface}` in the command
    /// stands for the interface. Changes of the default route and the resolver are reported while the client runs.
    pub(super) fn start(&self, interface: &Interface, command: &[String]) -> Result<(), String> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(interface.name())
            && matches!(client.process.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let named = arguments.iter().map(|argument| argument.replace("{interface}", interface.name()));
        let watching = host_settings::watch(interface.clone());
        // standard output belongs to the agent
        let started = Command::new(program).args(named).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let process =
            started.map_err(|error| format!("the DHCP client {program} cannot be started: {error}"))?;
        let client = DhcpClient { process, watch: tokio::spawn(watching) };
        clients.insert(interface.name().to_owned(), client);
        Ok(())
    }

    /// Ends the interface's client, if it runs.
    pub(super) fn end(&self, interface: &Interface) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(interface.name());
    }

    /// The failure of the interface's client, if it failed.
    pub(super) fn failure(&self, interface: &Interface) -> Option<String> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = clients.get_mut(interface.name())?.process.try_wait().ok()??;
        (!ended.success()).then(|| format!("the DHCP client gave up ({ended})"))
    }
}
