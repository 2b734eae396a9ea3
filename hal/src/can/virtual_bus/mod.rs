//! A CAN bus in memory, with exact bit timing.
//!
//! Every frame takes its exact length with stuff bits at its sender's bit rates. When the bus becomes free,
//! the lowest waiting identifier wins. As on a real bus, nodes with another bit rate destroy frames until
//! their error counters silence them; a lone node gets no acknowledgement; a node that only listens gives
//! none.
//!
//! Bus time is exact although timers are not: frames follow each other by their lengths, and events carry the
//! time at which they happened, even after a late wake-up. With
//! [`TimerKind::Runtime`](crate::timer::TimerKind) and a paused clock, the bus is deterministic.

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

/// A virtual bus. Clones share the bus, which lives as long as one clone or node.
#[derive(Clone)]
pub struct VirtualBus {
    shared: Arc<SharedBus>,
}

impl VirtualBus {
    /// Creates a bus without nodes. Call this within a tokio runtime, which drives the bus.
    pub fn new(config: VirtualBusConfig) -> Self {
        Self { shared: SharedBus::start(config) }
    }

    /// Attaches a node of the vehicle: on the bus immediately, with the vehicle's bit rates and full
    /// capabilities.
    pub fn attach(&self, name: &str) -> VirtualCan {
        let mut node = self.attach_adapter(name, Self::full_capabilities());
        let settings = self.shared.lock().medium.settings();
        node.with_node(|node| node.configure(settings));
        node
    }

    /// Attaches an adapter with limited capabilities: off the bus until it is configured.
    pub fn attach_adapter(&self, name: &str, capabilities: CanCapabilities) -> VirtualCan {
        let mut state = self.shared.lock();
        let key = state.next_key;
        state.next_key += 1;
        let node = BusNode::new(name, capabilities, self.shared.config.receive_queue.max(1));
        state.medium.nodes.insert(key, node);
        VirtualCan { name: name.to_owned(), key, shared: Arc::clone(&self.shared) }
    }

    /// The capabilities of an adapter without limits.
    pub fn full_capabilities() -> CanCapabilities {
        CanCapabilities { fd: true, listen_only: true, set_bit_rate: true, confirms_transmission: true }
    }

    /// The counters of the bus.
    pub fn statistics(&self) -> BusStatistics {
        let state = self.shared.lock();
        let medium = &state.medium;
        BusStatistics {
            background_overwritten: medium.background.overwritten,
            nodes: medium.nodes.values().map(|node| node.statistics.clone()).collect(),
            ..medium.statistics.clone()
        }
    }

    /// The load over the last second, 0…1.
    pub fn load(&self) -> f32 {
        let state = self.shared.lock();
        state.medium.load.load(self.shared.config.timer.now()).0
    }

    /// Changes the share of bus time that the vehicle's periodic messages take, 0…1.
    pub fn set_load(&self, load: f32) {
        self.shared.act(|medium, now| {
            let overwritten = medium.background.overwritten;
            medium.background = BackgroundTraffic::new(load, medium.settings().bit_rate, now);
            medium.background.overwritten = overwritten;
        });
    }

    /// Drives the named nodes into bus-off, as a short circuit does.
    pub fn force_bus_off(&self, name: &str) {
        self.for_each(name, BusNode::force_bus_off);
    }

    /// Fails the named nodes' next frames: each gets [`CanEvent::TransmitFailed`](crate::can::CanEvent) and
    /// is not sent.
    pub fn fail_transmissions(&self, name: &str, frames: u32) {
        self.for_each(name, |node| node.fail_next = frames);
    }

    /// Unplugs the named nodes: they leave the bus, and their owners get a fatal error.
    pub fn unplug(&self, name: &str) {
        self.for_each(name, |node| {
            node.unplugged = true;
            node.wake_receiver();
            node.wake_sender();
        });
    }

    /// Destroys the next frames on the bus, of any sender. The senders repeat them.
    pub fn destroy_frames(&self, frames: u32) {
        self.shared.act(|medium, _| medium.destroy_next = frames);
    }

    /// Acknowledges the next matching frames without delivering them.
    pub fn drop_frames(&self, frames: u32, filter: Option<CanFilter>) {
        self.shared.act(|medium, _| medium.drop_next = (frames, filter));
    }

    fn for_each(&self, name: &str, mut action: impl FnMut(&mut BusNode)) {
        self.shared.act(|medium, _| {
            medium.nodes.values_mut().filter(|node| node.statistics.name == name).for_each(&mut action);
        });
    }
}
