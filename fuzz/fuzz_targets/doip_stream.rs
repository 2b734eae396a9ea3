//! `cargo +nightly fuzz run doip_stream`
#![no_main]

#[path = "../drivers/doip_stream.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
