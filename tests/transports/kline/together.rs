//! Several ECUs on one line, which receive requests at arbitrary times.

use std::time::Duration;

use connector_agent::protocol::kline::{Addressing, Config, Event, Failure, Initialisation};
use connector_sim::vehicle::kline::KlineEcuConfig;
use proptest::prelude::*;

use super::rig::{MS, Rig};

const ADDRESSES: [u8; 2] = [0x11, 0x28];
/// ReadDataByLocalIdentifier, and StartRoutineByLocalIdentifier, which takes longer.
const READ: u8 = 0x21;
const ERASE: u8 = 0x31;

#[derive(Debug, Clone)]
struct Node {
    initialisation: Initialisation,
    p1: Duration,
    p2: Duration,
}

/// The properties of the line.
#[derive(Debug, Clone)]
struct Conditions {
    /// The time for which the tester's interface holds a byte.
    latency: Duration,
    /// The tolerance of the ECUs for wrong times.
    tolerance: Duration,
}

fn micros(range: std::ops::RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_micros)
}

fn node() -> impl Strategy<Value = Node> {
    let initialisation = prop_oneof![Just(Initialisation::Fast), Just(Initialisation::Slow)];
    (initialisation, micros(0..=20_000), micros(25_000..=50_000)).prop_map(|(initialisation, p1, p2)| Node {
        initialisation,
        p1,
        p2,
    })
}

/// An interface without latency and strict ECUs; an interface with a buffer; and ECUs behind a
/// pseudo-terminal, as `connector-sim vehicle` has them.
fn conditions() -> impl Strategy<Value = Conditions> {
    prop_oneof![
        Just(Conditions { latency: Duration::ZERO, tolerance: Duration::ZERO }),
        micros(0..=16_000).prop_map(|latency| Conditions { latency, tolerance: Duration::ZERO }),
        micros(0..=16_000).prop_map(|latency| Conditions { latency, tolerance: 500 * MS }),
    ]
}

/// Pauses, each with the ECU and the service of the request after it.
fn requests(services: &'static [u8]) -> impl Strategy<Value = Vec<(Duration, usize, u8)>> {
    let pause = prop_oneof![3 => micros(0..=200_000), 2 => micros(0..=6_000_000)];
    prop::collection::vec((pause, 0..ADDRESSES.len(), prop::sample::select(services)), 1..20)
}

/// Sends one request after the other, as channels do; returns the rig, and the requests that each ECU
/// received.
fn ask(
    nodes: &[Node; 2],
    conditions: &Conditions,
    requests: &[(Duration, usize, u8)],
) -> (Rig, [Vec<Vec<u8>>; 2]) {
    let nodes = || ADDRESSES.into_iter().zip(nodes);
    let configs =
        nodes().map(|(address, node)| Config::new(Addressing::of(address), node.initialisation, 10_400));
    let ecu = |(address, node): (u8, &Node)| KlineEcuConfig {
        functions: Vec::new(),
        p1: node.p1,
        p2: node.p2,
        tolerance: conditions.tolerance,
        erase_time: Duration::from_secs(7),
        ..KlineEcuConfig::new(address)
    };
    let mut rig = Rig::new(configs.collect(), nodes().map(ecu).collect());
    rig.latency = conditions.latency;
    rig.endpoints.iter_mut().for_each(|endpoint| endpoint.connect());
    let mut asked: [Vec<Vec<u8>>; 2] = Default::default();
    for (number, (pause, endpoint, service)) in (0u8..).zip(requests) {
        rig.run(*pause);
        rig.run_until_free(*endpoint);
        rig.endpoints[*endpoint].send(&[*service, number]).unwrap();
        asked[*endpoint].push(vec![*service, number]);
    }
    rig.run(Duration::from_secs(60));
    (rig, asked)
}

/// The requests that an ECU's answers belong to.
fn answered(rig: &Rig, endpoint: usize) -> Vec<Vec<u8>> {
    let answer = |event: &(usize, Event)| match event {
        (of, Event::Received { pdu, source }) if *of == endpoint && pdu[0] != 0x7F => {
            assert_eq!(*source, ADDRESSES[endpoint]);
            Some(vec![pdu[0] - 0x40, pdu[1]])
        }
        _ => None,
    };
    rig.events.iter().filter_map(answer).collect()
}

fn is_wrong(event: &Event) -> bool {
    let is_right = matches!(
        event,
        Event::Up(_)
            | Event::Sent { .. }
            | Event::ReceptionStarted
            | Event::Received { .. }
            | Event::AnswersOver
    );
    !is_right
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_on_a_shared_line(
        nodes in prop::array::uniform2(node()),
        conditions in conditions(),
        requests in requests(&[READ]),
    ) {
        let (rig, asked) = ask(&nodes, &conditions, &requests);
        for (endpoint, asked) in asked.iter().enumerate() {
            prop_assert_eq!(&answered(&rig, endpoint), asked, "ECU {}: {:?}", endpoint, rig.events);
        }
        prop_assert!(!rig.has(is_wrong), "{:?}", rig.events);
        prop_assert_eq!(rig.anomalies(), []);
    }

    #[test]
    fn a_link_that_a_busy_line_kept_from_keep_alive_is_reported_and_restored(
        nodes in prop::array::uniform2(node()),
        conditions in conditions(),
        requests in requests(&[READ, READ, ERASE]),
    ) {
        let (rig, asked) = ask(&nodes, &conditions, &requests);
        for (endpoint, asked) in asked.iter().enumerate() {
            prop_assert_eq!(&answered(&rig, endpoint), asked, "ECU {}: {:?}", endpoint, rig.events);
            let count = |wanted: fn(&Event) -> bool| {
                rig.events.iter().filter(|(of, event)| *of == endpoint && wanted(event)).count()
            };
            let down = count(|event| *event == Event::Down(Failure::NotKeptAlive));
            prop_assert_eq!(count(|event| matches!(event, Event::Up(_))), 1 + down, "{:?}", rig.events);
        }
        let is_wrong = |event: &Event| is_wrong(event) && *event != Event::Down(Failure::NotKeptAlive);
        prop_assert!(!rig.has(is_wrong), "{:?}", rig.events);
        prop_assert_eq!(rig.anomalies(), []);
    }
}
