//! A websocket that is up: reads, flushes, sends Pings, and bounds what waits to be sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind, has_read_all};
use futures_util::{Sink, Stream};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::{self, Message};

use super::closing::{Refusal, answer_close, closed_without_code};
use super::connect::Websocket;
use super::event::{DownReason, OutgoingMessage, SocketEvent};
use super::liveness::Liveness;
use super::settings::{MAX_UNSENT, SocketSettings};

/// The header of a frame with a mask (RFC 6455, 5.2), at most.
const FRAME_HEADER: usize = 14;

/// A websocket that is up.
pub(super) struct OpenSocket {
    pub(super) websocket: Websocket,
    liveness: Liveness,
    settings: Arc<SocketSettings>,
    timer: Deadline,
    /// A buffer of the websocket library may hold bytes that the socket has not taken.
    needs_flush: bool,
    /// The texts and Pongs that the library was given since its buffer was last empty, in bytes.
    unsent: usize,
    /// A Ping may still wait in the library's buffer, so that the cloud's silence means nothing.
    is_ping_unsent: bool,
    /// How many bytes the transport had taken at the last look.
    written: u64,
    /// Sending comes first in the next turn.
    is_senders_turn: bool,
    /// The error of a failed send, reported by the next poll.
    send_error: Option<tungstenite::Error>,
    /// A message cannot be received, so that the websocket is about to end.
    refusal: Option<Refusal>,
}

impl OpenSocket {
    pub(super) fn new(
        now: Instant,
        websocket: Websocket,
        settings: Arc<SocketSettings>,
        is_busy: bool,
    ) -> Self {
        let interval = settings.ping_interval(is_busy);
        websocket.get_ref().set_user_timeout(Liveness::dead_after(interval));
        Self {
            websocket,
            liveness: Liveness::new(now, interval),
            settings,
            timer: Deadline::new(TimerKind::Runtime),
            needs_flush: false,
            unsent: 0,
            is_ping_unsent: false,
            written: 0,
            is_senders_turn: false,
            send_error: None,
            refusal: None,
        }
    }

    /// Adapts the interval of the Pings: an operator's connection is open, or none is.
    pub(super) fn set_busy(&mut self, now: Instant, is_busy: bool) {
        let interval = self.settings.ping_interval(is_busy);
        self.liveness.set_interval(now, interval);
        self.websocket.get_ref().set_user_timeout(Liveness::dead_after(interval));
    }

    /// The smoothed round-trip time; `None` while it is not known.
    pub(super) fn round_trip_time(&self) -> Option<Duration> {
        self.liveness.round_trip_time()
    }

    /// Whether the bound of unsent bytes leaves room for another text.
    pub(super) fn takes_text(&self) -> bool {
        self.unsent < MAX_UNSENT
    }

    pub(super) fn send(&mut self, message: OutgoingMessage) {
        match message {
            OutgoingMessage::Text(text) => {
                self.unsent += text.len() + FRAME_HEADER;
                self.start_send(Message::text(text));
            }
            // sent only while nothing waits, so that it needs no bound
            OutgoingMessage::Binary(bytes) => self.start_send(Message::Binary(bytes)),
        }
    }

    /// The next event, or the reason why the websocket dropped.
    pub(super) fn poll_event(
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
        if self.unsent >= MAX_UNSENT {
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
            self.is_ping_unsent = true;
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
        if !self.needs_flush {
            return Ok(());
        }
        let flushed = Pin::new(&mut self.websocket).poll_flush(cx);
        let written = self.websocket.get_ref().written();
        let has_progress = std::mem::replace(&mut self.written, written) != written;
        match flushed {
            Poll::Ready(flushed) => {
                flushed.map_err(|error| DownReason::Broken(Box::new(error)))?;
                self.needs_flush = false;
                self.unsent = 0;
                self.is_ping_unsent = false;
            }
            // the cloud takes bytes, but cannot have seen the Ping behind them yet
            Poll::Pending if has_progress && self.is_ping_unsent => self.liveness.handle_received(now()),
            Poll::Pending => {}
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
                self.unsent += payload.len() + FRAME_HEADER;
                self.needs_flush = true;
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
