//! The policy of a connection: its requests, its state, and what the policy itself sends to the vehicle.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::RelayConnection;
use super::pending::OpenedChannel;
use crate::policy::{CannotAsk, PolicyRefusal, Return};
use crate::protocol::problem::Problem;
use crate::relay::buses::bus::AnyBus;
use crate::relay::wire::request::RequestConsent;
use crate::relay::wire::{PolicyStateReport, ProblemKind};

/// When to look again whether a bus is free for a question or a request of the policy.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The same while requests of the operator wait for the speed.
const LOOK_SOON: Duration = Duration::from_millis(10);
/// How long a request that gives control back waits for its ECU to be free. An ECU that is busy for longer has ended the
/// control with its session.
const RETURN_TIME: Duration = Duration::from_secs(5);

/// `policyState`.
#[derive(Serialize)]
struct PolicyStateMessage {
    connection_uuid: Uuid,
    #[serde(flatten)]
    state: PolicyStateReport,
}

/// The problem of a request that the policy refuses.
pub(super) fn refused_by_policy(refusal: Option<PolicyRefusal>) -> Result<(), Problem> {
    match refusal {
        Some(refusal) => Err(ProblemKind::RefusedByPolicy.problem(format!("{refusal}."))),
        None => Ok(()),
    }
}

impl RelayConnection {
    /// Asks the person at the vehicle for consent.
    pub(super) fn request_consent(
        &mut self,
        now: Instant,
        request: &RequestConsent,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        let asked = self.settings.policy.with(|policy| policy.request_consent(now, request.class));
        let time = asked.map_err(|error| {
            let kind = match error {
                CannotAsk::NoButton | CannotAsk::NoConnection => ProblemKind::Unsupported,
                CannotAsk::AskedBefore => ProblemKind::Busy,
            };
            kind.problem(format!("{error}.")).answering("requestConsent")
        })?;
        if let Some(text) = &request.text {
            tracing::info!(class = %request.class, text, "the operator asks for consent");
        }
        let message = json!({
            "connection_uuid": self.connection_uuid(),
            "class": request.class,
            "seconds": time.as_secs(),
        });
        self.reply("consentRequested", &message, request_id.clone());
        Ok(())
    }

    /// The policy's state, for `connectorStatusUpdate`.
    pub(crate) fn policy_state(&self, now: Instant) -> PolicyStateReport {
        let state = self.settings.policy.with(|policy| policy.state(now));
        PolicyStateReport::new(&state, now, SystemTime::now())
    }

    /// Reports to the policy that a channel is gone, unless another one goes to the same ECU.
    pub(super) fn report_closed(&self, closed: &OpenedChannel) {
        let place = (closed.bus, closed.target);
        if !self.channels.values().any(|other| (other.bus, other.target) == place) {
            self.settings.policy.with(|policy| policy.handle_channel_closed(closed.bus, closed.target));
        }
    }

    /// Reports changes of the policy's state, and sends what the policy has to send.
    pub(super) fn serve_policy(&mut self, now: Instant) {
        let shared = self.settings.policy.clone();
        let state = shared.with(|policy| {
            policy.handle_timeout(now);
            policy.poll_state(now)
        });
        if let Some(state) = state
            && self.closed.is_none()
        {
            let state = PolicyStateReport::new(&state, now, SystemTime::now());
            let message = PolicyStateMessage { connection_uuid: self.connection_uuid(), state };
            self.reply("policyState", &message, None);
        }
        while let Some(next) = shared.with(|policy| policy.poll_return()) {
            tracing::warn!("the vehicle moves: returning an input or output to its ECU");
            self.policy_work.returns.push((next, now + RETURN_TIME));
        }
        self.update_askable();
        let is_waiting = shared.with(|policy| policy.waiting(now)).is_some();
        if std::mem::replace(&mut self.policy_work.is_waiting, is_waiting) && !is_waiting {
            self.buses.iter_mut().for_each(|bus| bus.channels_mut().release_requests(now));
        }
        if is_waiting || self.policy_work.look_at.is_none_or(|at| at <= now) {
            self.send_returns(now);
            self.ask_speed(now);
        }
    }

    /// Gives inputs and outputs back, in their order for each ECU. An ECU gets one request at a time: without a channel of
    /// PDUs, nothing tells when it has answered.
    fn send_returns(&mut self, now: Instant) {
        let mut waiting: Vec<(Return, Instant)> = Vec::new();
        let mut asked = Vec::new();
        for (next, until) in std::mem::take(&mut self.policy_work.returns) {
            let is_behind = asked.contains(&(next.bus, next.target));
            asked.push((next.bus, next.target));
            let bus = self.buses.get_mut(next.bus);
            let is_sent =
                !is_behind && bus.is_some_and(|bus| bus.channels_mut().ask(now, next.target, next.request()));
            if !is_sent && until > now {
                waiting.push((next, until));
            }
        }
        self.policy_work.look_at = (!waiting.is_empty()).then_some(now + LOOK_AGAIN);
        self.policy_work.returns = waiting;
    }

    /// Asks the vehicle for its speed, if the policy wants it and a bus is free.
    fn ask_speed(&mut self, now: Instant) {
        if self.is_muted {
            return;
        }
        let due =
            self.settings.policy.with(|policy| policy.speed_due(now).map(|at| (at, policy.askable_speeds())));
        let Some((at, (obd, doip_did))) = due else { return };
        if at > now {
            return;
        }
        let asked = self.buses.iter_mut().any(|bus| bus.channels_mut().ask_speed(now, obd, doip_did));
        if asked {
            self.settings.policy.with(|policy| policy.handle_speed_asked(now));
        } else {
            let again = if self.policy_work.is_waiting { LOOK_SOON } else { LOOK_AGAIN };
            self.policy_work.look_at = Some(now + again);
        }
    }

    /// Reports to the policy whether the vehicle can be asked for its speed.
    pub(super) fn update_askable(&self) {
        self.settings.policy.with(|policy| {
            let (obd, doip_did) = policy.askable_speeds();
            let can_ask = |bus: &dyn AnyBus| bus.has_started() && bus.channels().can_ask_speed(obd, doip_did);
            policy.handle_askable(!self.is_muted && self.buses.iter().any(|bus| can_ask(bus.as_ref())));
        });
    }

    /// When [`RelayConnection::serve_policy`] is due.
    pub(super) fn policy_due(&self, now: Instant) -> Option<Instant> {
        let (timeout, speed, wait) = self.settings.policy.with(|policy| {
            let wait = policy.wait_until();
            (policy.poll_timeout(now), policy.speed_due(now), wait)
        });
        let look_at = self.policy_work.look_at;
        let speed = speed
            .filter(|_| !self.buses.is_empty() && !self.is_muted)
            .map(|at| look_at.map_or(at, |look| at.max(look)));
        [timeout, look_at, speed, wait].into_iter().flatten().min()
    }
}
