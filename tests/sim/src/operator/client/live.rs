//! A websocket in use: one message written at a time, Pings, and noticing when it is dead.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, SocketError};

/// How often a Ping is sent.
const PING: Duration = Duration::from_secs(5);
/// A websocket without anything received for this long is dead.
const DEAD: Duration = Duration::from_secs(15);
/// How long taking leave may take.
const CLOSING: Duration = Duration::from_secs(1);

/// What a websocket has to say.
pub(super) enum LiveEvent {
    /// A message came, no Ping or Pong.
    Message(Message),
    /// All that was written is out: it can take more.
    Flushed,
}

/// See the module.
pub(super) struct Live {
    socket: Socket,
    /// Something was written that is not out yet.
    writing: bool,
    last_received: Instant,
    next_ping: Instant,
}

impl Live {
    pub(super) fn new(socket: Socket) -> Self {
        let now = Instant::now();
        Self { socket, writing: false, last_received: now, next_ping: now + PING }
    }

    /// Whether everything written is out. Only then is more written: what comes meanwhile shares the next message.
    pub(super) fn is_idle(&self) -> bool {
        !self.writing
    }

    /// Writes a message; [`Live::next`] moves it along.
    pub(super) async fn write(&mut self, message: Message) -> Result<(), SocketError> {
        self.writing = true;
        Ok(self.socket.feed(message).await?)
    }

    /// The next event; cancel-safe.
    pub(super) async fn next(&mut self) -> Result<LiveEvent, SocketError> {
        loop {
            let now = Instant::now();
            let dead_at = self.last_received + DEAD;
            if now >= dead_at {
                return Err(SocketError::Dead(DEAD));
            }
            if now >= self.next_ping {
                self.next_ping = now + PING;
                self.write(Message::Ping(Bytes::new())).await?;
            }
            let wake_at = dead_at.min(self.next_ping);
            tokio::select! {
                biased;
                event = poll_fn(|cx| self.poll_event(cx)) => {
                    if let Some(event) = event? {
                        return Ok(event);
                    }
                }
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<LiveEvent>, SocketError>> {
        if self.writing
            && let Poll::Ready(flushed) = self.socket.poll_flush_unpin(cx)
        {
            flushed?;
            self.writing = false;
            return Poll::Ready(Ok(Some(LiveEvent::Flushed)));
        }
        let Poll::Ready(next) = self.socket.poll_next_unpin(cx) else { return Poll::Pending };
        self.last_received = Instant::now();
        Poll::Ready(match next {
            None | Some(Ok(Message::Close(_))) => Err(SocketError::Closed),
            Some(Err(error)) => Err(error.into()),
            // the answer to a Ping is written by the library, and goes out with the next flush
            Some(Ok(Message::Ping(_))) => {
                self.writing = true;
                Ok(None)
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Ok(message)) => Ok(Some(LiveEvent::Message(message))),
        })
    }

    /// Takes leave, if the other side takes it.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(CLOSING, self.socket.close(None)).await;
    }
}
