//! A websocket in use: writes one message at a time, sends Pings, and detects a dead peer.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::socket::{Socket, SocketError};

/// How often a Ping is sent: as often as the agent by default.
const PING: Duration = Duration::from_secs(5);
/// A websocket that has received nothing for this long is dead: three Pings, as for the agent by default.
const DEAD: Duration = Duration::from_secs(15);
/// How long closing the websocket may take. The cloud notices the end of the connection in any case.
const CLOSING: Duration = Duration::from_secs(1);

/// An event of a websocket.
pub(super) enum LiveEvent {
    /// A message other than a Ping or Pong came.
    Message(Message),
    /// Everything written has been sent, so that the websocket takes more.
    Flushed,
}

/// A websocket in use.
pub(super) struct Live {
    socket: Socket,
    /// Something written has not been sent yet.
    writing: bool,
    last_received: Instant,
    next_ping: Instant,
}

impl Live {
    pub(super) fn new(socket: Socket) -> Self {
        let now = Instant::now();
        Self { socket, writing: false, last_received: now, next_ping: now + PING }
    }

    /// Whether everything written has been sent. Callers write only then, so that records collect in the next
    /// message.
    pub(super) fn is_idle(&self) -> bool {
        !self.writing
    }

    /// Writes a message, without waiting if the socket is idle. [`Live::next`] sends it.
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
            // no Ping behind an unsent message: waiting for room would block reading
            if now >= self.next_ping && self.is_idle() {
                self.next_ping = now + PING;
                self.write(Message::Ping(Bytes::new())).await?;
            }
            let wake_at = if self.is_idle() { dead_at.min(self.next_ping) } else { dead_at };
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
            // the library writes the answer to a Ping, and the next flush sends it
            Some(Ok(Message::Ping(_))) => {
                self.writing = true;
                Ok(None)
            }
            Some(Ok(Message::Pong(_) | Message::Frame(_))) => Ok(None),
            Some(Ok(message)) => Ok(Some(LiveEvent::Message(message))),
        })
    }

    /// Closes the websocket in order, if the other side cooperates.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(CLOSING, self.socket.close(None)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::super::socket::Io;
    use super::*;

    async fn live(buffer: usize) -> (Live, tokio::io::DuplexStream) {
        let (near, far) = duplex(buffer);
        let near: Box<dyn Io> = Box::new(near);
        (Live::new(WebSocketStream::from_raw_socket(near, Role::Client, None).await), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_neither_reads_nor_writes_is_dead_after_15_s() {
        for len in [0, 100_000] {
            let (mut live, _silent) = live(1024).await;
            let start = Instant::now();
            live.write(Message::binary(vec![0; len])).await.unwrap();
            let ended = loop {
                match live.next().await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert!(matches!(ended, SocketError::Dead(_)), "{ended}");
            assert_eq!(start.elapsed(), DEAD);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_only_answers_pings_is_alive() {
        let (mut live, far) = live(1024).await;
        let mut peer = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
        let answering = async { while let Some(Ok(_)) = peer.next().await {} };
        let listening = async { while live.next().await.is_ok() {} };
        tokio::select! {
            () = answering => panic!("the peer ended"),
            () = listening => panic!("a live link counts as dead"),
            () = tokio::time::sleep(Duration::from_secs(120)) => {}
        }
    }
}
