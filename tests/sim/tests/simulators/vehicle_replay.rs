//! A replay of both sides of the recorded flash session, on the virtual bus in virtual time.

use std::time::Duration;

use connector_agent::protocol::isotp::{Responder, Responders};
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::catalogue::EcuAddress;
use connector_sim::vehicle::ecu::Target;
use connector_sim::vehicle::recording::{Recording, ToolStep};
use connector_sim::vehicle::{Vehicle, candump};
use connector_test_support::can_tool::{Answer, Tool, bus};
use connector_test_support::data::FLASH_LOG;
use connector_test_support::id;
use tokio::time::{Instant, sleep_until};

/// The runtime's timers are up to 1 ms late, for which the bus compensates; a frame takes a quarter of 1 ms.
const EARLY: Duration = Duration::from_millis(1);
const LATE: Duration = Duration::from_millis(2);

fn check(step: &ToolStep, answers: &[Answer], asked: std::time::Instant) {
    let pdus: Vec<_> = answers.iter().map(|answer| &answer.pdu).collect();
    let recorded: Vec<_> = step.answers.iter().map(|answer| &answer.pdu).collect();
    assert_eq!(pdus, recorded, "to {:02X?}", step.pdu);
    for (answer, recorded) in answers.iter().zip(&step.answers) {
        assert_eq!(answer.address, recorded.response_id);
        let delay = answer.started - asked;
        assert!(
            delay + EARLY >= recorded.delay && delay <= recorded.delay + LATE,
            "{:02X?} came after {delay:?} instead of {:?}",
            answer.pdu,
            recorded.delay
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_recorded_flash_runs_again_with_its_own_timing() {
    let recording = Recording::new(candump::parse(FLASH_LOG).unwrap()).unwrap();
    let bus = bus();
    let vehicle = Vehicle::play(&recording, &bus, TimerKind::Runtime);
    let origin = Instant::now();
    let steps = |target| recording.tool_steps().iter().filter(move |step| step.target == target);

    let address = EcuAddress { request: id(0x710), response: id(0x71A), extended: None };
    let mut tool = Tool::physical(&bus, address);
    let physical = async {
        for step in steps(Target::Physical) {
            sleep_until(origin + step.start).await;
            let (answers, asked) = tool.ask(&step.pdu, Duration::from_secs(30)).await;
            check(step, &answers, asked.unwrap());
        }
    };
    let responders = Responders::List(vec![Responder::pair(id(0x71D), id(0x713))]);
    let mut all_ecus = Tool::functional(&bus, id(0x700), responders);
    let functional = async {
        for step in steps(Target::Functional) {
            sleep_until(origin + step.start).await;
            let asked = Instant::now().into_std();
            let answers = all_ecus.ask_functional(&step.pdu, Duration::from_millis(80)).await;
            check(step, &answers, asked);
        }
    };
    tokio::join!(physical, functional);

    let took = origin.elapsed();
    assert!((20_000..20_300).contains(&took.as_millis()), "{took:?}");
    assert_eq!(vehicle.anomalies(), []);
    for ecu in vehicle.ecus() {
        let script = ecu.status.borrow().script.unwrap();
        assert_eq!(script.played, script.total, "{}", ecu.address);
    }
    let flashed = vehicle.ecu_at(id(0x710)).unwrap().status.borrow().clone();
    assert_eq!((flashed.requests, flashed.pending_responses), (17 + 17, 5));
}
