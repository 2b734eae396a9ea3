//! `cargo +nightly fuzz run relay_request`
#![no_main]

#[path = "../drivers/relay_request.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
