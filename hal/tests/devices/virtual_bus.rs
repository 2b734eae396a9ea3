//! The virtual bus behaves like a real bus, with exact timing.

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig, VirtualCan};
use connector_hal::can::{
    CanBus, CanBusExt, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanId, CanSettings, FdFlags,
    FrameKind, WireLength,
};
use connector_hal::timer::TimerKind;
use tokio::time::timeout;

use crate::support::frame;

const FOREVER: Duration = Duration::from_secs(3600);

fn settings(bit_rate: u32, listen_only: bool) -> CanSettings {
    CanSettings { bit_rate, data_bit_rate: None, listen_only }
}

fn bus() -> VirtualBus {
    VirtualBus::new(VirtualBusConfig::default())
}

async fn adapter(bus: &VirtualBus, settings: CanSettings) -> VirtualCan {
    let mut node = bus.attach_adapter("adapter", VirtualBus::full_capabilities());
    node.configure(settings).await.unwrap();
    node
}

async fn event(node: &mut VirtualCan) -> CanEvent {
    timeout(FOREVER, node.event()).await.expect("an event within an hour").unwrap()
}

async fn is_quiet(node: &mut VirtualCan) -> bool {
    timeout(Duration::from_secs(10), node.event()).await.is_err()
}

/// The next event that is not an error frame.
async fn event_but_errors(node: &mut VirtualCan) -> CanEvent {
    loop {
        match event(node).await {
            CanEvent::Received { frame, .. } if frame.is_error() => {}
            event => return event,
        }
    }
}

async fn received(node: &mut VirtualCan) -> (CanFrame, Instant) {
    match event(node).await {
        CanEvent::Received { frame, at } => (frame, at),
        event => panic!("{event:?}"),
    }
}

async fn is_sent(node: &mut VirtualCan) -> bool {
    matches!(event_but_errors(node).await, CanEvent::Transmitted { .. })
}

#[tokio::test(start_paused = true)]
async fn a_frame_reaches_every_other_node_when_its_last_bit_is_out() {
    let bus = bus();
    let (mut one, mut two, mut three) = (bus.attach("one"), bus.attach("two"), bus.attach("three"));
    let sent = frame(0x7E0, &[2, 0x10, 3]);
    let start = TimerKind::Runtime.now();
    one.send(&sent).await.unwrap();
    let at = start + WireLength::of(&sent).duration(&settings(500_000, false));
    assert_eq!(event(&mut one).await, CanEvent::Transmitted { at });
    assert_eq!(received(&mut two).await, (sent, at));
    assert_eq!(received(&mut three).await, (sent, at));
}

