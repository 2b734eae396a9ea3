//! The whole agent in one process with the sandbox cloud, an operator and a simulated vehicle.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod audit;
mod consent;
mod doip;
mod ending;
mod fd;
mod flash;
mod kept_vin;
mod kline;
mod limits;
mod memory;
mod operator_gone;
mod packaging;
mod paused;
mod power;
mod scripted;
mod session;
mod signals;
mod vehicles;

/// Held by tests that keep all cores busy or depend on milliseconds, so that they run one at a time.
static BUSY: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
