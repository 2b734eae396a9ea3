//! The devices of this crate, one module each. Those that are simulated need the feature `sim`; those of a
//! real kernel need interfaces that environment variables name.
// clippy.toml allows these in test functions, not in their helpers
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod gpio;
#[cfg(feature = "sim")]
mod kline_serial;
#[cfg(feature = "sim")]
mod kline_timing;
#[cfg(feature = "sim")]
mod slcan;
mod socketcan;
mod support;
#[cfg(feature = "sim")]
mod virtual_bus;
