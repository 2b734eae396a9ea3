//! Properties that hold with any configuration, any lost frames, and any frames from a bus.

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, FdFlags, fd_length};
use proptest::collection::vec;
use proptest::prelude::*;

use super::net::Net;
use super::transfers::{addressing_modes, frame_sizes};
use super::{id, pdu, tester};
use crate::protocol::isotp::{
    Config, Endpoint, Event, FrameSize, FunctionalConfig, FunctionalEndpoint, Padding, Responders,
    SendFailure, SeparationTime,
};

fn padding() -> impl Strategy<Value = Padding> {
    prop_oneof![
        any::<u8>().prop_map(Padding::Enabled),
        Just(Padding::Disabled),
        any::<u8>().prop_map(Padding::Detection)
    ]
}

fn separation_time() -> impl Strategy<Value = SeparationTime> {
    prop_oneof![Just(0), 0xF1..=0xF9_u8, 0..=10_u8, any::<u8>()].prop_map(SeparationTime)
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 1..=130_usize,
        1 => Just(4095),
        1 => Just(4096),
        2 => 1..6000_usize,
    ]
}

prop_compose! {
    /// The configuration of one side, without its addressing.
    fn side()(
        frame_size in proptest::sample::select(frame_sizes()),
        padding in padding(),
        block_size in prop_oneof![Just(0), Just(1), Just(8), any::<u8>()],
        st_min in separation_time(),
        window in 0..10_usize,
    ) -> (FrameSize, Padding, u8, SeparationTime, usize) {
        (frame_size, padding, block_size, st_min, window)
    }
}

