//! A bus that goes off again and again, and frames that are left when a bus is closed.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::{CanEvent, CanFrame};
use connector_test_support::scripted_can::Script;
use serde_json::json;

use super::common::*;

#[tokio::test(start_paused = true)]
async fn a_bus_that_goes_off_three_times_in_ten_seconds_stays_off() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    for _ in 0..3 {
        rig.buses[0].force_bus_off("can0");
        rig.run(2 * SECOND).await;
    }
    let states = [2, 0, 2, 0, 2, 2].map(|state| (EventCode::BusState, state, 0));
    assert_eq!(rig.events(1), states);
    rig.run(60 * SECOND).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(SECOND).await;
    assert_eq!(rig.events(1)[states.len()..], [(EventCode::SendFailed, 3, 0)]);
    assert_eq!(rig.session.bus_reports()[0].state, "off");
    // a device that is plugged in again does not return to the bus either
    rig.buses[0].unplug("can0");
    rig.run(10 * SECOND).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0_u8; 2]; 0]);

    rig.configure_hs().await;
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 3]]);
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_goes_off_now_and_then_is_entered_each_time() {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({})).await;
    for _ in 0..10 {
        rig.buses[0].force_bus_off("can0");
        rig.run(6 * SECOND).await;
    }
    assert_eq!(rig.count(1, EventCode::BusState, 0), 10);
}

/// An adapter that no node acknowledges, and how long it was given to leave the bus.
#[derive(Clone, Default)]
struct Unacknowledged(Arc<Mutex<Vec<Duration>>>);

impl Script for Unacknowledged {
    fn poll_event(&mut self, _cx: &mut Context<'_>) -> Poll<CanEvent> {
        Poll::Pending
    }

    fn poll_send(&mut self, _cx: &mut Context<'_>, _frame: &CanFrame) -> Poll<()> {
        Poll::Ready(())
    }

    fn leave(&mut self, patience: Duration) {
        self.0.lock().unwrap().push(patience);
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_leaves_the_bus_at_the_end_of_a_connection() {
    let adapter = Unacknowledged::default();
    let mut rig = Rig::with_adapter(&adapter);
    rig.configure_hs().await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    rig.send_frame(1, frame(0x100, &[1]));
    rig.settle().await;
    assert!(adapter.0.lock().unwrap().is_empty());
    // the next configuration replaces the bus
    rig.configure_hs().await;
    assert_eq!(*adapter.0.lock().unwrap(), [100 * MILLISECOND]);
    drop(rig);
    assert_eq!(*adapter.0.lock().unwrap(), [100 * MILLISECOND; 2]);
}
