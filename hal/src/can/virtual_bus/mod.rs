//! A CAN bus in memory, with true bit timing.
//!
//! Every frame takes its exact stuffed length at its sender's bit rates; when the bus becomes free, the lowest
//! identifier of all that wait wins it. Nodes with another bit rate destroy frames until their error counters silence
//! them, as on a real bus; a node alone gets no acknowledgement; one that only listens gives none.
//!
//! Bus time is exact although timers are not: frames follow each other by their lengths, and events that fell due
//! since the last wake-up carry the time they happened at. With [`TimerKind::Runtime`] on a paused clock all of it is
//! deterministic.

mod background;
mod medium;
mod node;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use self::background::Background;
use self::medium::Medium;
use self::node::Node;
use crate::bus::{BusState, BusStatus};
use crate::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use crate::future::BoxFuture;
use crate::timer::{Deadline, TimerKind};

/// What kind of bus it is.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualBusConfig {
    /// The nominal bit rate of the vehicle, in bit/s.
    pub bit_rate: u32,
    /// The data phase's bit rate of the vehicle, in bit/s; present means its nodes know CAN FD.
    pub data_bit_rate: Option<u32>,
    /// The share of the bus's time, 0…1, that the vehicle's periodic messages take. Above 0 there are nodes that
    /// acknowledge, and that flag errors.
    pub load: f32,
    /// Which clock the bus goes by.
    pub timer: TimerKind,
    /// How many frames a node's transmit queue holds; sending waits when it is full.
    pub transmit_queue: usize,
    /// How many events a node keeps unread; received frames beyond it are lost, and counted.
    pub receive_queue: usize,
}

impl Default for VirtualBusConfig {
    /// 500 kbit/s, classic, silent, by the runtime's clock.
    fn default() -> Self {
        Self {
            bit_rate: 500_000,
            data_bit_rate: None,
            load: 0.0,
            timer: TimerKind::Runtime,
            transmit_queue: 16,
            receive_queue: 4096,
        }
    }
}

/// What happened on the bus since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BusStatistics {
    /// Frames acknowledged, background traffic included.
    pub frames: u64,
    /// Of these, background traffic.
    pub background_frames: u64,
    /// Background messages overwritten before they could be sent.
    pub background_overwritten: u64,
    /// Attempts that ended in an error frame.
    pub error_frames: u64,
    /// Attempts that went wrong, or out, because a node had a bit rate or frame format that is not the bus's.
    pub disturbances: u64,
    /// What each node did, in the order of attachment.
    pub nodes: Vec<NodeStatistics>,
}

/// What a node did since it was attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatistics {
    /// The name it was attached by.
    pub name: String,
    /// Its frames that were acknowledged.
    pub sent: u64,
    /// Its attempts that ended in an error frame.
    pub failed_attempts: u64,
    /// Frames it received, after its filters.
    pub received: u64,
    /// Error frames it saw.
    pub errors_seen: u64,
}

/// The bus; clones share it. It lives as long as one of them or one of its nodes.
#[derive(Clone)]
pub struct VirtualBus {
    shared: Arc<Shared>,
}

struct Shared {
    config: VirtualBusConfig,
    state: Mutex<State>,
    changed: Arc<Notify>,
    driver: Mutex<Option<AbortHandle>>,
}

struct State {
    medium: Medium,
    next_key: u32,
}

