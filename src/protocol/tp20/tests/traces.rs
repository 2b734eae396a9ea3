//! Replays of exchanges that were recorded on vehicles. The channel receives the recorded frames of the ECU,
//! and must send the recorded frames of the tester.

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::tp20::{Channel, ChannelConfig, CloseReason, Event, Parameters, TimeByte};

/// A 2.0 TFSI's engine ECU and its tester (<http://nefariousmotorsports.com/forum/index.php?topic=9182.0>),
/// in milliseconds; `>` is the tester. The `R` lines are the requests of the tester's application.
const ENGINE: &str = "
    19 > 200 01 C0 00 10 00 03 01
    21 < 201 00 D0 00 03 40 07 01
    24 > 740 A0 0F 8A FF 32 FF
    31 < 300 A1 0F 8A FF 4A FF
    33 R 10 89
    34 > 740 10 00 02 10 89
    37 < 300 B1
    44 < 300 10 00 02 50 89
    46 > 740 B1
    246 R 1A 9B
    246 > 740 11 00 02 1A 9B
    248 < 300 B2
    254 < 300 21 00 30 5A 9B 31 4B 30
    261 < 300 22 39 30 37 31 31 35 4C
    267 < 300 23 20 20 30 30 33 30 10
    272 < 300 24 00 00 00 00 06 46 22
    278 < 300 25 04 F5 32 2E 30 6C 20
    284 < 300 26 52 34 2F 34 56 20 54
    290 < 300 27 46 53 49 20 20 20 20
    296 < 300 18 20
    301 > 740 B9
    501 R 31 B8 00 00
    501 > 740 12 00 04 31 B8 00 00
    503 < 300 B3
    513 < 300 29 00 12 71 B8 01 01 01
    519 < 300 2A 03 01 02 01 06 01 07
    525 < 300 1B 01 08 01 0D 01 18
    527 > 740 BC
    729 R 21 02
    729 > 740 13 00 02 21 02
    731 < 300 B4
    738 < 300 2C 00 1A 61 02 01 C8 00
    744 < 300 2D 21 85 85 16 FF 00 19
    749 < 300 2E 00 00 25 00 00 25 04
    756 < 300 1F 1D 25 02 7A 25 00 00
    758 > 740 B0
    958 R 21 71
    958 > 740 14 00 02 21 71
    960 < 300 B5
    966 < 300 20 00 1A 61 71 01 C8 00
    972 < 300 21 21 85 85 21 FF 13 12
    978 < 300 22 7D CA 25 00 00 25 00
    985 < 300 13 00 25 00 00 25 00 00
    987 > 740 B4
    1487 > 740 A3
    1488 < 300 A1 0F 8A FF 4A FF
";

/// The steering of a Golf and the requests of a dongle (<https://icanhack.nl/blog/vw-part1/>).
const STEERING: &str = "
    339 > 200 09 C0 00 10 00 03 01
    342 < 209 00 D0 00 03 A8 07 01
    343 > 7A8 A0 0F 8A FF 0A FF
    352 < 300 A1 0F 8A FF 4A FF
    407 R 10 89
    407 > 7A8 10 00 02 10 89
    412 < 300 B1
    422 < 300 10 00 02 50 89
    423 > 7A8 B1
    500 R 10 89
    500 > 7A8 11 00 02 10 89
    505 < 300 B2
    515 < 300 11 00 02 50 89
    516 > 7A8 B2
    643 R 1A 9B
    643 > 7A8 12 00 02 1A 9B
    652 < 300 B3
    662 < 300 22 00 30 5A 9B 31 4B 30
    672 < 300 23 39 30 39 31 34 34 45
    682 < 300 24 20 20 31 35 30 31 10
    692 < 300 25 00 00 00 00 00 00 00
    702 < 300 26 00 00 45 50 53 5F 5A
    712 < 300 27 46 4C 53 20 4B 6C 2E
    722 < 300 28 20 30 37 32 20 20 20
    732 < 300 19 20
    733 > 7A8 BA
";

