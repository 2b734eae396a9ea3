//! The shell around a connection: its byte stream, and a new connection when the old one is lost.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{
    Connection, ConnectionError, ConnectionSettings, Event, SendError, SendId,
};
use crate::vehicle::doip_network::network::{GatewayConnectError, Network, Stream};

/// The pause before the next attempt after a connection could not be made. The value is a compromise: a
/// gateway that is starting refuses connections for seconds, and an operator waits for it.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// After a connection that worked this long, the next attempt follows without a pause, so that a gateway that
/// keeps closing connections is connected at most twice a second. The websocket to the cloud has the same
/// rule.
const EARNS_RETRY: Duration = Duration::from_millis(500);
/// The interval of alive check responses to the gateway while nothing is read. T_TCP_Alive_Check of ISO
/// 13400-2 is 500 ms: half of it leaves time for a late timer (docs/adr/0008-hold-back-doip-by-tcp.md).
const ALIVE_EVERY: Duration = Duration::from_millis(250);
/// The most bytes that are read at a time. The buffer is memory of each connection; a larger one would save
/// few system calls, since an Ethernet frame carries 1460 bytes.
const READ: usize = 16 * 1024;

/// The reason why there is no connection now.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be made.
    #[error(transparent)]
    Connect(#[from] GatewayConnectError),
    /// The gateway demands TLS, but the connection by TLS could not be made.
    #[error("the gateway demands TLS (0x07), and there is none: {0}")]
    NoTls(#[source] GatewayConnectError),
    /// The connection ended.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

impl ClientError {
    /// Whether another attempt may succeed.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Connect(error) | Self::NoTls(error) => !matches!(error, GatewayConnectError::NoTls(_)),
            Self::Connection(error) => error.may_pass(),
        }
    }
}

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

type Connecting = BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>>;

enum ClientState {
    Idle,
    Connecting(Connecting),
    Up(Box<Up>),
    Waiting(Instant),
}

struct Up {
    connection: Connection,
    stream: Box<dyn Stream>,
    /// The bytes that the stream has not taken yet, from `written` on.
    unsent: Vec<u8>,
    written: usize,
    since: Instant,
    buffer: Box<[u8]>,
    paused: Option<Pause>,
}

/// The time during which nothing is read.
struct Pause {
    since: Instant,
    /// The time of the next alive check response.
    alive_at: Instant,
}

/// A connection with a gateway that is made again when it is lost.
pub struct Client {
    settings: ConnectionSettings,
    gateway: SocketAddr,
    tls: bool,
    /// The gateway refused a connection without TLS.
    tls_demanded: bool,
    state: ClientState,
    deadline: Deadline,
    is_active: bool,
    /// Routing was active once: a gateway that refuses now may be starting up.
    was_active: bool,
    has_given_up: bool,
}

impl Client {
    /// A connection with the gateway at this address. The first poll begins to connect.
    pub fn new(gateway: SocketAddr, settings: ConnectionSettings, tls: bool) -> Self {
        Self {
            settings,
            gateway,
            tls,
            tls_demanded: false,
            state: ClientState::Idle,
            deadline: Deadline::new(TimerKind::Runtime),
            is_active: false,
            was_active: false,
            has_given_up: false,
        }
    }

    /// Whether routing is active.
    pub fn is_active(&self) -> bool {
        self.is_active
    }

    /// Whether there is a connection, active or not.
    pub fn is_connected(&self) -> bool {
        matches!(self.state, ClientState::Up(_))
    }

    /// The gateway's address.
    pub fn gateway(&self) -> SocketAddr {
        self.gateway
    }

    /// Changes the gateway's address, from the next attempt on.
    pub fn set_gateway(&mut self, gateway: SocketAddr) {
        self.gateway = gateway;
    }

    /// While paused, the client reads nothing, so that TCP holds the gateway back. The client still sends,
    /// and sends alive check responses more often than the gateway could ask (T_TCP_Alive_Check).
    pub fn set_paused(&mut self, paused: bool) {
        if let ClientState::Up(up) = &mut self.state {
            up.set_paused(paused && self.is_active);
        }
    }

    /// Sends a diagnostic message.
    pub fn send(&mut self, target: LogicalAddress, data: &[u8]) -> Result<SendId, SendError> {
        match &mut self.state {
            ClientState::Up(up) => up.connection.send(target, data),
            _ => Err(SendError::NotActive),
        }
    }

