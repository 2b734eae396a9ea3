//! A joined connection: requests to the connector, and the channels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::Tag;
use connector_agent::relay::wire::request::{
    BusConfig, CloseChannel, CloseConnection, ConfigureBuses, IsotpChannelConfig, OpenChannel,
    RawChannelConfig,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::channel::Channel;
use super::driver::{Ask, Command, Driver};
use super::error::{CloseReason, OperatorError, is_offline};
use super::inbox::{Full, Inbox, Item, Received};
use super::joining::{JoinError, join};
use super::live::Live;
use super::socket::{Dial, DialError};

/// Requests and PDUs that may wait for the connection's task; whoever has more waits.
const QUEUE: usize = 16;
/// How long a connection may take to close before it is left to itself.
const CLOSING: Duration = Duration::from_secs(5);

/// How patient an operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// How long a lost link, of either side, is waited for before the connection is given up.
    pub hold: Duration,
    /// How long a connector that is offline is waited for when joining.
    pub join_patience: Duration,
    /// How long a request to the connector may take, lost links included.
    pub request: Duration,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            // the connector's 30 s, and what the cloud takes to notice
            hold: Duration::from_secs(60),
            join_patience: Duration::from_secs(20),
            request: Duration::from_secs(75),
        }
    }
}

/// How the way to the connector stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// In order.
    Up,
    /// The operator's or the connector's link is lost, and not back yet.
    Down,
    /// The connection is over.
    Closed(CloseReason),
}

/// What has happened on a connection.
#[derive(Debug, Default)]
pub struct Counters {
    pdus_sent: AtomicU64,
    pdus_received: AtomicU64,
    interruptions: AtomicU64,
    links_lost: AtomicU64,
}

impl Counters {
    /// PDUs given to the link.
    pub fn pdus_sent(&self) -> u64 {
        self.pdus_sent.load(Ordering::Relaxed)
    }

    /// PDUs from the vehicle.
    pub fn pdus_received(&self) -> u64 {
        self.pdus_received.load(Ordering::Relaxed)
    }

    /// How often the connector's link was lost.
    pub fn interruptions(&self) -> u64 {
        self.interruptions.load(Ordering::Relaxed)
    }

    /// How often the operator's own link was lost.
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

/// What the connection's task and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    inboxes: Mutex<BTreeMap<u16, Arc<Inbox>>>,
    state: watch::Sender<LinkState>,
    pub(super) counters: Counters,
    /// The [`Connection`] is gone.
    pub(super) dropped: CancellationToken,
}

impl Shared {
    fn inboxes(&self) -> MutexGuard<'_, BTreeMap<u16, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the channel, if it is still there.
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

    pub(super) fn close(&self, reason: &CloseReason) {
        self.set_state(LinkState::Closed(reason.clone()));
        for inbox in self.inboxes().values() {
            inbox.close(reason);
        }
    }

    fn register(&self, channel: u16) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        self.inboxes().insert(channel, Arc::clone(&inbox));
        if let LinkState::Closed(reason) = &*self.state.borrow() {
            inbox.close(reason);
        }
        inbox
    }

    pub(super) fn forget(&self, channel: u16) {
        self.inboxes().remove(&channel);
    }

    /// Why nothing goes any more.
    pub(super) fn close_reason(&self) -> CloseReason {
        match &*self.state.borrow() {
            LinkState::Closed(reason) => reason.clone(),
            LinkState::Up | LinkState::Down => CloseReason::Dropped,
        }
    }
}

/// What `connectionJoined` says.
#[derive(Debug, Clone, Deserialize)]
pub struct Joined {
    /// The vehicle at the connector.
    #[serde(default)]
    pub vin_number: Option<String>,
    /// The connector, with its buses.
    #[serde(default)]
    pub connector: Value,
}

/// What `vehicleIdentified` says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Vehicle {
    /// The VIN, if the vehicle told one.
    #[serde(default)]
    pub vin_number: Option<String>,
    /// By which service.
    #[serde(default)]
    pub source: Option<String>,
    /// Which ECU told it.
    #[serde(default)]
    pub address: Option<Value>,
    /// How long reading it took.
    #[serde(default)]
    pub elapsed_ms: Option<u64>,
}

/// The way to ask the connection's task.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
    patience: Duration,
}

impl Asker {
    pub(super) async fn ask(&self, action: &'static str, message: Value) -> Result<Value, OperatorError> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.asks.send(Ask { action, message, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(self.patience, asking).await {
            Ok(Some(Ok(Envelope { message, .. }))) => Ok(message),
            Ok(Some(Err(problem))) => Err(OperatorError::Refused { what: action.to_owned(), problem }),
            Ok(None) => Err(OperatorError::Closed(self.shared.close_reason())),
            Err(_) => Err(OperatorError::Timeout { what: action.to_owned(), after: self.patience }),
        }
    }
}

/// A connection to a vehicle; dropped, it is left, and the connector holds it for a while.
#[derive(Debug)]
pub struct Connection {
    uuid: Uuid,
    joined: Joined,
    asker: Asker,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    next_channel: AtomicU16,
    _dropped: DropGuard,
}

