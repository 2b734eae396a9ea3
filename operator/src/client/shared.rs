//! The state that the task of a connection shares with the handles of the connection and of its channels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::PduFlags;
use connector_hal::can::CanFrame;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::error::CloseReason;
use super::inbox::{Full, Inbox, Item, Received};
use super::policy_view::PolicyView;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// How long a lost link of either side may take to come back before the connection is given up.
    pub hold: Duration,
    /// How long joining waits for a connector that is offline.
    pub join_patience: Duration,
    /// The longest time for a request to the connector, including lost links.
    pub request: Duration,
    /// Whether to take the connection over from another operator who has joined it.
    pub take_over: bool,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            // the connector holds a connection for 30 s, and the cloud needs time to detect the loss
            hold: Duration::from_secs(60),
            join_patience: Duration::from_secs(20),
            request: Duration::from_secs(75),
            take_over: false,
        }
    }
}

/// The state of the path between operator and connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Both links are up.
    Up,
    /// The operator's or the connector's link is lost, and has not come back yet.
    Down,
    /// The connection ended.
    Closed(CloseReason),
}

/// Counts the PDUs and lost links of a connection.
#[derive(Debug, Default)]
pub struct Counters {
    pdus_sent: AtomicU64,
    pdus_received: AtomicU64,
    interruptions: AtomicU64,
    links_lost: AtomicU64,
}

impl Counters {
    /// The number of PDUs given to the link.
    pub fn pdus_sent(&self) -> u64 {
        self.pdus_sent.load(Ordering::Relaxed)
    }

    /// The number of PDUs received from the vehicle.
    pub fn pdus_received(&self) -> u64 {
        self.pdus_received.load(Ordering::Relaxed)
    }

    /// How many times the connector's link was lost.
    pub fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Relaxed)
    }

    /// How many times the operator's own link was lost.
    pub fn links_lost(&self) -> u64 {
        self.links_lost.load(Ordering::Relaxed)
    }

    pub(super) fn add_pdu_sent(&self) {
        self.pdus_sent.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_interruption(&self) {
        self.interruptions.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_link_lost(&self) {
        self.links_lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// The state that the task of a connection shares with its handles.
#[derive(Debug)]
pub(super) struct Shared {
    inboxes: Mutex<BTreeMap<u16, Arc<Inbox>>>,
    state: watch::Sender<LinkState>,
    policy: watch::Sender<Option<PolicyView>>,
    pub(super) counters: Counters,
    /// Cancelled when the [`Connection`](super::Connection) is dropped.
    pub(super) dropped: CancellationToken,
}

impl Shared {
    pub(super) fn new(dropped: CancellationToken) -> Self {
        Self {
            inboxes: Mutex::default(),
            state: watch::Sender::new(LinkState::Up),
            policy: watch::Sender::new(None),
            counters: Counters::default(),
            dropped,
        }
    }

    fn inboxes(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers an item to its channel, if the channel is still open.
    pub(super) fn deliver(&self, channel: u16, received: Received) -> Result<(), Full> {
        if matches!(received.item, Item::Pdu { .. }) {
            self.counters.pdus_received.fetch_add(1, Ordering::Relaxed);
        }
        match self.inboxes().get(&channel) {
            Some(inbox) => inbox.push(received),
            None => Ok(()),
        }
    }

    pub(super) fn set_state(&self, state: LinkState) {
        self.state.send_replace(state);
    }

    pub(super) fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    pub(super) fn set_policy(&self, policy: PolicyView) {
        self.policy.send_replace(Some(policy));
    }

    pub(super) fn policy(&self) -> watch::Receiver<Option<PolicyView>> {
        self.policy.subscribe()
    }

    /// Closes all channels for this reason.
    pub(super) fn close(&self, reason: &CloseReason) {
        self.set_state(LinkState::Closed(reason.clone()));
        for inbox in self.inboxes().values() {
            inbox.close(reason);
        }
    }

    /// Opens the inbox of a channel.
    pub(super) fn register(&self, channel: u16) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        self.inboxes().insert(channel, Arc::clone(&inbox));
        if let LinkState::Closed(reason) = &*self.state.borrow() {
            inbox.close(reason);
        }
        inbox
    }

    /// Closes the inbox of a channel that was dropped.
    pub(super) fn forget(&self, channel: u16) {
        self.inboxes().remove(&channel);
    }

    /// Why the connection no longer takes commands.
    pub(super) fn close_reason(&self) -> CloseReason {
        match &*self.state.borrow() {
            LinkState::Closed(reason) => reason.clone(),
            LinkState::Up | LinkState::Down => CloseReason::Dropped,
        }
    }
}

/// Something to send to the vehicle.
#[derive(Debug)]
pub(super) enum ChannelCommand {
    Pdu { channel: u16, flags: PduFlags, data: Vec<u8> },
    Frame { channel: u16, frame: CanFrame },
}

/// A request to the connector, and the receiver of the answer.
#[derive(Debug)]
pub(super) struct ConnectorRequest {
    pub(super) action: &'static str,
    pub(super) message: Value,
    pub(super) reply: oneshot::Sender<Result<Envelope, Problem>>,
}
