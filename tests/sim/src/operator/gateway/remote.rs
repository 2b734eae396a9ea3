//! The remote ECUs as a gateway sees them: a channel each, opened by the first request.

use std::collections::BTreeMap;
use std::sync::Arc;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use futures_util::future::{BoxFuture, FutureExt as _, pending, select_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use super::super::client::{Channel, CloseReason, Connection, Item, LinkState, OperatorError};

/// Requests to an ECU that may wait until the network takes them; more are refused.
const QUEUE: usize = 32;

/// A channel to open, as `openChannel` writes it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelKind {
    /// `isotp_channel`, `doip_channel`.
    pub name: &'static str,
    /// What stands under that name.
    pub config: Value,
}

/// Something about a request to the ECU with this key.
#[derive(Debug)]
pub enum RemoteEvent {
    /// A response has come.
    Response {
        /// The ECU asked.
        key: u32,
        /// Who answered, as the relay writes it.
        address: u32,
        /// The PDU.
        data: Vec<u8>,
    },
    /// The request is on the vehicle's bus.
    Sent(u32),
    /// The request was not sent, or its response broke off.
    Failed {
        /// The ECU asked.
        key: u32,
        /// Why.
        why: String,
    },
    /// The way to the connector is lost, or back.
    Link {
        /// Whether it is there.
        up: bool,
    },
}

enum Done {
    Opened { key: u32, generation: u64, result: Result<Channel, OperatorError> },
    Closed(Result<Value, OperatorError>),
}

struct Slot {
    generation: u64,
    requests: mpsc::Sender<Vec<u8>>,
    /// Until the channel is open.
    waiting: Option<mpsc::Receiver<Vec<u8>>>,
    channel: Option<Arc<Channel>>,
    sender: Option<AbortHandle>,
}

/// See the module.
pub struct Remote<'a> {
    connection: &'a Connection,
    state: watch::Receiver<LinkState>,
    slots: BTreeMap<u32, Slot>,
    working: FuturesUnordered<BoxFuture<'a, Done>>,
    generation: u64,
}

impl<'a> Remote<'a> {
    /// No channel is open.
    pub fn new(connection: &'a Connection) -> Self {
        let state = connection.state();
        Self { connection, state, slots: BTreeMap::new(), working: FuturesUnordered::new(), generation: 0 }
    }

    /// Sends a request to an ECU, whose channel is opened if it is not; `false` where too many wait already.
    pub fn send(&mut self, key: u32, kind: impl FnOnce() -> ChannelKind, pdu: Vec<u8>) -> bool {
        let connection = self.connection;
        let slot = self.slots.entry(key).or_insert_with(|| {
            let kind = kind();
            self.generation += 1;
            let generation = self.generation;
            let opening = async move {
                let result = connection.open_channel(|open| {
                    open.other.insert(kind.name.to_owned(), kind.config);
                });
                Done::Opened { key, generation, result: result.await }
            };
            self.working.push(opening.boxed());
            let (requests, waiting) = mpsc::channel(QUEUE);
            Slot { generation, requests, waiting: Some(waiting), channel: None, sender: None }
        });
        slot.requests.try_send(pdu).is_ok()
    }

    /// Closes all channels: the tool has gone.
    pub fn close_all(&mut self) {
        self.close_where(|_| true);
    }

    /// Closes the channels with these keys: a tool has gone.
    pub fn close_where(&mut self, is_its: impl Fn(u32) -> bool) {
        let (closed, kept) = std::mem::take(&mut self.slots).into_iter().partition(|(key, _)| is_its(*key));
        self.slots = kept;
        let closed: BTreeMap<u32, Slot> = closed;
        for slot in closed.into_values() {
            if let Some(sender) = &slot.sender {
                sender.abort();
            }
            if let Some(channel) = &slot.channel {
                self.close(channel.number());
            }
        }
    }

    fn close(&mut self, channel: u16) {
        let connection = self.connection;
        let message = json!({"connection_uuid": connection.uuid(), "channel": channel});
        let closing = connection.ask("closeChannel", message);
        self.working.push(closing.map(Done::Closed).boxed());
    }

    /// What happens next; cancel-safe.
    ///
    /// # Errors
    ///
    /// Why the connection is over.
    pub async fn next(&mut self) -> Result<RemoteEvent, CloseReason> {
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.state.changed() => match &*self.state.borrow_and_update() {
                    LinkState::Up => return Ok(RemoteEvent::Link { up: true }),
                    LinkState::Down => return Ok(RemoteEvent::Link { up: false }),
                    LinkState::Closed(reason) => return Err(reason.clone()),
                },
                Some(done) = self.working.next(), if !self.working.is_empty() => {
                    if let Some(event) = self.handle_done(done) {
                        return Ok(event);
                    }
                }
                (key, item) = receive(&self.slots) => {
                    if let Some(event) = event(key, item?) {
                        return Ok(event);
                    }
                }
            }
        }
    }

    fn handle_done(&mut self, done: Done) -> Option<RemoteEvent> {
        match done {
            Done::Opened { key, generation, result: Ok(channel) } => {
                let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.generation == generation) else {
                    // the tool has gone meanwhile
                    self.close(channel.number());
                    return None;
                };
                let channel = Arc::new(channel);
                slot.channel = Some(Arc::clone(&channel));
                if let Some(waiting) = slot.waiting.take() {
                    slot.sender = Some(tokio::spawn(send_all(channel, waiting)).abort_handle());
                }
                None
            }
            Done::Opened { key, generation, result: Err(error) } => {
                // the next request tries again
                self.slots.get(&key).filter(|slot| slot.generation == generation)?;
                self.slots.remove(&key);
                Some(RemoteEvent::Failed { key, why: error.to_string() })
            }
            Done::Closed(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a channel was not closed");
                }
                None
            }
        }
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        self.slots.values().filter_map(|slot| slot.sender.as_ref()).for_each(AbortHandle::abort);
    }
}

/// Sends what waits; that the connection is over is told where it is received from.
async fn send_all(channel: Arc<Channel>, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(pdu) = waiting.recv().await {
        if channel.send(&pdu, PduFlags { chained: false, confirm: true }).await.is_err() {
            return;
        }
    }
}

async fn receive(slots: &BTreeMap<u32, Slot>) -> (u32, Result<Item, CloseReason>) {
    let open = slots.iter().filter_map(|(key, slot)| Some((*key, slot.channel.as_deref()?)));
    let receiving = open.map(|(key, channel)| {
        async move { (key, channel.recv().await.map(|received| received.item)) }.boxed()
    });
    let receiving: Vec<_> = receiving.collect();
    if receiving.is_empty() {
        return pending().await;
    }
    select_all(receiving).await.0
}

fn event(key: u32, item: Item) -> Option<RemoteEvent> {
    Some(match item {
        Item::Pdu { address, data } => RemoteEvent::Response { key, address, data },
        Item::Event { code: EventCode::Sent, .. } => RemoteEvent::Sent(key),
        item => RemoteEvent::Failed { key, why: super::super::client::failure(&item)?.to_string() },
    })
}
