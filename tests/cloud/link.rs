//! The websocket link, with a scripted cloud.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::link_rig::*;
use crate::scripted::*;
use bytes::Bytes;
use connector_agent::cloud::websocket::{CloudSocket, DownReason, OutgoingMessage, SocketEvent};
use connector_agent::cloud::{CloudState, LoginState};
use connector_agent::config::{Proxy, ProxyUrl};
use futures_util::{SinkExt, StreamExt};
use tokio::task::coop::{consume_budget, has_budget_remaining};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

const LOGIN: &str = "POST /v2/authenticate/pincode";

#[tokio::test]
async fn a_link_bears_the_token_and_carries_messages_both_ways() {
    let mut cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, headers) = up(&mut link, &cloud.listener).await;
    assert_eq!(headers, ["Bearer access-1", "connector-relay.v1"]);
    assert_eq!(cloud.status.borrow_and_update().state(), CloudState::Online);

    link.send(OutgoingMessage::Text("{\"action\":\"connectorHello\"}".to_owned())).unwrap();
    link.send(OutgoingMessage::Binary(Bytes::from_static(&[1, 2, 3]))).unwrap();
    let received = drive(&mut link, async { (message(&mut far).await, message(&mut far).await) }).await;
    assert_eq!(received.0, Message::text("{\"action\":\"connectorHello\"}"));
    assert_eq!(received.1, Message::binary(vec![1, 2, 3]));

    far.send(Message::text("hello")).await.unwrap();
    far.send(Message::binary(vec![9; 60_000])).await.unwrap();
    assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Text(text) if text == "hello"));
    assert!(
        matches!(soon(link.next_event(false)).await, SocketEvent::Binary(bytes) if bytes == vec![9; 60_000])
    );
}

#[tokio::test]
async fn the_round_trip_is_known_after_the_first_pong() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    assert_eq!(link.round_trip_time(), None);
    // reading the socket answers the Ping
    let answer = async {
        assert!(matches!(far.next().await.unwrap().unwrap(), Message::Ping(_)));
        far.flush().await.unwrap();
        far.send(Message::text("after the Pong")).await.unwrap();
    };
    let (event, ()) = soon(async { tokio::join!(link.next_event(false), answer) }).await;
    assert!(matches!(event, SocketEvent::Text(_)));
    assert!(link.round_trip_time().unwrap() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_link_connects() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let accept = async {
        refuse(&cloud.listener, "401 Unauthorized", "").await;
        accept(cloud.listener.accept().await.unwrap().0).await
    };
    let (event, (_, headers)) = soon(async { tokio::join!(link.next_event(false), accept) }).await;
    assert!(matches!(event, SocketEvent::Up));
    assert_eq!(headers[0], "Bearer access-2");
    assert_eq!(cloud.api.count(LOGIN), 2);
}

#[tokio::test]
async fn a_cloud_that_refuses_every_token_gets_one_attempt_a_minute() {
    let log = Log::capture();
    let mut cloud = Cloud::start().await;
    let mut link = cloud.link();
    let refusals = async {
        refuse(&cloud.listener, "401 Unauthorized", "").await;
        refuse(&cloud.listener, "401 Unauthorized", "").await;
        cloud.status.wait_for(|status| status.login == LoginState::Rejected).await.unwrap();
    };
    drive(&mut link, refusals).await;
    assert_eq!((cloud.api.count(LOGIN), log.count("instead of a websocket")), (2, 2));
    pass(Duration::from_secs(57)).await;
    drive(&mut link, async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(cloud.api.count(LOGIN), 2, "too early");
    pass(Duration::from_secs(4)).await;
    let headers = drive(&mut link, async { refuse(&cloud.listener, "401 Unauthorized", "").await }).await;
    assert!(headers.contains("Bearer access-3"), "{headers}");
}

#[tokio::test]
async fn with_a_connection_a_link_that_lasted_reconnects_immediately() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    link.set_busy(true);
    for _ in 0..5 {
        let (mut far, _) = up(&mut link, &cloud.listener).await;
        pass(Duration::from_secs(5)).await;
        far.send(Message::text("it works")).await.unwrap();
        assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Text(_)));
        drop(far);
        assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Down(DownReason::Broken(_))));
        assert!(!link.is_up());
        assert!(link.send(OutgoingMessage::Text("lost".to_owned())).is_err());
    }
}

#[tokio::test]
async fn without_a_connection_a_lost_link_returns_after_a_random_time() {
    let log = Log::capture();
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (far, _) = up(&mut link, &cloud.listener).await;
    pass(Duration::from_secs(40)).await;
    drop(far);
    assert!(matches!(soon(link.next_event(false)).await, SocketEvent::Down(_)));
    assert_eq!((log.count("connecting again in "), log.count("connecting again in 0.0")), (1, 0));
    pass(Duration::from_secs(5)).await;
    up(&mut link, &cloud.listener).await;
}

