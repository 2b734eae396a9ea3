//! The websocket to the cloud: receives and sends messages, and reconnects when the connection drops.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};
use futures_util::{Sink, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConfig;
use tokio::io::Interest;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::connect::Websocket;
use super::connecting::ConnectLoop;
use super::event::{DownReason, OutgoingMessage, SocketEvent};
use super::liveness::Liveness;
use super::settings::SocketSettings;
use crate::cloud::login::Authenticator;
use crate::cloud::rest::ErrorChain;

/// The close code that stands for "no close code" (RFC 6455, 7.4.1).
const NO_CLOSE_CODE: u16 = 1005;

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
            let closed = tokio::time::timeout(limit, open.close()).await;
            tracing::debug!("websocket closed{}", if closed.is_err() { ", without an answer" } else { "" });
        }
    }

    fn handle_connected(&mut self, websocket: Websocket) -> SocketEvent {
        tracing::info!("online");
        self.authenticator.set_online(true);
        self.state = SocketState::Up(Box::new(OpenSocket::new(now(), websocket, &self.settings)));
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
    timer: Deadline,
    dead_after: Duration,
    max_text: usize,
    max_binary: usize,
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
    fn new(now: Instant, websocket: Websocket, settings: &SocketSettings) -> Self {
        Self {
            websocket,
            liveness: Liveness::new(now, settings.ping_interval, settings.dead_after),
            timer: Deadline::new(TimerKind::Runtime),
            dead_after: settings.dead_after,
            max_text: settings.max_text,
            max_binary: settings.max_binary,
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
            self.flush(cx)?;
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
            let now = now();
            if self.liveness.is_dead(now) {
                return Poll::Ready(Err(DownReason::Dead(self.dead_after)));
            }
            if let Some(payload) = self.liveness.poll_ping(now) {
                self.start_send(Message::Ping(payload.to_vec().into()));
                continue;
            }
            if !is_senders_turn && wants_to_send && self.poll_writable(cx).is_ready() {
                return Poll::Ready(Ok(SocketEvent::Writable));
            }
            let (deadline, _) = self.liveness.poll_timeout();
            self.timer.set(Some(deadline));
            ready!(self.timer.poll_expired(cx));
        }
    }

    fn start_send(&mut self, message: Message) {
        if let Err(error) = Pin::new(&mut self.websocket).start_send(message) {
            self.send_error.get_or_insert(error);
        }
        self.needs_flush = true;
    }

    /// Moves buffered bytes into the socket, as far as the socket takes them.
    fn flush(&mut self, cx: &mut Context<'_>) -> Result<(), DownReason> {
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
    /// kernel holds little that is not sent (`TCP_NOTSENT_LOWAT`).
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.needs_flush {
            return Poll::Pending;
        }
        let tcp = self.websocket.get_ref().tcp();
        loop {
            // a socket error is reported by the next write
            let _reported_later = ready!(tcp.poll_write_ready(cx));
            // The runtime believes a socket writable until a write fails, so ask the kernel.
            let writable = tcp.try_io(Interest::WRITABLE, || {
                let mut fds = [PollFd::new(tcp, PollFlags::OUT)];
                match poll(&mut fds, Some(&Timespec::default())) {
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if !matches!(writable, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(());
            }
        }
    }

    fn handle_received(
        &mut self,
        message: Option<tungstenite::Result<Message>>,
    ) -> Result<Option<SocketEvent>, DownReason> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(tungstenite::Error::Capacity(CapacityError::MessageTooLong { size, max_size }))) => {
                return Err(self.refuse(size, max_size));
            }
            Some(Err(error)) => return Err(DownReason::Broken(Box::new(error))),
            None => return Err(DownReason::Closed { code: NO_CLOSE_CODE, reason: String::new() }),
        };
        let now = now();
        self.liveness.handle_received(now);
        self.is_working = true;
        match message {
            Message::Text(text) if text.len() > self.max_text => Err(self.refuse(text.len(), self.max_text)),
            Message::Text(text) => Ok(Some(SocketEvent::Text(text.as_str().to_owned()))),
            Message::Binary(bytes) if bytes.len() > self.max_binary => {
                Err(self.refuse(bytes.len(), self.max_binary))
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
            Message::Close(frame) => Err(self.handle_close(frame)),
            Message::Frame(_) => Ok(None),
        }
    }

    fn handle_close(&mut self, frame: Option<CloseFrame>) -> DownReason {
        // one attempt to send the library's answer
        let _dropped_if_full =
            Pin::new(&mut self.websocket).poll_flush(&mut Context::from_waker(Waker::noop()));
        let (code, reason) = match frame {
            Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
            None => (NO_CLOSE_CODE, String::new()),
        };
        DownReason::Closed { code, reason }
    }

    /// Sends the cloud a Close that names the excessive length, if the socket takes it.
    fn refuse(&mut self, len: usize, max: usize) -> DownReason {
        let close = CloseFrame { code: CloseCode::Size, reason: "".into() };
        let _dropped_if_full = Pin::new(&mut self.websocket).start_send(Message::Close(Some(close)));
        DownReason::TooLong { len, max }
    }

    /// Sends pending messages and a Close, and waits for the cloud's Close.
    async fn close(&mut self) {
        let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
        if self.websocket.close(Some(close)).await.is_err() {
            return;
        }
        // The cloud's Close confirms that it has received everything; do not wait until it disconnects.
        while let Some(Ok(message)) =
            std::future::poll_fn(|cx| Pin::new(&mut self.websocket).poll_next(cx)).await
        {
            if message.is_close() {
                break;
            }
        }
    }
}
