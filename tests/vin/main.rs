//! Reading the VIN and finding the ECUs of a vehicle, on simulated buses.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod ecu;

mod kline;
mod read;
mod reader;
mod scan;
mod vehicles;
