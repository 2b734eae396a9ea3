//! ISO-TP, K-line links and DoIP against simulated ECUs and gateways, and the fuzz corpora of every decoder.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod doip;
mod fuzz_corpus;
mod isotp;
mod kline;
