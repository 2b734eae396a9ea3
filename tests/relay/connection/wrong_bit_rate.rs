//! A bus is listened to before the connector goes active on it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use connector_hal::can::virtual_bus::VirtualBusConfig;
use connector_hal::can::{CanEvent, CanFrame};
use connector_test_support::hardware::HardwareBuilder;
use connector_test_support::scripted_can::Script;
use serde_json::json;

use super::common::*;

/// A vehicle whose bus has this bit rate, and this share of traffic.
fn vehicle(bit_rate: u32, load: f32) -> Rig {
    Rig::with_bus(VirtualBusConfig { bit_rate, load, ..VirtualBusConfig::default() })
}

#[tokio::test(start_paused = true)]
async fn a_bus_in_use_at_another_bit_rate_is_refused_by_name_and_not_disturbed() {
    for (actual, text) in [(250_000, "250000 bit/s"), (77_000, "only errors")] {
        let mut rig = vehicle(actual, 0.3);
        let refused = rig.configure(json!([hs()])).await;
        assert_eq!(problem(&refused), (409, "wrong-bit-rate".to_owned()));
        let detail = refused.message["detail"].as_str().unwrap();
        assert!(detail.contains(text) && detail.contains("HS"), "{detail}");
        assert_eq!(rig.buses[0].statistics().disturbances, 0, "{actual}");
        assert!(rig.session.bus_reports().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_in_use_is_ready_after_its_first_frame() {
    let mut rig = vehicle(500_000, 0.3);
    rig.configure_hs().await;
    assert!(rig.elapsed() < 10 * MILLISECOND, "{:?}", rig.elapsed());
    let mut silent = vehicle(500_000, 0.0);
    silent.configure_hs().await;
    assert!(silent.elapsed() <= 301 * MILLISECOND, "{:?}", silent.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_operator_can_skip_the_listening() {
    let mut rig = vehicle(250_000, 0.3);
    let mut bus = hs();
    bus["can_bus"]["verify"] = json!(false);
    let configured = rig.configure(json!([bus])).await;
    assert_eq!(configured.action, "busesConfigured");
    assert_eq!(rig.elapsed(), std::time::Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_with_a_fixed_bit_rate_is_used_without_listening() {
    let mut rig = vehicle(500_000, 0.0);
    rig.bit_rate_is_fixed.store(true, std::sync::atomic::Ordering::Relaxed);
    rig.configure_hs().await;
    assert_eq!(rig.elapsed(), std::time::Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_returns_to_a_bus_with_another_bit_rate_sends_nothing() {
    let rig = vehicle(500_000, 0.3);
    let other = vehicle(250_000, 0.3);
    let buses = [rig.buses[0].clone(), other.buses[0].clone()];
    let plugged_into = Arc::new(Mutex::new(0));
    let present = Arc::clone(&plugged_into);
    let opened = buses.clone();
    let hardware = HardwareBuilder::in_runtime_time()
        .can_port([6, 14], "can0", false)
        .open_can(move |device| {
            let bus = &opened[*present.lock().unwrap()];
            let full = connector_hal::can::virtual_bus::VirtualBus::full_capabilities();
            Ok(Box::new(bus.attach_adapter(device, full)))
        })
        .build();
    let mut rig = Rig::with_hardware(hardware);
    rig.configure_hs().await;
    rig.open_isotp(1, json!({})).await;
    *plugged_into.lock().unwrap() = 1;
    buses[0].unplug("can0");
    rig.run(5 * SECOND).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(SECOND).await;
    assert_eq!(buses[1].statistics().disturbances, 0);
    assert_eq!(rig.session.bus_reports()[0].state, "off");
}

/// An adapter on a silent bus.
#[derive(Clone, Default)]
struct Silent(Arc<Mutex<SilentState>>);

#[derive(Default)]
struct SilentState {
    /// The number of frames that the adapter took.
    taken: usize,
    /// The events that the test adds.
    events: VecDeque<CanEvent>,
    waker: Option<Waker>,
}

impl Silent {
    fn add(&self, event: CanEvent) {
        let mut state = self.0.lock().unwrap();
        state.events.push_back(event);
        state.waker.take().into_iter().for_each(Waker::wake);
    }

    fn taken(&self) -> usize {
        self.0.lock().unwrap().taken
    }
}

impl Script for Silent {
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<CanEvent> {
        let mut state = self.0.lock().unwrap();
        state.waker = Some(cx.waker().clone());
        state.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    fn poll_send(&mut self, _cx: &mut Context<'_>, _frame: &CanFrame) -> Poll<()> {
        self.0.lock().unwrap().taken += 1;
        Poll::Ready(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_bus_gets_one_frame_until_a_node_has_acknowledged_it() {
    for is_heard in [false, true] {
        let adapter = Silent::default();
        let mut rig = Rig::with_adapter(&adapter);
        rig.configure_hs().await;
        rig.open_raw(1, json!({"request_id": 0x100, "max_age_ms": 5000})).await;
        (0..4).for_each(|count| rig.send_frame(1, frame(0x100, &[count])));
        rig.run(50 * MILLISECOND).await;
        assert_eq!(adapter.taken(), 1);
        let event = match is_heard {
            true => CanEvent::Received { frame: frame(0x200, &[]), at: now() },
            false => CanEvent::Transmitted { at: now() },
        };
        adapter.add(event);
        rig.run(10 * MILLISECOND).await;
        assert_eq!(adapter.taken(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_bus_with_one_disturbance_is_not_refused() {
    const PROTOCOL_VIOLATION: u32 = 0x8;
    let adapter = Silent::default();
    let mut rig = Rig::with_adapter(&adapter);
    let frame = CanFrame::new_error(PROTOCOL_VIOLATION, [0; 8]);
    adapter.add(CanEvent::Received { frame, at: now() });
    assert_eq!(rig.configure(json!([hs()])).await.action, "busesConfigured");
}