#[tokio::test(start_paused = true)]
async fn a_saturated_bus_carries_exactly_the_frames_that_fit_its_bit_rate() {
    for bit_rate in [250_000, 500_000, 1_000_000] {
        let bus = VirtualBus::new(VirtualBusConfig { bit_rate, ..VirtualBusConfig::default() });
        let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
        let sent = frame(0x7E0, &[0x21, 0xA5, 0x5A, 0x13, 0x37, 0x42, 0x99, 0x66]);
        let occupancy = WireLength::of(&sent).occupancy(&settings(bit_rate, false));
        // one frame at a time, so that every frame waits for a timer with a resolution of milliseconds
        let mut first = None;
        for count in 0..1000_u32 {
            one.send(&sent).await.unwrap();
            assert!(is_sent(&mut one).await);
            let (_, at) = received(&mut two).await;
            let due = *first.get_or_insert(at) + occupancy * count;
            assert_eq!(at, due, "frame {count} at {bit_rate} bit/s");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_begins_at_the_end_of_the_request_with_any_timer() {
    let bus = bus();
    let (mut tester, mut ecu) = (bus.attach("tester"), bus.attach("ecu"));
    let (request, response) = (frame(0x7E0, &[1, 0x3E]), frame(0x7E8, &[1, 0x7E]));
    tester.send(&request).await.unwrap();
    let (_, asked) = received(&mut ecu).await;
    ecu.send(&response).await.unwrap();
    assert!(is_sent(&mut tester).await);
    let (_, answered) = received(&mut tester).await;
    let bits = settings(500_000, false);
    // the answer begins after the intermission of 3 bits
    assert_eq!(answered - asked, WireLength::of(&response).duration(&bits) + Duration::from_micros(6));
}

#[tokio::test(start_paused = true)]
async fn the_lowest_identifier_wins_the_bus() {
    let bus = bus();
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    let mut listener = bus.attach("listener");
    one.send(&frame(0x700, &[0])).await.unwrap();
    one.send(&frame(0x18DA_10F1, &[1])).await.unwrap();
    two.send(&frame(0x701, &[2])).await.unwrap();
    two.send(&frame(0x100, &[3])).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(received(&mut listener).await.0.data()[0]);
    }
    // 0x18DA10F1 has the base 0x636 and wins over 0x701; 0x100 waits behind 0x701 of the same node
    assert_eq!(order, [0, 1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn an_fd_frame_takes_as_long_as_its_two_bit_rates_require() {
    let config = VirtualBusConfig { data_bit_rate: Some(2_000_000), ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    let flags = FdFlags { bit_rate_switch: true, error_state: false };
    let sent = CanFrame::new_fd(CanId::standard(0x7E0).unwrap(), flags, &[0x55; 64]).unwrap();
    let start = TimerKind::Runtime.now();
    one.send(&sent).await.unwrap();
    let (got, at) = received(&mut two).await;
    assert_eq!(got, sent);
    assert!((325..345).contains(&(at - start).as_micros()), "{:?}", at - start);
}

#[tokio::test(start_paused = true)]
async fn a_node_alone_on_the_bus_turns_passive_and_keeps_trying() {
    let bus = bus();
    let mut lone = adapter(&bus, settings(500_000, false)).await;
    let mut silent = bus.attach_adapter("silent", VirtualBus::full_capabilities());
    silent.configure(settings(500_000, true)).await.unwrap();
    lone.send(&frame(0x7E0, &[1])).await.unwrap();
    assert_eq!(event_but_errors(&mut lone).await, CanEvent::State(BusState::Passive));
    assert!(timeout(Duration::from_secs(1), event_but_errors(&mut lone)).await.is_err());
    assert_eq!(lone.status().state, BusState::Passive);
    let attempts = bus.statistics().nodes[0].failed_attempts;
    assert!((100..500).contains(&attempts), "{attempts} attempts in a second");

    let mut ecu = bus.attach("ecu");
    assert_eq!(received(&mut ecu).await.0, frame(0x7E0, &[1]));
    assert_eq!(event_but_errors(&mut lone).await, CanEvent::State(BusState::Active));
    assert!(is_sent(&mut lone).await);
    assert_eq!(bus.statistics().disturbances, 0);
}

#[tokio::test(start_paused = true)]
async fn a_listener_at_another_bit_rate_hears_errors_and_disturbs_no_node() {
    let bus = bus();
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    let mut wrong = adapter(&bus, settings(250_000, true)).await;
    one.send(&frame(0x123, &[1])).await.unwrap();
    assert_eq!(received(&mut two).await.0, frame(0x123, &[1]));
    assert!(received(&mut wrong).await.0.is_error());
    assert!(is_quiet(&mut wrong).await);
    assert_eq!(bus.statistics().disturbances, 0);
    assert_eq!(wrong.status().state, BusState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_listener_at_the_right_bit_rate_hears_all_and_may_not_send() {
    let bus = VirtualBus::new(VirtualBusConfig { load: 0.3, ..VirtualBusConfig::default() });
    let mut listener = adapter(&bus, settings(500_000, true)).await;
    assert!(received(&mut listener).await.0.is_data());
    let refused = listener.send(&frame(0x7DF, &[1])).await;
    assert!(matches!(refused, Err(CanError::Unsupported { .. })), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn sending_at_the_wrong_bit_rate_in_traffic_destroys_frames_until_bus_off() {
    let bus = VirtualBus::new(VirtualBusConfig { load: 0.1, ..VirtualBusConfig::default() });
    let mut ecu = bus.attach("ecu");
    ecu.set_filters(&[CanFilter::exactly(CanId::standard(0x7DF).unwrap())]).unwrap();
    let mut wrong = adapter(&bus, settings(250_000, false)).await;
    wrong.send(&frame(0x7DF, &[1])).await.unwrap();
    assert_eq!(event_but_errors(&mut wrong).await, CanEvent::State(BusState::Passive));
    assert_eq!(event_but_errors(&mut wrong).await, CanEvent::State(BusState::Off));
    let (seen, _) = received(&mut ecu).await;
    assert!(matches!(seen.kind(), FrameKind::Error { .. }), "{seen}");
    let statistics = bus.statistics();
    assert_eq!((statistics.nodes[0].received, statistics.nodes[1].sent), (0, 0));
    assert_eq!(statistics.nodes[1].failed_attempts, 32);
    assert!(statistics.disturbances >= 32);

    // waiting frames are discarded; configured with the right bit rate, the node works
    wrong.configure(settings(500_000, false)).await.unwrap();
    wrong.set_filters(&[CanFilter::exactly(CanId::standard(0).unwrap())]).unwrap();
    wrong.send(&frame(0x7DF, &[2])).await.unwrap();
    while !is_sent(&mut wrong).await {}
    assert_eq!(bus.statistics().nodes[0].received, 1);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_disagree_about_the_bit_rate_silence_each_other() {
    let bus = bus();
    let ecu = bus.attach("ecu");
    let mut wrong = adapter(&bus, settings(250_000, false)).await;
    wrong.send(&frame(0x7DF, &[1])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((ecu.status().state, wrong.status().state), (BusState::Passive, BusState::Passive));
    let statistics = bus.statistics();
    assert_eq!(statistics.frames, 0);
    assert_eq!(statistics.disturbances, statistics.nodes[1].failed_attempts);
}

#[tokio::test(start_paused = true)]
async fn an_active_node_at_a_wrong_bit_rate_destroys_traffic_until_it_is_passive() {
    let bus = bus();
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    let wrong = adapter(&bus, settings(250_000, false)).await;
    one.send(&frame(0x123, &[1])).await.unwrap();
    let got = loop {
        if let CanEvent::Received { frame, .. } = event_but_errors(&mut two).await {
            break frame;
        }
    };
    assert_eq!(got, frame(0x123, &[1]));
    assert_eq!(wrong.status().state, BusState::Passive);
    let statistics = bus.statistics();
    assert!((8..20).contains(&statistics.disturbances), "{statistics:?}");
}

#[tokio::test(start_paused = true)]
async fn a_classic_node_destroys_fd_frames() {
    let config = VirtualBusConfig { data_bit_rate: Some(2_000_000), ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let mut one = bus.attach("one");
    let mut classic = adapter(&bus, settings(500_000, false)).await;
    let fd = CanFrame::new_fd(CanId::standard(1).unwrap(), FdFlags::default(), &[1]).unwrap();
    one.send(&fd).await.unwrap();
    assert!(received(&mut classic).await.0.is_error());
    assert!(bus.statistics().disturbances > 0);
}

#[tokio::test(start_paused = true)]
async fn background_traffic_causes_the_requested_load() {
    for load in [0.1_f32, 0.5, 0.9] {
        let bus = VirtualBus::new(VirtualBusConfig { load, ..VirtualBusConfig::default() });
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!((bus.load() - load).abs() < 0.03, "{} for {load}", bus.load());
        assert_eq!(bus.statistics().error_frames, 0);
        bus.set_load(0.0);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(bus.load(), 0.0);
    }
}

#[tokio::test(start_paused = true)]
async fn filters_pass_only_matching_frames_and_all_error_frames() {
    let bus = bus();
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    two.set_filters(&[CanFilter::exactly(CanId::standard(0x7E8).unwrap())]).unwrap();
    for id in [0x7E7, 0x7E8, 0x8000_07E8] {
        one.send(&frame(id, &[])).await.unwrap();
    }
    assert_eq!(received(&mut two).await.0, frame(0x7E8, &[]));
    assert!(is_quiet(&mut two).await);
    bus.destroy_frames(1);
    one.send(&frame(1, &[])).await.unwrap();
    assert!(received(&mut two).await.0.is_error());
}

#[tokio::test(start_paused = true)]
async fn a_forced_bus_off_drops_waiting_frames_and_ends_with_a_restart() {
    let bus = bus();
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    for _ in 0..4 {
        one.send(&frame(0x100, &[1])).await.unwrap();
    }
    bus.force_bus_off("one");
    assert_eq!(event(&mut one).await, CanEvent::State(BusState::Off));
    assert!(timeout(Duration::from_secs(1), one.send(&frame(0x100, &[2]))).await.is_err());
    one.restart().await.unwrap();
    assert_eq!(event(&mut one).await, CanEvent::State(BusState::Active));
    one.send(&frame(0x100, &[3])).await.unwrap();
    assert!(is_sent(&mut one).await);
    let mut got = Vec::new();
    while got.last() != Some(&3) {
        got.push(received(&mut two).await.0.data()[0]);
    }
    // the first frame was already on the wire
    assert_eq!(got, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn injected_faults_have_their_documented_effects() {
    let bus = bus();
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    bus.drop_frames(1, None);
    one.send(&frame(1, &[1])).await.unwrap();
    assert!(is_sent(&mut one).await);
    assert!(is_quiet(&mut two).await);

    one.send(&frame(1, &[2])).await.unwrap();
    bus.fail_transmissions("one", 1);
    one.send(&frame(1, &[3])).await.unwrap();
    one.send(&frame(1, &[4])).await.unwrap();
    assert!(is_sent(&mut one).await);
    assert!(matches!(event(&mut one).await, CanEvent::TransmitFailed { .. }));
    assert!(is_sent(&mut one).await);
    assert_eq!(received(&mut two).await.0.data(), [2]);
    assert_eq!(received(&mut two).await.0.data(), [4]);

    bus.unplug("one");
    let error = one.event().await.unwrap_err();
    assert!(error.is_fatal(), "{error}");
    assert!(one.send(&frame(1, &[])).await.is_err_and(|error| error.is_fatal()));
    assert_eq!(one.status().state, BusState::Off);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_refuses_unsupported_settings() {
    let bus = bus();
    let mut fixed = bus.attach_adapter("fixed", CanCapabilities::default());
    assert!(matches!(fixed.send(&frame(1, &[])).await, Err(CanError::Unsupported { .. })));
    fixed.configure(settings(500_000, false)).await.unwrap();
    for refused in [
        settings(250_000, false),
        settings(500_000, true),
        CanSettings { data_bit_rate: Some(2_000_000), ..settings(500_000, false) },
    ] {
        let result = fixed.configure(refused).await;
        assert!(matches!(result, Err(CanError::Unsupported { .. })), "{refused:?}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_loses_frames_and_receives_their_number() {
    let config = VirtualBusConfig { receive_queue: 10, ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let (mut one, mut two) = (bus.attach("one"), bus.attach("two"));
    for _ in 0..15 {
        one.send(&frame(1, &[])).await.unwrap();
        assert!(is_sent(&mut one).await);
    }
    for _ in 0..10 {
        received(&mut two).await;
    }
    assert_eq!(event(&mut two).await, CanEvent::Lost(5));
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_while_its_queue_is_full() {
    let config = VirtualBusConfig { transmit_queue: 3, ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let mut lone = adapter(&bus, settings(500_000, false)).await;
    for _ in 0..3 {
        lone.send(&frame(1, &[])).await.unwrap();
    }
    assert!(timeout(Duration::from_secs(1), lone.send(&frame(1, &[]))).await.is_err());
    let _ecu = bus.attach("ecu");
    timeout(Duration::from_secs(1), lone.send(&frame(1, &[]))).await.expect("room").unwrap();
}

#[tokio::test]
async fn in_real_time_an_exchange_takes_little_longer_than_its_bits() {
    let config = VirtualBusConfig { timer: TimerKind::Precise, ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let (mut tester, mut ecu) = (bus.attach("tester"), bus.attach("ecu"));
    let answering = tokio::spawn(async move {
        while let Ok(event) = ecu.event().await {
            if let CanEvent::Received { .. } = event {
                ecu.send(&frame(0x7E8, &[0; 8])).await.unwrap();
            }
        }
    });
    let mut best = Duration::MAX;
    for _ in 0..50 {
        let start = Instant::now();
        tester.send(&frame(0x7E0, &[0; 8])).await.unwrap();
        while !matches!(event(&mut tester).await, CanEvent::Received { .. }) {}
        best = best.min(start.elapsed());
    }
    answering.abort();
    // two frames of 0.25 ms; with the runtime's timers they would take at least 2 ms
    assert!(best > Duration::from_micros(450) && best < Duration::from_micros(1500), "{best:?}");
}
