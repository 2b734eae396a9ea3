//! A cloud that only relays, in virtual time. Behind the cloud is the real session of a connector in a
//! virtual vehicle; in front of the cloud is a network that a test can disturb.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use connector_agent::policy::SharedPolicy;
use connector_agent::relay::connection::{RelayConnection, RelaySettings};
use connector_agent::relay::limits::RelayLimits;
use connector_agent::relay::wire::request::{IsotpChannelConfig, Request, ResumeConnection, Switch};
use connector_agent::relay::wire::{Envelope, ProblemKind};
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::future::BoxFuture;
use connector_operator::client::{
    Connection, ConnectionSettings, Dial, DialError, Io, OperatorError, Socket,
};
use connector_sim::network::{BadNetworkConfig, Conditions};
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use connector_test_support::config::{can_bus, functional};
use connector_test_support::hardware::HardwareBuilder;
use connector_test_support::{data, now};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex, split};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use uuid::Uuid;

/// The size of a kernel's socket buffer.
const SOCKET_BUFFER: usize = 64 * 1024;

pub(super) enum Control {
    /// The connector's link is lost for this time.
    Interrupt(Duration),
    /// The connector closes the connection.
    Close(&'static str),
}

pub(super) struct Rig {
    pub network: Conditions,
    pub vehicle: Vehicle,
    pub control: mpsc::UnboundedSender<Control>,
    pub dialer: Arc<Dialer>,
    pub uuid: Uuid,
}

/// Connects an operator to the cloud through the network.
pub(super) struct Dialer {
    sockets: mpsc::UnboundedSender<DuplexStream>,
    network: Conditions,
    pub is_down: AtomicBool,
    pub dialed: AtomicU64,
}

impl Dial for Dialer {
    fn dial(&self) -> BoxFuture<'_, Result<Socket, DialError>> {
        Box::pin(async {
            self.dialed.fetch_add(1, Ordering::Relaxed);
            if self.is_down.load(Ordering::Relaxed) {
                return Err(DialError::Timeout(Duration::from_secs(1)));
            }
            let (client, near) = duplex(SOCKET_BUFFER);
            let (far, server) = duplex(SOCKET_BUFFER);
            let network = self.network.clone();
            tokio::spawn(async move { network.carry(split(near), split(far)).await });
            self.sockets.send(server).unwrap();
            let client: Box<dyn Io> = Box::new(client);
            Ok(WebSocketStream::from_raw_socket(client, Role::Client, None).await)
        })
    }
}

impl Rig {
    pub(super) fn new(platform: &str, network: BadNetworkConfig) -> Self {
        Self::with_vehicle(platform, network, |_| {})
    }

    pub(super) fn with_vehicle(
        platform: &str,
        network: BadNetworkConfig,
        change: impl FnOnce(&mut VehicleConfig),
    ) -> Self {
        let record = data::record(platform);
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let mut config = VehicleConfig::new(record);
        change(&mut config);
        let vehicle = Vehicle::start(&config, &bus);
        let uuid = Uuid::new_v4();
        let hardware = HardwareBuilder::in_runtime_time().on_bus(&bus).build();
        let settings = RelaySettings {
            connection_uuid: uuid,
            hold: Duration::from_secs(30),
            limits: RelayLimits::default(),
            hardware,
            policy: SharedPolicy::default(),
        };
        let session = RelayConnection::new(settings, Instant::now().into_std());
        let network = Conditions::new(network);
        let (sockets, new_sockets) = mpsc::unbounded_channel();
        let (control, controls) = mpsc::unbounded_channel();
        tokio::spawn(
            Cloud { session, uuid, operator: None, away_until: None, gates: Gates::default() }
                .drive(new_sockets, controls),
        );
        let dialer = Dialer {
            sockets,
            network: network.clone(),
            is_down: AtomicBool::new(false),
            dialed: AtomicU64::new(0),
        };
        Self { network, vehicle, control, dialer: Arc::new(dialer), uuid }
    }

    pub(super) async fn join(&self) -> Result<Connection, OperatorError> {
        Connection::join(self.dialer.clone(), self.uuid, ConnectionSettings::default()).await
    }

    /// A joined connection whose bus is configured.
    pub(super) async fn connect(&self) -> Connection {
        let connection = self.join().await.unwrap();
        connection.configure_buses(vec![can_bus()]).await.unwrap();
        connection
    }

    /// Makes the connector lose its link for this time.
    pub(super) fn interrupt(&self, duration: Duration) {
        self.control.send(Control::Interrupt(duration)).unwrap();
    }
}

pub(super) fn isotp(request_id: u32, response_id: Option<u32>) -> IsotpChannelConfig {
    IsotpChannelConfig { response_id, keep_alive: Switch::Enabled, ..functional(request_id) }
}

/// Which binary messages pass. The cloud drops the others, as the sandbox does.
#[derive(Default)]
struct Gates {
    to_connector: bool,
    to_operator: bool,
}

type Server = WebSocketStream<DuplexStream>;

