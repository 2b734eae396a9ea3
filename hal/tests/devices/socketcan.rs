//! SocketCAN on a real kernel. Each test needs interfaces that an environment variable names, and some need
//! root; without them the test is skipped.
//!
//! | variable | interfaces |
//! |---|---|
//! | `CONNECTOR_TEST_VCAN` | a vcan interface, up, FD |
//! | `CONNECTOR_TEST_CAN_PAIR` | two controllers on one bus, `can0,can1` |
//! | `CONNECTOR_TEST_SLOW_CAN` | an interface with a slow and short transmit queue (`tbf`), and its peer |
//! | `CONNECTOR_TEST_FIXED_CAN` | a controller set to 500 kbit/s that the user may not change |
//! | `CONNECTOR_TEST_SLCAN_KERNEL` | any value: the kernel has the slcan driver |

use std::io::{Read, Write};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{
    CanBus, CanBusExt, CanError, CanEvent, CanFilter, CanFrame, CanId, CanSettings, FdFlags, open,
    open_in_turn,
};
use tokio::time::timeout;

use crate::support::{environment, frame, skip};

const SETTINGS: CanSettings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };

fn pair(name: &str) -> Option<(String, String)> {
    environment(name)
        .map(|both| both.split_once(',').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a,b"))
}

type Bus = Box<dyn CanBus>;

async fn event(bus: &mut Bus) -> CanEvent {
    timeout(Duration::from_secs(10), bus.event()).await.expect("an event in time").unwrap()
}

async fn received(bus: &mut Bus) -> CanFrame {
    match event(bus).await {
        CanEvent::Received { frame, .. } => frame,
        event => panic!("{event:?}"),
    }
}

async fn is_sent(bus: &mut Bus) -> bool {
    matches!(event(bus).await, CanEvent::Transmitted { .. })
}

async fn is_quiet(bus: &mut Bus) -> bool {
    timeout(Duration::from_millis(50), bus.event()).await.is_err()
}

#[tokio::test]
async fn frames_of_every_kind_pass_with_their_outcome_in_order() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (mut one, mut two) = (open(&vcan).unwrap(), open(&format!("socketcan:{vcan}")).unwrap());
    one.configure(CanSettings { data_bit_rate: Some(2_000_000), ..SETTINGS }).await.unwrap();
    let id = CanId::extended(0x18DA_10F1).unwrap();
    let fast = FdFlags { bit_rate_switch: true, error_state: false };
    let all = [
        frame(0x7E0, &[]),
        frame(0x18DA_10F1, &[1, 2, 3, 4, 5, 6, 7, 8]),
        CanFrame::new_remote(id, 5).unwrap(),
        CanFrame::new_fd(id, FdFlags::default(), &[9; 12]).unwrap(),
        CanFrame::new_fd(id, fast, &[0xA5; 64]).unwrap(),
    ];
    let start = Instant::now();
    for sent in &all {
        one.send(sent).await.unwrap();
    }
    for sent in all {
        let CanEvent::Received { frame, at } = event(&mut two).await else { panic!() };
        assert_eq!(frame, sent);
        assert!(at + Duration::from_millis(5) >= start && at <= Instant::now(), "{:?}", start.elapsed());
        assert!(is_sent(&mut one).await);
    }
    assert!(one.capabilities().confirms_transmission && one.capabilities().fd);
    assert!(one.status().load.0 > 0.0);
}

#[tokio::test]
async fn every_outcome_arrives_despite_the_kernels_filters() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (mut one, mut two) = (open(&vcan).unwrap(), open(&vcan).unwrap());
    one.set_filters(&[CanFilter::exactly(CanId::standard(0x7E8).unwrap())]).unwrap();
    // more identifiers than get a filter in the kernel
    for id in 0x100..0x180 {
        one.send(&frame(id, &[])).await.unwrap();
        assert!(is_sent(&mut one).await, "0x{id:X}");
    }
    one.send(&CanFrame::new_remote(CanId::standard(0x7DF).unwrap(), 1).unwrap()).await.unwrap();
    assert!(is_sent(&mut one).await);
    for id in [0x7E7, 0x7E8, 0x8000_07E8, 0x100] {
        two.send(&frame(id, &[])).await.unwrap();
    }
    assert_eq!(received(&mut one).await, frame(0x7E8, &[]));
    assert!(is_quiet(&mut one).await);
    one.set_filters(&[]).unwrap();
    two.send(&frame(0x18DA_F110, &[1])).await.unwrap();
    assert_eq!(received(&mut one).await, frame(0x18DA_F110, &[1]));
}

