//! A message of the peer: its records, their age, and its clock.

use std::time::Duration;

use super::peer_clock::Echo;
use crate::relay::wire::codec::{CodecError, Payload, Record, Records};

/// A new message of the peer, with its age.
#[derive(Debug)]
pub struct Incoming<'a> {
    pub(super) age: Duration,
    pub(super) time: u64,
    pub(super) records: Records<'a>,
}

impl<'a> Incoming<'a> {
    /// The records, in order, except those of the clock. Each of them has been checked.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let records = self.records.clone().filter_map(Result::ok);
        records.filter(|record| !matches!(record.payload, Payload::Clock { .. }))
    }

    /// The age of a record: the age of the message, and the time that the record waited before the message
    /// was sealed.
    pub fn age_of(&self, record: &Record<'_>) -> Duration {
        self.age.saturating_add(Duration::from_micros(waited(record)))
    }

    /// The peer's clock when a record began to wait for its message, in µs; see [`Link::age`](super::Link::age).
    pub(crate) fn time_of(&self, record: &Record<'_>) -> u64 {
        self.time.saturating_sub(waited(record))
    }
}

/// How long a record waited before its message was sealed, in µs.
fn waited(record: &Record<'_>) -> u64 {
    u64::from(record.offset.min(0).unsigned_abs())
}

/// The content of the `clock` record among these records, and the first record that cannot be decoded.
pub(super) fn check(records: &Records<'_>) -> (Option<Echo>, Option<CodecError>) {
    let mut found = None;
    for record in records.clone() {
        match record {
            Ok(Record { payload: Payload::Clock { echo, hold }, .. }) => found = Some(Echo { echo, hold }),
            Ok(_) => {}
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}