struct Cloud {
    session: RelayConnection,
    uuid: Uuid,
    operator: Option<Server>,
    /// The end of the connector's absence.
    away_until: Option<Instant>,
    gates: Gates,
}

enum Event {
    Socket(Option<DuplexStream>),
    Control(Option<Control>),
    Message(Option<Message>),
    Progress,
}

impl Cloud {
    async fn drive(
        mut self,
        mut sockets: mpsc::UnboundedReceiver<DuplexStream>,
        mut controls: mpsc::UnboundedReceiver<Control>,
    ) {
        loop {
            self.pump().await;
            let timeouts = [self.session.poll_timeout(now()).map(Instant::from_std), self.away_until];
            let timeout = timeouts.into_iter().flatten().min();
            let event = tokio::select! {
                socket = sockets.recv() => Event::Socket(socket),
                control = controls.recv() => Event::Control(control),
                message = next(&mut self.operator) => Event::Message(message),
                () = poll_fn(|cx| self.session.poll_drive(cx)) => Event::Progress,
                () = sleep_until(timeout) => Event::Progress,
            };
            match event {
                Event::Socket(Some(socket)) => {
                    self.gates = Gates::default();
                    self.operator = Some(WebSocketStream::from_raw_socket(socket, Role::Server, None).await);
                }
                Event::Control(Some(Control::Interrupt(duration))) => {
                    self.session.interrupt(now());
                    self.gates = Gates::default();
                    self.away_until = Some(Instant::now() + duration);
                    self.notify("connectionInterrupted", json!({"connection_uuid": self.uuid}), None).await;
                }
                Event::Control(Some(Control::Close(reason))) => {
                    let message = json!({"connection_uuid": self.uuid, "reason": reason});
                    self.notify("connectionClosed", message, None).await;
                }
                // the test is over
                Event::Socket(None) | Event::Control(None) => return,
                Event::Message(Some(message)) => self.handle(message).await,
                Event::Message(None) => {
                    self.operator = None;
                    self.gates = Gates::default();
                }
                Event::Progress => {}
            }
            self.session.handle_timeout(now());
            if self.away_until.is_some_and(|until| until <= Instant::now()) {
                self.away_until = None;
                let message = json!({"connection_uuid": self.uuid, "received": self.session.received()});
                self.notify("connectionResumed", message, None).await;
            }
        }
    }

    /// Forwards the messages of the session to the operator.
    async fn pump(&mut self) {
        while let Some(text) = self.session.poll_text() {
            if text.action == "connectionResumed" {
                self.gates = Gates { to_connector: true, to_operator: true };
            }
            self.notify(&text.action.clone(), text.message, text.request_id).await;
        }
        while let Some(message) = self.session.poll_message(now()) {
            if self.gates.to_operator {
                self.send(Message::Binary(message)).await;
            }
        }
    }

    async fn notify(&mut self, action: &str, message: Value, request_id: Option<String>) {
        self.send(Message::text(Envelope::new(action, &message).in_reply_to(request_id).to_text())).await;
    }

    async fn send(&mut self, message: Message) {
        if let Some(operator) = &mut self.operator
            && operator.send(message).await.is_err()
        {
            self.operator = None;
            self.gates = Gates::default();
        }
    }

    async fn handle(&mut self, message: Message) {
        match message {
            Message::Binary(bytes) if self.gates.to_connector && self.away_until.is_none() => {
                self.session.handle_message(now(), &bytes);
            }
            Message::Text(text) => self.handle_text(serde_json::from_str(&text).unwrap()).await,
            _ => {}
        }
    }

    async fn handle_text(&mut self, envelope: Envelope) {
        if envelope.action == "joinConnection" {
            let joined = json!({"connection_uuid": self.uuid, "vin_number": null, "connector": {}});
            self.notify("connectionJoined", joined, envelope.request_id).await;
            match envelope.message.get("received").and_then(Value::as_u64) {
                None => self.gates = Gates { to_connector: true, to_operator: true },
                Some(received) if self.away_until.is_none() => {
                    let resume = ResumeConnection { connection_uuid: self.uuid, received: received as u32 };
                    self.session.handle_request(now(), Request::ResumeConnection(resume), None);
                }
                // continues when the connector is back
                Some(_) => {}
            }
            return;
        }
        if self.away_until.is_some() {
            let problem = ProblemKind::ConnectorOffline.problem("The connector is away.");
            self.send(Message::text(Envelope::error(&problem, envelope.request_id).to_text())).await;
            return;
        }
        if envelope.action == "resumeConnection" {
            self.gates.to_connector = true;
        }
        match Request::parse(&envelope) {
            Ok(request) => self.session.handle_request(now(), request, envelope.request_id),
            Err(problem) => {
                self.send(Message::text(Envelope::error(&problem, envelope.request_id).to_text())).await;
            }
        }
    }
}

async fn next(operator: &mut Option<Server>) -> Option<Message> {
    match operator {
        Some(operator) => operator.next().await.and_then(Result::ok),
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
