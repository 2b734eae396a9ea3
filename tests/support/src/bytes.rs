//! Identifiers, frames and PDUs.

use connector_hal::can::{CanFrame, CanId};

/// The CAN identifier of this number: 11 bits, or 29 bits if it needs them or if its highest bit is set.
pub fn id(number: u32) -> CanId {
    CanId::try_from(number).unwrap()
}

/// A classic frame.
pub fn frame(number: u32, data: &[u8]) -> CanFrame {
    CanFrame::new(id(number), data).unwrap()
}

/// A PDU of this length, in which no two neighbouring bytes are equal.
pub fn pdu(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

/// Bytes as Python prints them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
