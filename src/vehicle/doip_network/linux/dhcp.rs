//! The DHCP clients of the system that the agent has started.

use std::collections::HashMap;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use connector_hal::ethernet::Interface;
use rustix::process::{Pid, Signal, kill_process};

/// The clients, by interface. Dropping this value ends those that still run.
#[derive(Default)]
pub(super) struct DhcpClients(Mutex<HashMap<String, Child>>);

impl DhcpClients {
    /// Starts the command for the interface, unless the command runs already. `{interface}` in the command
    /// stands for the interface.
    pub(super) fn start(&self, interface: &Interface, command: &[String]) -> Result<(), String> {
        let Some((program, arguments)) = command.split_first() else { return Ok(()) };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get_mut(interface.name())
            && matches!(client.try_wait(), Ok(None))
        {
            return Ok(());
        }
        let named = arguments.iter().map(|argument| argument.replace("{interface}", interface.name()));
        // standard output belongs to the agent
        let started = Command::new(program).args(named).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let client =
            started.map_err(|error| format!("the DHCP client {program} cannot be started: {error}"))?;
        clients.insert(interface.name().to_owned(), client);
        Ok(())
    }

    /// The failure of the interface's client, if it failed.
    pub(super) fn failure(&self, interface: &Interface) -> Option<String> {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = clients.get_mut(interface.name())?.try_wait().ok()??;
        (!ended.success()).then(|| format!("the DHCP client gave up ({ended})"))
    }
}

impl Drop for DhcpClients {
    fn drop(&mut self) {
        let clients = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for client in clients.values_mut() {
            if matches!(client.try_wait(), Ok(None))
                && let Some(pid) = i32::try_from(client.id()).ok().and_then(Pid::from_raw)
            {
                // by SIGTERM, so that the client can release its lease
                let _gone_meanwhile = kill_process(pid, Signal::TERM);
            }
        }
    }
}
