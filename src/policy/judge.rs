//! The judgement of intents.

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::audit::RequestParts;
use super::class::{Class, Condition, Mode, Unknown};
use super::facts::{Engine, VehicleMotion};
use super::frames::{ChannelFrame, ChannelFrames, FrameMeaning, FrameMeanings};
use super::intent::{Framing, Intent, IntentBus, IntentTarget, Stage, What};
use super::services::{classify, classify_start};
use super::verdict::{PolicyRefusal, RuleNumber, Verdict, Why};
use super::{Frames, LOG_PERIOD, Policy};

const ALLOWED: Verdict = Verdict::Allow { rule: 0 };

impl Policy {
    /// Judges an intent, and returns the refusal if the mode is `enforce`.
    ///
    /// In the mode `observe`, refusals are counted, and the intent may be carried out.
    pub fn refuses(&mut self, now: Instant, stage: Stage, intent: &Intent<'_>) -> Option<PolicyRefusal> {
        let verdict = self.judge(now, stage, intent);
        let refusal = verdict.refusal().copied()?;
        let enforces = self.settings.mode == Mode::Enforce;
        // what is sent all the same is judged twice, and counts once
        self.refused += u64::from(enforces || stage == Stage::Turn);
        self.log(now, &refusal);
        self.audit_refusal(now, stage, intent, &refusal);
        enforces.then_some(refusal)
    }

    fn log(&mut self, now: Instant, refusal: &PolicyRefusal) {
        let is_logged = self
            .logged
            .is_some_and(|(at, name)| name == refusal.name && now.saturating_duration_since(at) < LOG_PERIOD);
        if is_logged {
            return;
        }
        self.logged = Some((now, refusal.name));
        match self.settings.mode {
            Mode::Enforce => tracing::warn!("{refusal}"),
            Mode::Observe | Mode::Off => tracing::warn!("{refusal} (observed only: sent all the same)"),
        }
    }

    /// Judges an intent. With [`Stage::Turn`], an intent that is allowed is taken as carried out.
    pub fn judge(&mut self, now: Instant, stage: Stage, intent: &Intent<'_>) -> Verdict {
        if self.settings.mode == Mode::Off {
            if let (Stage::Arrival, What::Frame(frame)) = (stage, intent.what) {
                self.arrived.handle_frame(intent.bus.index, frame, true);
            }
            return ALLOWED;
        }
        match intent.what {
            What::KeepAlive => ALLOWED,
            What::Pdu(request, framing) => {
                let verdict = self.judge_pdu(now, intent, request, framing);
                if stage == Stage::Turn && self.goes_out(&verdict) {
                    self.handle_sent(now, intent, request);
                }
                verdict
            }
            What::Frame(frame) => self.judge_frame(now, stage, intent, frame),
            What::OpenChannel(framing) => match self.judge_channel(now, intent, "opening a channel") {
                Verdict::Allow { rule: 0 } => self.judge_flow_control(now, intent, framing),
                decided => decided,
            },
            What::OpenRawChannel => self.judge_channel(now, intent, "opening a channel"),
            What::ConfigureBus => self.judge_channel(now, intent, "setting up the bus"),
            What::Scan => match self.judge_channel(now, intent, "a search for all ECUs") {
                Verdict::Allow { rule: 0 } => self.judge_class(now, Class::Scan, "a search for all ECUs"),
                decided => decided,
            },
            What::ReadVin => match self.judge_channel(now, intent, "reading the VIN") {
                Verdict::Allow { rule: 0 } => self.judge_class(now, Class::Read, "reading the VIN"),
                decided => decided,
            },
        }
    }

    /// Whether the ECUs that get this PDU or frame may read a request in it that `is_wanted` accepts, in any form of
    /// addressing that they may have.
    pub fn has_request(
        &self,
        bus: usize,
        target: IntentTarget,
        what: What<'_>,
        is_wanted: fn(&[u8], bool) -> bool,
    ) -> bool {
        match what {
            What::Pdu(request, framing) => {
                let IntentTarget::Can { id, extended } = target else { return is_wanted(request, false) };
                let mut frames = ChannelFrames::new(extended, framing, request);
                let is_hidden =
                    |frame: ChannelFrame| frame.request(frame.other_form(extended)).is_some_and(|request| is_wanted(request, true));
                is_wanted(request, false)
                    || self.arrived.may_have_other_form(bus, id, extended) && frames.any(is_hidden)
            }
            What::Frame(frame) => self
                .arrived
                .meanings(bus, frame)
                .into_iter()
                .flatten()
                .any(|meaning| matches!(meaning, FrameMeaning::Request { data, is_start, .. } if is_wanted(data, is_start))),
            _ => false,
        }
    }

