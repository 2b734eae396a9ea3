//! The websocket to the cloud: receives and sends messages, and reconnects when the connection drops.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind, has_read_all};
use futures_util::{Sink, Stream};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{self, Message};

use super::closing::{Refusal, answer_close, close, closed_without_code};
use super::connect::Websocket;
use super::connecting::ConnectLoop;
use super::event::{DownReason, OutgoingMessage, SocketEvent};
use super::liveness::Liveness;
use super::settings::SocketSettings;
use super::unsent::Unsent;
use crate::cloud::dial::Dialer;
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
    pub fn new(settings: SocketSettings, dialer: Dialer, authenticator: Authenticator, seed: u64) -> Self {
        let settings = Arc::new(settings);
        let connecting = ConnectLoop::new(settings.clone(), dialer, authenticator.clone(), seed);
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

/// A websocket that is up.
struct OpenSocket {
    websocket: Websocket,
    liveness: Liveness,
    settings: Arc<SocketSettings>,
    timer: Deadline,
    unsent: Unsent,
    /// Sending comes first in the next turn.
    is_senders_turn: bool,
    /// The error of a failed send, reported by the next poll.
    send_error: Option<tungstenite::Error>,
    /// A message cannot be received, so that the websocket is about to end.
    refusal: Option<Refusal>,
}

impl OpenSocket {
    fn new(now: Instant, websocket: Websocket, settings: Arc<SocketSettings>, is_busy: bool) -> Self {
        let interval = settings.ping_interval(is_busy);
        websocket.get_ref().set_user_timeout(Liveness::dead_after(interval));
        Self {
            websocket,
            liveness: Liveness::new(now, interval),
            settings,
            timer: Deadline::new(TimerKind::Runtime),
            unsent: Unsent::default(),
            is_senders_turn: false,
            send_error: None,
            refusal: None,
        }
    }

    /// Adapts the interval of the Pings: an operator's connection is open, or none is.
    fn set_busy(&mut self, now: Instant, is_busy: bool) {
        let interval = self.settings.ping_interval(is_busy);
        self.liveness.set_interval(now, interval);
        self.websocket.get_ref().set_user_timeout(Liveness::dead_after(interval));
    }

    /// The smoothed round-trip time; `None` while it is not known.
    fn round_trip_time(&self) -> Option<Duration> {
        self.liveness.round_trip_time()
    }

    /// Whether the bound of unsent bytes leaves room for another text.
    fn takes_text(&self) -> bool {
        self.unsent.has_room()
    }

    fn send(&mut self, message: OutgoingMessage) {
        match message {
            OutgoingMessage::Text(text) => {
                self.unsent.handle_bounded(text.len());
                self.start_send(Message::text(text));
            }
            // sent only while nothing waits, so that it needs no bound
            OutgoingMessage::Binary(bytes) => self.start_send(Message::Binary(bytes)),
        }
    }

    /// The next event, or the reason why the websocket dropped.
    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        wants_to_send: bool,
    ) -> Poll<Result<SocketEvent, DownReason>> {
        if let Some(refusal) = &mut self.refusal {
            return refusal.poll_end(cx, &mut self.websocket).map(Err);
        }
        loop {
            self.transmit(cx)?;
            let is_senders_turn = std::mem::take(&mut self.is_senders_turn);
            if is_senders_turn && wants_to_send && self.poll_writable(cx).is_ready() {
                return Poll::Ready(Ok(SocketEvent::Writable));
            }
            if let Poll::Ready(message) = self.poll_read(cx) {
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

    /// The next message. A cloud that does not take the answers to its messages is not read any further:
    /// TCP then holds its messages back.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<tungstenite::Result<Message>>> {
        if !self.unsent.has_room() {
            // the flush in progress wakes the task
            return Poll::Pending;
        }
        Pin::new(&mut self.websocket).poll_next(cx)
    }

    /// Sends a Ping if one is due, and returns whether it did. An error if the websocket is dead.
    fn process_liveness(&mut self, now: Instant) -> Result<bool, DownReason> {
        if self.liveness.is_dead(now) {
            return Err(DownReason::Dead(self.liveness.silence_allowed()));
        }
        let ping = self.liveness.poll_ping(now);
        if let Some(payload) = ping {
            self.unsent.handle_ping_queued();
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
        self.unsent.handle_queued();
    }

    /// Moves buffered bytes into the socket, as far as the socket takes them.
    fn transmit(&mut self, cx: &mut Context<'_>) -> Result<(), DownReason> {
        if let Some(error) = self.send_error.take() {
            return Err(DownReason::Broken(Box::new(error)));
        }
        if self.unsent.is_empty() {
            return Ok(());
        }
        let flushed = Pin::new(&mut self.websocket).poll_flush(cx);
        let has_progress = self.unsent.handle_written(self.websocket.get_ref().written());
        match flushed {
            Poll::Ready(flushed) => {
                flushed.map_err(|error| DownReason::Broken(Box::new(error)))?;
                self.unsent.handle_flushed();
            }
            // the cloud takes bytes, but cannot have seen the Ping behind them yet
            Poll::Pending if has_progress && self.unsent.has_ping() => self.liveness.handle_received(now()),
            Poll::Pending => {}
        }
        Ok(())
    }

    /// Ready if a message passed now would go onto the wire immediately: no buffered bytes wait, and the
    /// kernel holds little that is not sent.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.unsent.is_empty() {
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
                return Ok(Some(self.handle_too_long(size, max_size)));
            }
            Some(Err(error)) => return Err(DownReason::Broken(Box::new(error))),
            None => return Err(closed_without_code()),
        };
        let now = now();
        self.liveness.handle_received(now);
        let SocketSettings { max_text, max_binary, .. } = *self.settings;
        match message {
            Message::Text(text) if text.len() > max_text => {
                Ok(Some(SocketEvent::LongText { len: text.len(), max: max_text }))
            }
            Message::Text(text) => Ok(Some(SocketEvent::Text(text.as_str().to_owned()))),
            Message::Binary(bytes) if bytes.len() > max_binary => {
                Ok(Some(self.handle_too_long(bytes.len(), max_binary)))
            }
            Message::Binary(bytes) => Ok(Some(SocketEvent::Binary(bytes))),
            Message::Pong(payload) => {
                self.liveness.handle_pong(now, &payload);
                Ok(None)
            }
            Message::Ping(payload) => {
                // the library has queued the Pong; the next flush sends it
                self.unsent.handle_bounded(payload.len());
                Ok(None)
            }
            Message::Close(frame) => Err(answer_close(&mut self.websocket, frame)),
            Message::Frame(_) => Ok(None),
        }
    }

    fn handle_too_long(&mut self, len: usize, max: usize) -> SocketEvent {
        self.refusal = Some(Refusal::new(now(), len, max));
        SocketEvent::TooLong { len, max }
    }
}