    /// Advances the connection; pending when there is nothing to do or to report.
    pub fn poll(&mut self, cx: &mut Context<'_>, network: &dyn Network) -> Poll<ClientEvent> {
        loop {
            match &mut self.state {
                _ if self.has_given_up => return Poll::Pending,
                ClientState::Idle => {
                    self.state = ClientState::Connecting(network.connect(self.gateway, self.tls));
                }
                ClientState::Connecting(connecting) => match ready!(connecting.as_mut().poll(cx)) {
                    Ok(stream) => {
                        self.state = ClientState::Up(Box::new(Up::new(stream, self.settings, now())));
                    }
                    Err(error) => {
                        let error = if self.tls_demanded { ClientError::NoTls(error) } else { error.into() };
                        return Poll::Ready(self.handle_down(error, false));
                    }
                },
                ClientState::Waiting(until) => {
                    self.deadline.set(Some(*until));
                    ready!(self.deadline.poll_expired(cx));
                    self.state = ClientState::Idle;
                }
                ClientState::Up(up) => {
                    let event = ready!(up.poll(cx, &mut self.deadline));
                    match event {
                        Event::Activated { entity, .. } => {
                            self.is_active = true;
                            self.was_active = true;
                            return Poll::Ready(ClientEvent::Active { entity });
                        }
                        Event::ConfirmationRequired => return Poll::Ready(ClientEvent::ConfirmationRequired),
                        Event::Closed(error) if error.needs_tls() && !self.tls => {
                            tracing::info!(gateway = %self.gateway, "the gateway demands TLS");
                            (self.tls, self.tls_demanded) = (true, true);
                            self.state = ClientState::Idle;
                        }
                        Event::Closed(error) => {
                            let has_worked =
                                self.is_active && now().saturating_duration_since(up.since) >= EARNS_RETRY;
                            return Poll::Ready(self.handle_down(error.into(), has_worked));
                        }
                        other => return Poll::Ready(ClientEvent::Message(other)),
                    }
                }
            }
        }
    }

    fn handle_down(&mut self, error: ClientError, without_pause: bool) -> ClientEvent {
        self.has_given_up = !error.may_pass() && !self.was_active;
        self.is_active = false;
        self.state =
            if without_pause { ClientState::Idle } else { ClientState::Waiting(now() + RETRY_AFTER) };
        ClientEvent::Down(error)
    }
}

impl Up {
    fn new(stream: Box<dyn Stream>, settings: ConnectionSettings, now: Instant) -> Self {
        Self {
            connection: Connection::new(settings, now),
            stream,
            unsent: Vec::new(),
            written: 0,
            since: now,
            buffer: vec![0; READ].into(),
            paused: None,
        }
    }

    fn set_paused(&mut self, paused: bool) {
        match &self.paused {
            None if paused => self.paused = Some(Pause { since: now(), alive_at: now() }),
            Some(Pause { since, .. }) if !paused => {
                self.connection.handle_pause(now(), now().saturating_duration_since(*since));
                self.paused = None;
            }
            _ => {}
        }
    }

    /// The time of the next [`Up::handle_timeout`]. While nothing is read, the deadlines of the connection do
    /// not count: the message that they wait for may have come already.
    fn poll_timeout(&self) -> Option<Instant> {
        match &self.paused {
            Some(pause) => Some(pause.alive_at),
            None => self.connection.poll_timeout().map(|(at, _)| at),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match &mut self.paused {
            Some(pause) => {
                pause.alive_at = now + ALIVE_EVERY;
                self.connection.volunteer_alive();
            }
            None => self.connection.handle_timeout(now),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, deadline: &mut Deadline) -> Poll<Event> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Poll::Ready(event);
            }
            // reads before a deadline expires that may wait for these bytes
            let read = if self.paused.is_some() { Poll::Pending } else { self.poll_read(cx) };
            match read {
                Poll::Ready(Ok(read)) => {
                    let bytes = self.buffer.get(..read).unwrap_or_default();
                    self.connection.handle_bytes(now(), bytes);
                    continue;
                }
                Poll::Ready(Err(error)) => {
                    self.connection.handle_stream_error(&error);
                    continue;
                }
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                self.connection.handle_stream_error(&error);
                continue;
            }
            deadline.set(self.poll_timeout());
            ready!(deadline.poll_expired(cx));
            self.handle_timeout(now());
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// Writes all pending bytes; pending when the stream can take no more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.unsent.get(self.written..).filter(|rest| !rest.is_empty()) {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += written;
            }
            match self.connection.poll_transmit(now()) {
                Some(next) => {
                    self.unsent = next;
                    self.written = 0;
                }
                None => return Pin::new(&mut self.stream).poll_flush(cx),
            }
        }
    }
}
