//! `cargo +nightly fuzz run isotp`
#![no_main]

#[path = "../drivers/isotp.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
