//! The end of a websocket: closing it, and answering the cloud's Close.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use connector_hal::timer::{Deadline, TimerKind};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::connect::Websocket;
use super::event::DownReason;

/// The close code that stands for "no close code" (RFC 6455, 7.4.1).
const NO_CLOSE_CODE: u16 = 1005;

/// Sends pending messages and a Close, and waits for the cloud's Close.
pub(super) async fn close(websocket: &mut Websocket) {
    let close = CloseFrame { code: CloseCode::Away, reason: "".into() };
    if websocket.close(Some(close)).await.is_err() {
        return;
    }
    // The cloud's Close confirms that it has received everything; do not wait until it disconnects.
    while let Some(Ok(message)) = poll_fn(|cx| Pin::new(&mut *websocket).poll_next(cx)).await {
        if message.is_close() {
            break;
        }
    }
}

/// The cloud has sent a Close: answers it.
pub(super) fn answer_close(websocket: &mut Websocket, frame: Option<CloseFrame>) -> DownReason {
    // one attempt to send the library's answer
    let _dropped_if_full = Pin::new(websocket).poll_flush(&mut Context::from_waker(Waker::noop()));
    match frame {
        Some(frame) => {
            DownReason::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }
        }
        None => closed_without_code(),
    }
}

/// The websocket has ended without a close code.
pub(super) fn closed_without_code() -> DownReason {
    DownReason::Closed { code: NO_CLOSE_CODE, reason: String::new() }
}

/// The end of a websocket after a message that is too long to be received.
///
/// TCP discards what was sent if a socket is closed with unread bytes. So that the cloud receives the Close and
/// what was sent before it, the rest of the message is read and dropped for a while.
pub(super) struct Refusal {
    len: usize,
    max: usize,
    until: Instant,
    timer: Deadline,
    has_sent_close: bool,
}

/// How long the rest of the message is read. A cloud that still sends can then receive the Close; the next websocket
/// waits for that time.
const DRAIN_TIME: Duration = Duration::from_secs(2);

impl Refusal {
    /// A message of `len` bytes, where at most `max` are allowed.
    pub(super) fn new(now: Instant, len: usize, max: usize) -> Self {
        let timer = Deadline::new(TimerKind::Runtime);
        Self { len, max, until: now + DRAIN_TIME, timer, has_sent_close: false }
    }

    /// Sends a Close that names the length as the reason; ready when the websocket can be dropped.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>, websocket: &mut Websocket) -> Poll<DownReason> {
        if !std::mem::replace(&mut self.has_sent_close, true) {
            let close = CloseFrame { code: CloseCode::Size, reason: "".into() };
            let _ends_anyway = Pin::new(&mut *websocket).start_send(Message::Close(Some(close)));
        }
        // a failure to send is noticed by reading, too
        let _ends_anyway = Pin::new(&mut *websocket).poll_flush(cx);
        self.timer.set(Some(self.until));
        if self.timer.poll_expired(cx).is_pending() {
            ready!(poll_drained(cx, websocket));
        }
        Poll::Ready(DownReason::TooLong { len: self.len, max: self.max })
    }
}

/// Reads and drops everything; ready when the cloud has closed the connection, or when reading fails.
fn poll_drained(cx: &mut Context<'_>, websocket: &mut Websocket) -> Poll<()> {
    let mut bytes = [0; 4096];
    loop {
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(websocket.get_mut()).poll_read(cx, &mut buffer));
        if read.is_err() || buffer.filled().is_empty() {
            return Poll::Ready(());
        }
    }
}
