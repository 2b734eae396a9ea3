//! The end of an ECU's programming is in the audit, however it ends.

use connector_agent::policy::audit::{AuditHash, AuditStamp};
use connector_agent::relay::connection::CloseReason;

use super::*;

const PROGRAMMING: [u8; 2] = [0x10, 0x02];
const OPEN: &str = "channelOpened";

/// The entries of the audit about programming: the kind, and why it ended.
fn entries(rig: &Rig) -> Vec<(String, String)> {
    let stamp = AuditStamp { boot: "", now: now(), up_ms: 0, unix_ms: 0 };
    let lines = std::iter::from_fn(|| rig.policy.with(|policy| policy.poll_audit(now())))
        .map(|entry| serde_json::from_str::<Value>(&entry.line(AuditHash::NONE, &stamp)).unwrap());
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let entries = lines.map(|line| (text(&line, "entry"), text(&line, "why")));
    entries.filter(|(entry, _)| entry.starts_with("programming")).collect()
}

fn begun() -> (String, String) {
    ("programming-begun".to_owned(), String::new())
}

fn ended(why: &str) -> (String, String) {
    ("programming-ended".to_owned(), why.to_owned())
}

/// A session in which an ECU is being programmed on channel 1.
async fn programming() -> (Rig, Ecu) {
    let mut rig = Rig::with_policy(json!({}));
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.configure_hs().await;
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &PROGRAMMING);
    rig.run(SECOND).await;
    assert_eq!(entries(&rig), [begun()]);
    (rig, ecu)
}

#[tokio::test(start_paused = true)]
async fn the_end_of_programming_is_in_the_audit_when_its_channel_is_closed() {
    let (mut rig, _ecu) = programming().await;
    // another channel to the same ECU keeps its programming going
    rig.open_isotp(2, json!({"keep_alive": "disabled"})).await;
    for (channel, expected) in [(1, vec![]), (2, vec![ended("its channel was closed")])] {
        let reply = rig.request("closeChannel", json!({"channel": channel})).await;
        assert_eq!(reply.action, "channelClosed", "{reply:?}");
        assert_eq!(entries(&rig), expected, "channel {channel}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_programming_by_raw_frames_is_in_the_audit_when_the_channel_is_closed() {
    let mut rig = Rig::with_policy(json!({}));
    let _node = Node::attach(&rig.buses[0]);
    rig.configure_hs().await;
    let raw = json!({"bus_name": "HS", "request_id": 0x6F1, "response_id": 0x612});
    assert_eq!(rig.open(1, "raw_channel", raw).await.action, OPEN);
    // extended addressing: the ECU at 12
    rig.send_frame(1, frame(0x6F1, &[0x12, 0x02, 0x10, 0x02]));
    rig.run(SECOND).await;
    assert_eq!(entries(&rig), [begun()]);
    assert_eq!(rig.request("closeChannel", json!({"channel": 1})).await.action, "channelClosed");
    assert_eq!(entries(&rig), [ended("its channel was closed")]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_programming_is_in_the_audit_when_buses_are_configured_again() {
    let (mut rig, _ecu) = programming().await;
    rig.configure_hs().await;
    assert_eq!(entries(&rig), [ended("its channel was closed")]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_programming_is_in_the_audit_when_the_connection_ends() {
    let (mut rig, _ecu) = programming().await;
    rig.session.close(CloseReason::Closed);
    assert_eq!(entries(&rig), [ended("the connection ended")]);

    let (mut rig, _ecu) = programming().await;
    rig.cut();
    assert!(rig.run_until(60 * SECOND, |rig| rig.close_reason().is_some()).await);
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
    assert_eq!(entries(&rig), [ended("the connection ended")]);
}