impl Connection {
    /// Joins a connection over websockets that `dial` opens.
    pub async fn join(
        dial: Arc<dyn Dial>,
        uuid: Uuid,
        settings: ConnectionSettings,
    ) -> Result<Self, OperatorError> {
        let (live, joined, backlog) = first_join(dial.as_ref(), uuid, settings).await?;
        let joined = Joined::deserialize(joined)
            .map_err(|error| OperatorError::Answer { what: "joinConnection", detail: error.to_string() })?;
        let (ask_sender, asks) = mpsc::channel(QUEUE);
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let dropped = CancellationToken::new();
        let shared = Arc::new(Shared {
            inboxes: Mutex::default(),
            state: watch::Sender::new(LinkState::Up),
            counters: Counters::default(),
            dropped: dropped.clone(),
        });
        let link = Link::new(Role::Operator, Tag::from(uuid), Instant::now().into_std());
        let driver = Driver::new(dial, uuid, settings, Arc::clone(&shared), asks, commands, link);
        tokio::spawn(driver.drive(live, backlog));
        Ok(Self {
            uuid,
            joined,
            asker: Asker { asks: ask_sender, shared: Arc::clone(&shared), patience: settings.request },
            commands: command_sender,
            shared,
            next_channel: AtomicU16::new(1),
            _dropped: dropped.drop_guard(),
        })
    }

    /// Its UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// What the cloud said when it was joined.
    pub fn joined(&self) -> &Joined {
        &self.joined
    }

    /// What has happened on it.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// How the way to the connector stands; the receiver tells when that changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state()
    }

    /// Replaces all buses; channels that were open are closed by that.
    pub async fn configure_buses(&self, buses: Vec<BusConfig>) -> Result<(), OperatorError> {
        let message = ConfigureBuses { connection_uuid: self.uuid, buses };
        self.asker.ask("configureBuses", value(&message)).await.map(drop)
    }

    /// Opens an ISO-TP channel.
    pub async fn open_isotp(&self, config: IsotpChannelConfig) -> Result<Channel, OperatorError> {
        self.open_channel(|open| open.isotp_channel = Some(config)).await
    }

    /// Opens a raw channel.
    pub async fn open_raw(&self, config: RawChannelConfig) -> Result<Channel, OperatorError> {
        self.open_channel(|open| open.raw_channel = Some(config)).await
    }

    /// Opens a channel of any kind; `describe` says which.
    pub async fn open_channel(
        &self,
        describe: impl FnOnce(&mut OpenChannel),
    ) -> Result<Channel, OperatorError> {
        // 0 is no channel; after 65535 opened ones the numbers begin anew
        let number = self.next_channel.fetch_add(1, Ordering::Relaxed).max(1);
        let mut open = OpenChannel { connection_uuid: self.uuid, channel: number, ..OpenChannel::default() };
        describe(&mut open);
        open.channel = number;
        // before the answer: what comes first on a channel may come right behind it
        let inbox = self.shared.register(number);
        let channel = Channel::new(number, inbox, self.commands.clone(), Arc::clone(&self.shared));
        // a refused channel forgets its inbox when it is dropped
        self.asker.ask("openChannel", value(&open)).await.map(|_| channel)
    }

    /// Closes a channel; what it has not sent is discarded.
    pub async fn close_channel(&self, channel: Channel) -> Result<(), OperatorError> {
        let message = CloseChannel { connection_uuid: self.uuid, channel: channel.number() };
        match self.asker.ask("closeChannel", value(&message)).await {
            // asked again after a lost link, it may be closed already
            Err(OperatorError::Refused { problem, .. }) if problem.kind == "/problems/unknown-channel" => {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Has the connector read the VIN anew.
    pub async fn identify_vehicle(&self) -> Result<Vehicle, OperatorError> {
        let answer = self.asker.ask("identifyVehicle", json!({"connection_uuid": self.uuid})).await?;
        Vehicle::deserialize(answer)
            .map_err(|error| OperatorError::Answer { what: "identifyVehicle", detail: error.to_string() })
    }

    /// Any other request; gives the answer's message.
    pub async fn ask(&self, action: &'static str, message: Value) -> Result<Value, OperatorError> {
        self.asker.ask(action, message).await
    }

    /// Ends the connection on the connector; the ticket stays in progress.
    pub async fn close(self) -> Result<(), OperatorError> {
        let message = value(&CloseConnection { connection_uuid: self.uuid });
        match tokio::time::timeout(CLOSING, self.asker.ask("closeConnection", message)).await {
            Ok(Err(OperatorError::Closed(_))) => Ok(()),
            Ok(answer) => answer.map(drop),
            Err(_) => Err(OperatorError::Timeout { what: "closeConnection".to_owned(), after: CLOSING }),
        }
    }
}

fn value(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap_or_default()
}

/// Joins; a connector that is offline is waited for a while.
async fn first_join(
    dial: &dyn Dial,
    uuid: Uuid,
    settings: ConnectionSettings,
) -> Result<(Live, Value, Vec<Message>), OperatorError> {
    const PAUSE: Duration = Duration::from_secs(1);
    let until = Instant::now() + settings.join_patience;
    loop {
        let mut live = Live::new(dial.dial().await?);
        let failure = match join(&mut live, uuid, None).await {
            Ok((joined, backlog)) => return Ok((live, joined, backlog)),
            Err(JoinError::Timeout(after)) => {
                return Err(OperatorError::Timeout { what: "joining the connection".to_owned(), after });
            }
            Err(JoinError::Refused(problem)) => {
                let is_final = !is_offline(&problem);
                let error = OperatorError::Refused { what: "joining the connection".to_owned(), problem };
                if is_final {
                    return Err(error);
                }
                error
            }
            Err(JoinError::Socket(error)) => {
                let source = Box::new(std::io::Error::other(error).into());
                OperatorError::Dial(DialError::Upgrade(source))
            }
        };
        if Instant::now() >= until {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
