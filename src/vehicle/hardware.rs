//! The devices behind the pins of the OBD connector, and how they are opened.

use std::sync::Arc;

use connector_hal::board::ActivationLine;
use connector_hal::can::{CanBus, CanError};
use connector_hal::future::BoxFuture;
use connector_hal::kline::OpeningKLine;
use connector_hal::timer::TimerKind;

use crate::config::doip::{DoipConfig, NetworkConfig};
use crate::config::{CanPort, DoipPort, KlinePort};
use crate::vehicle::departures::Departures;
use crate::vehicle::doip_network::linux::{LinuxNetworks, Purpose};
use crate::vehicle::doip_network::network::{Network, NetworkError};

/// Opens a CAN device by its name.
pub(crate) type OpenCan = dyn Fn(&str) -> BoxFuture<'static, Result<Box<dyn CanBus>, CanError>> + Send + Sync;

/// Opens the network behind the pins of DoIP, with this network configuration.
pub(crate) type OpenDoip = dyn Fn(&DoipPort, &NetworkConfig, Purpose) -> BoxFuture<'static, Result<Box<dyn Network>, NetworkError>>
    + Send
    + Sync;

/// Opens a K-line's device by its name.
pub(crate) type OpenKline = dyn Fn(&str) -> OpeningKLine + Send + Sync;

/// How the agent reaches the vehicle's buses.
#[derive(Clone)]
pub struct Hardware {
    /// The CAN buses.
    pub can_ports: Arc<[CanPort]>,
    /// The K-lines.
    pub kline_ports: Arc<[KlinePort]>,
    /// The pin of terminal 15, if the board can read terminal 15.
    pub terminal15: Option<u8>,
    /// Opens one of the CAN buses.
    pub open_can: Arc<OpenCan>,
    /// Opens one of the K-lines.
    pub open_kline: Arc<OpenKline>,
    /// The DoIP networks.
    pub doip_ports: Arc<[DoipPort]>,
    /// Opens one of the DoIP networks.
    pub open_doip: Arc<OpenDoip>,
    /// The configuration of the DoIP networks.
    pub doip: Arc<DoipConfig>,
    /// The devices that are being left.
    pub departures: Departures,
    /// The timers of the bus protocols.
    pub timer: TimerKind,
}

impl Hardware {
    /// The real devices behind these CAN ports, without other ports.
    pub fn new(can_ports: impl Into<Arc<[CanPort]>>) -> Self {
        let open_can: Arc<OpenCan> = Arc::new(|device: &str| {
            let device = device.to_owned();
            Box::pin(async move { connector_hal::can::open_in_turn(&device).await })
        });
        let open_kline: Arc<OpenKline> = Arc::new(|device: &str| {
            let device = device.to_owned();
            Box::pin(async move { connector_hal::kline::open(&device) })
        });
        Self {
            can_ports: can_ports.into(),
            kline_ports: Arc::new([]),
            terminal15: None,
            open_can,
            open_kline,
            doip_ports: Arc::new([]),
            open_doip: open_doip(Arc::default(), None),
            doip: Arc::default(),
            departures: Departures::default(),
            timer: TimerKind::Precise,
        }
    }

    /// Adds these DoIP networks. The activation line wakes their gateways.
    #[must_use]
    pub fn with_doip(
        self,
        doip_ports: impl Into<Arc<[DoipPort]>>,
        doip: DoipConfig,
        activation: Option<ActivationLine>,
    ) -> Self {
        let doip = Arc::new(doip);
        let open_doip = open_doip(doip.clone(), activation);
        Self { doip_ports: doip_ports.into(), open_doip, doip, ..self }
    }
}

/// The one place that builds the hardware of unit tests. Integration tests use `HardwareBuilder` of `tests/support`,
/// which unit tests cannot: that crate depends on this one, compiled without its unit tests.
#[cfg(test)]
impl Hardware {
    /// A CAN port at pins 6 and 14, whose adapters are on this bus. The bus protocols run by the runtime's
    /// clock, which a test may pause.
    pub(crate) fn on_bus(bus: &connector_hal::can::virtual_bus::VirtualBus) -> Self {
        use connector_hal::can::virtual_bus::VirtualBus;

        let bus = bus.clone();
        let isotp = crate::config::IsotpStack::Auto;
        let port = CanPort { name: None, pins: [6, 14], device: "can0".to_owned(), fd: false, isotp };
        let open_can: Arc<OpenCan> = Arc::new(move |device: &str| {
            let adapter = bus.attach_adapter(device, VirtualBus::full_capabilities());
            Box::pin(std::future::ready(Ok(Box::new(adapter) as Box<dyn CanBus>)))
        });
        Self { open_can, timer: TimerKind::Runtime, ..Self::new([port]) }
    }

    /// A DoIP network and terminal 15 at these pins, which are not opened.
    pub(crate) fn at_pins(doip: [u8; 2], terminal15: u8) -> Self {
        let device = crate::config::doip_device::DoipDevice::Interface("eth0".to_owned());
        let doip_ports = Arc::new([DoipPort { name: None, pins: doip, device }]);
        Self { doip_ports, terminal15: Some(terminal15), ..Self::new([]) }
    }
}

fn open_doip(config: Arc<DoipConfig>, activation: Option<ActivationLine>) -> Arc<OpenDoip> {
    let networks = Arc::new(LinuxNetworks::new(config, activation));
    Arc::new(move |port: &DoipPort, network: &NetworkConfig, purpose| {
        let (networks, device, network) = (networks.clone(), port.device.clone(), network.clone());
        Box::pin(async move {
            let opened = networks.open(&device, &network, purpose).await?;
            Ok(Box::new(opened) as Box<dyn Network>)
        })
    })
}

impl std::fmt::Debug for Hardware {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hardware")
            .field("can_ports", &self.can_ports)
            .field("doip_ports", &self.doip_ports)
            .finish_non_exhaustive()
    }
}
