//! What the cloud can make the agent hold: long messages, and messages whose answers it does not take.

use std::cell::Cell;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use connector_agent::cloud::websocket::{CloudSocket, DownReason, OutgoingMessage, SocketEvent};
use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::link_rig::*;
use crate::scripted::*;

/// Far more than the buffers of the kernel and the agent hold.
const FLOOD: usize = 24 << 20;

#[tokio::test]
async fn a_binary_message_beyond_the_bound_ends_the_link() {
    let cloud = Cloud::start().await;
    let mut settings = cloud.settings();
    settings.max_binary = 1000;
    settings.max_text = 2000;
    for len in [1001, 1 << 20] {
        let mut link = cloud.link_with(settings.clone());
        let (mut far, _) = up(&mut link, &cloud.listener).await;
        far.send(Message::binary(vec![0; len])).await.unwrap();
        let event = soon(link.next_event(false)).await;
        assert!(matches!(event, SocketEvent::TooLong { len: found, .. } if found == len), "{event:?}");
        link.send(OutgoingMessage::Text("the reason".to_owned())).unwrap();
        let read = async {
            let reason = message(&mut far).await;
            let close = far.next().await.unwrap().unwrap();
            drop(far);
            (reason, close)
        };
        let (event, (reason, close)) = soon(async { tokio::join!(link.next_event(false), read) }).await;
        assert!(
            matches!(event, SocketEvent::Down(DownReason::TooLong { len: found, .. }) if found == len),
            "{event:?}"
        );
        assert_eq!(reason, Message::text("the reason"));
        assert!(matches!(close, Message::Close(Some(frame)) if frame.code == CloseCode::Size));
    }
}

#[tokio::test]
async fn a_text_beyond_64_kib_is_reported_unread_and_the_link_stays() {
    let cloud = Cloud::start().await;
    let mut settings = cloud.settings();
    settings.max_binary = 2 << 20;
    let mut link = cloud.link_with(settings);
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    for len in [(64 << 10) + 1, 1 << 20] {
        far.send(Message::text("[".repeat(len))).await.unwrap();
        let event = soon(link.next_event(false)).await;
        assert!(
            matches!(event, SocketEvent::LongText { len: found, max: 65536 } if found == len),
            "{event:?}"
        );
    }
    far.send(Message::text("x".repeat(64 << 10))).await.unwrap();
    assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Text(text) if text.len() == 64 << 10));
}

#[tokio::test]
async fn a_cloud_that_pings_and_does_not_read_is_not_read_further() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    let ping = Message::Ping(Bytes::from(vec![7; 125]));
    assert!(
        stalls(&mut link, &mut far, &ping, |_, event| panic!("{event:?}")).await,
        "the link has read everything, and holds every answer"
    );
    goes_on(&mut link, far).await;
}

#[tokio::test]
async fn a_cloud_that_asks_and_does_not_read_is_not_read_further() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    let (mut taken, mut untaken) = (0, 0);
    let request = Message::text("x".repeat(70));
    let stalled = stalls(&mut link, &mut far, &request, |link, event| {
        assert!(matches!(event, SocketEvent::Text(_)), "{event:?}");
        if link.takes_text() {
            taken += 1;
        } else {
            untaken += 1;
        }
        link.send(OutgoingMessage::Text("y".repeat(250))).unwrap();
    });
    assert!(stalled.await, "the link has read everything, and holds every answer");
    assert!(taken > 100, "{taken} answers");
    assert_eq!(untaken, 0, "requests read beyond the bound");
    assert!(!link.takes_text());
    goes_on(&mut link, far).await;
    assert!(link.takes_text());
}

#[tokio::test]
async fn silence_does_not_count_while_the_ping_waits_behind_bytes_that_are_taken() {
    let cloud = Cloud::start().await;
    let mut settings = cloud.settings();
    settings.max_binary = 2 * FLOOD;
    let mut link = cloud.link_with(settings);
    link.set_busy(true);
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    link.send(OutgoingMessage::Binary(vec![0; FLOOD].into())).unwrap();
    // the cloud takes the message, but cannot answer the Ping behind it
    for _ in 0..6 {
        pass(Duration::from_secs(4)).await;
        let mut bytes = vec![0; 1 << 20];
        drive(&mut link, async { far.get_mut().read_exact(&mut bytes).await.unwrap() }).await;
    }
    drive(&mut link, tokio::task::yield_now()).await;
    pass(Duration::from_secs(15)).await;
    let event = soon(link.next_event(false)).await;
    assert!(matches!(event, SocketEvent::Down(DownReason::Dead(_))), "{event:?}");
}

/// Floods the link with a message, and reads nothing. Returns whether the link stops reading before everything
/// is sent. Events of the link go to `handle`.
async fn stalls(
    link: &mut CloudSocket,
    far: &mut Far<TcpStream>,
    message: &Message,
    mut handle: impl FnMut(&mut CloudSocket, SocketEvent),
) -> bool {
    let sent = Cell::new(0);
    let mut flood = std::pin::pin!(async {
        while sent.get() < FLOOD {
            far.send(message.clone()).await.unwrap();
            sent.set(sent.get() + message.len());
        }
    });
    let (mut idle_turns, mut sent_before) = (0, 0);
    while idle_turns < 2000 {
        let mut context = Context::from_waker(Waker::noop());
        if flood.as_mut().poll(&mut context).is_ready() {
            return false;
        }
        idle_turns += 1;
        if let Poll::Ready(event) = link.poll_event(&mut context, false) {
            handle(link, event);
            idle_turns = 0;
        }
        if sent_before != sent.get() {
            (sent_before, idle_turns) = (sent.get(), 0);
        }
        tokio::task::yield_now().await;
    }
    true
}

/// The cloud reads again: the link continues with everything that TCP has held back.
async fn goes_on(link: &mut CloudSocket, far: Far<TcpStream>) {
    let (mut sink, mut stream) = far.split();
    let cloud = async {
        let last = Message::text("after the flood");
        tokio::join!(sink.send(last), async { while stream.next().await.is_some() {} })
    };
    let last = async {
        loop {
            match link.next_event(false).await {
                SocketEvent::Text(text) if text == "after the flood" => return,
                SocketEvent::Text(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    soon(async {
        tokio::select! {
            _ = cloud => panic!("the link has ended"),
            () = last => {}
        }
    })
    .await;
}
