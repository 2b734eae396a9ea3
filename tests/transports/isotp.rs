//! ISO-TP on the virtual bus, whose frames take as long as on a real bus.

use std::time::Duration;

use connector_agent::protocol::isotp::{Addressing, Config, Endpoint, Event, FrameSize, SeparationTime};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig, VirtualCan};
use connector_hal::can::{CanBusExt, CanEvent, CanId};
use connector_hal::timer::{Deadline, TimerKind};

const CLOCK: TimerKind = TimerKind::Runtime;

/// Runs an endpoint until it has received or sent a PDU; returns its last event.
async fn drive(bus: &mut VirtualCan, endpoint: &mut Endpoint) -> Event {
    let mut deadline = Deadline::new(CLOCK);
    loop {
        while let Some(frame) = endpoint.poll_transmit(CLOCK.now()) {
            bus.send(&frame).await.unwrap();
        }
        match endpoint.poll_event() {
            Some(Event::ReceptionStarted { .. }) => continue,
            Some(event) => return event,
            None => deadline.set(endpoint.poll_timeout().map(|(at, _)| at)),
        }
        tokio::select! {
            event = bus.event() => match event.unwrap() {
                CanEvent::Received { frame, .. } => assert!(endpoint.handle_frame(CLOCK.now(), &frame)),
                CanEvent::Transmitted { .. } => endpoint.handle_transmitted(CLOCK.now()),
                event => panic!("{event:?}"),
            },
            () = deadline.expired() => endpoint.handle_timeout(CLOCK.now()),
        }
    }
}

/// The time of a transfer of 4095 bytes, from the call to the acknowledgement of the last frame.
async fn time_of_4095_bytes(frame_size: FrameSize, st_min: SeparationTime) -> Duration {
    let config =
        VirtualBusConfig { data_bit_rate: Some(2_000_000), timer: CLOCK, ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let (mut here, mut there) = (bus.attach("here"), bus.attach("there"));
    let (a, b) = (CanId::standard(0x7E0).unwrap(), CanId::standard(0x7E8).unwrap());
    let config = |addressing| Config { frame_size, st_min, ..Config::new(addressing) };
    let mut sender = Endpoint::new(config(Addressing::normal(a, b)));
    let mut receiver = Endpoint::new(config(Addressing::normal(b, a)));
    let pdu: Vec<u8> = (0..4095_u32).map(|i| (i * 7 + i / 256) as u8).collect();
    sender.send(CLOCK.now(), &pdu).unwrap();
    let (sent, received) = tokio::join!(drive(&mut here, &mut sender), drive(&mut there, &mut receiver));
    assert_eq!(received, Event::Received { address: a, pdu });
    match sent {
        Event::Sent { elapsed } => elapsed,
        event => panic!("{event:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_transfer_takes_no_longer_than_its_frames_on_the_bus() {
    let classic = time_of_4095_bytes(FrameSize::Classic, SeparationTime(0)).await;
    assert!((130..=139).contains(&classic.as_millis()), "{classic:?} for 587 classic frames at 500 kbit/s");
    let fd = time_of_4095_bytes(FrameSize::fd(64, true).unwrap(), SeparationTime(0)).await;
    assert!((21..=24).contains(&fd.as_millis()), "{fd:?} for 67 FD frames at 500 kbit/s and 2 Mbit/s");
}

#[tokio::test(start_paused = true)]
async fn a_separation_time_is_kept_between_all_consecutive_frames() {
    let paced = time_of_4095_bytes(FrameSize::Classic, SeparationTime(5)).await;
    let least = Duration::from_millis(584 * 5) + Duration::from_millis(130);
    assert!(paced >= least, "{paced:?} is shorter than {least:?}");
}
