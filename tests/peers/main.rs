//! Independent implementations in Python as peers: ISO-TP, TP2.0, DoIP, and a portal for the documented APIs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod doip;
mod isotp;
mod policy;
mod portal;
mod tp20;
