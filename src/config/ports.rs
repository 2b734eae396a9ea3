//! The ports: the devices behind the pins of the OBD connector.

use super::doip_device::DoipDevice;

/// A CAN bus behind pins of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanPort {
    /// The bus's name in the configuration.
    pub name: Option<String>,
    /// The pins of CAN high and CAN low.
    pub pins: [u8; 2],
    /// The device, as the configuration names it.
    pub device: String,
    /// Whether the adapter supports CAN FD.
    pub fd: bool,
    /// The implementation of ISO-TP.
    pub isotp: IsotpStack,
}

/// The implementation of ISO-TP for channels to one ECU on a CAN bus.
///
/// Functional channels, and channels that follow the ECU's padding, always use the agent's implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsotpStack {
    /// The agent's own, for the reasons in docs/adr/0003-own-isotp-by-default.md.
    #[default]
    Auto,
    /// The agent's own.
    Own,
    /// The Linux kernel's can-isotp, if the kernel has it and the device is a network interface; otherwise
    /// the agent's own.
    Kernel,
}

/// A K-line behind a pin of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KlinePort {
    /// The bus's name in the configuration.
    pub name: Option<String>,
    /// The pin.
    pub pin: u8,
    /// The device, as the configuration names it.
    pub device: String,
    /// The bit rates at which the VIN is asked for, the likeliest first, in bit/s.
    pub bit_rates: Vec<u32>,
}

/// A DoIP network behind pins of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoipPort {
    /// The bus's name in the configuration.
    pub name: Option<String>,
    /// The pins: 1 and 9, or 3 and 11.
    pub pins: [u8; 2],
    /// The interface, or one gateway.
    pub device: DoipDevice,
}
