//! Skips a test that needs something that this machine may lack.
//!
//! An environment variable `CONNECTOR_TEST_…` names the thing that the test needs. Without the variable, the
//! test prints one line that begins with `SKIPPED:` and passes. `.ci/test` fails on such a line unless the
//! line names the variable.

use std::io::Write as _;

/// The value of an environment variable that the test needs; `None`, after printing that the test is skipped,
/// if the variable is not set.
pub fn environment(name: &str) -> Option<String> {
    let value = std::env::var(name).ok();
    if value.is_none() {
        skip(&format!("needs {name}; the head of this test's file describes the variable"));
    }
    value
}

/// Prints that the running test is skipped.
///
/// The test harness would capture the output of `println!`. The line is written in one piece, because other
/// tests print too.
pub fn skip(reason: &str) {
    let _no_standard_error = std::io::stderr().write_all(format!("\nSKIPPED: {reason}\n").as_bytes());
}
