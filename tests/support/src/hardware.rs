//! Builds the agent's [`Hardware`] from simulated or scripted devices.

use std::pin::Pin;
use std::sync::Arc;

use connector_agent::config::doip_device::DoipDevice;
use connector_agent::config::{CanPort, Config, DoipPort, IsotpStack, KlinePort};
use connector_agent::vehicle::doip_network::network::Network;
use connector_agent::vehicle::hardware::Hardware;
use connector_hal::board::ActivationLine;
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBus, CanError};
use connector_hal::kline::{KLine, KLineError};
use connector_hal::timer::TimerKind;

type Opening<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A builder to which a test adds ports and devices.
pub struct HardwareBuilder(Hardware);

impl HardwareBuilder {
    /// No ports. The protocols use the runtime's clock, which a test may pause.
    pub fn in_runtime_time() -> Self {
        Self(Hardware { timer: TimerKind::Runtime, ..Hardware::new([]) })
    }

    /// The ports of a configuration. The protocols use the system's clock.
    pub fn of_config(config: &Config, activation: Option<ActivationLine>) -> Self {
        let hardware =
            Hardware { kline_ports: config.kline_ports().into(), ..Hardware::new(config.can_ports()) };
        Self(hardware.with_doip(config.doip_ports(), config.doip.clone(), activation))
    }

    pub fn can_port(mut self, pins: [u8; 2], device: &str, fd: bool) -> Self {
        let port = CanPort { name: None, pins, device: device.to_owned(), fd, isotp: IsotpStack::Auto };
        self.0.can_ports = self.0.can_ports.iter().cloned().chain([port]).collect();
        self
    }

    /// Names the last CAN port, as the configuration does.
    pub fn named(mut self, name: &str) -> Self {
        let mut ports = self.0.can_ports.to_vec();
        ports.last_mut().unwrap().name = Some(name.to_owned());
        self.0.can_ports = ports.into();
        self
    }

    /// Opens every CAN port by this function.
    pub fn open_can(
        mut self,
        open: impl Fn(&str) -> Result<Box<dyn CanBus>, CanError> + Send + Sync + 'static,
    ) -> Self {
        self.0.open_can = Arc::new(move |device: &str| Box::pin(std::future::ready(open(device))));
        self
    }

    /// Opens every CAN port by this function, which may wait.
    pub fn open_can_later(
        mut self,
        open: impl Fn(&str) -> Opening<Result<Box<dyn CanBus>, CanError>> + Send + Sync + 'static,
    ) -> Self {
        self.0.open_can = Arc::new(move |device: &str| open(device));
        self
    }

    /// A CAN port at pins 6 and 14 with an adapter on the bus.
    pub fn on_bus(self, bus: &VirtualBus) -> Self {
        let bus = bus.clone();
        self.can_port([6, 14], "virtual", false)
            .open_can(move |_| Ok(Box::new(bus.attach_adapter("connector", VirtualBus::full_capabilities()))))
    }

    /// A K-line whose ECUs are initialised at 10.4 kbit/s.
    pub fn kline_port(
        mut self,
        pin: u8,
        device: &str,
        open: impl Fn(&str) -> Result<Box<dyn KLine>, KLineError> + Send + Sync + 'static,
    ) -> Self {
        self.0.kline_ports =
            Arc::new([KlinePort { name: None, pin, device: device.to_owned(), bit_rates: vec![10_400] }]);
        self.0.open_kline = Arc::new(move |device: &str| Box::pin(std::future::ready(open(device))));
        self
    }

    /// A DoIP network at pins 3 and 11.
    pub fn doip_network(mut self, open: impl Fn() -> Box<dyn Network> + Send + Sync + 'static) -> Self {
        let device = DoipDevice::Interface("eth0".to_owned());
        self.0.doip_ports = Arc::new([DoipPort { name: None, pins: [3, 11], device }]);
        self.0.open_doip = Arc::new(move |_, _, _| Box::pin(std::future::ready(Ok(open()))));
        self
    }

    /// Terminal 15 at pin 1.
    pub fn terminal15(mut self) -> Self {
        self.0.terminal15 = Some(1);
        self
    }

    /// The protocols use the runtime's clock, which a test may have paused.
    pub fn runtime_time(mut self) -> Self {
        self.0.timer = TimerKind::Runtime;
        self
    }

    pub fn build(self) -> Hardware {
        self.0
    }
}
