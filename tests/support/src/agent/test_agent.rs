//! An agent in this process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_agent::agent::{self, Control, Setup, SetupError};
use connector_agent::cloud::dial::Dialer;
use connector_agent::config::{
    ApiUrl, BusKind, Config, ConfiguredBus, ConnectorUuid, Pincode, PowerConfig, WebsocketUrl,
};
use connector_agent::policy::PolicySettings;
use connector_agent::tls;
use connector_hal::board::{Board, InputConfig, Led, SimBoard, SimBoardHandle, Source};
use connector_hal::bus::BusStatus;
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use connector_hal::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Connector, Sandbox};
use crate::hardware::HardwareBuilder;
use crate::soon;

/// The settings in which an agent differs from the default one.
#[derive(Debug, Clone, Default)]
pub struct AgentSettings {
    /// A network between agent and cloud.
    pub through: Option<SocketAddr>,
    /// A pincode in place of the connector's.
    pub pincode: Option<String>,
    /// Whether the CAN adapter is plugged in; `None` if it always is.
    pub adapter: Option<watch::Receiver<bool>>,
    /// Whether the CAN adapter supports CAN FD.
    pub fd: bool,
    /// Whether everything uses the runtime's clock, which a test may have paused.
    pub runtime_time: bool,
    /// The policy, in place of the default one.
    pub policy: Option<PolicySettings>,
    /// Whether the board has a button.
    pub button: bool,
    /// Whether the board has terminal 15 and voltage.
    pub power: PowerConfig,
    /// The devices of K-lines at pins 1, 2 and so on, in place of a CAN bus.
    pub klines: Vec<PathBuf>,
    /// A DoIP gateway or a network interface in place of a CAN bus.
    pub doip: Option<String>,
    /// The longest PDU that the agent accepts, in place of the default.
    pub max_pdu: Option<usize>,
    /// Whether the ignition is off at the start.
    pub ignition_off: bool,
    /// The number of the network configuration for reading the VIN.
    pub doip_network: Option<u8>,
    /// The number of CAN adapters that have left their bus, each within 200 ms.
    pub left: Option<Arc<AtomicUsize>>,
}

/// An adapter that takes its time to leave the bus.
struct SlowToLeave {
    adapter: Box<dyn CanBus>,
    left: Arc<AtomicUsize>,
}

impl CanBus for SlowToLeave {
    fn device(&self) -> &str {
        self.adapter.device()
    }

    fn capabilities(&self) -> CanCapabilities {
        self.adapter.capabilities()
    }

    fn status(&self) -> BusStatus {
        self.adapter.status()
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        self.adapter.configure(settings)
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        self.adapter.restart()
    }

    fn leave(self: Box<Self>, patience: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.adapter.leave(patience).await;
            self.left.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.adapter.set_filters(filters)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        self.adapter.poll_send(cx, frame)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        self.adapter.poll_event(cx)
    }
}

pub struct TestAgent {
    pub board: SimBoardHandle,
    control: mpsc::Sender<Control>,
    task: JoinHandle<Result<Control, SetupError>>,
}

impl TestAgent {
    pub fn start(
        sandbox: &Sandbox,
        connector: &Connector,
        bus: &VirtualBus,
        settings: AgentSettings,
    ) -> Self {
        let cloud = &sandbox.cloud;
        let address = settings.through.unwrap_or(cloud.address);
        let mut config = Config::new(
            ConnectorUuid::new(connector.uuid).unwrap(),
            ApiUrl::try_from(format!("https://{address}")).unwrap(),
            WebsocketUrl::try_from(format!("wss://{address}/sandbox/ws")).unwrap(),
        );
        config.cloud.ca_file = Some(cloud.ca_file.clone());
        let pincode = settings.pincode.clone().unwrap_or_else(|| connector.pincode.clone());
        Self::start_with(config, &pincode, bus, settings)
    }

