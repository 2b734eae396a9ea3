//! `cargo +nightly fuzz run tp20`
#![no_main]

#[path = "../drivers/tp20.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
