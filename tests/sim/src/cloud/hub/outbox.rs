//! The queue of outgoing messages of one websocket: bounded in bytes, ordered, and independent of other
//! websockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message};
use connector_agent::relay::wire::Envelope;
use futures_util::{Sink, SinkExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Limit of the queued bytes: twice what either end of a relay keeps unacknowledged, so that relayed data
/// rarely waits outside the queue, where it would delay the sender's other messages.
const BUDGET: u32 = 4 * 1024 * 1024;
/// Bytes that a message counts in addition to its payload.
const MESSAGE_COST: u32 = 128;
/// A socket that accepts nothing for this long is dead.
const STALL: Duration = Duration::from_secs(30);
/// Limit for a closing handshake.
const CLOSING: Duration = Duration::from_secs(1);
/// Limit of the messages that share one flush.
const BATCH: usize = 64;

/// Identifies a socket; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinkId(u64);

/// The reasons to close a socket (RFC 6455 section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The cloud is shutting down.
    GoingAway,
    /// A newer link of the connector has replaced this one.
    Replaced,
    /// The peer violated the protocol.
    Policy,
    /// The peer accepted nothing, or sent nothing, for too long.
    Dead,
    /// The peer sent a message that is too long.
    TooLong,
    /// The peer reads too slowly, so that it has lost an event.
    EventLost,
}

impl Closing {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::GoingAway => (1001, "going away"),
            Self::Replaced => (4001, "replaced by a newer link"),
            Self::Policy => (1008, "policy"),
            Self::Dead => (1011, "dead link"),
            Self::TooLong => (1009, "message too long"),
            // RFC 6455 has no code for this; the client may come back
            Self::EventLost => (4002, "an event was lost"),
        };
        CloseFrame { code, reason: reason.into() }
    }
}

struct Outgoing {
    message: Message,
    _room: OwnedSemaphorePermit,
}

/// The sending half; cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    id: LinkId,
    sender: mpsc::UnboundedSender<Outgoing>,
    room: Arc<Semaphore>,
    closed: CancellationToken,
    closing: Arc<std::sync::OnceLock<Closing>>,
}

/// The half that writes to the socket.
pub(crate) struct Writer {
    receiver: mpsc::UnboundedReceiver<Outgoing>,
    closed: CancellationToken,
    closing: Arc<std::sync::OnceLock<Closing>>,
}

fn cost(message: &Message) -> u32 {
    let length = match message {
        Message::Text(text) => text.as_str().len(),
        Message::Binary(bytes) | Message::Ping(bytes) | Message::Pong(bytes) => bytes.len(),
        Message::Close(_) => 0,
    };
    u32::try_from(length).unwrap_or(u32::MAX).saturating_add(MESSAGE_COST).min(BUDGET)
}

