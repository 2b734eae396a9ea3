//! Whether a request whose turn has come waits until the vehicle has reported its speed.

use std::time::Instant;

use super::Policy;
use super::class::Mode;
use super::facts::VehicleMotion;
use super::frames::FrameMeaning;
use super::intent::{Intent, Stage, What};

impl Policy {
    /// Whether a request or frame whose turn has come has to wait: it needs the speed, which the vehicle can be asked for,
    /// or another one does. Continuations of requests do not wait.
    pub fn must_wait(&mut self, now: Instant, intent: &Intent<'_>) -> bool {
        self.update_wait(now);
        if self.wait.is_waiting() {
            return match intent.what {
                What::Frame(frame) => self
                    .sent
                    .meanings(intent.bus.index, frame)
                    .into_iter()
                    .flatten()
                    .any(|meaning| matches!(meaning, FrameMeaning::Request { .. } | FrameMeaning::Bus)),
                _ => true,
            };
        }
        let may_wait =
            self.settings.mode == Mode::Enforce && self.wait.may_begin(now) && !self.knows_motion(now);
        if !may_wait || !self.needs_speed(now, intent) {
            return false;
        }
        self.wait.begin(now);
        true
    }

    /// Since when requests wait for the speed, and until when at most.
    pub fn waiting(&mut self, now: Instant) -> Option<(Instant, Instant)> {
        self.update_wait(now);
        self.wait.waiting()
    }

    /// Until when requests wait at most.
    pub fn wait_until(&self) -> Option<Instant> {
        self.wait.waiting().map(|(_, until)| until)
    }

    /// Handles whether a bus of the connection can be asked for the speed.
    pub fn handle_askable(&mut self, can_ask: bool) {
        self.wait.can_ask = can_ask;
    }

    fn update_wait(&mut self, now: Instant) {
        let is_known = self.wait.is_waiting() && self.knows_motion(now);
        self.wait.update(now, is_known);
    }

    /// Whether a speed is fresh, or was lost while the vehicle moved.
    fn knows_motion(&self, now: Instant) -> bool {
        self.facts.kmh(now).is_some()
            || matches!(self.facts.motion(now), VehicleMotion::Unknown { moved: Some(_) })
    }

    /// Whether the intent is allowed, and depends on the speed.
    fn needs_speed(&mut self, now: Instant, intent: &Intent<'_>) -> bool {
        let before = self.speed_wanted.take();
        let verdict = match intent.what {
            What::Frame(frame) => {
                let meanings = self.sent.meanings(intent.bus.index, frame);
                self.judge_meanings(now, intent, frame, meanings)
            }
            _ => self.judge(now, Stage::Arrival, intent),
        };
        let needs = self.speed_wanted.is_some() && verdict.is_allowed();
        self.speed_wanted = self.speed_wanted.or(before);
        needs
    }
}
