//! The remote ECUs, as a gateway uses them: one channel per ECU, opened by the first request.

use std::collections::BTreeMap;
use std::sync::Arc;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use futures_util::future::{BoxFuture, FutureExt as _, pending, select_all};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::client::{Channel, CloseReason, Connection, Item, LinkState, OperatorError};

/// How many requests to an ECU may wait for the network. Further requests are refused. Half of the 64 PDUs
/// that may wait on a channel of the connector.
const QUEUE: usize = 32;

/// A channel to open, in the form of `openChannel`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ChannelKind {
    /// `isotp_channel` or `doip_channel`.
    pub(super) name: &'static str,
    /// The value of that field.
    pub(super) config: Value,
}

/// An event of a remote ECU, or of the link. A key identifies the ECU.
#[derive(Debug)]
pub(super) enum RemoteEvent {
    /// A response arrived.
    Response {
        /// The key of the request's destination.
        key: u32,
        /// The sender of the response, in the notation of the relay.
        address: u32,
        /// The PDU.
        data: Vec<u8>,
    },
    /// The request with this key is on the vehicle's bus.
    Sent(u32),
    /// The request was not sent, or the response was incomplete.
    Failed {
        /// The key of the request's destination.
        key: u32,
        /// The cause.
        why: String,
    },
    /// The link to the connector is lost, or back.
    Link {
        /// Whether the link is up.
        up: bool,
    },
}

enum Completed {
    Opened { key: u32, generation: u64, result: Result<Channel, OperatorError> },
    Closed(Result<Value, OperatorError>),
}

/// The channel of one key.
struct Slot {
    generation: u64,
    requests: mpsc::Sender<Vec<u8>>,
    /// The receiver of the requests, until the channel is open.
    waiting: Option<mpsc::Receiver<Vec<u8>>>,
    channel: Option<Arc<Channel>>,
    sender: Option<AbortHandle>,
}

/// The channels to the remote ECUs.
pub(super) struct Remote<'a> {
    connection: &'a Connection,
    state: watch::Receiver<LinkState>,
    slots: BTreeMap<u32, Slot>,
    working: FuturesUnordered<BoxFuture<'a, Completed>>,
    generation: u64,
}

impl<'a> Remote<'a> {
    /// No channel is open at first.
    pub(super) fn new(connection: &'a Connection) -> Self {
        let state = connection.state();
        Self { connection, state, slots: BTreeMap::new(), working: FuturesUnordered::new(), generation: 0 }
    }

    /// Sends a request to an ECU, and opens its channel if necessary. Returns `false` if too many requests
    /// wait.
    pub(super) fn send(&mut self, key: u32, kind: impl FnOnce() -> ChannelKind, pdu: Vec<u8>) -> bool {
        let connection = self.connection;
        let slot = self.slots.entry(key).or_insert_with(|| {
            let kind = kind();
            self.generation += 1;
            let generation = self.generation;
            let opening = async move {
                let result = connection.open_channel(|open| {
                    open.other.insert(kind.name.to_owned(), kind.config);
                });
                Completed::Opened { key, generation, result: result.await }
            };
            self.working.push(opening.boxed());
            let (requests, waiting) = mpsc::channel(QUEUE);
            Slot { generation, requests, waiting: Some(waiting), channel: None, sender: None }
        });
        slot.requests.try_send(pdu).is_ok()
    }

    /// Closes all channels, because the tool left.
    pub(super) fn close_all(&mut self) {
        self.close_where(|_| true);
    }

    /// Closes the channels with these keys, because a tool left.
    pub(super) fn close_where(&mut self, matches: impl Fn(u32) -> bool) {
        let (closed, kept) = std::mem::take(&mut self.slots).into_iter().partition(|(key, _)| matches(*key));
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
        self.working.push(closing.map(Completed::Closed).boxed());
    }

    /// The next event; cancel-safe.
    ///
    /// # Errors
    ///
    /// The reason why the connection ended.
    pub(super) async fn next(&mut self) -> Result<RemoteEvent, CloseReason> {
        loop {
            tokio::select! {
                biased;
                Ok(()) = self.state.changed() => match &*self.state.borrow_and_update() {
                    LinkState::Up => return Ok(RemoteEvent::Link { up: true }),
                    LinkState::Down => return Ok(RemoteEvent::Link { up: false }),
                    LinkState::Closed(reason) => return Err(reason.clone()),
                },
                Some(completed) = self.working.next(), if !self.working.is_empty() => {
                    if let Some(event) = self.handle_completed(completed) {
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

    fn handle_completed(&mut self, completed: Completed) -> Option<RemoteEvent> {
        match completed {
            Completed::Opened { key, generation, result: Ok(channel) } => {
                let Some(slot) = self.slots.get_mut(&key).filter(|slot| slot.generation == generation) else {
                    // the tool left before the channel was open
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
            Completed::Opened { key, generation, result: Err(error) } => {
                // the next request tries again
                self.slots.get(&key).filter(|slot| slot.generation == generation)?;
                self.slots.remove(&key);
                Some(RemoteEvent::Failed { key, why: error.to_string() })
            }
            Completed::Closed(result) => {
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

/// Sends the waiting requests. The receiving side reports the end of the connection.
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
        item => RemoteEvent::Failed { key, why: crate::client::failure(&item)?.to_string() },
    })
}