impl Outbox {
    /// Creates the queue of a new link.
    pub(crate) fn new() -> (Self, Writer) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (sender, receiver) = mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        let closing = Arc::new(std::sync::OnceLock::new());
        let outbox = Self {
            id: LinkId(NEXT.fetch_add(1, Ordering::Relaxed)),
            sender,
            room: Arc::new(Semaphore::new(BUDGET as usize)),
            closed: closed.clone(),
            closing: Arc::clone(&closing),
        };
        (outbox, Writer { receiver, closed, closing })
    }

    /// The link's id.
    pub(crate) fn id(&self) -> LinkId {
        self.id
    }

    /// Sends relayed data. Waits for room; discards the message if the link ends.
    pub(crate) async fn send(&self, message: Message) {
        let room = tokio::select! {
            biased;
            () = self.closed.cancelled() => return,
            room = Arc::clone(&self.room).acquire_many_owned(cost(&message)) => room,
        };
        if let Ok(room) = room {
            // the writer may be gone
            let _ = self.sender.send(Outgoing { message, _room: room });
        }
    }

    /// Sends a message of the cloud itself, which cannot wait. A link without room for it is closed.
    pub(crate) fn push(&self, envelope: &Envelope) {
        self.require(Message::text(envelope.to_text()), Closing::Dead);
    }

    /// Sends an event, which happens once. A link without room for it is closed, so that the loss is seen.
    pub(crate) fn push_event(&self, event: Message) {
        self.require(event, Closing::EventLost);
    }

    fn require(&self, message: Message, otherwise: Closing) {
        if !self.offer(message) {
            self.close(otherwise);
        }
    }

    /// Sends a message that may be left out, such as a periodic update. Returns whether there was room.
    pub(crate) fn offer(&self, message: Message) -> bool {
        match Arc::clone(&self.room).try_acquire_many_owned(cost(&message)) {
            Ok(room) => self.sender.send(Outgoing { message, _room: room }).is_ok(),
            Err(_) => false,
        }
    }

    /// Closes the link, and discards queued messages.
    pub(crate) fn close(&self, reason: Closing) {
        let _ = self.closing.set(reason);
        self.closed.cancel();
    }

    /// Waits until the link has been closed.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl Writer {
    /// Writes until the link is closed, then performs the closing handshake.
    pub(crate) async fn drive_write(mut self, mut sink: impl Sink<Message> + Unpin) {
        let failed = self.write(&mut sink).await.is_err();
        self.closed.cancel();
        if !failed {
            let frame = self.closing.get().map(|closing| closing.frame());
            let _ = tokio::time::timeout(CLOSING, async {
                let _ = sink.send(Message::Close(frame)).await;
                sink.close().await
            })
            .await;
        }
    }

    /// Returns an error if the socket failed or stalled.
    async fn write(&mut self, sink: &mut (impl Sink<Message> + Unpin)) -> Result<(), ()> {
        loop {
            let first = tokio::select! {
                biased;
                () = self.closed.cancelled() => return self.write_last(sink).await,
                first = self.receiver.recv() => first,
            };
            let Some(first) = first else { return Ok(()) };
            let (receiver, closed) = (&mut self.receiver, &self.closed);
            let writing = tokio::time::timeout(STALL, async {
                sink.feed(first.message).await.map_err(|_| ())?;
                for _ in 1..BATCH {
                    let Ok(next) = receiver.try_recv() else { break };
                    sink.feed(next.message).await.map_err(|_| ())?;
                }
                sink.flush().await.map_err(|_| ())
            });
            tokio::pin!(writing);
            let written = tokio::select! {
                biased;
                written = &mut writing => written,
                // a closed link need not wait for a socket that accepts nothing
                () = closed.cancelled() => {
                    tokio::time::timeout(CLOSING, &mut writing).await.map_err(|_| ())?
                }
            };
            written.map_err(|_| ())??;
        }
    }

    /// Writes the queued errors before a close, if the socket accepts them.
    async fn write_last(&mut self, sink: &mut (impl Sink<Message> + Unpin)) -> Result<(), ()> {
        let polite = matches!(self.closing.get(), Some(Closing::Policy | Closing::GoingAway));
        let written = tokio::time::timeout(CLOSING, async {
            while let (true, Ok(next)) = (polite, self.receiver.try_recv()) {
                sink.feed(next.message).await.map_err(|_| ())?;
            }
            sink.flush().await.map_err(|_| ())
        });
        written.await.map_err(|_| ())?
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// A socket that accepts nothing.
    struct Stuck;

    impl Sink<Message> for Stuck {
        type Error = ();

        fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Pending
        }

        fn start_send(self: Pin<&mut Self>, _: Message) -> Result<(), ()> {
            Ok(())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Pending
        }

        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
            Poll::Pending
        }
    }

    /// A socket that accepts everything, and collects it.
    fn collecting(taken: &mut Vec<Message>) -> Pin<Box<dyn Sink<Message, Error = ()> + '_>> {
        Box::pin(futures_util::sink::unfold(taken, |taken, message| async move {
            taken.push(message);
            Ok(taken)
        }))
    }

    fn fill(outbox: &Outbox) {
        while outbox.offer(Message::binary(vec![0; 64 * 1024])) {}
    }

    #[tokio::test]
    async fn a_mandatory_message_to_a_full_link_cuts_the_link() {
        let (outbox, _writer) = Outbox::new();
        fill(&outbox);
        outbox.push(&Envelope::new("connectionClosed", &"x".repeat(64 * 1024)));
        outbox.closed().await;
        assert_eq!(outbox.closing.get(), Some(&Closing::Dead));
    }

    #[tokio::test]
    async fn relayed_data_waits_for_room_and_keeps_its_order() {
        let (outbox, writer) = Outbox::new();
        fill(&outbox);
        let mut waiting = Box::pin(outbox.send(Message::binary(vec![1; 64 * 1024])));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        let mut taken = Vec::new();
        tokio::join!(writer.drive_write(collecting(&mut taken)), async {
            waiting.await;
            outbox.send(Message::text("last")).await;
            outbox.close(Closing::GoingAway);
        });
        assert!(matches!(taken.pop(), Some(Message::Close(Some(frame))) if frame.code == 1001));
        assert_eq!(taken.pop(), Some(Message::text("last")));
        assert_eq!(taken.pop(), Some(Message::binary(vec![1; 64 * 1024])));
    }

    #[tokio::test]
    async fn relayed_data_for_an_ended_link_is_discarded() {
        let (outbox, _writer) = Outbox::new();
        fill(&outbox);
        let mut waiting = Box::pin(outbox.send(Message::binary(vec![1; 64 * 1024])));
        assert!(futures_util::poll!(&mut waiting).is_pending());
        outbox.close(Closing::Replaced);
        waiting.await;
    }

    #[tokio::test]
    async fn an_event_without_room_closes_the_link_and_names_the_loss() {
        let (outbox, writer) = Outbox::new();
        fill(&outbox);
        outbox.push_event(Message::text("x".repeat(64 * 1024)));
        outbox.closed().await;
        let mut taken = Vec::new();
        writer.drive_write(collecting(&mut taken)).await;
        let Some(Message::Close(Some(frame))) = taken.pop() else { panic!("no close frame") };
        assert_eq!((frame.code, frame.reason.as_str()), (4002, "an event was lost"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_link_does_not_wait_for_a_socket_that_accepts_nothing() {
        let (outbox, writer) = Outbox::new();
        outbox.push(&Envelope::new("x", &()));
        let begin = tokio::time::Instant::now();
        tokio::join!(writer.drive_write(Stuck), async {
            tokio::time::sleep(CLOSING).await;
            outbox.close(Closing::EventLost);
        });
        assert_eq!(begin.elapsed(), 2 * CLOSING);
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_accepts_nothing_for_half_a_minute_is_dead() {
        let (outbox, writer) = Outbox::new();
        outbox.push(&Envelope::new("x", &()));
        let begin = tokio::time::Instant::now();
        writer.drive_write(Stuck).await;
        assert_eq!(begin.elapsed(), STALL);
        outbox.closed().await;
    }
}
