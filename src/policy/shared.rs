//! The policy as the buses and channels of a connection ask it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::Policy;
use super::intent::{Framing, Intent, IntentBus, IntentTarget, Stage, What};
use super::settings::{FactSettings, PolicySettings};
use super::verdict::PolicyRefusal;

/// A policy that many parts of the agent ask. They run on one thread, so that none of them waits.
#[derive(Debug, Clone)]
pub struct SharedPolicy(Arc<Mutex<Policy>>);

impl SharedPolicy {
    /// Shares a policy.
    pub fn new(policy: Policy) -> Self {
        Self(Arc::new(Mutex::new(policy)))
    }

    /// Asks or changes the policy.
    pub fn with<R>(&self, act: impl FnOnce(&mut Policy) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The default policy, but without questions for the speed: for tests that count what is on a bus.
    #[must_use]
    pub fn without_questions() -> Self {
        let facts = FactSettings { speed: Vec::new(), ..FactSettings::default() };
        Self::new(Policy::new(PolicySettings { facts, ..PolicySettings::default() }, false))
    }

    /// Whether the connector may read the VIN on the bus with this name, while no connection is open.
    pub(crate) fn allows_vin(&self, now: Instant, bus: Option<&str>) -> bool {
        let policy = self.bus(0, bus);
        policy.refuses(now, Stage::Turn, IntentTarget::None, What::ReadVin).is_none()
    }

    /// The policy for one bus of a connection.
    pub fn bus(&self, index: usize, name: Option<&str>) -> BusPolicy {
        BusPolicy { policy: self.clone(), index, name: name.unwrap_or_default().into() }
    }
}

/// The default policy, for a device without a button.
impl Default for SharedPolicy {
    fn default() -> Self {
        Self::new(Policy::new(PolicySettings::default(), false))
    }
}

/// The policy for one bus of a connection.
#[derive(Debug, Clone)]
pub struct BusPolicy {
    policy: SharedPolicy,
    index: usize,
    name: Arc<str>,
}

impl BusPolicy {
    fn bus(&self) -> IntentBus<'_> {
        IntentBus { index: self.index, name: &self.name }
    }

    /// The policy for a channel of this bus.
    pub(crate) fn channel(&self, target: IntentTarget) -> ChannelPolicy {
        ChannelPolicy { bus: self.clone(), target, framing: Framing::default() }
    }

    /// Judges an intent on this bus.
    pub(crate) fn refuses(
        &self,
        now: Instant,
        stage: Stage,
        target: IntentTarget,
        what: What<'_>,
    ) -> Option<PolicyRefusal> {
        self.policy.with(|policy| policy.refuses(now, stage, &Intent { bus: self.bus(), target, what }))
    }

    /// Handles a frame that was heard on the bus.
    pub(crate) fn handle_heard_frame(&self, now: Instant, frame: &CanFrame) {
        self.policy.with(|policy| policy.handle_heard_frame(now, self.bus(), frame));
    }

    /// Since when requests wait for the speed.
    pub(crate) fn waiting_since(&self, now: Instant) -> Option<Instant> {
        self.policy.with(|policy| policy.waiting(now)).map(|(since, _)| since)
    }

    fn must_wait(&self, now: Instant, target: IntentTarget, what: What<'_>) -> bool {
        self.policy.with(|policy| policy.must_wait(now, &Intent { bus: self.bus(), target, what }))
    }

    /// Whether this frame answers the connector's own question for the speed.
    pub(crate) fn is_speed_answer(&self, now: Instant, frame: &CanFrame) -> bool {
        self.policy.with(|policy| policy.is_speed_answer(now, frame))
    }
}

/// The policy for one channel.
#[derive(Debug, Clone)]
pub struct ChannelPolicy {
    bus: BusPolicy,
    target: IntentTarget,
    framing: Framing,
}

impl ChannelPolicy {
    /// The same policy for a channel that makes its frames in this way.
    #[must_use]
    pub(crate) fn with_framing(self, framing: Framing) -> Self {
        Self { framing, ..self }
    }

    /// Judges a request of the operator.
    pub(crate) fn refuses_pdu(&self, now: Instant, stage: Stage, request: &[u8]) -> Option<PolicyRefusal> {
        self.bus.refuses(now, stage, self.target, What::Pdu(request, self.framing))
    }

    /// Whether a request whose turn has come waits for the speed.
    pub(crate) fn must_pdu_wait(&self, now: Instant, request: &[u8]) -> bool {
        self.bus.must_wait(now, self.target, What::Pdu(request, self.framing))
    }

    /// Whether a frame whose turn has come waits for the speed.
    pub(crate) fn must_frame_wait(&self, now: Instant, frame: &CanFrame) -> bool {
        self.bus.must_wait(now, self.target, What::Frame(frame))
    }

    /// Judges a frame of the operator.
    pub(crate) fn refuses_frame(
        &self,
        now: Instant,
        stage: Stage,
        frame: &CanFrame,
    ) -> Option<PolicyRefusal> {
        self.bus.refuses(now, stage, self.target, What::Frame(frame))
    }

    /// Handles a frame of the operator that the adapter has taken.
    pub(crate) fn handle_frame_sent(&self, now: Instant, frame: &CanFrame) {
        self.bus.policy.with(|policy| policy.handle_frame_sent(now, self.bus.bus(), frame));
    }

    /// Handles a frame that the adapter had taken and did not send.
    pub(crate) fn handle_frame_lost(&self, id: CanId) {
        self.bus.policy.with(|policy| policy.handle_frame_lost(self.bus.index, id));
    }

    /// Handles a response of the channel's ECU.
    pub(crate) fn handle_response(&self, now: Instant, response: &[u8]) {
        self.bus.policy.with(|policy| policy.handle_response(now, self.bus.index, self.target, response));
    }

    /// Handles a chain of requests that broke: the ECU's transfer is over.
    pub(crate) fn handle_chain_broken(&self) {
        self.bus.policy.with(|policy| policy.handle_transfer_ended(self.bus.index, self.target));
    }

    /// The ECU that the channel's requests go to.
    pub(crate) fn target(&self) -> IntentTarget {
        self.target
    }
}
