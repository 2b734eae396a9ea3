//! `cargo +nightly fuzz run kline`
#![no_main]

#[path = "../drivers/kline.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
