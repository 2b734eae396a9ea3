//! Independent implementations in Python as peers: ISO-TP, TP2.0 and DoIP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod doip;
mod isotp;
mod policy;
mod tp20;
