//! Durations in the configuration: whole milliseconds, under keys that end in `_ms`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// The longest duration accepted: one hour. The longest default is five minutes; a longer value is more
/// likely a mistake in the unit.
const MAX_MS: u64 = 3_600_000;

/// Reads a duration of 1 ms to 1 h.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    match u64::deserialize(deserializer)? {
        ms @ 1..=MAX_MS => Ok(Duration::from_millis(ms)),
        ms => Err(D::Error::custom(format_args!("{ms} ms is out of range; set 1 to {MAX_MS}"))),
    }
}
