//! The hardware as the agent uses it: which devices stand behind the OBD connector's pins, and how they are opened.

use std::sync::Arc;

use connector_hal::can::{BoxFuture, CanBus, CanError};
use connector_hal::timer::TimerKind;

/// Opens a CAN device by its name.
pub type OpenCan = dyn Fn(&str) -> BoxFuture<'static, Result<Box<dyn CanBus>, CanError>> + Send + Sync;

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
    /// What is better by measurement (docs/decisions.md): ours.
    #[default]
    Auto,
    /// Ours.
    Own,
    /// The Linux kernel's can-isotp, where it has one and the device is a network interface; else ours.
    Kernel,
}

/// How the agent reaches the vehicle's buses.
#[derive(Clone)]
pub struct Hardware {
    /// The CAN buses.
    pub can_ports: Arc<[CanPort]>,
    /// Opens one of them.
    pub open_can: Arc<OpenCan>,
    /// Which timers the buses' protocols run by.
    pub timer: TimerKind,
}

impl Hardware {
    /// The real devices behind these ports.
    pub fn new(can_ports: impl Into<Arc<[CanPort]>>) -> Self {
        let open_can: Arc<OpenCan> = Arc::new(|device: &str| {
            let device = device.to_owned();
            Box::pin(async move { connector_hal::can::open(&device) })
        });
        Self { can_ports: can_ports.into(), open_can, timer: TimerKind::Precise }
    }
}

impl std::fmt::Debug for Hardware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hardware").field("can_ports", &self.can_ports).finish_non_exhaustive()
    }
}
