//! The client of the cloud: login, REST and websocket, with a scripted cloud and the sandbox.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod link_rig;
mod scripted;

mod addresses;
mod bounds;
mod kept;
mod link;
mod log;
mod mutual_tls;
mod proxy;
mod rejections;
mod rest;
mod sandbox;