#[tokio::test]
async fn a_busy_cloud_is_not_contacted_before_its_retry_after() {
    for status in ["503 Service Unavailable", "429 Too Many Requests", "403 Forbidden", "401 Unauthorized"] {
        let log = Log::capture();
        let cloud = Cloud::start().await;
        let mut link = cloud.link();
        let refusal = async {
            refuse(&cloud.listener, status, "Retry-After: 120\r\n").await;
            log.has("connecting again in 1", 1).await;
        };
        drive(&mut link, refusal).await;
        pass(Duration::from_secs(119)).await;
        drive(&mut link, tokio::task::yield_now()).await;
        pass(Duration::from_secs(26)).await;
        up(&mut link, &cloud.listener).await;
    }
}

#[tokio::test]
async fn a_busy_proxy_is_not_contacted_before_its_retry_after() {
    let log = Log::capture();
    let mut cloud = Cloud::start().await;
    cloud.config = cloud_config(&cloud.api.url, "wss://cloud.test/connector");
    soon(cloud.authenticator.token()).await;
    let url = ProxyUrl::try_from(format!("http://{}", cloud.listener.local_addr().unwrap())).unwrap();
    let dialer = dialer(&cloud.config).with_proxy(Some(Proxy { url, credentials: None }));
    let mut link = CloudSocket::new(cloud.settings(), dialer, cloud.authenticator.clone(), 1);
    for retry_after in ["Retry-After: 120\r\n", "Retry-After: 130\r\n"] {
        let refusal = async {
            let request = refuse(&cloud.listener, "503 Service Unavailable", retry_after).await;
            assert!(request.starts_with("CONNECT cloud.test:443"), "{request}");
            log.has("connecting again in 1", 1).await;
        };
        drive(&mut link, refusal).await;
        pass(Duration::from_secs(119)).await;
        drive(&mut link, tokio::task::yield_now()).await;
        pass(Duration::from_secs(26)).await;
    }
}

#[tokio::test]
async fn a_silent_link_is_dead_after_fifteen_seconds_with_a_connection_and_ninety_without() {
    for (is_busy, interval) in [(true, 5), (false, 30)] {
        let cloud = Cloud::start().await;
        let mut link = cloud.link();
        link.set_busy(is_busy);
        let (far, _) = up(&mut link, &cloud.listener).await;
        for seconds in [interval, interval, interval - 1] {
            pass(Duration::from_secs(seconds)).await;
            drive(&mut link, tokio::task::yield_now()).await;
            assert!(link.is_up());
        }
        pass(Duration::from_secs(1)).await;
        let event = soon(link.next_event(false)).await;
        assert!(matches!(event, SocketEvent::Down(DownReason::Dead(_))), "{event:?}");
        drop(far);
    }
}

#[tokio::test]
async fn a_link_with_an_unread_message_is_not_dead() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    link.set_busy(true);
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    far.send(Message::text("late")).await.unwrap();
    // the runtime looks at its sockets before the task continues
    tokio::task::spawn_blocking(|| ()).await.unwrap();
    pass(Duration::from_secs(20)).await;
    // a task without budget finds its socket empty
    poll_fn(|cx| {
        while has_budget_remaining() {
            let _ = pin!(consume_budget()).poll(cx);
        }
        assert!(link.poll_event(cx, false).is_pending());
        Poll::Ready(())
    })
    .await;
    let event = soon(link.next_event(false)).await;
    assert!(matches!(&event, SocketEvent::Text(text) if text == "late"), "{event:?}");
}

#[tokio::test]
async fn a_closed_link_reports_the_reason() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    far.close(Some(CloseFrame { code: CloseCode::Restart, reason: "new version".into() })).await.unwrap();
    let event = soon(link.next_event(false)).await;
    let SocketEvent::Down(reason) = event else { panic!("{event:?}") };
    assert_eq!(reason.to_string(), "the cloud closed the websocket (1012: new version)");
}

#[tokio::test]
async fn a_server_that_does_not_speak_the_protocol_gets_no_link() {
    let log = Log::capture();
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let server = async {
        let (tcp, _) = cloud.listener.accept().await.unwrap();
        let accepted = tokio_tungstenite::accept_async(tcp).await;
        log.has("SubProtocol", 1).await;
        drop(accepted);
    };
    drive(&mut link, server).await;
    assert!(!link.is_up());
}

