//! SLCAN: the host and the simulated adapter connected in memory and over a pty, and the host with scripted
//! adapters.

use std::io;
use std::path::Path;
use std::time::Duration;

use connector_hal::bus::BusState;
use connector_hal::can::slcan::{Slcan, SlcanAdapter};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{
    CanBus, CanBusExt, CanError, CanEvent, CanFilter, CanFrame, CanId, CanSettings, FdFlags,
};
use connector_hal::timer::TimerKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;

use crate::support::frame;

const SETTINGS: CanSettings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
const FD: CanSettings = CanSettings { data_bit_rate: Some(2_000_000), ..SETTINGS };

async fn event<B: CanBus>(bus: &mut B) -> CanEvent {
    timeout(Duration::from_secs(60), bus.event()).await.expect("an event within a minute").unwrap()
}

async fn received<B: CanBus>(bus: &mut B) -> CanFrame {
    match event(bus).await {
        CanEvent::Received { frame, .. } => frame,
        event => panic!("{event:?}"),
    }
}

async fn is_sent<B: CanBus>(bus: &mut B) -> bool {
    matches!(event(bus).await, CanEvent::Transmitted { .. })
}

/// A host connected to an adapter on a bus, in virtual time.
fn connected(config: VirtualBusConfig) -> (VirtualBus, Slcan<DuplexStream>) {
    let bus = VirtualBus::new(config);
    let (near, far) = duplex(4096);
    let adapter_bus = bus.clone();
    tokio::spawn(async move { SlcanAdapter::serve(far, &adapter_bus, "adapter").await });
    (bus, Slcan::over("slcan:test", near))
}

fn classic() -> VirtualBusConfig {
    VirtualBusConfig::default()
}