prop_compose! {
    fn pair()(addressing in proptest::sample::select(addressing_modes()), a in side(), b in side())
        -> (Config, Config) {
        let config = |addressing, (frame_size, padding, block_size, st_min, window)| Config {
            frame_size, padding, block_size, st_min, window, ..Config::new(addressing)
        };
        (config(addressing.0, a), config(addressing.1, b))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_pdu_arrives_in_any_configuration_in_both_directions(
        (a, b) in pair(),
        there in length(),
        back in length(),
        frame_time in 1..1000_u64,
        confirm_delay in 0..3000_u64,
        receive_delay in 0..3000_u64,
    ) {
        let mut net = Net::pair(Endpoint::new(a), Endpoint::new(b));
        net.frame_time = Duration::from_micros(frame_time);
        net.confirm_delay = Duration::from_micros(confirm_delay);
        net.receive_delay = Duration::from_micros(receive_delay);
        net.send(0, &pdu(there)).unwrap();
        net.send(1, &pdu(back)).unwrap();
        net.run();
        prop_assert!(net.received(1) == [pdu(there)], "{:?}", net.outcomes(0));
        prop_assert!(net.received(0) == [pdu(back)], "{:?}", net.outcomes(1));
        for node in 0..2 {
            let all_sent = matches!(net.outcomes(node)[..], [Event::Sent { .. }]);
            prop_assert!(all_sent);
        }
    }

    #[test]
    fn lost_frames_cause_neither_a_wrong_pdu_nor_an_endless_wait(
        (a, b) in pair(),
        lengths in vec(1..400_usize, 1..5),
        lost in vec(prop::bool::weighted(0.05), 500),
    ) {
        let mut net = Net::pair(Endpoint::new(a), Endpoint::new(b));
        net.lose = Box::new(move |number, _| lost[number % lost.len()]);
        for (number, len) in lengths.iter().enumerate() {
            net.send(0, &pdu(*len)).unwrap();
            net.run();
            let ends = net.outcomes(0);
            prop_assert_eq!(ends.len(), number + 1);
        }
        let mut sent = lengths.iter().map(|len| pdu(*len));
        for received in net.received(1) {
            prop_assert!(sent.any(|pdu| pdu == received), "each PDU arrives whole, in order and once");
        }
    }
}

/// An action of a hostile peer, a bad bus, the clock or the caller.
#[derive(Debug, Clone)]
enum Step {
    Frame { id: u32, data: Vec<u8> },
    Confirm,
    Fail(SendFailure),
    Pass(u64),
    Transmit,
    Send(usize),
    Abort,
    ReadEvents,
}

fn step(id: impl Strategy<Value = u32>) -> impl Strategy<Value = Step> {
    let pci = prop_oneof![
        4 => (0x20..0x30_u8).boxed(),
        1 => (0x30..0x34_u8).boxed(),
        1 => (0x10..0x20_u8).boxed(),
        1 => any::<u8>().boxed(),
    ];
    let data = (pci, vec(any::<u8>(), 0..64)).prop_map(|(pci, mut data)| {
        data.insert(0, pci);
        data
    });
    prop_oneof![
        12 => (id, data).prop_map(|(id, data)| Step::Frame { id, data }),
        4 => Just(Step::Transmit),
        2 => Just(Step::Confirm),
        1 => prop_oneof![Just(SendFailure::BusOff), Just(SendFailure::NotAcknowledged)].prop_map(Step::Fail),
        1 => (0..1500_u64).prop_map(Step::Pass),
        1 => (0..200_usize).prop_map(Step::Send),
        1 => Just(Step::Abort),
        2 => Just(Step::ReadEvents),
    ]
}

fn can_frame(address: u32, data: &[u8]) -> CanFrame {
    if data.len() <= 8 {
        return CanFrame::new(id(address), data).unwrap();
    }
    let mut data = data.to_vec();
    data.resize(fd_length(data.len()).unwrap(), 0);
    CanFrame::new_fd(id(address), FdFlags::default(), &data).unwrap()
}

macro_rules! survive {
    ($endpoint:expr, $steps:expr, $receptions:expr, $events:expr) => {
        let mut endpoint = $endpoint;
        let mut now = Instant::now();
        for step in $steps {
            match step {
                Step::Frame { id, data } => {
                    endpoint.handle_frame(now, &can_frame(id, &data));
                }
                Step::Confirm => endpoint.handle_transmitted(now),
                Step::Fail(failure) => endpoint.handle_transmit_failed(now, failure),
                Step::Pass(ms) => {
                    now += Duration::from_millis(ms);
                    endpoint.handle_timeout(now);
                }
                Step::Transmit => while endpoint.poll_transmit(now).is_some() {},
                Step::Send(len) => drop(endpoint.send(now, &pdu(len))),
                Step::Abort => endpoint.abort_send(),
                Step::ReadEvents => while endpoint.poll_event().is_some() {},
            }
            let (in_flight, events) = endpoint.waiting();
            prop_assert!(in_flight <= 40, "{in_flight} frames without outcome");
            prop_assert!(events <= $events, "{events} events");
            prop_assert!(endpoint.memory() <= 8192 * $receptions, "{} bytes", endpoint.memory());
        }
        // without further input, the endpoint becomes idle
        for _ in 0..40 {
            now += Duration::from_secs(1);
            endpoint.handle_timeout(now);
            while endpoint.poll_transmit(now).is_some() {}
            while endpoint.poll_event().is_some() {}
        }
        prop_assert_eq!(endpoint.poll_timeout(), None);
        prop_assert_eq!(endpoint.memory(), 0);
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_frames_from_a_bus_break_an_endpoint(steps in vec(step(Just(0x7E8)), 0..200)) {
        survive!(Endpoint::new(tester()), steps, 1, 12);
    }

    #[test]
    fn no_frames_from_a_bus_break_a_functional_endpoint(
        steps in vec(step(0x18DA_F100..=0x18DA_F1FF_u32), 0..200),
    ) {
        let config = FunctionalConfig { max_receptions: 4, ..FunctionalConfig::new(id(0x18DB_33F1), Responders::Obd29) };
        survive!(FunctionalEndpoint::new(config), steps, 4, 40);
    }
}
