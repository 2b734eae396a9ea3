use proptest::prelude::*;

use super::*;
use crate::can::slcan::values::{bit_rate, bit_rate_number, data_bit_rate, data_bit_rate_number};

fn encoded(line: &SlcanLine) -> Vec<u8> {
    let mut out = Vec::new();
    line.encode(&mut out);
    out
}

fn frame(line: &str) -> String {
    match decode(line.as_bytes()) {
        Ok(SlcanLine::Frame(frame, timestamp)) => match timestamp {
            None => frame.to_string(),
            Some(timestamp) => format!("{frame} @{timestamp}"),
        },
        other => format!("{other:?}"),
    }
}

#[test]
fn frames_read_as_lawicel_and_the_fd_extensions_write_them() {
    let long = format!("b1239{}", "5A".repeat(12));
    for (line, expected) in [
        ("t7DF80201050000000000", "7DF#0201050000000000"),
        ("t1000", "100#"),
        ("t10021133", "100#1133"),
        ("T18DAF11021133", "18DAF110#1133"),
        ("T000001000", "00000100#"),
        ("r7DF3", "7DF#R3"),
        ("R18DAF1108", "18DAF110#R8"),
        ("d12321133", "123##01133"),
        ("D18DAF110111", "18DAF110##011"),
        (&long, "123##15A5A5A5A5A5A5A5A5A5A5A5A"),
        // lower case digits, and time stamps of both kinds
        ("t7df2abcd", "7DF#ABCD"),
        ("t10021133EA5F", "100#1133 @59999"),
        ("t10021133DEADBEEF", "100#1133 @3735928559"),
        ("r7DF31234", "7DF#R3 @4660"),
    ] {
        assert_eq!(frame(line), expected, "{line}");
    }
}

#[test]
fn a_line_that_is_not_a_frame_is_refused_with_a_reason() {
    for (line, error) in [
        ("t", LineError::Length { command: b't', length: 1 }),
        ("t7DF2", LineError::Length { command: b't', length: 5 }),
        ("t7DF201", LineError::Length { command: b't', length: 7 }),
        ("t7DF1010", LineError::Length { command: b't', length: 8 }),
        ("t7DF101000000000000", LineError::Length { command: b't', length: 19 }),
        ("t8001FF", LineError::Value { command: b't' }),
        ("T200000001FF", LineError::Value { command: b'T' }),
        ("t7DF9000000000000000000", LineError::Value { command: b't' }),
        ("r7DF9", LineError::Value { command: b'r' }),
        ("t7DG0", LineError::Digit { command: b't', found: b'G' }),
        ("t7DF1 1", LineError::Digit { command: b't', found: b' ' }),
        ("O1", LineError::Length { command: b'O', length: 2 }),
        ("Z2", LineError::Value { command: b'Z' }),
        ("F1", LineError::Length { command: b'F', length: 2 }),
        ("s123456789", LineError::Length { command: b's', length: 10 }),
        ("sx000000", LineError::Value { command: b's' }),
        ("sb00F000", LineError::Value { command: b's' }),
        ("e2c", LineError::Length { command: b'e', length: 3 }),
        ("e1x", LineError::Value { command: b'e' }),
        ("t7DF\u{7F}", LineError::NotText(0x7F)),
    ] {
        assert_eq!(decode(line.as_bytes()), Err(error), "{line}");
    }
    assert_eq!(decode(&[b't'; MAX_LINE + 1]), Err(LineError::TooLong));
}