#[tokio::test(start_paused = true)]
async fn frames_of_every_kind_pass_both_ways() {
    let (bus, mut host) = connected(VirtualBusConfig { data_bit_rate: Some(2_000_000), ..classic() });
    let mut ecu = bus.attach("ecu");
    host.configure(FD).await.unwrap();
    let id = CanId::extended(0x18DA_10F1).unwrap();
    let fast = FdFlags { bit_rate_switch: true, error_state: false };
    for sent in [
        frame(0x7E0, &[]),
        frame(0x18DA_10F1, &[1, 2, 3, 4, 5, 6, 7, 8]),
        CanFrame::new_remote(id, 5).unwrap(),
        CanFrame::new_fd(id, FdFlags::default(), &[9; 12]).unwrap(),
        CanFrame::new_fd(id, fast, &[0xA5; 64]).unwrap(),
    ] {
        host.send(&sent).await.unwrap();
        assert_eq!(received(&mut ecu).await, sent);
        assert!(is_sent(&mut host).await);
        ecu.send(&sent).await.unwrap();
        assert_eq!(received(&mut host).await, sent);
        assert!(is_sent(&mut ecu).await);
    }
    assert!(host.capabilities().confirms_transmission);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_means_that_the_frame_was_on_the_bus() {
    let (bus, mut host) = connected(classic());
    host.configure(SETTINGS).await.unwrap();
    host.send(&frame(0x7E0, &[1])).await.unwrap();
    // no node acknowledges
    let outcome = timeout(Duration::from_millis(500), async { while !is_sent(&mut host).await {} });
    assert!(outcome.await.is_err());
    assert_eq!(host.status().state, BusState::Passive);
    let _ecu = bus.attach("ecu");
    while !is_sent(&mut host).await {}
    assert_eq!(bus.statistics().frames, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_frame_is_reported_as_failed_in_its_place() {
    let (bus, mut host) = connected(classic());
    let _ecu = bus.attach("ecu");
    host.configure(SETTINGS).await.unwrap();
    bus.fail_transmissions("adapter", 1);
    host.send(&frame(1, &[])).await.unwrap();
    host.send(&frame(2, &[])).await.unwrap();
    assert!(matches!(event(&mut host).await, CanEvent::TransmitFailed { .. }));
    assert!(is_sent(&mut host).await);
}

#[tokio::test(start_paused = true)]
async fn bus_off_is_reported_and_ends_with_a_restart() {
    let (bus, mut host) = connected(classic());
    let mut ecu = bus.attach("ecu");
    host.configure(SETTINGS).await.unwrap();
    bus.force_bus_off("adapter");
    assert_eq!(event(&mut host).await, CanEvent::State(BusState::Off));
    assert!(timeout(Duration::from_secs(1), host.send(&frame(1, &[]))).await.is_err());
    host.restart().await.unwrap();
    assert_eq!(host.status().state, BusState::Active);
    host.send(&frame(2, &[])).await.unwrap();
    assert_eq!(received(&mut ecu).await, frame(2, &[]));
}

#[tokio::test(start_paused = true)]
async fn a_listener_hears_frames_at_the_right_bit_rate_and_errors_at_the_wrong_one() {
    for (bit_rate, right) in [(500_000, true), (250_000, false)] {
        let (bus, mut host) = connected(VirtualBusConfig { load: 0.2, ..classic() });
        host.configure(CanSettings { bit_rate, listen_only: true, ..SETTINGS }).await.unwrap();
        assert_eq!(received(&mut host).await.is_data(), right);
        assert!(matches!(host.send(&frame(1, &[])).await, Err(CanError::Unsupported { .. })));
        assert_eq!(bus.statistics().disturbances, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn bit_rates_without_a_number_are_set_by_their_timing() {
    for bit_rate in [94_000, 83_300, 33_300, 5_000] {
        let (bus, mut host) = connected(VirtualBusConfig { bit_rate, ..classic() });
        let mut ecu = bus.attach("ecu");
        host.configure(CanSettings { bit_rate, ..SETTINGS }).await.unwrap();
        host.send(&frame(0x7E0, &[1])).await.unwrap();
        assert_eq!(received(&mut ecu).await, frame(0x7E0, &[1]), "{bit_rate}");
        assert!(is_sent(&mut host).await);
        assert_eq!(bus.statistics().disturbances, 0);
    }
}

/// The bit rates of an adapter that supports only the numbers.
const BY_NUMBER: &str = "10000, 20000, 50000, 83300, 100000, 125000, 250000, 500000, 800000, 1000000";

#[tokio::test(start_paused = true)]
async fn an_adapter_without_timing_commands_refuses_unnumbered_bit_rates() {
    // an adapter that refuses, one that ignores the command, and one that never answers, so that the host
    // does not know its timing
    let refuses = vec![CLOSE, ("V\r", "V1013\r"), ("s442C\r", "\x07")];
    let ignores = vec![CLOSE, ("V\r", "V1013\r"), ("s442C\r", "")];
    let silent = vec![("\r\rC\rV\r", "V1013\r")];
    for script in [refuses, ignores, silent] {
        let (mut device, near) = duplex(64);
        let mut host = Slcan::over("slcan:test", near);
        let settings = CanSettings { bit_rate: 94_000, ..SETTINGS };
        let (configured, ()) = tokio::join!(host.configure(settings), scripted(&mut device, &script));
        assert_eq!(
            configured.unwrap_err().to_string(),
            format!("CAN device slcan:test cannot set 94000 bit/s; SLCAN supports {BY_NUMBER}")
        );
        drop(host);
        assert_eq!(device.read(&mut [0; 1]).await.unwrap(), 0, "the host sends nothing more");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bit_rate_unknown_to_slcan_is_refused_by_name_and_nothing_is_sent() {
    let (mut device, near) = duplex(64);
    let mut host = Slcan::over("slcan:test", near);
    let refused = host.configure(CanSettings { bit_rate: 123_000, ..SETTINGS }).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("CAN device slcan:test cannot set 123000 bit/s; SLCAN supports {BY_NUMBER}")
    );
    let refused = host.configure(CanSettings { data_bit_rate: Some(7), ..SETTINGS }).await.unwrap_err();
    assert_eq!(refused.to_string(), "CAN device slcan:test cannot set 7 bit/s for the data phase");
    drop(host);
    assert_eq!(device.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_bus_load_is_right_through_an_adapter() {
    let (bus, mut host) = connected(classic());
    let _ecu = bus.attach("ecu");
    host.configure(SETTINGS).await.unwrap();
    let start = TimerKind::Runtime.now();
    let sent = frame(0x7E0, &[0x21, 2, 3, 4, 5, 6, 7, 8]);
    let (mut given, mut confirmed) = (0_u32, 0_u32);
    while confirmed < 4000 {
        if given < 4000 && given - confirmed < 8 {
            host.send(&sent).await.unwrap();
            given += 1;
        } else {
            confirmed += u32::from(is_sent(&mut host).await);
        }
    }
    let took = TimerKind::Runtime.now() - start;
    // 4000 frames of 121 bits and their intermission
    assert!(took > Duration::from_millis(900) && took < Duration::from_millis(1000), "{took:?}");
    assert!(host.status().load.0 > 0.9, "{:?}", host.status());
}

#[tokio::test(start_paused = true)]
async fn filters_apply_immediately_and_survive_a_new_configuration() {
    let (bus, mut host) = connected(classic());
    let mut ecu = bus.attach("ecu");
    host.set_filters(&[CanFilter::exactly(CanId::standard(0x7E8).unwrap())]).unwrap();
    host.configure(SETTINGS).await.unwrap();
    ecu.send(&frame(0x7E9, &[])).await.unwrap();
    ecu.send(&frame(0x7E8, &[])).await.unwrap();
    assert_eq!(received(&mut host).await, frame(0x7E8, &[]));
    host.set_filters(&[]).unwrap();
    ecu.send(&frame(0x7E9, &[])).await.unwrap();
    assert_eq!(received(&mut host).await, frame(0x7E9, &[]));
}

/// Reads the commands of the script and sends the answer to each.
async fn scripted(device: &mut DuplexStream, script: &[(&str, &str)]) {
    for (command, answer) in script {
        let mut got = Vec::new();
        while !got.ends_with(command.as_bytes()) {
            got.push(timeout(Duration::from_secs(10), device.read_u8()).await.expect(command).unwrap());
        }
        device.write_all(answer.as_bytes()).await.unwrap();
    }
}

const CLOSE: (&str, &str) = ("\r\rC\r", "\r\r\x07");
const SET_UP: [(&str, &str); 5] =
    [CLOSE, ("V\r", "V1013\r"), ("S6\r", "\r"), ("O\r", "\r"), ("F\r", "F00\r")];

async fn set_up(script: &[(&str, &str)]) -> (DuplexStream, Slcan<DuplexStream>) {
    let (mut device, near) = duplex(4096);
    let mut host = Slcan::over("slcan:test", near);
    let (configured, ()) = tokio::join!(host.configure(SETTINGS), scripted(&mut device, script));
    configured.unwrap();
    (device, host)
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_answers_frames_with_a_bare_cr_confirms_no_transmission() {
    let (mut device, mut host) = set_up(&SET_UP).await;
    host.send(&frame(0x7E0, &[1, 2])).await.unwrap();
    scripted(&mut device, &[("t7E020102\r", "\r")]).await;
    assert!(is_sent(&mut host).await);
    assert!(!host.capabilities().confirms_transmission);
    host.send(&frame(0x7E0, &[3])).await.unwrap();
    scripted(&mut device, &[("t7E0103\r", "\x07")]).await;
    assert!(matches!(event(&mut host).await, CanEvent::TransmitFailed { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_answers_only_the_version_command_is_used() {
    for version in [
        "b158aa7 github.com/example/firmware.git\r",
        "+Board: Multiboard\tMCU: STM32G431\tDevID: 1128\tFirmware: 2429224\tSlcan: 100\tClock: 160\r",
        "Adapter \u{B5}CAN \u{A9} 2024\r",
        "\tindented\r",
        "v1.2\r",
        "firmware 2.5\r\nhardware\tB\r\n",
    ] {
        let (mut device, near) = duplex(4096);
        let mut host = Slcan::over("slcan:test", near);
        let script = [("C\rV\r", version), ("S6\r", ""), ("O\r", "")];
        let (configured, ()) = tokio::join!(host.configure(SETTINGS), scripted(&mut device, &script[..1]));
        configured.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        host.send(&frame(0x7E0, &[1])).await.unwrap();
        assert!(is_sent(&mut host).await);
        scripted(&mut device, &script[1..]).await;
        scripted(&mut device, &[("t7E0101\r", "t7E8102\r")]).await;
        assert_eq!(received(&mut host).await, frame(0x7E8, &[2]));
        assert!(!host.capabilities().confirms_transmission);
    }
}

#[tokio::test(start_paused = true)]
async fn fragments_of_traffic_are_not_a_version() {
    for line in
        ["101AB\r", "7E8101\r", "z\r", "sb000255\r", "e1c\r", "\u{1}\u{2}\u{3}\u{4}\u{5}\r", "\t\t\t\t\r"]
    {
        let (mut device, near) = duplex(4096);
        let mut host = Slcan::over("slcan:test", near);
        let script = [("V\r", line); 5];
        let (configured, ()) = tokio::join!(host.configure(SETTINGS), scripted(&mut device, &script));
        assert!(configured.is_err(), "{line:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_starting_adapter_or_one_full_of_old_traffic_is_set_up() {
    // the adapter misses the first calls; then it sends the traffic of an earlier configuration
    let script = [
        ("V\r", ""),
        ("V\r", ""),
        ("V\r", "t7E0101\rz\rt7E01"),
        ("V\r", "\r\r\r\x07V1013\r\x07V1013\r"),
        SET_UP[2],
        SET_UP[3],
        SET_UP[4],
    ];
    let (_device, host) = set_up(&script).await;
    assert_eq!(host.status().state, BusState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_never_answers_is_not_an_adapter() {
    let (_device, near) = duplex(4096);
    let error = Slcan::over("slcan:test", near).configure(SETTINGS).await.unwrap_err();
    assert!(matches!(error, CanError::Protocol { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_setting_that_an_adapter_refuses() {
    for (settings, script, expected) in [
        (
            SETTINGS,
            vec![("S6\r", "\x07")],
            "set 500000 bit/s; SLCAN supports 10000, 20000, 50000, 83300, 100000, 125000, 250000, 800000, 1000000",
        ),
        (FD, vec![("S6\r", "\r"), ("Y2\r", "\x07")], "set 2000000 bit/s for the data phase"),
        (CanSettings { listen_only: true, ..SETTINGS }, vec![("S6\r", "\r"), ("L\r", "\x07")], "listen only"),
    ] {
        let (mut device, near) = duplex(4096);
        let mut host = Slcan::over("slcan:test", near);
        let whole = [&SET_UP[..2], &script].concat();
        let (configured, ()) = tokio::join!(host.configure(settings), scripted(&mut device, &whole));
        assert_eq!(configured.unwrap_err().to_string(), format!("CAN device slcan:test cannot {expected}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_without_an_answer_counts_as_unsupported() {
    for (settings, script, expected) in [
        (FD, vec![("S6\r", "\r"), ("Y2\r", "")], "set 2000000 bit/s for the data phase"),
        (CanSettings { listen_only: true, ..SETTINGS }, vec![("S6\r", "\r"), ("L\r", "")], "listen only"),
    ] {
        let (mut device, near) = duplex(4096);
        let mut host = Slcan::over("slcan:test", near);
        let whole = [&SET_UP[..2], &script].concat();
        let (configured, ()) = tokio::join!(host.configure(settings), scripted(&mut device, &whole));
        assert_eq!(configured.unwrap_err().to_string(), format!("CAN device slcan:test cannot {expected}"));
    }
}

#[tokio::test(start_paused = true)]
async fn status_flags_are_not_requested_again_from_an_adapter_without_them() {
    let without = [&SET_UP[..4], &[("F\r", "")]].concat();
    let (mut device, mut host) = set_up(&without).await;
    let (configured, ()) = tokio::join!(host.configure(SETTINGS), scripted(&mut device, &SET_UP[..4]));
    configured.unwrap();
    host.send(&frame(0x7E0, &[1])).await.unwrap();
    let mut next = [0; 8];
    timeout(Duration::from_secs(10), device.read_exact(&mut next)).await.unwrap().unwrap();
    assert_eq!(next, *b"t7E0101\r");
}

#[tokio::test(start_paused = true)]
async fn at_most_sixteen_frames_await_their_answers() {
    let (mut device, mut host) = set_up(&SET_UP).await;
    for _ in 0..16 {
        host.send(&frame(1, &[])).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(500), host.send(&frame(2, &[]))).await.is_err());
    device.write_all(b"z\r").await.unwrap();
    // `send` processes the answer although no event is read
    timeout(Duration::from_millis(100), host.send(&frame(3, &[]))).await.expect("room").unwrap();
    assert!(is_sent(&mut host).await);
}

/// An adapter that loses the answer to one frame. It answers all others with `answer`, and requests for the
/// status flags with `flags`; an ECU responds to every frame if `responds`.
async fn losing(
    mut device: DuplexStream,
    lost: usize,
    answer: &'static str,
    flags: &'static str,
    responds: bool,
) {
    let (mut line, mut frames) = (Vec::new(), 0);
    while let Ok(byte) = device.read_u8().await {
        if byte != b'\r' {
            line.push(byte);
            continue;
        }
        let mut out = String::new();
        match line.first() {
            Some(b't') => {
                frames += 1;
                out += if frames == lost { "" } else { answer };
                out += if responds { "t7E8101\r" } else { "" };
            }
            Some(b'F') => out += flags,
            _ => {}
        }
        device.write_all(out.as_bytes()).await.unwrap();
        line.clear();
    }
}

/// How long it takes until the next outcome, in ms, and whether the frame was sent.
async fn outcome(host: &mut Slcan<DuplexStream>) -> (u128, bool) {
    let start = TimerKind::Runtime.now();
    loop {
        let event = event(host).await;
        let took = (TimerKind::Runtime.now() - start).as_millis();
        match event {
            CanEvent::Transmitted { .. } => return (took, true),
            CanEvent::TransmitFailed { .. } => return (took, false),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_frame_delays_this_frames_outcome_and_no_later_one() {
    let without_status = [&SET_UP[..4], &[("F\r", "")]].concat();
    for (script, answer, wait) in [
        (&SET_UP[..], "z\r", 200),
        (&SET_UP, "\r", 200),
        (&without_status, "z\r", 200),
        (&without_status, "\r", 500),
    ] {
        let (device, mut host) = set_up(script).await;
        tokio::spawn(losing(device, 2, answer, "F00\r", true));
        let mut took = Vec::new();
        for count in 0..5 {
            host.send(&frame(0x7E0, &[count])).await.unwrap();
            took.push(outcome(&mut host).await);
        }
        assert_eq!(took, [(0, true), (wait, true), (0, true), (0, true), (0, true)], "{script:?} {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_on_a_silent_bus_leaves_the_next_frame_its_own() {
    let (device, mut host) = set_up(&SET_UP).await;
    tokio::spawn(losing(device, 1, "z\r", "F00\r", false));
    host.send(&frame(0x7E0, &[1])).await.unwrap();
    // nothing shows that any node acknowledged the frame
    assert!(timeout(Duration::from_secs(1), outcome(&mut host)).await.is_err());
    host.send(&frame(0x7E0, &[2])).await.unwrap();
    assert_eq!([outcome(&mut host).await, outcome(&mut host).await], [(0, true), (0, true)]);
    host.send(&frame(0x7E0, &[3])).await.unwrap();
    assert_eq!(outcome(&mut host).await, (0, true));
}

#[tokio::test(start_paused = true)]
async fn a_frame_stays_without_outcome_while_the_adapter_sees_errors() {
    let (device, mut host) = set_up(&SET_UP).await;
    tokio::spawn(losing(device, 1, "z\r", "FA4\r", true));
    host.send(&frame(0x7E0, &[1])).await.unwrap();
    assert!(timeout(Duration::from_secs(2), outcome(&mut host)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_the_status_request_does_not_end_the_adapter() {
    let (mut device, mut host) = set_up(&SET_UP).await;
    let answers = tokio::spawn(async move {
        let script = [("F\r", "F00\r"), ("F\r", ""), ("F\r", "F20\r"), ("F\r", "\x07"), ("F\r", "F00\r")];
        scripted(&mut device, &script).await;
        device
    });
    assert_eq!(event(&mut host).await, CanEvent::State(BusState::Passive));
    assert_eq!(event(&mut host).await, CanEvent::State(BusState::Active));
    // an adapter that has restarted refuses everything
    let mut device = answers.await.unwrap();
    tokio::spawn(async move { scripted(&mut device, &[("F\r", "\x07"); 10]).await });
    let error = timeout(Duration::from_secs(10), host.event()).await.expect("in time").unwrap_err();
    assert!(error.is_fatal(), "{error}");
}

#[tokio::test(start_paused = true)]
async fn line_noise_is_skipped_and_endless_garbage_is_an_error() {
    let (mut device, mut host) = set_up(&SET_UP).await;
    device.write_all(b"t7E8zz\r\xFF\xFE\rt7E8101\r").await.unwrap();
    device.write_all(&[b'x'; 1000]).await.unwrap();
    device.write_all(b"\rt7E8102\r").await.unwrap();
    assert_eq!(received(&mut host).await, frame(0x7E8, &[1]));
    assert_eq!(received(&mut host).await, frame(0x7E8, &[2]));
    device.write_all(&b"\xFE\xDC\r".repeat(20)).await.unwrap();
    let error = host.event().await.unwrap_err();
    assert!(error.is_fatal() && error.to_string().contains("baud rate"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn status_flags_report_passive_and_lost_frames_once_a_second() {
    let (mut device, mut host) = set_up(&SET_UP).await;
    let polled = tokio::spawn(async move {
        scripted(&mut device, &[("F\r", "F20\r"), ("F\r", "F01\r"), ("F\r", "")]).await;
        device
    });
    let start = TimerKind::Runtime.now();
    assert_eq!(event(&mut host).await, CanEvent::State(BusState::Passive));
    assert_eq!(event(&mut host).await, CanEvent::Lost(1));
    assert_eq!(event(&mut host).await, CanEvent::State(BusState::Active));
    assert_eq!((TimerKind::Runtime.now() - start).as_secs(), 2);
    // an adapter that stops answering is an error
    let error = timeout(Duration::from_secs(10), host.event()).await.expect("in time").unwrap_err();
    assert!(error.is_fatal(), "{error}");
    drop(polled);
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_is_a_fatal_error_after_its_last_frames() {
    let (mut device, mut host) = set_up(&SET_UP).await;
    device.write_all(b"t7E8101\r").await.unwrap();
    drop(device);
    assert_eq!(received(&mut host).await, frame(0x7E8, &[1]));
    let error = host.event().await.unwrap_err();
    assert!(matches!(error, CanError::Device { .. }), "{error}");
    assert!(host.send(&frame(1, &[])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_bus_closes_the_adapters_channel() {
    let (mut device, host) = set_up(&SET_UP).await;
    drop(host);
    let mut rest = String::new();
    device.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "\rC\r");
}

#[tokio::test(start_paused = true)]
async fn a_set_up_that_nobody_waits_for_any_more_closes_the_adapters_channel() {
    // given up while the adapter joins the bus, while it tells its flags, and while it leaves the bus to join again
    for (answered, again) in [(&SET_UP[..3], false), (&SET_UP[..4], false), (&SET_UP[..], true)] {
        let (mut device, near) = duplex(4096);
        let mut host = Slcan::over("slcan:test", near);
        let patience = Duration::from_millis(100);
        let given_up = async {
            if again {
                host.configure(SETTINGS).await.unwrap();
            }
            assert!(timeout(patience, host.configure(SETTINGS)).await.is_err());
        };
        tokio::join!(given_up, scripted(&mut device, answered));
        drop(host);
        let mut rest = String::new();
        device.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("\rC\r"), "{rest:?}");
    }
}

/// A bus in real time with an answering ECU, and an adapter with a symbolic link at `link`.
fn vehicle(link: &Path) -> (VirtualBus, SlcanAdapter) {
    let config = VirtualBusConfig { timer: TimerKind::Precise, ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(config);
    let mut ecu = bus.attach("ecu");
    tokio::spawn(async move {
        while let Ok(event) = ecu.event().await {
            if let CanEvent::Received { frame: request, .. } = event
                && request.is_data()
            {
                ecu.send(&frame(request.id().raw() + 8, request.data())).await.unwrap();
            }
        }
    });
    let adapter = SlcanAdapter::new(Some(link), &bus, "adapter").unwrap();
    (bus, adapter)
}

async fn ask(host: &mut Slcan, data: &[u8]) -> CanFrame {
    host.send(&frame(0x7E0, data)).await.unwrap();
    loop {
        if let CanEvent::Received { frame, .. } = event(host).await {
            return frame;
        }
    }
}

#[tokio::test]
async fn a_host_opens_and_closes_the_pty_any_number_of_times() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("can");
    let (bus, adapter) = vehicle(&link);
    for round in 0..5 {
        let mut host = Slcan::open("slcan:test", link.to_str().unwrap(), 115_200).unwrap();
        host.configure(SETTINGS).await.unwrap();
        for count in 0..10 {
            assert_eq!(ask(&mut host, &[round, count]).await, frame(0x7E8, &[round, count]));
        }
    }
    assert_eq!(bus.statistics().disturbances, 0);
    drop(adapter);
    assert!(link.symlink_metadata().is_err());
}

#[tokio::test]
async fn a_host_sees_the_adapter_disappear() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("can");
    let (_bus, adapter) = vehicle(&link);
    let mut host = Slcan::open("slcan:test", link.to_str().unwrap(), 115_200).unwrap();
    host.configure(SETTINGS).await.unwrap();
    drop(adapter);
    let error = host.event().await.unwrap_err();
    assert!(matches!(error, CanError::Device { .. }), "{error}");
    let error = Slcan::open("slcan:test", link.to_str().unwrap(), 115_200).err().expect("gone");
    assert!(matches!(error, CanError::Device { .. }), "{error}");
}

#[tokio::test]
async fn a_host_that_closes_the_pty_takes_the_adapter_off_the_bus() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("can");
    let (bus, _adapter) = vehicle(&link);
    let mut lone = bus.attach("lone");
    let mut raw = std::fs::OpenOptions::new().read(true).write(true).open(&link).unwrap();
    io::Write::write_all(&mut raw, b"S6\rO\r").unwrap();
    let mut answer = [0; 2];
    let reading =
        tokio::task::spawn_blocking(move || io::Read::read_exact(&mut raw, &mut answer).map(|()| answer));
    assert_eq!(reading.await.unwrap().unwrap(), *b"\r\r");
    // `raw` is closed: the next host finds the channel closed and can set another bit rate
    let mut raw = std::fs::OpenOptions::new().read(true).write(true).open(&link).unwrap();
    io::Write::write_all(&mut raw, b"S5\r").unwrap();
    let mut answer = [0; 1];
    let reading =
        tokio::task::spawn_blocking(move || io::Read::read_exact(&mut raw, &mut answer).map(|()| answer));
    assert_eq!(reading.await.unwrap().unwrap(), *b"\r");
    lone.send(&frame(1, &[])).await.unwrap();
    assert!(is_sent(&mut lone).await);
}

/// Makes TCGETS2 fail in this thread, as in QEMU's user-mode emulation, which does not implement it. Without
/// it, a serial speed cannot be set.
#[allow(unsafe_code, reason = "no library wraps seccomp")]
fn lose_serial_speeds() {
    /// The offset of the low half of the second argument in `struct seccomp_data`: the request of an ioctl.
    const REQUEST: u32 = if cfg!(target_endian = "little") { 24 } else { 28 };
    let load = |offset| (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset);
    // the number of instructions to skip if the loaded value differs
    let unless = |value, skipped| (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, skipped, value);
    let end = |action| (libc::BPF_RET | libc::BPF_K, 0, action);
    let mut program: Vec<libc::sock_filter> = [
        load(0),
        unless(libc::SYS_ioctl as u32, 3),
        load(REQUEST),
        unless(libc::TCGETS2 as u32, 1),
        end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        end(libc::SECCOMP_RET_ALLOW),
    ]
    .into_iter()
    .map(|(code, jf, k)| libc::sock_filter { code: code as u16, jt: 0, jf, k })
    .collect();
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    rustix::thread::set_no_new_privs(true).unwrap();
    // SAFETY: the program outlives the call, which copies it.
    let set =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}

#[test]
fn an_adapter_whose_serial_speed_cannot_be_set_is_opened_as_it_is() {
    // the filter of system calls stays with its thread
    let outcome = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let directory = tempfile::tempdir().unwrap();
            let link = directory.path().join("can");
            let (_bus, _adapter) = vehicle(&link);
            lose_serial_speeds();
            let mut host = Slcan::open("slcan:test", link.to_str().unwrap(), 115_200).unwrap();
            host.configure(SETTINGS).await.unwrap();
            assert_eq!(ask(&mut host, &[1, 2]).await, frame(0x7E8, &[1, 2]));

            let file = directory.path().join("file");
            std::fs::write(&file, "not a serial device").unwrap();
            let refused = Slcan::open("slcan:test", file.to_str().unwrap(), 115_200).err().unwrap();
            assert!(matches!(refused, CanError::Device { .. }), "{refused}");
        });
    });
    outcome.join().unwrap();
}

#[tokio::test]
async fn a_link_replaces_a_link_and_never_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let bus = VirtualBus::new(VirtualBusConfig::default());
    let link = directory.path().join("can");
    std::os::unix::fs::symlink("/dev/nowhere", &link).unwrap();
    let first = SlcanAdapter::new(Some(&link), &bus, "first").unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap(), first.device());
    let second = SlcanAdapter::new(Some(&link), &bus, "second").unwrap();
    drop(first);
    assert_eq!(std::fs::read_link(&link).unwrap(), second.device());

    let file = directory.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    let error = SlcanAdapter::new(Some(&file), &bus, "third").err().expect("refused");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}