    fn goes_out(&self, verdict: &Verdict) -> bool {
        verdict.is_allowed() || self.settings.mode != Mode::Enforce
    }

    fn handle_sent(&mut self, now: Instant, intent: &Intent<'_>, request: &[u8]) {
        if let IntentTarget::Can { id, .. } = intent.target {
            self.sent.handle_pdu(intent.bus.index, id);
        }
        self.transfers.handle_sent(now, intent.bus.index, intent.target, request);
        self.controls.handle_sent(intent.bus.index, intent.target, request);
        self.audit_sent(now, intent, request);
    }

    /// Judges a request, or the beginning of one: its next bytes must not give what is refused.
    fn judge_request(
        &mut self,
        now: Instant,
        intent: &Intent<'_>,
        request: &[u8],
        is_start: bool,
    ) -> Verdict {
        let classified = if is_start { classify_start(request) } else { classify(request) };
        if classified.always || self.transfers.covers(now, intent.bus.index, intent.target, request) {
            return ALLOWED;
        }
        for index in 0..self.settings.rules.len() {
            let Some(rule) = self.settings.rules.get(index).filter(|rule| rule.matches_channel(intent))
            else {
                continue;
            };
            let is_match = rule.matches_request(request, false);
            if is_match || is_start && rule.matches_request(request, true) {
                let verdict = self.judge_rule(now, index, classified.class, classified.name());
                if is_match || !verdict.is_allowed() {
                    return verdict;
                }
            }
        }
        self.judge_class(now, classified.class, classified.name())
    }

    /// Judges a PDU, and its frames as the ECUs read them that the channel is not meant for.
    fn judge_pdu(&mut self, now: Instant, intent: &Intent<'_>, request: &[u8], framing: Framing) -> Verdict {
        let verdict = self.judge_request(now, intent, request, false);
        let IntentTarget::Can { extended, .. } = intent.target else { return verdict };
        if !verdict.is_allowed() {
            return verdict;
        }
        let other = self.judge_channel_frames(now, intent, ChannelFrames::new(extended, framing, request));
        if other.is_allowed() { verdict } else { other }
    }

    /// Judges the flow control that a channel will send: ECUs with another form of addressing may read a request.
    fn judge_flow_control(&mut self, now: Instant, intent: &Intent<'_>, framing: Framing) -> Verdict {
        let IntentTarget::Can { extended, .. } = intent.target else { return ALLOWED };
        let frame = ChannelFrame::flow_control(extended, framing);
        self.judge_channel_frames(now, intent, std::iter::once(frame))
    }

    /// Judges the frames of an ISO-TP channel with the form of addressing that the channel does not have, and as frames
    /// of the bus if their identifier is none of diagnostics.
    fn judge_channel_frames(
        &mut self,
        now: Instant,
        intent: &Intent<'_>,
        frames: impl Iterator<Item = ChannelFrame>,
    ) -> Verdict {
        let IntentTarget::Can { id, extended } = intent.target else { return ALLOWED };
        if !self.sent.is_diagnostic(id) {
            let verdict = self.judge_bus_frame(now, intent, id);
            if !verdict.is_allowed() {
                return verdict;
            }
        }
        if !self.sent.may_have_other_form(intent.bus.index, id, extended) {
            return ALLOWED;
        }
        for frame in frames {
            let other = frame.other_form(extended);
            let Some(request) = frame.request(other) else { continue };
            let target = IntentTarget::Can { id, extended: other };
            let verdict = self.judge_request(now, &Intent { target, ..*intent }, request, true);
            if !verdict.is_allowed() {
                return verdict;
            }
        }
        ALLOWED
    }