#[tokio::test]
async fn the_frames_of_the_longest_classic_pdu_fit_an_unread_socket() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (mut one, mut two) = (open(&vcan).unwrap(), open(&vcan).unwrap());
    // 4095 bytes: a first frame with 6 bytes, then 7 bytes in each frame
    const FRAMES: usize = 1 + (4095_usize - 6).div_ceil(7);
    for _ in 0..FRAMES {
        one.send(&frame(0x7E8, &[0; 8])).await.unwrap();
        assert!(is_sent(&mut one).await);
    }
    for _ in 0..FRAMES {
        assert_eq!(received(&mut two).await, frame(0x7E8, &[0; 8]));
    }
}

#[tokio::test]
async fn frames_that_an_unread_socket_loses_are_counted() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (mut one, mut two) = (open(&vcan).unwrap(), open(&vcan).unwrap());
    const SENT: u32 = 8_000;
    for count in 0..SENT {
        one.send(&frame(0x123, &count.to_be_bytes())).await.unwrap();
        while !is_sent(&mut one).await {}
    }
    let (mut got, mut lost) = (0, 0);
    // the first frame after the loss carries the count
    one.send(&frame(0x124, &[])).await.unwrap();
    while !is_quiet_after(&mut two, &mut got, &mut lost).await {
        one.send(&frame(0x124, &[])).await.unwrap();
    }
    assert!(lost > 0 && got > 0);
}

/// Counts received and lost frames until a frame 0x124 arrives.
async fn is_quiet_after(bus: &mut Bus, got: &mut u32, lost: &mut u32) -> bool {
    while let Ok(event) = timeout(Duration::from_millis(200), bus.event()).await {
        match event.unwrap() {
            CanEvent::Received { frame, .. } if frame.id().raw() == 0x124 => return true,
            CanEvent::Received { .. } => *got += 1,
            CanEvent::Lost(count) => *lost += count,
            event => panic!("{event:?}"),
        }
    }
    false
}

#[tokio::test]
async fn an_interface_without_bit_timing_takes_any_bit_rate_and_cannot_listen_only() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let mut bus = open(&vcan).unwrap();
    for bit_rate in [500_000, 250_000, 94_000] {
        bus.configure(CanSettings { bit_rate, ..SETTINGS }).await.unwrap();
    }
    assert!(!bus.capabilities().listen_only && !bus.capabilities().set_bit_rate);
    let refused = bus.configure(CanSettings { listen_only: true, ..SETTINGS }).await;
    assert!(matches!(refused, Err(CanError::Unsupported { .. })), "{refused:?}");
    bus.restart().await.unwrap();
}

#[tokio::test]
async fn an_interface_that_goes_down_or_away_is_a_fatal_error() {
    if environment("CONNECTOR_TEST_VCAN").is_none() {
        return;
    }
    let Ok(interface) = socketcan::CanInterface::create_vcan("goesdown", None) else {
        skip("only root may create a network interface");
        return;
    };
    interface.bring_up().unwrap();
    let mut bus = open("goesdown").unwrap();
    bus.send(&frame(1, &[])).await.unwrap();
    interface.bring_down().unwrap();
    // earlier events come first
    assert!(is_sent(&mut bus).await);
    for _ in 0..2 {
        let error = timeout(Duration::from_secs(5), bus.event()).await.expect("in time").unwrap_err();
        assert!(matches!(error, CanError::Device { .. }), "{error}");
    }
    assert!(bus.send(&frame(1, &[])).await.is_err_and(|error| error.is_fatal()));
    // configuring brings the interface up again
    let mut bus = open("goesdown").unwrap();
    bus.configure(SETTINGS).await.unwrap();
    bus.send(&frame(1, &[])).await.unwrap();
    assert!(is_sent(&mut bus).await);
    interface.delete().unwrap();
    let error = timeout(Duration::from_secs(5), bus.event()).await.expect("in time").unwrap_err();
    assert!(error.is_fatal(), "{error}");
    assert!(matches!(open("goesdown"), Err(CanError::Device { .. })));
}

#[tokio::test]
async fn a_sender_waits_for_a_full_transmit_queue() {
    let Some((slow, other)) = pair("CONNECTOR_TEST_SLOW_CAN") else { return };
    let (mut one, mut two) = (open(&slow).unwrap(), open(&other).unwrap());
    let start = Instant::now();
    for count in 0..200_u8 {
        timeout(Duration::from_secs(20), one.send(&frame(0x123, &[count; 8]))).await.expect("room").unwrap();
    }
    assert!(start.elapsed() > Duration::from_millis(100), "the queue was not slow: {:?}", start.elapsed());
    // a timer on one processor and the sender on another both empty the queue, which may change the order
    let mut arrived = Vec::new();
    while arrived.len() < 200 {
        arrived.push(received(&mut two).await.data()[0]);
    }
    arrived.sort_unstable();
    assert!(arrived.into_iter().eq(0..200));
    assert!(is_quiet(&mut two).await);
}