    /// An agent with this configuration, to which the buses of the settings are added.
    pub fn start_with(mut config: Config, pincode: &str, bus: &VirtualBus, settings: AgentSettings) -> Self {
        config.buses = vec![match settings.doip {
            Some(gateway) => {
                ConfiguredBus { kind: BusKind::Doip, pins: vec![3, 11], ..ConfiguredBus::can(gateway) }
            }
            None => ConfiguredBus { fd: settings.fd, ..ConfiguredBus::can("can0") },
        }];
        if !settings.klines.is_empty() {
            let kline = |(pin, device): (u8, &PathBuf)| ConfiguredBus {
                kind: BusKind::Kline,
                pins: vec![pin],
                ..ConfiguredBus::can(device.to_string_lossy())
            };
            config.buses = (1..).zip(&settings.klines).map(kline).collect();
        }
        if let Some(number) = settings.doip_network {
            config.doip.network_configuration = number;
        }
        config.relay.max_pdu = settings.max_pdu.unwrap_or(config.relay.max_pdu);
        config.power = settings.power;
        if settings.button {
            let source = Source::File("/dev/null".into());
            config.board.button = Some(InputConfig { source, active_low: false, debounce_ms: 0 });
        }
        if let Some(policy) = settings.policy {
            config.policy = policy;
        }
        let (bus, present, left) = (bus.clone(), settings.adapter, settings.left);
        let (board, handle) = SimBoard::new();
        handle.set_ignition(Some(!settings.ignition_off));
        let hardware = HardwareBuilder::of_config(&config, board.doip_activation())
            .open_can_later(move |device: &str| {
                let (bus, device, mut present) = (bus.clone(), device.to_owned(), present.clone());
                let left = left.clone();
                Box::pin(async move {
                    if let Some(present) = &mut present {
                        present.wait_for(|present| *present).await.unwrap();
                    }
                    let adapter = bus.attach_adapter(&device, VirtualBus::full_capabilities());
                    let adapter: Box<dyn CanBus> = Box::new(adapter);
                    Ok(match left {
                        Some(left) => Box::new(SlowToLeave { adapter, left }),
                        None => adapter,
                    })
                })
            })
            .terminal15();
        let hardware = if settings.runtime_time { hardware.runtime_time() } else { hardware }.build();
        let setup = Setup {
            pincode: Pincode::new(pincode).unwrap(),
            hardware,
            board: Box::new(board),
            dialer: Dialer::new(tls::client_config(config.cloud.ca_file.as_deref()).unwrap()),
            seed: 1,
            config,
        };
        let (control, mut commands) = mpsc::channel(1);
        let task = tokio::spawn(async move { agent::run(setup, &mut commands).await });
        Self { board: handle, control, task }
    }

    /// Ends the agent as SIGTERM does; returns the time that this took.
    pub async fn shut_down(self) -> Duration {
        let asked = Instant::now();
        self.control.send(Control::Shutdown).await.unwrap();
        let ended = soon("the agent to end", self.task).await.unwrap().unwrap();
        assert_eq!(ended, Control::Shutdown);
        asked.elapsed()
    }

    /// Ends the agent as two SIGTERM do: without waiting for a download.
    pub async fn shut_down_twice(self) {
        let control = self.control.clone();
        control.send(Control::Shutdown).await.unwrap();
        self.shut_down().await;
    }

    /// Ends the agent as a power failure does. The agent sends nothing more.
    pub async fn kill(self) {
        self.task.abort();
        let ended = self.task.await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the agent had ended before");
    }

    pub async fn sees_led(&self, description: &str, is_so: impl Fn(Led) -> bool) {
        let mut led = self.board.led();
        soon(description, led.wait_for(|led| is_so(*led))).await.unwrap();
    }

    pub async fn hears_buzzer(&self, on: bool) {
        let mut buzzer = self.board.buzzer();
        soon("the buzzer", buzzer.wait_for(|sounds| *sounds == on)).await.unwrap();
    }
}
