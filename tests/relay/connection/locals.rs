//! A muted connector sends nothing to a bus on its own account.

use connector_agent::relay::connection::VinTrigger;
use connector_test_support::data::golf;
use serde_json::json;

use super::common::*;

/// The frames on the bus apart from TesterPresent.
fn others(node: &Node) -> Vec<connector_hal::can::CanFrame> {
    node.frames().into_iter().filter(|frame| !frame.data().starts_with(&[2, 0x3E])).collect()
}

async fn mute(rig: &mut Rig) {
    assert_eq!(rig.request("muteLocals", json!({})).await.action, "localsMuted");
}

#[tokio::test(start_paused = true)]
async fn a_muted_connector_reads_no_vin_and_makes_up_for_it_afterwards() {
    for trigger in [VinTrigger::Vehicle, VinTrigger::Returned, VinTrigger::Request] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        mute(&mut rig).await;
        assert!(rig.session.start_reading_vin(now(), SECOND, trigger), "the VIN watch is not asked either");
        rig.run(5 * SECOND).await;
        assert_eq!(node.frames(), []);
        assert!(!rig.session.take_vin_wanted());
        // new buses do not end it
        rig.configure_hs().await;
        assert!(rig.session.start_reading_vin(now(), SECOND, trigger));
        rig.run(5 * SECOND).await;
        assert_eq!(node.frames(), []);
        assert_eq!(rig.request("unmuteLocals", json!({})).await.action, "localsUnmuted");
        assert!(rig.session.take_vin_wanted());
        assert!(!rig.session.take_vin_wanted(), "once");
        assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
        rig.run(SECOND).await;
        assert_ne!(node.frames(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn muting_ends_a_reading_of_the_vin_that_is_under_way() {
    for until_mute in [0, 5, 60] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        assert!(rig.session.start_reading_vin(now(), 2 * SECOND, VinTrigger::Request));
        rig.run(until_mute * MILLISECOND).await;
        mute(&mut rig).await;
        let report = rig.session.poll_vin(now()).expect("the reading has ended");
        assert_eq!(report.vin, None);
        let before = node.frames().len();
        rig.run(3 * SECOND).await;
        // a frame that the adapter has already is sent
        assert!(node.frames().len() <= before + 1, "{:?}", node.frames());
        assert!(rig.session.poll_vin(now()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_asked_for_continues_while_muted() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    mute(&mut rig).await;
    rig.send(1, PLAIN, &[0x22, 0xF1, 0x90]);
    rig.run(9 * SECOND).await;
    assert_eq!(rig.pdus(1).len(), 1);
    let present = ecu.requests().iter().filter(|request| request.starts_with(&[0x3E])).count();
    assert!(present >= 3, "{present}");
    // a scan is a request of the operator
    rig.ask("scanEcus", json!({"bus_name": "HS", "vehicle_stands": true}));
    assert!(rig.run_until(15 * SECOND, |rig| rig.texts.iter().any(|text| text.action == "ecusFound")).await);
    let is_of_scan = |frame: &&connector_hal::can::CanFrame| (0x700..0x7E0).contains(&frame.id().raw());
    assert!(node.frames().iter().filter(is_of_scan).count() > 100);
}

#[tokio::test(start_paused = true)]
async fn a_muted_connector_asks_for_no_speed() {
    for is_muted in [false, true] {
        let mut rig = Rig::with_policy(json!({}));
        let _vehicle = connector_sim::vehicle::Vehicle::start(&golf(), &rig.buses[0]);
        rig.configure_hs().await;
        rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
        if is_muted {
            mute(&mut rig).await;
        }
        let node = Node::attach(&rig.buses[0]);
        // what clears faults needs a standing vehicle
        rig.send(1, PLAIN, &[0x14, 0xFF, 0xFF, 0xFF]);
        rig.run(5 * SECOND).await;
        let asked = others(&node).iter().filter(|frame| frame.data().starts_with(&[2, 1, 0x0D])).count();
        assert_eq!(asked == 0, is_muted, "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_programming_service_that_waits_for_the_vin_is_refused_while_muted() {
    let mut rig = Rig::new();
    rig.session.require_vin();
    mute(&mut rig).await;
    rig.configure_hs().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &[0x34, 0, 0x44, 0, 0, 0, 0, 0, 0, 1, 0]);
    rig.run(SECOND).await;
    if rig.session.take_vin_wanted() {
        rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request);
    }
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), Vec::<Vec<u8>>::new());
    assert!(rig.event_texts.iter().any(|text| text.contains("unmuteLocals")), "{:?}", rig.event_texts);
}