#[tokio::test]
async fn controllers_are_set_up_by_netlink() {
    let Some((first, second)) = pair("CONNECTOR_TEST_CAN_PAIR") else { return };
    let (mut one, mut two) = (open(&first).unwrap(), open(&second).unwrap());
    assert!(one.capabilities().set_bit_rate && one.capabilities().listen_only && !one.capabilities().fd);
    let interface = socketcan::CanInterface::open(&first).unwrap();
    for bit_rate in [250_000, 500_000] {
        one.configure(CanSettings { bit_rate, ..SETTINGS }).await.unwrap();
        assert_eq!(interface.bit_rate().unwrap(), Some(bit_rate));
    }
    two.configure(SETTINGS).await.unwrap();
    one.send(&frame(0x7DF, &[2, 9, 2])).await.unwrap();
    assert!(is_sent(&mut one).await);
    assert_eq!(received(&mut two).await, frame(0x7DF, &[2, 9, 2]));

    // settings already in effect: the interface stays up, and its other users see no interruption
    let mut other = open(&second).unwrap();
    two.configure(SETTINGS).await.unwrap();
    assert!(is_quiet(&mut other).await);

    two.configure(CanSettings { listen_only: true, ..SETTINGS }).await.unwrap();
    assert!(matches!(two.send(&frame(1, &[])).await, Err(CanError::Unsupported { .. })));
    one.send(&frame(0x123, &[1])).await.unwrap();
    assert_eq!(received(&mut two).await, frame(0x123, &[1]));

    let refused = one.configure(CanSettings { bit_rate: 7, ..SETTINGS }).await.unwrap_err();
    assert!(refused.to_string().contains("cannot set 7 bit/s"), "{refused}");
    let fd = CanSettings { data_bit_rate: Some(2_000_000), ..SETTINGS };
    assert!(matches!(one.configure(fd).await, Err(CanError::Unsupported { .. })));
    // after the refusal the interface is as before
    one.configure(SETTINGS).await.unwrap();
    assert_eq!(interface.bit_rate().unwrap(), Some(500_000));

    one.restart().await.unwrap();
    assert_eq!(interface.bit_rate().unwrap(), Some(500_000));
    two.configure(SETTINGS).await.unwrap();
    one.send(&frame(0x7E0, &[1])).await.unwrap();
    assert!(is_sent(&mut one).await);
    assert_eq!(received(&mut two).await, frame(0x7E0, &[1]));
}

#[tokio::test]
async fn leaving_discards_unacknowledged_frames_and_listens_only() {
    let Some((first, second)) = pair("CONNECTOR_TEST_CAN_PAIR") else { return };
    // no other node is on the bus
    socketcan::CanInterface::open(&second).unwrap().bring_down().unwrap();
    let mut one = open(&first).unwrap();
    one.configure(SETTINGS).await.unwrap();
    for count in 0..3 {
        one.send(&frame(0x123, &[count])).await.unwrap();
    }
    let leaving = one.leave(Duration::from_millis(50));
    // the next user waits, although nobody has polled `leaving` yet
    let next = tokio::spawn({
        let first = first.clone();
        async move { open_in_turn(&first).await.unwrap() }
    });
    leaving.await;
    let mut two = open(&second).unwrap();
    two.configure(SETTINGS).await.unwrap();
    assert!(is_quiet(&mut two).await, "a stale frame was sent");
    assert!(listens_only(&first));

    let mut next = next.await.unwrap();
    next.configure(SETTINGS).await.unwrap();
    assert!(!listens_only(&first));
    next.send(&frame(0x124, &[])).await.unwrap();
    assert!(is_sent(&mut next).await);
    assert_eq!(received(&mut two).await, frame(0x124, &[]));
    // frames that are acknowledged in time are not discarded
    next.send(&frame(0x125, &[])).await.unwrap();
    next.leave(Duration::from_secs(5)).await;
    assert_eq!(received(&mut two).await, frame(0x125, &[]));
    // for the tests after this one
    open_in_turn(&first).await.unwrap().configure(SETTINGS).await.unwrap();
}

fn listens_only(interface: &str) -> bool {
    let details = socketcan::CanInterface::open(interface).unwrap().details().unwrap();
    details.can.ctrl_mode.is_some_and(|modes| modes.has_mode(socketcan::CanCtrlMode::ListenOnly))
}

