//! `cargo +nightly fuzz run candump`
#![no_main]

#[path = "../drivers/candump.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
