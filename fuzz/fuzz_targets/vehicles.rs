//! `cargo +nightly fuzz run vehicles`
#![no_main]

#[path = "../drivers/vehicles.rs"]
mod driver;

libfuzzer_sys::fuzz_target!(|data: &[u8]| driver::drive(data));