    fn judge_channel(&mut self, now: Instant, intent: &Intent<'_>, name: &'static str) -> Verdict {
        let rule = self
            .settings
            .rules
            .iter()
            .position(|rule| rule.is_about_channels() && rule.matches_channel(intent));
        match rule {
            Some(index) => self.judge_rule(now, index, Class::Session, name),
            None => ALLOWED,
        }
    }

    fn judge_frame(&mut self, now: Instant, stage: Stage, intent: &Intent<'_>, frame: &CanFrame) -> Verdict {
        let bus = intent.bus.index;
        let meanings = self.frames(stage).meanings(bus, frame);
        let verdict = self.judge_meanings(now, intent, frame, meanings);
        let goes_out = self.goes_out(&verdict);
        // a frame that is allowed at its turn counts when the adapter has taken it
        if stage == Stage::Arrival || !goes_out {
            self.frames(stage).handle_frame(bus, frame, goes_out);
        }
        verdict
    }

    /// Handles a frame of the operator that was allowed, and that the adapter has taken.
    pub fn handle_frame_sent(&mut self, now: Instant, bus: IntentBus<'_>, frame: &CanFrame) {
        for meaning in self.sent.meanings(bus.index, frame).into_iter().flatten() {
            if let FrameMeaning::Request { extended, data, .. } = meaning
                && self.settings.mode != Mode::Off
            {
                let target = IntentTarget::Can { id: frame.id(), extended };
                self.handle_sent(now, &Intent { bus, target, what: What::Frame(frame) }, data);
            }
        }
        self.sent.handle_frame(bus.index, frame, true);
    }

    /// Handles a frame that the adapter had taken and did not send: no consecutive frame with its identifier is allowed
    /// until the next first frame.
    pub fn handle_frame_lost(&mut self, bus: usize, id: CanId) {
        self.sent.handle_lost(bus, id);
    }

    pub(super) fn judge_meanings(
        &mut self,
        now: Instant,
        intent: &Intent<'_>,
        frame: &CanFrame,
        meanings: FrameMeanings<'_>,
    ) -> Verdict {
        let mut verdict = ALLOWED;
        for meaning in meanings.into_iter().flatten() {
            verdict = match meaning {
                FrameMeaning::Request { extended, data, is_start } => {
                    let target = IntentTarget::Can { id: frame.id(), extended };
                    self.judge_request(now, &Intent { target, ..*intent }, data, is_start)
                }
                FrameMeaning::Bus => self.judge_bus_frame(now, intent, frame.id()),
                FrameMeaning::Harmless => ALLOWED,
                FrameMeaning::NoFirstFrame => Verdict::Refuse(PolicyRefusal {
                    rule: 0,
                    class: Class::Bus,
                    why: Why::NoFirstFrame,
                    name: "the frame",
                }),
            };
            if !verdict.is_allowed() {
                self.audit.in_frame = match meaning {
                    FrameMeaning::Request { extended, data, .. } => {
                        let target = IntentTarget::Can { id: frame.id(), extended };
                        Some((target, RequestParts::of(target, data)))
                    }
                    _ => None,
                };
                break;
            }
        }
        verdict
    }

    fn judge_bus_frame(&mut self, now: Instant, intent: &Intent<'_>, id: CanId) -> Verdict {
        let intent = Intent { target: IntentTarget::Can { id, extended: None }, ..*intent };
        let rule = self
            .settings
            .rules
            .iter()
            .position(|rule| rule.is_about_channels() && rule.matches_channel(&intent));
        match rule {
            Some(index) => self.judge_rule(now, index, Class::Bus, "a raw frame"),
            None => self.judge_class(now, Class::Bus, "a raw frame"),
        }
    }

    fn frames(&mut self, stage: Stage) -> &mut Frames {
        match stage {
            Stage::Arrival => &mut self.arrived,
            Stage::Turn => &mut self.sent,
        }
    }

    fn judge_rule(&mut self, now: Instant, index: usize, class: Class, name: &'static str) -> Verdict {
        let number = RuleNumber::try_from(index + 1).unwrap_or(RuleNumber::MAX);
        let conditions = self.settings.rules.get(index).map_or(&[][..], |rule| rule.require.as_slice());
        let why = self.first_unmet(now, conditions, class);
        let wants_speed = wants_speed(conditions);
        self.verdict(
            now,
            wants_speed,
            PolicyRefusal { rule: number, class, why: why.unwrap_or(Why::Never), name },
            why,
        )
    }

