//! The relay without a cloud: a session on simulated buses, and its link to the operator.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod allocations;
mod connection;
mod late;
mod link;
