//! A process that was not scheduled for a while: deadlines have passed, and the events that meet them are
//! still unread.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::CanEvent;
use connector_test_support::scripted_can::Script;
use connector_test_support::session::{CONFIRM, Rig};
use connector_test_support::{MILLISECOND, frame, now};
use serde_json::json;
use tokio::task::coop::consume_budget;

/// The events that the test has decided, and the waker of the task that waits for them.
#[derive(Clone, Default)]
struct Events {
    events: Arc<Mutex<(VecDeque<CanEvent>, Option<Waker>)>>,
    costs_budget: bool,
}

impl Script for Events {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<CanEvent> {
        if self.costs_budget && pin!(consume_budget()).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let mut inner = self.events.lock().unwrap();
        match inner.0.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                inner.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A rig whose bus has this adapter, after an ISO-TP channel has sent a PDU.
async fn rig_with_sent_pdu(events: &Events) -> Rig {
    let mut rig = Rig::with_adapter(events);
    rig.configure_hs().await;
    let channel = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8});
    rig.ask("openChannel", json!({"channel": 1, "isotp_channel": channel}));
    rig.send(1, CONFIRM, &[0x3E, 0x00]);
    rig.settle().await;
    rig
}

/// N_As is one second; the process gets no processor time for longer, while other nodes send frames and the
/// frame is acknowledged.
async fn sleep_through_the_confirmation(events: &Events) {
    let sent_at = now() + MILLISECOND;
    tokio::time::advance(Duration::from_millis(1100)).await;
    let frame = frame(0x123, &[0; 8]);
    let mut inner = events.events.lock().unwrap();
    inner.0.extend((0..200).map(|_| CanEvent::Received { frame, at: sent_at }));
    inner.0.push_back(CanEvent::Transmitted { at: sent_at });
    inner.1.take().unwrap().wake();
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_queued_behind_other_frames_is_not_missed() {
    let events = Events::default();
    let mut rig = rig_with_sent_pdu(&events).await;
    sleep_through_the_confirmation(&events).await;
    rig.settle().await;
    let codes: Vec<_> = rig.events(1).iter().map(|event| event.0).collect();
    assert_eq!(codes, [EventCode::Sent]);
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_is_not_missed_when_the_task_runs_out_of_budget() {
    // each read of a socket costs a unit of the runtime's cooperative budget; then sockets seem empty
    let events = Events { costs_budget: true, ..Events::default() };
    let mut rig = rig_with_sent_pdu(&events).await;
    sleep_through_the_confirmation(&events).await;
    while !events.events.lock().unwrap().0.is_empty() {
        rig.settle().await;
        tokio::task::yield_now().await;
    }
    rig.settle().await;
    let codes: Vec<_> = rig.events(1).iter().map(|event| event.0).collect();
    assert_eq!(codes, [EventCode::Sent]);
}