/// The ECU disconnects, the tester answers, and no more frames follow. An ECU did so after wrong
/// acknowledgements (<http://nefariousmotorsports.com/forum/index.php?topic=9182.0>).
const DROPPED: &str = "
    0 > 200 01 C0 00 10 00 03 01
    2 < 201 00 D0 00 03 40 07 01
    3 > 740 A0 0F 8A FF 32 FF
    9 < 300 A1 0F 8A FF 4A FF
    20 < 300 A8
    20 > 740 A8
";

fn bytes(text: &[&str]) -> Vec<u8> {
    text.iter().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// Replays a trace; returns the events, without the opening and the sent PDUs.
fn replay(trace: &str, config: ChannelConfig) -> Vec<Event> {
    let start = Instant::now();
    let mut channel = Channel::new(config);
    channel.open();
    let mut events = Vec::new();
    let mut sent = 0;
    let mut asked = 0;
    for line in trace.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let now = start + Duration::from_millis(fields[0].parse().unwrap());
        while let Some((at, _)) = channel.poll_timeout().filter(|(at, _)| *at <= now) {
            channel.handle_timeout(at.max(start));
        }
        match fields[1] {
            "R" => {
                asked += 1;
                channel.send(now, &bytes(&fields[2..])).unwrap();
            }
            ">" => {
                let expected = CanFrame::new(
                    CanId::standard(u32::from_str_radix(fields[2], 16).unwrap()).unwrap(),
                    &bytes(&fields[3..]),
                )
                .unwrap();
                assert_eq!(channel.poll_transmit(now), Some(expected), "at {line}");
                channel.handle_transmitted(now);
            }
            "<" => {
                assert_eq!(channel.poll_transmit(now), None, "before {line}");
                let id = CanId::standard(u32::from_str_radix(fields[2], 16).unwrap()).unwrap();
                let frame = CanFrame::new(id, &bytes(&fields[3..])).unwrap();
                assert!(channel.handle_frame(now, &frame), "{line}");
            }
            other => panic!("{other}"),
        }
        while let Some(event) = channel.poll_event() {
            match event {
                Event::Sent { .. } => sent += 1,
                Event::Opened | Event::ReceptionStarted => {}
                event => events.push(event),
            }
        }
    }
    assert_eq!(sent, asked);
    events
}

fn received(text: &[&str]) -> Event {
    let digits: Vec<String> = text.join(" ").split_whitespace().map(str::to_owned).collect();
    let digits: Vec<&str> = digits.iter().map(String::as_str).collect();
    Event::Received { pdu: bytes(&digits) }
}

#[test]
fn the_channel_sends_the_frames_of_the_recorded_tester() {
    let config = ChannelConfig::new(1.try_into().unwrap(), 0);
    let expected = [
        received(&["50 89"]),
        received(&[
            "5A 9B 31 4B 30 39 30 37 31 31 35 4C 20 20 30 30 33 30 10 00 00 00 00 06 46 22 04 F5",
            "32 2E 30 6C 20 52 34 2F 34 56 20 54 46 53 49 20 20 20 20 20",
        ]),
        received(&["71 B8 01 01 01 03 01 02 01 06 01 07 01 08 01 0D 01 18"]),
        received(&["61 02 01 C8 00 21 85 85 16 FF 00 19 00 00 25 00 00 25 04 1D 25 02 7A 25 00 00"]),
        received(&["61 71 01 C8 00 21 85 85 21 FF 13 12 7D CA 25 00 00 25 00 00 25 00 00 25 00 00"]),
    ];
    assert_eq!(replay(ENGINE, config), expected);
}

#[test]
fn a_channel_uses_the_identifier_that_the_ecu_chose() {
    let config = ChannelConfig {
        parameters: Parameters { t3: TimeByte(0x0A), ..Parameters::default() },
        ..ChannelConfig::new(9.try_into().unwrap(), 0)
    };
    let events = replay(STEERING, config);
    assert_eq!(events.len(), 3);
    let Event::Received { pdu } = &events[2] else { panic!("{events:?}") };
    assert_eq!(pdu.len(), 48);
    assert_eq!(&pdu[2..12], b"1K0909144E");
}

#[test]
fn a_disconnect_of_the_ecu_is_answered_and_reported() {
    let config = ChannelConfig::new(1.try_into().unwrap(), 0);
    assert_eq!(replay(DROPPED, config), [Event::Closed { reason: CloseReason::ByPeer }]);
}
