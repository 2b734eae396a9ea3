//! What the policy does for each frame and PDU of a session, without I/O.

use std::time::{Duration, Instant};

use connector_agent::policy::{Framing, Intent, IntentBus, IntentTarget, Policy, Stage, What};
use connector_hal::can::{CanFrame, CanId};
use serde_json::json;

const BUS: IntentBus<'static> = IntentBus { index: 0, name: "HS" };
const ECU: u32 = 0x7E0;
/// The frame with the vehicle's speed.
const SPEED: u32 = 0x3E9;

/// A policy that is enforced, with a signal of the speed, some rules that match nothing, and a vehicle that stands.
pub fn policy(now: Instant) -> Policy {
    let rules: Vec<_> =
        (0..8).map(|did| json!({"services": [0x2F], "dids": [did], "require": ["never"]})).collect();
    let speed = json!([{"bus": "HS", "id": SPEED, "start": 8, "bits": 16, "scale": 0.01}]);
    let settings = json!({"mode": "enforce", "rule": rules, "facts": {"speed": speed, "speed_stale_ms": 60_000},
        "require": {"intrusive": ["stationary"], "programming": ["stationary"], "bus": ["stationary"]}});
    let mut policy = Policy::new(serde_json::from_value(settings).unwrap(), true);
    policy.handle_opened(now, true, false);
    for second in (0..4).rev() {
        policy.handle_heard_frame(now - Duration::from_secs(second), BUS, &speed_frame());
    }
    policy
}

fn frame(id: u32, data: [u8; 8]) -> CanFrame {
    CanFrame::new(CanId::try_from(id).unwrap(), &data).unwrap()
}

/// The frame that says that the vehicle stands.
pub fn speed_frame() -> CanFrame {
    frame(SPEED, [0; 8])
}

/// Frames to one ECU: two requests in single frames, and one to write in three frames.
pub fn frames_to_an_ecu() -> Vec<CanFrame> {
    let padded = [
        [0x03, 0x22, 0xF1, 0x90, 0xCC, 0xCC, 0xCC, 0xCC],
        [0x02, 0x3E, 0x80, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC],
        [0x10, 0x14, 0x2E, 0xF1, 0x90, 0x57, 0x56, 0x57],
        [0x21, 0x5A, 0x5A, 0x5A, 0x31, 0x4B, 0x5A, 0x41],
        [0x22, 0x57, 0x30, 0x30, 0x30, 0x30, 0x30, 0x31],
    ];
    padded.map(|data| frame(ECU, data)).to_vec()
}

/// A frame that is no diagnostic message.
pub fn bus_frame() -> CanFrame {
    frame(0x123, [0x5A; 8])
}

/// Requests of a session in which an ECU is programmed.
pub const REQUESTS: [&[u8]; 6] = [
    &[0x22, 0xF1, 0x90],
    &[0x3E, 0x80],
    &[0x2E, 0xF1, 0x5A, 1, 2, 3, 4],
    &[0x34, 0, 0x44, 0, 0, 0, 0, 0, 0, 1, 0],
    &[0x36, 1, 0xAA, 0xAA, 0xAA, 0xAA],
    &[0x37],
];

/// Judges a frame as a channel does: when it arrives, and when its turn has come. It must be allowed.
pub fn judge_frame(policy: &mut Policy, now: Instant, frame: &CanFrame) {
    judge(policy, now, IntentTarget::None, What::Frame(frame));
    policy.handle_frame_sent(now, BUS, frame);
}

/// Judges a request as a channel does: when it arrives, and when its turn has come. It must be allowed.
pub fn judge_pdu(policy: &mut Policy, now: Instant, request: &[u8]) {
    let id = CanId::try_from(ECU).unwrap();
    judge(policy, now, IntentTarget::Can { id, extended: None }, What::Pdu(request, Framing::default()));
}

fn judge(policy: &mut Policy, now: Instant, target: IntentTarget, what: What<'_>) {
    let intent = Intent { bus: BUS, target, what };
    for stage in [Stage::Arrival, Stage::Turn] {
        assert_eq!(policy.refuses(now, stage, &intent), None, "{intent:?}");
    }
}

/// Handles a frame that was heard.
pub fn hear(policy: &mut Policy, now: Instant, frame: &CanFrame) {
    policy.handle_heard_frame(now, BUS, frame);
}
