//! Tests of the whole: first endpoints on one bus, then single ones with a scripted peer, then properties.

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

/// The tester's side of the addresses that the ECU's is the other of.
fn tester() -> Config {
    Config::new(Addressing::normal(id(0x7E0), id(0x7E8)))
}

fn ecu() -> Config {
    Config::new(Addressing::normal(id(0x7E8), id(0x7E0)))
}

/// Bytes among which a wrong order or a gap shows.
fn pdu(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}
