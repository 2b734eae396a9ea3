//! The websocket to the cloud: receives and sends messages, and reconnects when the connection drops.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use connector_hal::clock::now;
use rustls::ClientConfig;

use super::closing::close;
use super::connect::Websocket;
use super::connecting::ConnectLoop;
use super::event::{DownReason, OutgoingMessage, SocketEvent};
use super::open_socket::OpenSocket;
use super::settings::SocketSettings;
use crate::cloud::login::Authenticator;
use crate::cloud::rest::ErrorChain;

/// The websocket, owned by one task. The task drives it by waiting for its events:
///
/// 1. `poll_event(cx, wants_to_send)` connects, reads, flushes, sends Pings, and reconnects.
/// 2. While `wants_to_send` is set, it reports [`SocketEvent::Writable`] as soon as the socket can take a
///    message.
/// 3. Only then does the task build the message and pass it to [`CloudSocket::send`], so that everything
///    received from the vehicle up to then shares the message.
pub struct CloudSocket {
    settings: Arc<SocketSettings>,
    authenticator: Authenticator,
    connecting: ConnectLoop,
    state: SocketState,
    /// An operator's connection is open or held.
    is_busy: bool,
}

enum SocketState {
    Connecting,
    Up(Box<OpenSocket>),
    /// Closed by [`CloudSocket::close`].
    Closed,
}

impl CloudSocket {
    /// A websocket that connects, on the current runtime, as soon as its events are polled.
    pub fn new(
        settings: SocketSettings,
        tls: Arc<ClientConfig>,
        authenticator: Authenticator,
        seed: u64,
    ) -> Self {
        let settings = Arc::new(settings);
        let connecting = ConnectLoop::new(settings.clone(), tls, authenticator.clone(), seed);
        Self { settings, authenticator, connecting, state: SocketState::Connecting, is_busy: false }
    }

    /// Says whether an operator's connection is open or held: then a lost websocket is noticed and made again
    /// sooner.
    pub fn set_busy(&mut self, is_busy: bool) {
        if std::mem::replace(&mut self.is_busy, is_busy) == is_busy {
            return;
        }
        if let SocketState::Up(open) = &mut self.state {
            open.set_busy(now(), is_busy);
        }
    }

    /// Waits for the next event. Cancel-safe; nothing happens on the websocket unless a task waits here or
    /// polls.
    pub async fn next_event(&mut self, wants_to_send: bool) -> SocketEvent {
        std::future::poll_fn(|cx| self.poll_event(cx, wants_to_send)).await
    }

    /// Polls for the next event.
    ///
    /// With `wants_to_send`, reading and [`SocketEvent::Writable`] take turns, so that neither starves the
    /// other.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, wants_to_send: bool) -> Poll<SocketEvent> {
        match &mut self.state {
            SocketState::Connecting => {
                let websocket = ready!(self.connecting.poll_connected(cx, self.is_busy));
                Poll::Ready(self.handle_connected(websocket))
            }
            SocketState::Up(open) => Poll::Ready(match ready!(open.poll_event(cx, wants_to_send)) {
                Ok(event) => event,
                Err(reason) => self.handle_drop(reason),
            }),
            SocketState::Closed => Poll::Pending,
        }
    }

    /// Sends a message: a binary one once after each [`SocketEvent::Writable`], a text while
    /// [`CloudSocket::takes_text`]. Further messages are accepted, but wait in memory. A failure to send is
    /// reported as [`SocketEvent::Down`].
    ///
    /// # Errors
    ///
    /// Returns the message if the websocket is not up.
    pub fn send(&mut self, message: OutgoingMessage) -> Result<(), OutgoingMessage> {
        match &mut self.state {
            SocketState::Up(open) => {
                open.send(message);
                Ok(())
            }
            _ => Err(message),
        }
    }

    /// Whether the websocket is up, and few texts wait for the cloud to take them.
    pub fn takes_text(&self) -> bool {
        matches!(&self.state, SocketState::Up(open) if open.takes_text())
    }

    /// Whether the websocket is up.
    pub fn is_up(&self) -> bool {
        matches!(self.state, SocketState::Up(_))
    }

    /// The smoothed round-trip time; `None` while it is not known.
    pub fn round_trip_time(&self) -> Option<Duration> {
        match &self.state {
            SocketState::Up(open) => open.round_trip_time(),
            _ => None,
        }
    }

    /// Sends pending messages and a Close within `limit`; the websocket stays down afterwards. Not
    /// cancel-safe.
    pub async fn close(&mut self, limit: Duration) {
        self.authenticator.set_online(false);
        if let SocketState::Up(mut open) = std::mem::replace(&mut self.state, SocketState::Closed) {
            let closed = tokio::time::timeout(limit, close(&mut open.websocket)).await;
            tracing::debug!("websocket closed{}", if closed.is_err() { ", without an answer" } else { "" });
        }
    }

    fn handle_connected(&mut self, websocket: Websocket) -> SocketEvent {
        tracing::info!("online");
        self.authenticator.set_online(true);
        let open = OpenSocket::new(now(), websocket, self.settings.clone(), self.is_busy);
        self.state = SocketState::Up(Box::new(open));
        SocketEvent::Up
    }

    fn handle_drop(&mut self, reason: DownReason) -> SocketEvent {
        tracing::warn!("offline: {}", ErrorChain(&reason));
        self.authenticator.set_online(false);
        self.connecting.handle_drop(reason.failure(), self.is_busy);
        self.state = SocketState::Connecting;
        SocketEvent::Down(reason)
    }
}

impl Drop for CloudSocket {
    fn drop(&mut self) {
        self.authenticator.set_online(false);
    }
}
