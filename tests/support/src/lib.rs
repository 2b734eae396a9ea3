//! Code that integration tests, benchmarks and fuzz drivers share. `tests/README.md` describes how the tests
//! are arranged.
//!
//! A harness is called `Rig`, and each module that needs one has one: [`agent::Rig`] is a whole connector
//! online in a simulated vehicle, in real time; [`session::Rig`] is a relay session without a cloud, in
//! virtual time.

#![allow(missing_docs, reason = "the names of the helpers describe them")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

#[cfg(feature = "sandbox")]
pub mod agent;
pub mod can_tool;
pub mod config;
pub mod data;
pub mod doip_tool;
pub mod frames;
pub mod hardware;
pub mod isotp;
pub mod judge;
pub mod peers;
pub mod scripted_api;
pub mod scripted_can;
pub mod session;
pub mod skip;
pub mod slow_uplink;

mod bytes;
mod time;

pub use crate::bytes::{frame, hex, id, pdu};
pub use crate::time::{HANG, MILLISECOND, SECOND, now, soon};
