//! The generated messages and services of openOBD.

#![allow(
    missing_docs,
    non_camel_case_types,
    unreachable_pub,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/open_obd.v1.rs"));
