//! `cargo +nightly fuzz run vin`
#![no_main]

#[path = "../drivers/vin.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
