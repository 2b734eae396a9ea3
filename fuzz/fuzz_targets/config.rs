//! `cargo +nightly fuzz run config`
#![no_main]

#[path = "../drivers/config.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
