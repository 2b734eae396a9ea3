//! `cargo +nightly fuzz run slcan`
#![no_main]

#[path = "../drivers/slcan.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
