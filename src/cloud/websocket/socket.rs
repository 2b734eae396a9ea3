//! One websocket while it lasts.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_util::{Sink, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::time::Sleep;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message};

use super::connect::Socket;
use super::link::{LinkEvent, LinkSettings, Outgoing, now, poll_timer};
use super::liveness::Liveness;
use super::reconnect::Failure;

/// Why the link dropped.
#[derive(Debug, thiserror::Error)]
pub enum DownReason {
    /// Nothing was received for so long.
    #[error("nothing was received for {0:?}")]
    Dead(Duration),
    /// The cloud closed the link.
    #[error("the cloud closed the link ({code}{}{reason})", if .reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The close code (RFC 6455, 7.4), 1005 if there was none.
        code: u16,
        /// What it said, at most 123 bytes.
        reason: String,
    },
    /// A message was longer than allowed.
    #[error("a message of {len} bytes; at most {max} are allowed")]
    TooLong {
        /// How long it was.
        len: usize,
        /// The bound.
        max: usize,
    },
    /// The connection broke, or what came was no websocket.
    #[error("the link broke")]
    Broken(#[source] Box<tungstenite::Error>),
}

impl DownReason {
    /// What it means for connecting again.
    pub(super) fn failure(&self) -> Failure {
        match self {
            // try again later (the registry of RFC 6455, 11.7)
            Self::Closed { code: 1013, .. } => Failure::Busy { retry_after: None },
            _ => Failure::Lost,
        }
    }
}

/// A websocket that is up.
pub struct Connected {
    socket: Socket,
    liveness: Liveness,
    dead_after: Duration,
    max_text: usize,
    max_binary: usize,
    /// Something may wait in a buffer of ours.
    needs_flush: bool,
    /// Something was received.
    is_working: bool,
    /// The next turn is the sender's.
    senders_turn: bool,
    broken: Option<tungstenite::Error>,
}

impl Connected {
    /// A websocket made now.
    pub fn new(now: Instant, socket: Socket, settings: &LinkSettings) -> Self {
        Self {
            socket,
            liveness: Liveness::new(now, settings.ping_interval, settings.dead_after),
            dead_after: settings.dead_after,
            max_text: settings.max_text,
            max_binary: settings.max_binary,
            needs_flush: false,
            is_working: false,
            senders_turn: false,
            broken: None,
        }
    }

    /// Whether anything was received.
    pub fn is_working(&self) -> bool {
        self.is_working
    }

    /// The round trip, smoothed.
    pub fn round_trip_time(&self) -> Option<Duration> {
        self.liveness.round_trip_time()
    }

    /// Gives a message to the socket; what it does not take at once is flushed by [`Connected::poll_event`].
    pub fn send(&mut self, message: Outgoing) {
        self.start_send(match message {
            Outgoing::Text(text) => Message::text(text),
            Outgoing::Binary(bytes) => Message::Binary(bytes),
        });
    }

