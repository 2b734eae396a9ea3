//! A connection with a gateway that is made again when it is lost.
//!
//! `connect_policy` decides how and when to connect, and `driver` drives a connection over its byte stream.

mod connect_policy;
mod driver;

use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use connector_hal::clock::now;
use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};

pub use self::connect_policy::ClientError;
use self::connect_policy::{AfterClose, ConnectPolicy, NextAttempt};
use self::driver::ConnectionDriver;
use crate::protocol::doip::connection::{ConnectionSettings, Event, SendError, SendId};
use crate::protocol::doip::{LogicalAddress, ProtocolVersion};
use crate::vehicle::doip_network::network::{GatewayConnectError, Network, Stream};

/// What a client reports.
#[derive(Debug)]
pub enum ClientEvent {
    /// Routing is active, for the first time or again.
    Active {
        /// The gateway's logical address.
        entity: LogicalAddress,
    },
    /// The activation must be confirmed in the vehicle.
    ConfirmationRequired,
    /// The outcome of a message, or a message of an ECU.
    Message(Event),
    /// The connection is down. The client connects again, unless another attempt cannot succeed.
    Down(ClientError),
}

type Connected = Result<Box<dyn Stream>, GatewayConnectError>;

enum ClientState {
    /// An attempt to connect is due.
    Due,
    Connecting(BoxFuture<'static, Connected>),
    Up(Box<ConnectionDriver>),
    Waiting(Instant),
    GivenUp,
}

/// A connection with a gateway that is made again when it is lost.
pub struct Client {
    settings: ConnectionSettings,
    gateway: SocketAddr,
    policy: ConnectPolicy,
    state: ClientState,
    deadline: Deadline,
}

impl Client {
    /// A connection with the gateway at this address. The first poll begins to connect.
    pub fn new(gateway: SocketAddr, settings: ConnectionSettings, tls: bool) -> Self {
        Self {
            settings,
            gateway,
            policy: ConnectPolicy::new(tls),
            state: ClientState::Due,
            deadline: Deadline::new(TimerKind::Runtime),
        }
    }

    /// Whether routing is active.
    pub fn is_active(&self) -> bool {
        self.policy.is_active()
    }

    /// Whether there is a connection, active or not.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.state, ClientState::Up(_))
    }

    /// The protocol version of the client's messages.
    pub(crate) fn version(&self) -> ProtocolVersion {
        self.settings.version
    }

    /// The gateway's address.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Changes the gateway's address, from the next attempt on.
    pub(crate) fn set_gateway(&mut self, gateway: SocketAddr) {
        self.gateway = gateway;
    }

    /// While paused, the client reads nothing, so that TCP holds the gateway back. The client still sends,
    /// and sends alive check responses more often than the gateway could ask (T_TCP_Alive_Check).
    pub(crate) fn set_paused(&mut self, paused: bool) {
        if let ClientState::Up(driver) = &mut self.state {
            driver.set_paused(now(), paused && self.policy.is_active());
        }
    }

    /// Sends a diagnostic message.
    pub fn send(&mut self, target: LogicalAddress, data: &[u8]) -> Result<SendId, SendError> {
        match &mut self.state {
            ClientState::Up(driver) => driver.send(target, data),
            _ => Err(SendError::NotActive),
        }
    }

    /// Advances the connection; pending when there is nothing to do or to report.
    pub fn poll(&mut self, cx: &mut Context<'_>, network: &dyn Network) -> Poll<ClientEvent> {
        loop {
            let event = match &mut self.state {
                ClientState::Due => {
                    let connecting = network.connect(self.gateway, self.policy.uses_tls());
                    self.state = ClientState::Connecting(connecting);
                    None
                }
                ClientState::Connecting(connecting) => {
                    let connected = ready!(connecting.as_mut().poll(cx));
                    self.handle_connected(connected)
                }
                ClientState::Up(driver) => {
                    let event = ready!(driver.poll(cx));
                    self.handle_event(event)
                }
                ClientState::Waiting(until) => {
                    self.deadline.set(Some(*until));
                    ready!(self.deadline.poll_expired(cx));
                    self.state = ClientState::Due;
                    None
                }
                ClientState::GivenUp => return Poll::Pending,
            };
            if let Some(event) = event {
                return Poll::Ready(event);
            }
        }
    }

    fn handle_connected(&mut self, connected: Connected) -> Option<ClientEvent> {
        let now = now();
        match connected {
            Ok(stream) => {
                self.policy.handle_connected(now);
                self.state = ClientState::Up(Box::new(ConnectionDriver::new(stream, self.settings, now)));
                None
            }
            Err(error) => {
                let (error, next) = self.policy.handle_connect_error(now, error);
                Some(self.handle_down(error, next))
            }
        }
    }

    fn handle_event(&mut self, event: Event) -> Option<ClientEvent> {
        match event {
            Event::Activated { entity, .. } => {
                self.policy.handle_active();
                Some(ClientEvent::Active { entity })
            }
            Event::ConfirmationRequired => Some(ClientEvent::ConfirmationRequired),
            Event::Closed(error) => match self.policy.handle_closed(now(), error) {
                AfterClose::UseTls => {
                    tracing::info!(gateway = %self.gateway, "the gateway demands TLS");
                    self.state = ClientState::Due;
                    None
                }
                AfterClose::UseVersion(version) => {
                    tracing::info!(gateway = %self.gateway, %version, "the gateway uses another version");
                    self.settings.version = version;
                    self.state = ClientState::Due;
                    None
                }
                AfterClose::Down(error, next) => Some(self.handle_down(error, next)),
            },
            other => Some(ClientEvent::Message(other)),
        }
    }

    fn handle_down(&mut self, error: ClientError, next: NextAttempt) -> ClientEvent {
        self.state = match next {
            NextAttempt::Immediately => ClientState::Due,
            NextAttempt::At(at) => ClientState::Waiting(at),
            NextAttempt::Never => ClientState::GivenUp,
        };
        ClientEvent::Down(error)
    }
}
