//! `cargo +nightly fuzz run doip_datagram`
#![no_main]

#[path = "../drivers/doip_datagram.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