#[tokio::test]
async fn a_cancelled_configuration_does_not_replace_the_next_one() {
    let Some((first, _)) = pair("CONNECTOR_TEST_CAN_PAIR") else { return };
    let mut one = open(&first).unwrap();
    let mut two = open(&first).unwrap();
    for _ in 0..10 {
        let other = CanSettings { bit_rate: 250_000, listen_only: true, ..SETTINGS };
        {
            let mut cancelled = one.configure(other);
            let _ = cancelled.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        two.configure(SETTINGS).await.unwrap();
        // any action that was requested earlier has ended
        drop(open_in_turn(&first).await.unwrap());
        assert_eq!(socketcan::CanInterface::open(&first).unwrap().bit_rate().unwrap(), Some(500_000));
        assert!(!listens_only(&first));
    }
}

#[tokio::test]
async fn without_privilege_an_interface_is_used_as_the_system_set_it_up() {
    let Some(fixed) = environment("CONNECTOR_TEST_FIXED_CAN") else { return };
    let mut bus = open(&fixed).unwrap();
    assert!(!bus.capabilities().set_bit_rate);
    bus.configure(SETTINGS).await.unwrap();
    for other in
        [CanSettings { bit_rate: 250_000, ..SETTINGS }, CanSettings { listen_only: true, ..SETTINGS }]
    {
        let refused = bus.configure(other).await.unwrap_err();
        assert!(matches!(refused, CanError::Unsupported { .. }), "{refused}");
        assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
    }
    // the interface works as before
    bus.restart().await.unwrap();
    bus.send(&frame(0x123, &[1])).await.unwrap();
    assert!(is_sent(&mut bus).await);
}

/// Creates a network interface on a pty with the kernel's slcan driver.
#[allow(unsafe_code, reason = "no library wraps TIOCSETD")]
fn slcan_interface() -> (std::fs::File, std::fs::File, String) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use std::os::fd::AsRawFd;
    let n_slcan: libc::c_int = 17;
    let names = || -> std::collections::BTreeSet<String> {
        let entries = std::fs::read_dir("/sys/class/net").unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let before = names();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let slave = std::fs::File::options().read(true).write(true).open(path.to_str().unwrap()).unwrap();
    let mut attributes = rustix::termios::tcgetattr(&slave).unwrap();
    attributes.make_raw();
    rustix::termios::tcsetattr(&slave, rustix::termios::OptionalActions::Now, &attributes).unwrap();
    // SAFETY: the descriptor is open, and TIOCSETD reads one int.
    let set = unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSETD, &raw const n_slcan) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    let name = names().difference(&before).next().expect("a new interface").clone();
    (master.into(), slave, name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bus_off_passive_and_errors_are_reported_and_end_with_a_restart() {
    if environment("CONNECTOR_TEST_SLCAN_KERNEL").is_none() {
        return;
    }
    let (mut master, _slave, name) = slcan_interface();
    let mut adapter = master.try_clone().unwrap();
    // the driver writes commands that must be read
    let written = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let copy = std::sync::Arc::clone(&written);
    std::thread::spawn(move || {
        let mut bytes = [0; 256];
        while let Ok(read @ 1..) = adapter.read(&mut bytes) {
            copy.lock().unwrap().extend_from_slice(&bytes[..read]);
        }
    });
    let mut bus = open(&name).unwrap();
    bus.configure(SETTINGS).await.unwrap();
    master.write_all(b"t7E8101\re1c\rsp128000\r").unwrap();
    assert_eq!(received(&mut bus).await, frame(0x7E8, &[1]));
    assert!(received(&mut bus).await.is_error());
    assert!(received(&mut bus).await.is_error());
    assert_eq!(event(&mut bus).await, CanEvent::State(BusState::Passive));
    bus.send(&frame(0x123, &[7])).await.unwrap();
    while !is_sent(&mut bus).await {}
    master.write_all(b"sb000255\r").unwrap();
    while event(&mut bus).await != CanEvent::State(BusState::Off) {}
    assert_eq!(bus.status().state, BusState::Off);
    assert!(timeout(Duration::from_millis(200), bus.send(&frame(1, &[]))).await.is_err());
    bus.restart().await.unwrap();
    assert_eq!(bus.status().state, BusState::Active);
    bus.send(&frame(0x124, &[8])).await.unwrap();
    while !is_sent(&mut bus).await {}
    let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(text.contains("S6\r") && text.contains("O\r") && text.contains("t123107\r"), "{text:?}");
}
