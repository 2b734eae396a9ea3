//! The connector's part of the relay protocol: a session on virtual buses in virtual time, with the
//! operator's end of the link on one side and scripted ECUs on the other.

mod age;
mod bus_off;
mod buses;
mod chains;
mod channels;
mod doip;
mod flags;
mod flow_control;
mod keep_alive;
mod kline;
mod locals;
mod malformed;
mod operator_gone;
mod own_frames;
mod policy;
mod programming;
mod quality;
mod raw;
mod resume;
mod scan;
mod terminal15;
mod tp20;
mod wrong_bit_rate;

/// The items that every module of this folder uses.
mod common {
    pub(super) use connector_test_support::config::{doip_bus, hs, kline_bus};
    pub(super) use connector_test_support::session::*;
    pub(super) use connector_test_support::{MILLISECOND, SECOND, frame, id, now};
}
