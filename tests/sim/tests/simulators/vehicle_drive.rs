//! A vehicle that drives: the speed on the bus and in answers, by script and by command.

use std::time::Duration;

use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBusExt, CanEvent, CanFrame};
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::catalogue::EcuAddress;
use connector_sim::vehicle::drive::{DriveCommand, DriveScript};
use connector_sim::vehicle::{Drive, Vehicle, VehicleConfig, hex};
use connector_test_support::can_tool::{Tool, bus};
use connector_test_support::data::golf;
use connector_test_support::id;

const PATIENCE: Duration = Duration::from_millis(200);

fn engine() -> EcuAddress {
    EcuAddress { request: id(0x7E0), response: id(0x7E8), extended: None }
}

async fn ask(bus: &VirtualBus, request: &str) -> String {
    let mut tool = Tool::physical(bus, engine());
    let (answers, _) = tool.ask(&hex::parse(request).unwrap(), PATIENCE).await;
    answers.last().map(|answer| hex::format(&answer.pdu)).unwrap_or_default()
}

/// The frames with this identifier within a time.
async fn broadcasts(bus: &VirtualBus, number: u32, time: Duration) -> Vec<CanFrame> {
    let mut listener = bus.attach("listener");
    let mut frames = Vec::new();
    let end = tokio::time::Instant::now() + time;
    while let Ok(event) = tokio::time::timeout_at(end, listener.event()).await {
        if let CanEvent::Received { frame, .. } = event.unwrap()
            && frame.id() == id(number)
        {
            frames.push(frame);
        }
    }
    frames
}

#[tokio::test(start_paused = true)]
async fn the_speed_of_a_vehicle_is_broadcast_and_in_the_answers_of_its_ecus() {
    let bus = bus();
    let config = VehicleConfig { speed_signal: Some("0x3E9:8:16:0.01".parse().unwrap()), ..golf() };
    let _vehicle = Vehicle::start(&config, &bus);
    assert_eq!(ask(&bus, "010D").await, "410D00");
    assert_eq!(ask(&bus, "010C").await, "410C0000");

    config.drive.set_speed(50.0);
    assert_eq!(ask(&bus, "010D").await, "410D32");
    assert_eq!(ask(&bus, "22F40D").await, "62F40D32");
    assert_eq!(ask(&bus, "010C").await, "410C23F0", "2300 revolutions per minute");
    let frames = broadcasts(&bus, 0x3E9, Duration::from_secs(1)).await;
    assert!((45..=51).contains(&frames.len()), "{}", frames.len());
    assert_eq!(frames[0].data(), [0x00, 0x13, 0x88, 0, 0, 0, 0, 0]);

    // it brakes: the engine stays on
    config.drive.set_speed(0.0);
    assert_eq!((ask(&bus, "010D").await, ask(&bus, "010C").await), ("410D00".into(), "410C0C80".into()));
}

#[tokio::test(start_paused = true)]
async fn a_vehicle_that_loses_its_brake_controller_reports_no_speed() {
    let bus = bus();
    let config = VehicleConfig { speed_signal: Some("0x3E9:8:16:0.01".parse().unwrap()), ..golf() };
    let _vehicle = Vehicle::start(&config, &bus);
    config.drive.set_speed(80.0);
    config.drive.set_abs(false);
    assert_eq!(ask(&bus, "010D").await, "7F0131");
    assert_eq!(ask(&bus, "22F40D").await, "7F2231");
    // a frame that was on its way arrives
    assert!(broadcasts(&bus, 0x3E9, Duration::from_secs(1)).await.len() <= 1);
    config.drive.set_abs(true);
    assert_eq!(ask(&bus, "010D").await, "410D50");
}

#[tokio::test(start_paused = true)]
async fn a_script_changes_the_speed_evenly_between_its_steps() {
    let drive = Drive::default();
    let script: DriveScript = "0s 0, 5s 50, 6s lost, 10s 50, 20s 0".parse().unwrap();
    let driver = drive.clone();
    let start = tokio::time::Instant::now();
    let following = tokio::spawn(async move { driver.follow(&script, TimerKind::Runtime).await });
    for (ms, kmh) in
        [(50, Some(0.0)), (2050, Some(20.0)), (5550, Some(50.0)), (7000, None), (15_050, Some(25.0))]
    {
        tokio::time::sleep_until(start + Duration::from_millis(ms)).await;
        let speed = drive.speed();
        let is_near = speed.zip(kmh).is_none_or(|(is, wanted): (f32, f32)| (is - wanted).abs() < 2.0);
        assert!(is_near && speed.is_some() == kmh.is_some(), "{ms} ms: {speed:?}");
    }
    following.await.unwrap();
    assert_eq!(drive.speed(), Some(0.0));

    for wrong in ["", "0s", "0 0", "5s 50, 5s 0", "0s fast", "0s -1", "0s 301"] {
        assert!(wrong.parse::<DriveScript>().is_err(), "{wrong:?}");
    }
}

#[test]
fn commands_change_drive_and_voltage_and_unknown_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let voltage = directory.path().join("voltage");
    let drive = Drive::default();
    let give = |text: &str| {
        text.parse::<DriveCommand>().and_then(|command| command.carry_out(&drive, Some(&voltage)))
    };
    give("speed 30").unwrap();
    assert_eq!((drive.speed(), drive.is_engine_on()), (Some(30.0), true));
    give("brake").unwrap();
    give("engine off").unwrap();
    assert_eq!((drive.speed(), drive.is_engine_on()), (Some(0.0), false));
    give("abs lost").unwrap();
    assert_eq!(drive.speed(), None);
    give("volts 11.4").unwrap();
    assert_eq!(std::fs::read_to_string(&voltage).unwrap(), "11400\n");
    for wrong in ["", "speed", "speed fast", "speed 400", "abs", "volts -1", "fly"] {
        assert!(give(wrong).is_err(), "{wrong:?}");
    }
    assert!(DriveCommand::Volts(12.0).carry_out(&drive, None).unwrap_err().contains("--voltage-file"));
}
