//! Helpers that several modules share.

use std::io::Write as _;

use connector_hal::can::{CanFrame, CanId};

pub(crate) fn frame(id: u32, data: &[u8]) -> CanFrame {
    CanFrame::new(CanId::try_from(id).unwrap(), data).unwrap()
}

/// The value of an environment variable; if it is not set, reports that the running test is skipped.
pub(crate) fn environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        skip(&format!("needs {name}, see the head of this test's file"));
    }
    value
}

/// Reports that the running test is skipped. `println!` would be captured; one write keeps the line in one
/// piece.
pub(crate) fn skip(reason: &str) {
    let _no_standard_error = std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes());
}
