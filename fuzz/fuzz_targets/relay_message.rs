//! `cargo +nightly fuzz run relay_message`
#![no_main]

#[path = "../drivers/relay_message.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
