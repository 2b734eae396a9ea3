//! Reads any bytes as a script: pieces of a gateway's stream to a tester, time that passes, and messages of
//! the tester.

use std::time::{Duration, Instant};

use connector_agent::protocol::doip::LogicalAddress;
use connector_agent::protocol::doip::codec::{Decoded, HEADER_LEN, StreamDecoder, decode_datagram};
use connector_agent::protocol::doip::connection::{Connection, ConnectionSettings, Event};

const MAX_DATA: usize = 512;
/// Gateway 0x4010 accepts the routing activation of tester 0x0E80.
const ACTIVATED: &[u8] = b"\x02\xFD\x00\x06\x00\x00\x00\x09\x0E\x80\x40\x10\x10\x00\x00\x00\x00";

/// The first byte decides whether routing is active from the beginning. Each step after it begins with a
/// byte. Below 0xE0, this byte is the number of bytes from the gateway that follow. From 0xE0, the step is
/// time. From 0xF0, the step is a message of the tester.
pub(super) fn drive(data: &[u8]) {
    let Some((&first, script)) = data.split_first() else { return };
    survives_alone(script);
    let mut now = Instant::now();
    let settings =
        ConnectionSettings { max_data: MAX_DATA, ..ConnectionSettings::new(LogicalAddress::new(0x0E80)) };
    let mut connection = Connection::new(settings, now);
    if first & 1 == 1 {
        connection.handle_bytes(now, ACTIVATED);
    }
    let (mut sent, mut outcomes) = (0usize, 0usize);
    let mut rest = script;
    while let Some((&step, behind)) = rest.split_first() {
        rest = behind;
        match step {
            0xE0..=0xEF => {
                now += Duration::from_millis(u64::from(step & 0x0F) * 300);
                connection.handle_timeout(now);
                assert!(connection.poll_timeout().is_none_or(|(at, _)| at > now), "no timer fires twice");
            }
            0xF0..=0xFF => {
                let target = LogicalAddress::new(0x4000 | u16::from(step & 3));
                sent += usize::from(connection.send(target, &[step, 0]).is_ok());
            }
            length => {
                let (bytes, behind) = rest.split_at(usize::from(length).min(rest.len()));
                rest = behind;
                if !bytes.is_empty() {
                    connection.handle_bytes(now, bytes);
                }
            }
        }
        while let Some(message) = connection.poll_transmit(now) {
            assert!(decode_datagram(&message).is_ok(), "the connection sends DoIP");
        }
        let mut events = 0;
        while let Some(event) = connection.poll_event() {
            events += 1;
            outcomes += usize::from(matches!(event, Event::Sent { .. } | Event::SendFailed { .. }));
            if let Event::Received { data, .. } = event {
                assert!(data.len() <= MAX_DATA + 16);
            }
        }
        assert!(events <= 256, "{events} events after one step");
    }
    connection.handle_bytes(now, &[]);
    while let Some(event) = connection.poll_event() {
        outcomes += usize::from(matches!(event, Event::Sent { .. } | Event::SendFailed { .. }));
    }
    assert_eq!(sent, outcomes, "every message has one outcome");
}

/// Encoding and decoding a message again gives the same message, and the decoder buffers at most one message.
fn survives_alone(data: &[u8]) {
    let mut decoder = StreamDecoder::new(MAX_DATA as u32);
    for chunk in data.chunks(7) {
        decoder.handle_bytes(chunk);
        while let Ok(Some(decoded)) = decoder.poll_message() {
            if let Decoded::Message(message) = decoded {
                let encoded = message.encode().expect("a decoded message can be encoded");
                assert_eq!(decode_datagram(&encoded).as_ref(), Ok(&message));
            }
        }
        assert!(decoder.buffered() < HEADER_LEN + MAX_DATA);
    }
}
