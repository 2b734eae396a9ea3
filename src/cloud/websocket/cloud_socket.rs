//! The websocket to the cloud: receives and sends messages, and reconnects when the connection drops.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind, has_read_all};
use futures_util::{Sink, Stream};
use rustls::ClientConfig;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{self, Message};

use super::closing::{answer_close, close, closed_without_code, refuse_length};
use super::connect::Websocket;
use super::connecting::ConnectLoop;
use super::event::{DownReason, OutgoingMessage, SocketEvent};
use super::liveness::Liveness;
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
        Self { settings, authenticator, connecting, state: SocketState::Connecting }
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
                let websocket = ready!(self.connecting.poll_connected(cx));
                Poll::Ready(self.handle_connected(websocket))
            }
            SocketState::Up(open) => {
                let event = open.poll_event(cx, wants_to_send);
                if open.is_working {
                    self.connecting.handle_working(now());
                }
                Poll::Ready(match ready!(event) {
                    Ok(event) => event,
                    Err(reason) => self.handle_drop(reason),
                })
            }
            SocketState::Closed => Poll::Pending,
        }
    }

    /// Sends a message. Call it once after each [`SocketEvent::Up`] or [`SocketEvent::Writable`]; further
    /// messages are accepted but wait in memory. A failure to send is reported as [`SocketEvent::Down`].
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

    /// Whether the websocket is up.
    pub fn is_up(&self) -> bool {
        matches!(self.state, SocketState::Up(_))
    }

    /// The smoothed round-trip time; `None` while it is not known.
    pub fn round_trip_time(&self) -> Option<Duration> {
        match &self.state {
            SocketState::Up(open) => open.liveness.round_trip_time(),
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
        self.state = SocketState::Up(Box::new(OpenSocket::new(now(), websocket, self.settings.clone())));
        SocketEvent::Up
    }

    fn handle_drop(&mut self, reason: DownReason) -> SocketEvent {
        tracing::warn!("offline: {}", ErrorChain(&reason));
        self.authenticator.set_online(false);
        self.connecting.handle_drop(reason.failure());
        self.state = SocketState::Connecting;
        SocketEvent::Down(reason)
    }
}

impl Drop for CloudSocket {
    fn drop(&mut self) {
        self.authenticator.set_online(false);
    }
}

/// A websocket that is up.
struct OpenSocket {
    websocket: Websocket,
    liveness: Liveness,
    settings: Arc<SocketSettings>,
    timer: Deadline,
    /// A buffer of the websocket library may hold bytes that the socket has not taken.
    needs_flush: bool,
    /// A message was received.
    is_working: bool,
    /// Sending comes first in the next turn.
    is_senders_turn: bool,
    /// The error of a failed send, reported by the next poll.
    send_error: Option<tungstenite::Error>,
}

impl OpenSocket {
    fn new(now: Instant, websocket: Websocket, settings: Arc<SocketSettings>) -> Self {
        Self {
            websocket,
            liveness: Liveness::new(now, settings.ping_interval, settings.dead_after),
            settings,
            timer: Deadline::new(TimerKind::Runtime),
            needs_flush: false,
            is_working: false,
            is_senders_turn: false,
            send_error: None,
        }
    }

    fn send(&mut self, message: OutgoingMessage) {
        self.start_send(match message {
            OutgoingMessage::Text(text) => Message::text(text),
            OutgoingMessage::Binary(bytes) => Message::Binary(bytes),
        });
    }

    /// The next event, or the reason why the websocket dropped.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        wants_to_send: bool,
    ) -> Poll<Result<SocketEvent, DownReason>> {
        loop {
            self.transmit(cx)?;
            let is_senders_turn = std::mem::take(&mut self.is_senders_turn);
            if is_senders_turn && wants_to_send && self.poll_writable(cx).is_ready() {
                return Poll::Ready(Ok(SocketEvent::Writable));
            }
            if let Poll::Ready(message) = Pin::new(&mut self.websocket).poll_next(cx) {
                self.is_senders_turn = true;
                match self.handle_received(message)? {
                    Some(event) => return Poll::Ready(Ok(event)),
                    None => continue,
                }
            }
            // Everything that has arrived has been read. Only now does silence mean that the cloud is silent,
            // and not that this process was slow.
            if has_read_all(cx) && self.process_liveness(now())? {
                continue;
            }
            if !is_senders_turn && wants_to_send && self.poll_writable(cx).is_ready() {
                return Poll::Ready(Ok(SocketEvent::Writable));
            }
            ready!(self.poll_deadline(cx));
        }
    }

    /// Sends a Ping if one is due, and returns whether it did. An error if the websocket is dead.
    fn process_liveness(&mut self, now: Instant) -> Result<bool, DownReason> {
        if self.liveness.is_dead(now) {
            return Err(DownReason::Dead(self.settings.dead_after));
        }
        let ping = self.liveness.poll_ping(now);
        if let Some(payload) = ping {
            self.start_send(Message::Ping(payload.to_vec().into()));
        }
        Ok(ping.is_some())
    }

    /// Ready at the next deadline of [`OpenSocket::process_liveness`].
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, _) = self.liveness.poll_timeout();
        self.timer.set(Some(deadline));
        self.timer.poll_expired(cx)
    }

    fn start_send(&mut self, message: Message) {
        if let Err(error) = Pin::new(&mut self.websocket).start_send(message) {
            self.send_error.get_or_insert(error);
        }
        self.needs_flush = true;
    }

    /// Moves buffered bytes into the socket, as far as the socket takes them.
    fn transmit(&mut self, cx: &mut Context<'_>) -> Result<(), DownReason> {
        if let Some(error) = self.send_error.take() {
            return Err(DownReason::Broken(Box::new(error)));
        }
        if self.needs_flush
            && let Poll::Ready(flushed) = Pin::new(&mut self.websocket).poll_flush(cx)
        {
            flushed.map_err(|error| DownReason::Broken(Box::new(error)))?;
            self.needs_flush = false;
        }
        Ok(())
    }

    /// Ready if a message passed now would go onto the wire immediately: no buffered bytes wait, and the
    /// kernel holds little that is not sent.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.needs_flush {
            return Poll::Pending;
        }
        self.websocket.get_ref().poll_writable(cx)
    }

    fn handle_received(
        &mut self,
        message: Option<tungstenite::Result<Message>>,
    ) -> Result<Option<SocketEvent>, DownReason> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                return Err(refuse_length(&mut self.websocket, size, max_size));
            }
            Some(Err(error)) => return Err(DownReason::Broken(Box::new(error))),
            None => return Err(closed_without_code()),
        };
        let now = now();
        self.liveness.handle_received(now);
        self.is_working = true;
        match message {
            Message::Text(text) if text.len() > self.settings.max_text => {
                Err(refuse_length(&mut self.websocket, text.len(), self.settings.max_text))
            }
            Message::Text(text) => Ok(Some(SocketEvent::Text(text.as_str().to_owned()))),
            Message::Binary(bytes) if bytes.len() > self.settings.max_binary => {
                Err(refuse_length(&mut self.websocket, bytes.len(), self.settings.max_binary))
            }
            Message::Binary(bytes) => Ok(Some(SocketEvent::Binary(bytes))),
            Message::Pong(payload) => {
                self.liveness.handle_pong(now, &payload);
                Ok(None)
            }
            Message::Ping(_) => {
                // the library has queued the Pong; the next flush sends it
                self.needs_flush = true;
                Ok(None)
            }
            Message::Close(frame) => Err(answer_close(&mut self.websocket, frame)),
            Message::Frame(_) => Ok(None),
        }
    }
}
