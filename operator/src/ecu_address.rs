//! How an ECU is addressed on CAN.

use std::fmt;

use connector_hal::can::CanId;

/// How a tool reaches an ECU, and how the ECU answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EcuAddress {
    /// The identifier the ECU listens to.
    pub request: CanId,
    /// The identifier it answers with.
    pub response: CanId,
    /// The ISO-TP address byte, the same both ways, where ECUs share identifiers.
    pub extended: Option<u8>,
}

/// Prints as `0x750/0x758/0x0F`.
impl fmt::Display for EcuAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.request, self.response)?;
        self.extended.map_or(Ok(()), |address| write!(f, "/0x{address:02X}"))
    }
}

impl fmt::Debug for EcuAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
