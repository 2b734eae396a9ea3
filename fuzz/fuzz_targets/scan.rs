//! `cargo +nightly fuzz run scan`
#![no_main]

#[path = "../drivers/scan.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
