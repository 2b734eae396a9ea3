//! Tests of the policy as a whole.

mod channels;
mod frames;
mod property;
mod rules;
mod table;

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use super::*;

/// A policy with a speed signal, and the moment at which its tests begin.
pub(super) struct Vehicle {
    pub(super) policy: Policy,
    pub(super) now: Instant,
}

pub(super) const BUS: IntentBus<'static> = IntentBus { index: 0, name: "HS" };

pub(super) fn settings(toml: &str) -> PolicySettings {
    toml::from_str(toml).unwrap()
}

impl Vehicle {
    pub(super) fn new(toml: &str, has_button: bool) -> Self {
        let mut policy = Policy::new(settings(toml), has_button);
        let now = Instant::now();
        policy.handle_opened(now, false, false);
        Self { policy, now }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.policy.handle_timeout(self.now);
    }

    pub(super) fn drive(&mut self, kmh: f32) {
        self.policy.handle_asked_speed(self.now, AskedSource::Obd, kmh);
    }

    pub(super) fn stand(&mut self) {
        for _ in 0..3 {
            self.drive(0.0);
            self.pass(1000);
        }
        self.drive(0.0);
    }

    pub(super) fn pdu(&mut self, request: &[u8]) -> Option<PolicyRefusal> {
        let intent = Intent { bus: BUS, target: ecu(), what: What::Pdu(request, Framing::default()) };
        let arrival = self.policy.refuses(self.now, Stage::Arrival, &intent);
        arrival.or_else(|| self.policy.refuses(self.now, Stage::Turn, &intent))
    }

    pub(super) fn frame(&mut self, id: CanId, data: &[u8]) -> Option<PolicyRefusal> {
        let frame = frame(id, data);
        let intent = Intent { bus: BUS, target: IntentTarget::None, what: What::Frame(&frame) };
        let arrival = self.policy.refuses(self.now, Stage::Arrival, &intent);
        let refusal = arrival.or_else(|| self.policy.refuses(self.now, Stage::Turn, &intent));
        if refusal.is_none() {
            self.policy.handle_frame_sent(self.now, BUS, &frame);
        }
        refusal
    }

    pub(super) fn hear(&mut self, id: u32, data: &[u8]) {
        self.policy.handle_heard_frame(self.now, BUS, &frame(standard(id), data));
    }
}

pub(super) fn standard(id: u32) -> CanId {
    CanId::standard(id).unwrap()
}

pub(super) fn frame(id: CanId, data: &[u8]) -> CanFrame {
    if data.len() > 8 {
        let flags = connector_hal::can::FdFlags { bit_rate_switch: true, error_state: false };
        return CanFrame::new_fd(id, flags, data).unwrap();
    }
    CanFrame::new(id, data).unwrap()
}

pub(super) fn ecu() -> IntentTarget {
    IntentTarget::Can { id: standard(0x7E0), extended: None }
}
