//! Whatever raw frames go in, Python's can-isotp reassembles no refused service from those that the policy lets through.
//!
//! Needs a Python with `can-isotp`, named by `CONNECTOR_TEST_PYTHON` (default: `.venv/bin/python` in the workspace).
//! Without it, the test prints one line `SKIPPED: …` and passes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use connector_agent::policy::services::{can_be_carried_out, classify};
use connector_agent::policy::{AskedSource, Class, Intent, IntentBus, IntentTarget, Policy, Stage, What};
use connector_hal::can::{CanFrame, CanId};
use connector_test_support::hex;
use connector_test_support::peers::peer;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// The number of sequences, and the most frames of one.
const SEQUENCES: u64 = 200;
const MOST_FRAMES: usize = 40;
/// The address bytes of the ECUs with extended addressing: bytes that also look like a PCI or a service.
const ADDRESSES: [u8; 7] = [0x02, 0x10, 0x11, 0x21, 0x22, 0x30, 0x34];
/// Bytes that are often a PCI, an address or a service.
const LIKELY: [u8; 12] = [0x02, 0x03, 0x06, 0x10, 0x11, 0x20, 0x21, 0x22, 0x2E, 0x31, 0x34, 0x36];

/// The data of a frame that is near to those of ISO-TP.
fn data(random: &mut fastrand::Rng) -> Vec<u8> {
    let length = if random.u8(..5) == 0 { random.usize(..8) } else { 8 };
    let mut byte = || match random.u8(..5) {
        0 => random.u8(..),
        1 | 2 => LIKELY[random.usize(..LIKELY.len())],
        _ => random.u8(..0x40),
    };
    (0..length).map(|_| byte()).collect()
}

/// The frames of a random sequence to this identifier that the policy of a moving vehicle lets through. Bus frames are
/// allowed, so that only their content as diagnostics counts.
fn let_through(id: CanId, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let settings = serde_json::from_value(json!({"require": {"bus": []}})).unwrap();
    let mut policy = Policy::new(settings, false);
    let mut now = Instant::now();
    policy.handle_opened(now, false, false);
    let mut passed = Vec::new();
    for _ in 0..random.usize(1..MOST_FRAMES) {
        now += Duration::from_millis(1);
        policy.handle_asked_speed(now, AskedSource::Obd, 50.0);
        let data = data(random);
        let frame = CanFrame::new(id, &data).unwrap();
        let bus = IntentBus { index: 0, name: "HS" };
        let intent = Intent { bus, target: IntentTarget::None, what: What::Frame(&frame) };
        let is_refused = [Stage::Arrival, Stage::Turn]
            .into_iter()
            .any(|stage| policy.refuses(now, stage, &intent).is_some());
        if !is_refused {
            policy.handle_frame_sent(now, bus, &frame);
            passed.push(data);
        }
    }
    passed
}

#[tokio::test]
async fn can_isotp_reassembles_no_refused_service_from_raw_frames() {
    let Some(mut program) = peer("frames_peer.py", "the policy against can-isotp", "isotp").await else {
        return;
    };
    let mut peer = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = peer.stdin.take().unwrap();
    let mut answers = BufReader::new(peer.stdout.take().unwrap()).lines();
    let mut reassembled = 0;
    for seed in 0..SEQUENCES {
        let mut random = fastrand::Rng::with_seed(seed);
        // ECUs behind 0x6F1 have extended addressing
        let number = [0x7E0, 0x714, 0x6F1, 0x123][random.usize(..4)];
        let id = CanId::standard(number).unwrap();
        let frames: Vec<String> = let_through(id, &mut random).iter().map(|data| hex(data)).collect();
        let extended = ADDRESSES.map(|byte| {
            json!({"mode": "Extended_11bits", "txid": 0x7E8, "rxid": number, "source_address": byte, "target_address": 0xF1})
        });
        let normal = json!({"mode": "Normal_11bits", "txid": 0x7E8, "rxid": number});
        for address in extended.into_iter().chain((number != 0x6F1).then_some(normal)) {
            let job = json!({"address": address, "id": number, "frames": frames});
            stdin.write_all(format!("{job}\n").as_bytes()).await.unwrap();
            let line = answers.next_line().await.unwrap().expect("the peer still runs");
            for pdu in serde_json::from_str::<Vec<String>>(&line).unwrap() {
                reassembled += 1;
                let pdu = connector_sim::vehicle::hex::parse(&pdu).unwrap();
                let class = classify(&pdu).class;
                let is_refused =
                    matches!(class, Class::Intrusive | Class::Programming) && can_be_carried_out(&pdu);
                assert!(!is_refused, "seed {seed}, {address}: {pdu:02X?} from {frames:?}");
            }
        }
    }
    assert!(reassembled > 100, "{reassembled}: the sequences test nothing");
    drop(stdin);
}
