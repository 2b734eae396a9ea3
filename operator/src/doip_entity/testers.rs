//! The connections of testers: one task for each.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::connection::ConnectionId;

/// How many messages to a tester may wait. A tester that leaves more unread loses its connection, because the
/// entity has to serve the other testers.
const QUEUE: usize = 1024;
/// How many events of connections may wait. Until then, the connections are not read. The number only smooths
/// bursts.
const EVENTS: usize = 64;
/// How many bytes one read takes from a connection. The buffer is memory of each connection.
const READ: usize = 16 * 1024;
/// How long a closing connection may take to write the remaining messages: as long as a tester waits for an
/// acknowledgement (ISO 13400-2).
const CLOSING: Duration = Duration::from_secs(2);
/// How long a tester may take for the TLS handshake, and to read a message. The value is a compromise: a
/// tester on a slow machine is served, and one that stalls frees its place.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event of a connection's task.
pub(super) enum ConnectionEvent {
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
}

/// The connections of all testers. Dropping this closes them.
pub(super) struct Testers {
    writers: BTreeMap<ConnectionId, mpsc::Sender<Vec<u8>>>,
    tasks: JoinSet<()>,
    events: mpsc::Receiver<ConnectionEvent>,
    event_sender: mpsc::Sender<ConnectionEvent>,
    opened: u64,
}

impl Testers {
    pub(super) fn new() -> Self {
        let (event_sender, events) = mpsc::channel(EVENTS);
        Self { writers: BTreeMap::new(), tasks: JoinSet::new(), events, event_sender, opened: 0 }
    }

    /// Serves a connection, after the TLS handshake if there is an acceptor.
    pub(super) fn open(&mut self, stream: TcpStream, tls: Option<TlsAcceptor>) -> ConnectionId {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        self.opened += 1;
        let id = ConnectionId(self.opened);
        let (writer, messages) = mpsc::channel(QUEUE);
        self.writers.insert(id, writer);
        let events = self.event_sender.clone();
        match tls {
            Some(acceptor) => self.tasks.spawn(serve_tls(id, acceptor, stream, messages, events)),
            None => self.tasks.spawn(serve(id, stream, messages, events)),
        };
        id
    }

    /// Sends a message to a tester. Returns `false`, and closes the connection, if the tester leaves too many
    /// messages unread.
    pub(super) fn send(&mut self, id: ConnectionId, bytes: Vec<u8>) -> bool {
        let is_full = self.writers.get(&id).is_some_and(|writer| writer.try_send(bytes).is_err());
        if is_full {
            tracing::debug!(connection = ?id, "the tester does not read its messages");
            self.close(id);
        }
        !is_full
    }

    /// Closes a connection. Its task still writes the earlier messages.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.writers.remove(&id);
    }

    /// The next event; cancel-safe.
    pub(super) async fn next(&mut self) -> ConnectionEvent {
        loop {
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => return event,
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
                // never: this struct holds a sender of events
                else => std::future::pending().await,
            }
        }
    }
}

async fn serve_tls(
    id: ConnectionId,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    messages: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    match timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return serve(id, stream, messages, events).await,
        Ok(Err(error)) => tracing::debug!(%error, "the TLS handshake failed"),
        Err(_) => tracing::debug!("the TLS handshake took too long"),
    }
    let _ = events.send(ConnectionEvent::Closed(id)).await;
}

/// Carries bytes between a connection and the server until either side ends.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    id: ConnectionId,
    mut stream: S,
    mut messages: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let mut buffer = vec![0; READ];
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else {
                    // the server closed the connection
                    let _ = timeout(CLOSING, stream.shutdown()).await;
                    return;
                };
                let writing = async {
                    stream.write_all(&message).await?;
                    stream.flush().await
                };
                if !matches!(timeout(PATIENCE, writing).await, Ok(Ok(()))) {
                    break;
                }
            }
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                    if events.send(ConnectionEvent::Bytes(id, bytes)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    let _ = events.send(ConnectionEvent::Closed(id)).await;
}
