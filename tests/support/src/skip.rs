//! The one way to skip a test that needs something that this machine may not have.
//!
//! An environment variable `CONNECTOR_TEST_…` names what the test needs. Without it, the test prints one line
//! that begins with `SKIPPED:` and passes. `.ci/run` fails on such a line unless the line names the variable
//! that would have helped.

use std::io::Write as _;

/// The value of an environment variable that the test needs; `None`, after printing that the test is skipped,
/// if the variable is not set.
pub fn environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        skip(&format!("needs {name}; the head of this test's file says what it is"));
    }
    value
}

/// Prints that the running test is skipped.
///
/// `println!` would be captured by the test harness. The line goes out in one write, because other tests
/// print too.
pub fn skip(reason: &str) {
    let _no_standard_error = std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes());
}
