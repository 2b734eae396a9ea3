//! The ports: which device stands behind which pins of the OBD connector.

use super::doip_device::Device;

/// A CAN bus behind pins of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanPort {
    /// The pins of CAN high and CAN low.
    pub pins: [u8; 2],
    /// The device, as the configuration names it.
    pub device: String,
    /// Whether the adapter can do CAN FD.
    pub fd: bool,
    /// Who speaks ISO-TP on it.
    pub isotp: IsotpStack,
}

/// Who speaks ISO-TP on a CAN bus, for channels to one ECU.
///
/// Functional channels, and those that follow the ECU's padding, are ours in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsotpStack {
    /// The own one, for the reasons in docs/adr/0003-own-isotp-by-default.md.
    #[default]
    Auto,
    /// Ours.
    Own,
    /// The Linux kernel's can-isotp, where it has one and the device is a network interface; else ours.
    Kernel,
}

/// A K-line behind a pin of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KlinePort {
    /// The pin.
    pub pin: u8,
    /// The device, as the configuration names it.
    pub device: String,
    /// The bit rates at which the VIN is asked for, the likeliest first, in bit/s.
    pub bit_rates: Vec<u32>,
}

/// A network behind pins of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoipPort {
    /// 1 and 9, or 3 and 11.
    pub pins: [u8; 2],
    /// The interface, or a gateway.
    pub device: Device,
}