    fn judge_class(&mut self, now: Instant, class: Class, name: &'static str) -> Verdict {
        let conditions = self.conditions(class);
        let why = self.first_unmet(now, conditions, class);
        let wants_speed = wants_speed(conditions);
        self.verdict(
            now,
            wants_speed,
            PolicyRefusal { rule: 0, class, why: why.unwrap_or(Why::Never), name },
            why,
        )
    }

    fn verdict(
        &mut self,
        now: Instant,
        wants_speed: bool,
        mut refusal: PolicyRefusal,
        why: Option<Why>,
    ) -> Verdict {
        if wants_speed {
            self.speed_wanted = Some(now);
        }
        match why {
            None => Verdict::Allow { rule: refusal.rule },
            Some(Why::ConsentNeeded) => {
                // the first refusal asks; a person who did not answer is asked again only by requestConsent
                if self.consent.ask_first(now, refusal.class).is_ok() {
                    refusal.why = Why::ConsentAsked;
                }
                Verdict::Refuse(refusal)
            }
            Some(_) => Verdict::Refuse(refusal),
        }
    }

    /// The first condition that is not met. The conditions are sorted, so that consent comes last.
    fn first_unmet(&self, now: Instant, conditions: &[Condition], class: Class) -> Option<Why> {
        conditions.iter().find_map(|condition| self.unmet(now, *condition, class))
    }

    fn unmet(&self, now: Instant, condition: Condition, class: Class) -> Option<Why> {
        match condition {
            Condition::Never => Some(Why::Never),
            Condition::NotMoving => match self.facts.motion(now) {
                VehicleMotion::Moving { kmh } => Some(Why::Moving { kmh }),
                VehicleMotion::Stationary => None,
                VehicleMotion::Unknown { moved: Some(kmh) } => Some(Why::SpeedLost { kmh }),
                VehicleMotion::Unknown { moved: None } => {
                    self.unmet_unknown(now, self.settings.facts.unknown_speed, Why::SpeedUnknown, class)
                }
            },
            Condition::Stationary => match self.facts.motion(now) {
                VehicleMotion::Moving { kmh } => Some(Why::Moving { kmh }),
                VehicleMotion::Stationary => None,
                VehicleMotion::Unknown { .. } if self.facts.kmh(now).is_some() => Some(Why::NotStationary),
                VehicleMotion::Unknown { .. } => Some(Why::SpeedUnknown),
            },
            Condition::EngineOff => match self.facts.engine(now) {
                Engine::On => Some(Why::EngineOn),
                Engine::Off => None,
                Engine::Unknown => Some(Why::EngineUnknown),
            },
            Condition::IgnitionOn => match self.facts.ignition() {
                Some(true) => None,
                Some(false) => Some(Why::IgnitionOff),
                None => Some(Why::IgnitionUnknown),
            },
            Condition::Voltage => match self.facts.volts() {
                Some(volts) if self.facts.is_voltage_low() => Some(Why::VoltageLow { volts }),
                Some(_) => None,
                None => {
                    self.unmet_unknown(now, self.settings.facts.unknown_voltage, Why::VoltageUnknown, class)
                }
            },
            Condition::Ticket => (!self.has_ticket).then_some(Why::NoTicket),
            Condition::VinConfirmed => (!self.is_vin_confirmed).then_some(Why::VinNotConfirmed),
            Condition::Consent => self.unmet_consent(now, class),
        }
    }

    fn unmet_unknown(&self, now: Instant, meaning: Unknown, why: Why, class: Class) -> Option<Why> {
        match meaning {
            Unknown::Allow => None,
            Unknown::Refuse => Some(why),
            Unknown::Consent => self.unmet_consent(now, class),
        }
    }

    fn unmet_consent(&self, now: Instant, class: Class) -> Option<Why> {
        if self.consent.is_given(now, class) {
            return None;
        }
        Some(if self.consent.asking() == Some(class) { Why::ConsentAsked } else { Why::ConsentNeeded })
    }
}

fn wants_speed(conditions: &[Condition]) -> bool {
    conditions.iter().any(|condition| matches!(condition, Condition::NotMoving | Condition::Stationary))
}
