//! Durations for people.

use std::time::Duration;

/// A duration for people: `34 ms`, `2.1 s`.
pub(super) fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
