//! Which vehicle this is: reads the VIN at start and whenever the vehicle may have changed, and otherwise
//! only listens.
//!
//! The watch is a separate task, because adapters may take their time. It closes the devices while a session
//! uses them.

mod announcements;
mod listening;
mod messages;
mod port;
mod reading;
mod retry;
mod schedule;
mod task;

#[cfg(test)]
mod tests;

use std::task::{Context, Poll};

use tokio::sync::{mpsc, oneshot};

pub(super) use self::messages::Found;
use self::messages::WatchCommand;
pub(super) use self::schedule::WatchStart;
use self::task::VinWatchTask;
use crate::config::VinSettings;
use crate::policy::SharedPolicy;
use crate::protocol::vin::Vin;
use crate::vehicle::hardware::Hardware;

/// The most commands that may wait. The agent's loop sends one at a time, and waits if there is no room.
const COMMANDS: usize = 8;
/// The most messages that may wait; the watch pauses until there is room. A reading causes one message.
const FOUND: usize = 8;

/// The handle of the watch's task.
pub(super) struct VinWatch {
    commands: mpsc::Sender<WatchCommand>,
    found: mpsc::Receiver<Found>,
}

impl VinWatch {
    /// Begins to read the VIN, or to listen, depending on ignition and start.
    pub(super) fn spawn(
        hardware: Hardware,
        settings: VinSettings,
        policy: SharedPolicy,
        ignition: Option<bool>,
        start: WatchStart,
    ) -> Self {
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (found_sender, found) = mpsc::channel(FOUND);
        let task =
            VinWatchTask::new(hardware, settings, policy, (ignition, start), command_receiver, found_sender);
        tokio::spawn(task.run());
        Self { commands, found }
    }

    /// Closes all devices, so that a session can open them.
    pub(super) async fn release(&self) {
        let (done, released) = oneshot::channel();
        if self.commands.send(WatchCommand::Release(done)).await.is_ok() {
            let _closed_or_gone = released.await;
        }
    }

    /// Returns the devices to the watch, with the VIN that is known by now.
    pub(super) async fn resume(&self, vin: Option<Vin>) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Resume(vin)).await;
    }

    /// Reports that the ignition changed.
    pub(super) async fn ignition(&self, ignition: Option<bool>) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Ignition(ignition)).await;
    }

    /// Reads the VIN again. If no request waits for the VIN, the reading listens to the buses first.
    pub(super) async fn read(&self, is_awaited: bool) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Read { is_awaited }).await;
    }

    /// Sends nothing any more, and only listens.
    pub(super) async fn listen(&self) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Listen).await;
    }

    /// The next finding; ready with `None` when the task has ended.
    pub(super) fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Option<Found>> {
        self.found.poll_recv(cx)
    }
}