#[tokio::test]
async fn the_socket_is_writable_only_while_the_cloud_reads() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    // The cloud does not read: the link must stop being writable before it fills the memory, and remain so.
    let (mut sent, mut refusals) = (0u32, 0);
    while refusals < 1000 && sent < 256 {
        let mut context = Context::from_waker(Waker::noop());
        match link.poll_event(&mut context, true) {
            Poll::Ready(SocketEvent::Writable) => {
                let mut message = vec![0; 32 << 10];
                message[..4].copy_from_slice(&sent.to_be_bytes());
                link.send(OutgoingMessage::Binary(message.into())).unwrap();
                (sent, refusals) = (sent + 1, 0);
            }
            Poll::Ready(other) => panic!("{other:?}"),
            Poll::Pending => {
                refusals += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    assert!((1..256).contains(&sent), "{sent} messages of 32 KiB");

    let total = sent;
    let read = async {
        for expected in 0..total {
            let message = loop {
                match far.next().await.unwrap().unwrap() {
                    Message::Binary(bytes) => break bytes,
                    Message::Ping(_) => continue,
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(message[..4], expected.to_be_bytes(), "every message arrives in order");
        }
    };
    drive(&mut link, read).await;
    assert!(matches!(soon(link.next_event(true)).await, SocketEvent::Writable));
}

#[tokio::test]
async fn reading_and_writing_take_turns() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    for _ in 0..100 {
        far.feed(Message::text("x")).await.unwrap();
    }
    far.flush().await.unwrap();
    let (mut texts, mut turns) = (0, 0);
    while texts < 100 {
        match soon(link.next_event(true)).await {
            SocketEvent::Text(_) => texts += 1,
            SocketEvent::Writable => turns += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(turns >= 99, "{turns} turns to write during 100 messages");
}

#[tokio::test]
async fn a_ping_is_answered_without_other_traffic() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    far.send(Message::Ping(Bytes::from_static(b"are you there"))).await.unwrap();
    let pong = drive(&mut link, async {
        loop {
            if let Message::Pong(payload) = far.next().await.unwrap().unwrap() {
                break payload;
            }
        }
    })
    .await;
    assert_eq!(pong, "are you there");
}

#[tokio::test]
async fn closing_sends_the_waiting_messages_and_a_close_frame() {
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    let (mut far, _) = up(&mut link, &cloud.listener).await;
    link.send(OutgoingMessage::Text("the last message".to_owned())).unwrap();
    let read = async {
        let mut messages = Vec::new();
        while let Some(Ok(message)) = far.next().await {
            messages.push(message);
        }
        messages
    };
    let ((), messages) = soon(async { tokio::join!(link.close(Duration::from_secs(5)), read) }).await;
    let code = messages.iter().find_map(|message| match message {
        Message::Close(Some(frame)) => Some(frame.code),
        _ => None,
    });
    assert!(messages.contains(&Message::text("the last message")));
    assert_eq!(code, Some(CloseCode::Away));
}

#[tokio::test]
async fn a_tls_link_connects_to_a_trusted_cloud_only() {
    let log = Log::capture();
    let (authority, other) = (Authority::new(), Authority::new());
    let mut cloud = Cloud::start().await;
    cloud.config.websocket_url = connector_agent::config::WebsocketUrl::try_from(
        cloud.config.websocket_url.to_string().replace("ws:", "wss:"),
    )
    .unwrap();

    cloud.config.ca_file = Some(other.ca_file.clone());
    let mut link = cloud.link();
    let refused = async {
        let (tcp, _) = cloud.listener.accept().await.unwrap();
        assert!(authority.acceptor.accept(tcp).await.is_err());
        log.has("invalid peer certificate", 1).await;
    };
    drive(&mut link, refused).await;
    assert!(!link.is_up());

    cloud.config.ca_file = Some(authority.ca_file.clone());
    let mut link = cloud.link();
    let accept = async {
        let (tcp, _) = cloud.listener.accept().await.unwrap();
        accept(authority.acceptor.accept(tcp).await.unwrap()).await
    };
    let (event, (mut far, _)) = soon(async { tokio::join!(link.next_event(false), accept) }).await;
    assert!(matches!(event, SocketEvent::Up));
    assert!(matches!(soon(link.next_event(true)).await, SocketEvent::Writable));
    link.send(OutgoingMessage::Binary(Bytes::from(vec![7; 64 << 10]))).unwrap();
    assert_eq!(drive(&mut link, message(&mut far)).await, Message::binary(vec![7; 64 << 10]));
}

#[tokio::test]
async fn the_token_is_in_no_log() {
    let log = Log::capture();
    let cloud = Cloud::start().await;
    let mut link = cloud.link();
    drive(&mut link, refuse(&cloud.listener, "401 Unauthorized", "")).await;
    up(&mut link, &cloud.listener).await;
    assert!(log.text().contains("online"));
    assert!(!log.text().contains("access-"), "{}", log.text());
}