    /// The next event, or why there will be none.
    pub fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        timer: &mut Pin<Box<Sleep>>,
        wants_to_send: bool,
    ) -> Poll<Result<LinkEvent, DownReason>> {
        loop {
            self.poll_flush(cx)?;
            let turn = std::mem::take(&mut self.senders_turn);
            if turn && wants_to_send && self.poll_writable(cx).is_ready() {
                return Poll::Ready(Ok(LinkEvent::Writable));
            }
            if let Poll::Ready(message) = Pin::new(&mut self.socket).poll_next(cx) {
                self.senders_turn = true;
                match self.received(message)? {
                    Some(event) => return Poll::Ready(Ok(event)),
                    None => continue,
                }
            }
            // All that has come has been read: only now can silence be told from our own slowness.
            let now = now();
            if self.liveness.is_dead(now) {
                return Poll::Ready(Err(DownReason::Dead(self.dead_after)));
            }
            if let Some(payload) = self.liveness.poll_ping(now) {
                self.start_send(Message::Ping(payload.to_vec().into()));
                continue;
            }
            if !turn && wants_to_send && self.poll_writable(cx).is_ready() {
                return Poll::Ready(Ok(LinkEvent::Writable));
            }
            let (deadline, _) = self.liveness.poll_timeout();
            ready!(poll_timer(timer, cx, deadline));
        }
    }

    /// Sends what is waiting and a Close, and waits for the cloud's.
    pub async fn close(&mut self) {
        let goodbye = CloseFrame { code: CloseCode::Away, reason: "".into() };
        if self.socket.close(Some(goodbye)).await.is_err() {
            return;
        }
        // Not until the cloud hangs up: its Close says that it has everything.
        while let Some(Ok(message)) =
            std::future::poll_fn(|cx| Pin::new(&mut self.socket).poll_next(cx)).await
        {
            if message.is_close() {
                break;
            }
        }
    }

    fn start_send(&mut self, message: Message) {
        if let Err(error) = Pin::new(&mut self.socket).start_send(message) {
            self.broken.get_or_insert(error);
        }
        self.needs_flush = true;
    }

    /// Puts what waits in our buffers into the socket as far as it takes it.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), DownReason> {
        if let Some(error) = self.broken.take() {
            return Err(DownReason::Broken(Box::new(error)));
        }
        if self.needs_flush
            && let Poll::Ready(flushed) = Pin::new(&mut self.socket).poll_flush(cx)
        {
            flushed.map_err(|error| DownReason::Broken(Box::new(error)))?;
            self.needs_flush = false;
        }
        Ok(())
    }

    /// Whether a message given now would go to the wire at once: nothing of ours waits, and the kernel has little
    /// that is not sent (`TCP_NOTSENT_LOWAT`).
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.needs_flush {
            return Poll::Pending;
        }
        let tcp = self.socket.get_ref().tcp();
        loop {
            // An error shows when it is written to.
            let _ = ready!(tcp.poll_write_ready(cx));
            // The runtime believes a socket writable until a write fails: ask the kernel.
            let asked = tcp.try_io(Interest::WRITABLE, || {
                let mut fds = [PollFd::new(tcp, PollFlags::OUT)];
                match poll(&mut fds, Some(&Timespec::default())) {
                    Ok(0) => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            });
            if !matches!(asked, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
                return Poll::Ready(());
            }
        }
    }

    fn received(
        &mut self,
        message: Option<tungstenite::Result<Message>>,
    ) -> Result<Option<LinkEvent>, DownReason> {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(tungstenite::Error::Capacity(tungstenite::error::CapacityError::MessageTooLong {
                size,
                max_size,
            }))) => return Err(self.refuse(size, max_size)),
            Some(Err(error)) => return Err(DownReason::Broken(Box::new(error))),
            None => return Err(DownReason::Closed { code: 1005, reason: String::new() }),
        };
        let now = now();
        self.liveness.handle_received(now);
        self.is_working = true;
        match message {
            Message::Text(text) if text.len() > self.max_text => Err(self.refuse(text.len(), self.max_text)),
            Message::Text(text) => Ok(Some(LinkEvent::Text(text.as_str().to_owned()))),
            Message::Binary(bytes) if bytes.len() > self.max_binary => {
                Err(self.refuse(bytes.len(), self.max_binary))
            }
            Message::Binary(bytes) => Ok(Some(LinkEvent::Binary(bytes))),
            Message::Pong(payload) => {
                self.liveness.handle_pong(now, &payload);
                Ok(None)
            }
            Message::Ping(_) => {
                // the answer is queued, and goes with the next flush
                self.needs_flush = true;
                Ok(None)
            }
            Message::Close(frame) => {
                // the answer, if the socket takes it
                let _ =
                    Pin::new(&mut self.socket).poll_flush(&mut Context::from_waker(std::task::Waker::noop()));
                let (code, reason) = match frame {
                    Some(frame) => (frame.code.into(), frame.reason.as_str().to_owned()),
                    None => (1005, String::new()),
                };
                Err(DownReason::Closed { code, reason })
            }
            Message::Frame(_) => Ok(None),
        }
    }

    /// Tells the cloud why we hang up, if the socket takes it.
    fn refuse(&mut self, len: usize, max: usize) -> DownReason {
        let why = CloseFrame { code: CloseCode::Size, reason: "".into() };
        let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(why)));
        DownReason::TooLong { len, max }
    }
}
