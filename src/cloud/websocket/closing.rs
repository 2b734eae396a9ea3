//! The end of a websocket: closing it, and answering the cloud's Close.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Waker};

use futures_util::{Sink, Stream};
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

/// Sends the cloud a Close that names the excessive length, if the socket takes it.
pub(super) fn refuse_length(websocket: &mut Websocket, len: usize, max: usize) -> DownReason {
    let close = CloseFrame { code: CloseCode::Size, reason: "".into() };
    let _dropped_if_full = Pin::new(websocket).start_send(Message::Close(Some(close)));
    DownReason::TooLong { len, max }
}
