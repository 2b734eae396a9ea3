//! Tests of whole endpoints: several on one bus, one with a scripted peer, and properties.

mod functional;
mod net;
mod properties;
mod receiving;
mod script;
mod sending;
mod transfers;

use connector_hal::can::CanId;

use super::{Addressing, Config};

fn id(id: u32) -> CanId {
    CanId::try_from(id).unwrap()
}

/// The configuration of the tester; `ecu` has the reversed addresses.
fn tester() -> Config {
    Config::new(Addressing::normal(id(0x7E0), id(0x7E8)))
}

fn ecu() -> Config {
    Config::new(Addressing::normal(id(0x7E8), id(0x7E0)))
}

/// Bytes that differ so that a wrong order or a gap is visible.
fn pdu(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}