impl VirtualBus {
    /// A bus without nodes. Must be called within a tokio runtime, which drives it.
    pub fn new(config: VirtualBusConfig) -> Self {
        let medium = Medium::new(&config, config.timer.now());
        let changed = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            state: Mutex::new(State { medium, next_key: 0 }),
            changed: Arc::clone(&changed),
            driver: Mutex::new(None),
            config,
        });
        let task = tokio::spawn(drive(Arc::downgrade(&shared), changed));
        *lock(&shared.driver) = Some(task.abort_handle());
        Self { shared }
    }

    /// A node of the vehicle: on the bus at once, with the bus's own bit rates, capable of everything.
    pub fn attach(&self, name: &str) -> VirtualCan {
        let mut node = self.attach_adapter(name, Self::full_capabilities());
        let settings = self.shared.lock().medium.settings();
        node.with_node(|node| node.configure(settings));
        node
    }

    /// An adapter: off the bus until it is configured, and capable of no more than this.
    pub fn attach_adapter(&self, name: &str, capabilities: CanCapabilities) -> VirtualCan {
        let mut state = self.shared.lock();
        let key = state.next_key;
        state.next_key += 1;
        let node = Node::new(name, capabilities, self.shared.config.receive_queue.max(1));
        state.medium.nodes.insert(key, node);
        VirtualCan { name: name.to_owned(), key, shared: Arc::clone(&self.shared) }
    }

    /// What an adapter without limits can do.
    pub fn full_capabilities() -> CanCapabilities {
        CanCapabilities { fd: true, listen_only: true, set_bit_rate: true, confirms_transmission: true }
    }

    /// What happened so far.
    pub fn statistics(&self) -> BusStatistics {
        let state = self.shared.lock();
        let medium = &state.medium;
        BusStatistics {
            background_overwritten: medium.background.overwritten,
            nodes: medium.nodes.values().map(|node| node.statistics.clone()).collect(),
            ..medium.statistics.clone()
        }
    }

    /// The bus's load over the last second, 0…1.
    pub fn load(&self) -> f32 {
        let state = self.shared.lock();
        state.medium.load.load(self.shared.config.timer.now()).0
    }

    /// Changes the share of the bus's time, 0…1, that the vehicle's periodic messages take.
    pub fn set_load(&self, load: f32) {
        self.shared.act(|medium, now| {
            let overwritten = medium.background.overwritten;
            medium.background = Background::new(load, medium.settings().bit_rate, now);
            medium.background.overwritten = overwritten;
        });
    }

    /// Drives the named nodes bus-off, as a short circuit does.
    pub fn force_bus_off(&self, name: &str) {
        self.for_each(name, Node::force_bus_off);
    }

    /// Gives up the named nodes' next frames: each is answered by [`CanEvent::TransmitFailed`] and not sent.
    pub fn fail_transmissions(&self, name: &str, frames: u32) {
        self.for_each(name, |node| node.fail_next = frames);
    }

    /// Pulls out the named nodes' device: they leave the bus, and their owner gets a fatal error.
    pub fn unplug(&self, name: &str) {
        self.for_each(name, |node| {
            node.unplugged = true;
            node.wake_receiver();
            node.wake_sender();
        });
    }

    /// Destroys the next frames on the bus, whoever sends them; they are repeated.
    pub fn destroy_frames(&self, frames: u32) {
        self.shared.act(|medium, _| medium.destroy_next = frames);
    }

    /// Lets the next frames that match be acknowledged and yet reach nobody.
    pub fn drop_frames(&self, frames: u32, filter: Option<CanFilter>) {
        self.shared.act(|medium, _| medium.drop_next = (frames, filter));
    }

    fn for_each(&self, name: &str, mut action: impl FnMut(&mut Node)) {
        self.shared.act(|medium, _| {
            medium.nodes.values_mut().filter(|node| node.statistics.name == name).for_each(&mut action);
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the bus at the present moment, and has the driver look again.
    fn act<T>(&self, action: impl FnOnce(&mut Medium, std::time::Instant) -> T) -> T {
        let now = self.config.timer.now();
        let mut state = self.lock();
        let before = state.medium.poll_timeout();
        state.medium.handle_timeout(now);
        let result = action(&mut state.medium, now);
        if state.medium.poll_timeout() != before {
            self.changed.notify_one();
        }
        result
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(driver) = lock(&self.driver).take() {
            driver.abort();
        }
    }
}

/// A panic of another holder leaves at worst one frame half accounted for.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the bus going until it is dropped.
async fn drive(shared: Weak<Shared>, changed: Arc<Notify>) {
    let Some(kind) = shared.upgrade().map(|shared| shared.config.timer) else { return };
    let mut deadline = Deadline::new(kind);
    loop {
        {
            let Some(shared) = shared.upgrade() else { return };
            let mut state = shared.lock();
            state.medium.handle_timeout(kind.now());
            deadline.set(state.medium.poll_timeout());
        }
        tokio::select! {
            () = deadline.expired() => {}
            () = changed.notified() => {}
        }
    }
}

/// A node of a [`VirtualBus`]; dropping it detaches it.
pub struct VirtualCan {
    name: String,
    key: u32,
    shared: Arc<Shared>,
}

impl VirtualCan {
    /// Leaves the bus until it is configured again; what waits is discarded.
    pub fn leave(&mut self) {
        self.with_node(Node::leave);
    }

    fn with_node(&mut self, action: impl FnOnce(&mut Node)) {
        let key = self.key;
        self.shared.act(|medium, _| medium.nodes.get_mut(&key).map(action));
    }

    fn gone(&self) -> CanError {
        let source = io::Error::new(io::ErrorKind::NotConnected, "unplugged");
        CanError::Device { device: self.name.clone(), source }
    }

    fn unsupported(&self, what: impl Into<String>) -> CanError {
        CanError::Unsupported { device: self.name.clone(), what: what.into() }
    }

    fn check(&self, settings: &CanSettings) -> Result<(), CanError> {
        let (capabilities, current, unplugged) = {
            let state = self.shared.lock();
            let Some(node) = state.medium.nodes.get(&self.key) else { return Err(self.gone()) };
            (node.capabilities, node.settings.unwrap_or(state.medium.settings()), node.unplugged)
        };
        if unplugged {
            return Err(self.gone());
        }
        let other_rate = !node::is_same_rate(settings.bit_rate, current.bit_rate);
        if settings.bit_rate == 0 || other_rate && !capabilities.set_bit_rate {
            return Err(self.unsupported(format!("set {} bit/s", settings.bit_rate)));
        }
        if settings.data_bit_rate.is_some() && !capabilities.fd {
            return Err(self.unsupported("do CAN FD"));
        }
        if settings.listen_only && !capabilities.listen_only {
            return Err(self.unsupported("listen only"));
        }
        Ok(())
    }
}

impl CanBus for VirtualCan {
    fn device(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> CanCapabilities {
        let state = self.shared.lock();
        state.medium.nodes.get(&self.key).map(|node| node.capabilities).unwrap_or_default()
    }

    fn status(&self) -> BusStatus {
        let state = self.shared.lock();
        let node = state.medium.nodes.get(&self.key);
        BusStatus {
            state: node.filter(|node| !node.unplugged).map_or(BusState::Off, |node| node.state),
            load: state.medium.load.load(self.shared.config.timer.now()),
        }
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            self.check(&settings)?;
            self.with_node(|node| node.configure(settings));
            Ok(())
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            self.with_node(|node| {
                if node.state == BusState::Off {
                    node.restart();
                }
            });
            Ok(())
        })
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.with_node(|node| node.filters = filters.to_vec());
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        let limit = self.shared.config.transmit_queue.max(1);
        let key = self.key;
        let taken = self.shared.act(|medium, now| {
            let Some(node) = medium.nodes.get_mut(&key).filter(|node| !node.unplugged) else {
                return Poll::Ready(Err(Refusal::Gone));
            };
            match node.settings {
                None => return Poll::Ready(Err(Refusal::Cannot("send before it is configured"))),
                Some(settings) if settings.listen_only => {
                    return Poll::Ready(Err(Refusal::Cannot("send while it only listens")));
                }
                Some(settings) if frame.is_fd() && settings.data_bit_rate.is_none() => {
                    return Poll::Ready(Err(Refusal::Cannot("send an FD frame on a classic bus")));
                }
                Some(_) if frame.is_error() => {
                    return Poll::Ready(Err(Refusal::Cannot("send an error frame")));
                }
                Some(_) => {}
            }
            let full = node.outgoing.len() >= limit || node.events.is_full();
            if full || node.state == BusState::Off {
                node.wants_room = Some(cx.waker().clone());
                return Poll::Pending;
            }
            medium.enqueue(key, *frame, now);
            Poll::Ready(Ok(()))
        });
        taken.map_err(|refusal| match refusal {
            Refusal::Gone => self.gone(),
            Refusal::Cannot(what) => self.unsupported(what),
        })
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        let mut state = self.shared.lock();
        let node = state.medium.nodes.get_mut(&self.key);
        let Some(node) = node.filter(|node| !node.unplugged) else {
            drop(state);
            return Poll::Ready(Err(self.gone()));
        };
        let Some(event) = node.events.pop() else {
            node.wants_event = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if !node.events.is_full() {
            node.wake_sender();
        }
        Poll::Ready(Ok(event))
    }
}

enum Refusal {
    Gone,
    Cannot(&'static str),
}

impl Drop for VirtualCan {
    fn drop(&mut self) {
        let key = self.key;
        self.shared.act(|medium, _| medium.nodes.remove(&key));
    }
}
