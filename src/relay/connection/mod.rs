//! A connection on the connector: its buses, its channels, and its link to the operator.

mod held_frames;
mod keep_alive;
mod keep_alive_policy;
mod locals;
mod operator;
mod operator_watch;
mod pending;
mod policy;
mod policy_work;
mod programming;
mod progress;
mod quality;
mod records;
mod requests;
mod scans;
mod settings;
mod transfers;
mod vin;
mod vin_gate;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use uuid::Uuid;

use super::link::{Link, Role};
use crate::policy::BusPolicy;
use crate::relay::buses::bus::AnyBus;
use crate::relay::wire::Envelope;
use crate::relay::wire::codec::Tag;
use crate::relay::wire::request::{BusConfig, Request};
use held_frames::HeldFrames;
use keep_alive_policy::KeepAlivePolicy;
use operator_watch::{Interruption, OperatorWatch};
use pending::{BusesVinReading, OpenedChannel, PendingReply, RunningScan, WaitingVinReading};
use policy_work::PolicyWork;
use transfers::Transfers;
use vin_gate::VinGate;

pub use crate::relay::wire::CloseReason;
pub use pending::VinTrigger;
pub use settings::{BusReport, RelaySettings};

/// A connection of an operator with the buses of this connector.
///
/// The connection knows no diagnostic protocol: it moves requests and records between the link and the buses.
///
/// - `handle_*` methods take requests, binary messages of the operator, and changes of link and ignition.
/// - [`poll_drive`](Self::poll_drive) drives the buses.
/// - [`poll_text`](Self::poll_text) returns replies. [`poll_message`](Self::poll_message) returns binary messages;
///   call it only when the websocket can take one.
pub struct RelayConnection {
    settings: RelaySettings,
    link: Link,
    buses: Vec<Box<dyn AnyBus>>,
    /// The buses as the operator configured them.
    configured: Vec<BusConfig>,
    /// The policy for each bus.
    policies: Vec<BusPolicy>,
    channels: BTreeMap<u16, OpenedChannel>,
    held_frames: HeldFrames,
    /// The reply to `configureBuses` that is due when all buses are set up.
    configuring: Option<PendingReply>,
    /// Requests that wait until the buses are set up.
    waiting: VecDeque<(Request, Option<String>)>,
    texts: VecDeque<Envelope>,
    hold_until: Option<Instant>,
    /// Why nothing is sent to the operator.
    interruption: Option<Interruption>,
    /// Why the operator was gone when the link was lost, or left meanwhile.
    gone_before_loss: Option<Interruption>,
    operator: OperatorWatch,
    closed: Option<CloseReason>,
    vin_reading: Option<BusesVinReading>,
    vin_waiting: Option<WaitingVinReading>,
    /// A device or a gateway has returned; see [`RelayConnection::take_returned`].
    has_returned: bool,
    vin_gate: VinGate,
    /// When a PDU, an event about one, or a frame of the operator last passed.
    last_exchange: Option<Instant>,
    scans: Vec<RunningScan>,
    pdus_relayed: u64,
    transfers: Transfers,
    /// The number of PDUs and frames that the operator sent.
    records_taken: u64,
    ignition: Option<bool>,
    keep_alive: KeepAlivePolicy,
    policy_work: PolicyWork,
    /// Nothing is sent to a bus on the connector's own account.
    is_muted: bool,
    /// A reading of the VIN was left out because the connector is muted.
    has_left_out_vin: bool,
    opened_at: SystemTime,
}