#[test]
fn commands_and_answers_have_their_golden_bytes() {
    let state = SlcanLine::State { state: ControllerState::Off, receive_errors: 0, transmit_errors: 255 };
    for (line, bytes) in [
        (SlcanLine::Done, &b"\r"[..]),
        (SlcanLine::Refused, b"\x07"),
        (SlcanLine::SetBitRate(6), b"S6\r"),
        (SlcanLine::SetDataBitRate(2), b"Y2\r"),
        (SlcanLine::SetBitTiming(0x011C), b"s011C\r"),
        (SlcanLine::Open, b"O\r"),
        (SlcanLine::Listen, b"L\r"),
        (SlcanLine::Close, b"C\r"),
        (SlcanLine::SetTimestamps(true), b"Z1\r"),
        (SlcanLine::Transmitted { extended: false }, b"z\r"),
        (SlcanLine::Transmitted { extended: true }, b"Z\r"),
        (SlcanLine::ReadStatus, b"F\r"),
        (SlcanLine::Status(StatusFlags(0xA0)), b"FA0\r"),
        (SlcanLine::ReadVersion, b"V\r"),
        (SlcanLine::Version("1013".into()), b"V1013\r"),
        (SlcanLine::ReadSerialNumber, b"N\r"),
        (SlcanLine::SerialNumber("A123".into()), b"NA123\r"),
        (state, b"sb000255\r"),
        (SlcanLine::Errors(BusErrors(BusErrors::CRC)), b"e1c\r"),
        (
            SlcanLine::Errors(BusErrors(BusErrors::BIT0 | BusErrors::CRC | BusErrors::TRANSMIT_OVERRUN)),
            b"e3bcO\r",
        ),
    ] {
        assert_eq!(encoded(&line), bytes, "{line:?}");
        let end = bytes.len() - usize::from(bytes.last() == Some(&CR));
        assert_eq!(decode(&bytes[..end]), Ok(line));
    }
    assert_eq!(decode(b"v1.0 https://example.com"), Ok(SlcanLine::Other(b'v')));
}

#[test]
fn bit_rates_have_one_number_each() {
    for number in 0..=9 {
        assert_eq!(bit_rate_number(bit_rate(number).unwrap()), Some(number));
    }
    assert_eq!(bit_rate_number(83_333), Some(9));
    assert_eq!(bit_rate_number(94_000), None);
    assert_eq!(bit_rate(10), None);
    for number in [0, 1, 2, 3, 4, 5, 8] {
        assert_eq!(data_bit_rate_number(data_bit_rate(number).unwrap()), Some(number));
    }
    assert_eq!(data_bit_rate_number(6_000_000), None);
}

fn frames() -> impl Strategy<Value = CanFrame> {
    let id = (any::<u32>(), any::<bool>()).prop_map(|(raw, extended)| {
        if extended { CanId::extended_truncated(raw) } else { CanId::standard_truncated(raw) }
    });
    let data = proptest::collection::vec(any::<u8>(), 0..=64);
    (id, data, 0..4_u8).prop_map(|(id, mut data, kind)| match kind {
        0 => {
            data.truncate(8);
            CanFrame::new(id, &data).unwrap()
        }
        1 => CanFrame::new_remote(id, data.len() % 9).unwrap(),
        _ => {
            data.resize(fd_length(data.len()).unwrap(), 0xCC);
            let flags = FdFlags { bit_rate_switch: kind == 2, error_state: false };
            CanFrame::new_fd(id, flags, &data).unwrap()
        }
    })
}

proptest! {
    #[test]
    fn every_frame_survives_encoding_and_decoding(
        frame in frames(),
        timestamp in proptest::option::of(any::<u32>()),
    ) {
        let line = SlcanLine::Frame(frame, timestamp);
        let bytes = encoded(&line);
        prop_assert_eq!(decode(&bytes[..bytes.len() - 1]), Ok(line));
    }

    #[test]
    fn a_decoded_line_encodes_to_a_line_that_decodes_the_same(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        if let Ok(line) = decode(&bytes).and_then(|line| match line {
            SlcanLine::Other(_) => Err(LineError::TooLong),
            line => Ok(line),
        }) {
            let again = encoded(&line);
            let end = again.len() - usize::from(again.last() == Some(&CR));
            prop_assert_eq!(decode(&again[..end]), Ok(line));
        }
    }

    #[test]
    fn frame_like_lines_never_panic(text in "[tTrRdDbBsSeZ][0-9A-Fa-fx]{0,160}") {
        let _ = decode(text.as_bytes());
    }
}
