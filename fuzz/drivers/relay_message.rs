//! Reads any bytes as binary messages of the relay, and as a script of events on the relay's link.

use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{CodecError, Header, Payload, PduFlags, Record, Records, Tag};
use connector_hal::can::{CanFrame, CanId};

const TAG: Tag = Tag([1, 2, 3, 4]);
const LIMIT: usize = 16 * 1024;

/// Writing and reading a message again gives the same message.
pub(super) fn drive(data: &[u8]) {
    if let Ok(header) = Header::decode(data)
        && let Ok(records) = Records::new(data, &header).collect::<Result<Vec<_>, CodecError>>()
    {
        let mut bytes = Vec::new();
        header.encode(&mut bytes);
        records.iter().for_each(|record| record.encode(&mut bytes));
        let again: Result<Vec<Record<'_>>, _> = Records::new(&bytes, &header).collect();
        assert_eq!(again.as_ref(), Ok(&records));
    }
    drive_link(data);
}

/// Each step is a byte, and after it the data that the step needs.
fn drive_link(data: &[u8]) {
    let mut now = Instant::now();
    let mut link = Link::new(Role::Connector, TAG, now).with_kept_limit(LIMIT);
    let mut sent: Vec<Bytes> = Vec::new();
    let mut rest = data;
    while let Some((step, after)) = rest.split_first() {
        let argument = usize::from(step & 0x1F);
        rest = after;
        match step >> 5 {
            0 | 1 => {
                // a message of this length; for step 0, with this connection's tag and the next sequence
                // number
                let (message, after) = rest.split_at(rest.len().min(24 + argument * 8));
                rest = after;
                let mut message = message.to_vec();
                if step >> 5 == 0 && message.len() >= 24 {
                    message[..2].copy_from_slice(&[1, 0]);
                    message[4..8].copy_from_slice(&TAG.0);
                    message[8..12].copy_from_slice(&(link.received() + 1).to_be_bytes());
                    message[12..16].copy_from_slice(&[0; 4]);
                }
                if let Ok(Some(incoming)) = link.handle_message(now, &message) {
                    for record in incoming.records() {
                        let _ = incoming.age_of(&record);
                    }
                }
            }
            2 => {
                let data = vec![0xA5; argument * 100];
                let flags = PduFlags::default();
                let _ = link.push(now, now, 1, Payload::Pdu { address: 0, flags, data: &data });
            }
            3 => {
                let frame = CanFrame::new(CanId::standard_truncated(0x100), &[step & 7; 8]);
                let payload = Payload::Frame(frame.expect("8 bytes"));
                for _ in 0..argument * 4 {
                    let earlier = now.checked_sub(Duration::from_micros(argument as u64)).unwrap_or(now);
                    let _ = link.push(now, earlier, argument as u16, payload);
                }
            }
            4 => {
                if let Some(message) = link.poll_message(now) {
                    let header = Header::decode(&message).expect("the link sends valid messages");
                    let records = Records::new(&message, &header);
                    assert!(records.clone().all(|record| record.is_ok()), "the link sends valid records");
                    assert_eq!(records.count(), usize::from(header.record_count));
                    if header.seq > 0 {
                        sent.push(message);
                    }
                }
            }
            5 => {
                link.interrupt();
                assert!(link.poll_message(now).is_none(), "an interrupted link sends nothing");
            }
            6 => {
                let highest =
                    sent.iter().filter_map(|message| Header::decode(message).ok()).map(|h| h.seq).max();
                let _ = link.resume(now, highest.unwrap_or(0).saturating_sub(argument as u32));
            }
            _ => now += Duration::from_millis(argument as u64 * 10),
        }
        assert!(link.kept_bytes() <= LIMIT, "{} bytes are kept", link.kept_bytes());
        assert!(link.wants_to_send(now) || link.poll_message(now).is_none());
    }
}