impl RelayConnection {
    /// Opens a connection.
    pub fn new(settings: RelaySettings, now: Instant) -> Self {
        let tag = Tag::from(settings.connection_uuid);
        let link = Link::new(Role::Connector, tag, now).with_kept_limit(settings.limits.max_kept_bytes);
        let limits = &settings.limits;
        let operator = OperatorWatch::new(limits.operator_silence, limits.operator_idle, now);
        let keep_alive = KeepAlivePolicy::new(limits.keep_alive, now);
        Self {
            settings,
            link,
            buses: Vec::new(),
            configured: Vec::new(),
            policies: Vec::new(),
            channels: BTreeMap::new(),
            held_frames: HeldFrames::default(),
            configuring: None,
            waiting: VecDeque::new(),
            texts: VecDeque::new(),
            hold_until: None,
            interruption: None,
            gone_before_loss: None,
            operator,
            closed: None,
            vin_reading: None,
            vin_waiting: None,
            has_returned: false,
            vin_gate: VinGate::default(),
            last_exchange: None,
            scans: Vec::new(),
            pdus_relayed: 0,
            transfers: Transfers::default(),
            records_taken: 0,
            ignition: None,
            keep_alive,
            policy_work: PolicyWork::default(),
            is_muted: false,
            has_left_out_vin: false,
            opened_at: SystemTime::now(),
        }
    }

    /// The UUID of the connection.
    pub fn connection_uuid(&self) -> Uuid {
        self.settings.connection_uuid
    }

    /// The highest number of a message that was received in order, for `connectorHello`.
    pub fn received(&self) -> u32 {
        self.link.received()
    }

    /// Whether no numbered message was sent or received yet, so that an operator can begin.
    pub(crate) fn is_unused(&self) -> bool {
        self.link.is_unused()
    }

    /// The number of PDUs that were relayed, in both directions.
    pub(crate) fn pdus_relayed(&self) -> u64 {
        self.pdus_relayed
    }

    /// The time until which a download or upload counts as under way if no further message belongs to it; `None` if
    /// none is under way.
    pub(crate) fn transfer_until(&self, now: Instant) -> Option<Instant> {
        self.transfers.open_until(now)
    }

    /// The number of PDUs and frames that the operator sent. The connection is in use while it grows.
    pub(crate) fn records_taken(&self) -> u64 {
        self.records_taken
    }

    /// When the operator was last heard of.
    pub(crate) fn operator_heard_at(&self) -> Instant {
        self.operator.heard_at()
    }

    /// Why the connection has ended, once it has.
    pub fn closed(&self) -> Option<CloseReason> {
        self.closed
    }

    /// The state and load of each bus.
    pub fn bus_reports(&self) -> Vec<BusReport> {
        use connector_hal::bus::BusState;
        let report = |bus: &dyn AnyBus| {
            let status = bus.status();
            let state = match status.state {
                BusState::Active => "active",
                BusState::Passive => "passive",
                BusState::Off => "off",
            };
            BusReport { bus_name: bus.name().to_owned(), state, load: status.load.0 }
        };
        self.buses.iter().map(|bus| report(bus.as_ref())).collect()
    }

    /// Whether a bus has changed its state since the last call of this method.
    pub fn take_state_change(&mut self) -> bool {
        self.buses.iter_mut().filter_map(|bus| bus.take_state_change().then_some(())).count() > 0
    }

    /// Ends the connection: leaves its buses, and discards everything that waits for them.
    pub fn close(&mut self, reason: CloseReason) {
        self.closed.get_or_insert(reason);
        self.hold_until = None;
        self.configuring = None;
        self.waiting.clear();
        self.clear_channels();
        self.transfers = Transfers::default();
        self.scans.clear();
        self.vin_waiting = None;
        self.buses.clear();
        self.policy_work = PolicyWork::default();
        self.settings.policy.with(|policy| policy.handle_closed());
    }

    /// Closes all channels.
    fn clear_channels(&mut self) {
        for number in self.channels.keys() {
            self.held_frames.discard(*number);
            self.vin_gate.discard(*number);
        }
        self.channels.clear();
    }

    /// The next text for the websocket.
    pub fn poll_text(&mut self) -> Option<Envelope> {
        self.texts.pop_front()
    }

    /// Whether [`RelayConnection::poll_message`] would return a message.
    pub fn wants_to_send(&self, now: Instant) -> bool {
        self.link.wants_to_send(now)
    }

    /// The next binary message. Call it only when the websocket can take a message.
    pub fn poll_message(&mut self, now: Instant) -> Option<Bytes> {
        self.link.poll_message(now)
    }
}
