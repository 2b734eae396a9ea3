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
mod config;
mod medium;
mod node;
mod shared;
mod statistics;
mod virtual_can;

use std::sync::Arc;

use self::background::BackgroundTraffic;
use self::node::BusNode;
use self::shared::SharedBus;
use super::{CanCapabilities, CanFilter};

pub use self::config::VirtualBusConfig;
pub use self::statistics::{BusStatistics, NodeStatistics};
pub use self::virtual_can::VirtualCan;

/// The bus; clones share it. It lives as long as one of them or one of its nodes.
#[derive(Clone)]
pub struct VirtualBus {
    shared: Arc<SharedBus>,
}

impl VirtualBus {
    /// A bus without nodes. Must be called within a tokio runtime, which drives it.
    pub fn new(config: VirtualBusConfig) -> Self {
        Self { shared: SharedBus::start(config) }
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
        let node = BusNode::new(name, capabilities, self.shared.config.receive_queue.max(1));
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
            medium.background = BackgroundTraffic::new(load, medium.settings().bit_rate, now);
            medium.background.overwritten = overwritten;
        });
    }

    /// Drives the named nodes bus-off, as a short circuit does.
    pub fn force_bus_off(&self, name: &str) {
        self.for_each(name, BusNode::force_bus_off);
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

    fn for_each(&self, name: &str, mut action: impl FnMut(&mut BusNode)) {
        self.shared.act(|medium, _| {
            medium.nodes.values_mut().filter(|node| node.statistics.name == name).for_each(&mut action);
        });
    }
}
