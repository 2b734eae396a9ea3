//! The websocket link: made, kept alive, and made again when it drops.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustls::ClientConfig;
use tokio::time::Sleep;

use super::connect::{ConnectError, Socket, connect};
use super::reconnect::{Failure, Next, Reconnect};
use super::socket::Connected;
use crate::cloud::login::Authenticator;
use crate::cloud::rest::AccessToken;
use crate::cloud::rest::Chain;
use crate::config::{CloudConfig, WebsocketUrl};

pub use super::socket::DownReason;

/// What a link needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// Where to.
    pub url: WebsocketUrl,
    /// For the name to be resolved, TCP, TLS and the upgrade together.
    pub connect_timeout: Duration,
    /// Between two Pings.
    pub ping_interval: Duration,
    /// Without anything received, after which the link is dead.
    pub dead_after: Duration,
    /// The longest text message accepted, in bytes.
    pub max_text: usize,
    /// The longest binary message accepted, in bytes.
    pub max_binary: usize,
}

impl LinkSettings {
    /// As the configuration says, for binary messages whose records have at most `max_pdu` bytes.
    ///
    /// Messages have up to 64 KiB, but one record, which cannot be split, may be longer than that.
    pub fn new(cloud: &CloudConfig, max_pdu: usize) -> Self {
        Self {
            url: cloud.websocket_url.clone(),
            connect_timeout: cloud.connect_timeout,
            ping_interval: cloud.ping_interval,
            dead_after: cloud.dead_after,
            max_text: 1 << 20,
            max_binary: max_pdu.max(64 << 10).saturating_add(4 << 10),
        }
    }
}

/// What happened on the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// It is made. What was sent before is lost; `connectorHello` comes first.
    Up,
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// The socket can take a message now, as [`Link::next_event`] was asked to tell.
    Writable,
    /// It dropped; it is being made again.
    Down(DownReason),
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A text message.
    Text(String),
    /// A binary message; not copied until it is masked into the socket's buffer.
    Binary(Bytes),
}

/// The link, owned by one task, which drives it by waiting for its events:
///
/// 1. `next_event(wants_to_send)` connects, reads, flushes, pings, and connects again;
/// 2. with `wants_to_send` it gives [`LinkEvent::Writable`] as soon as the socket can take a message;
/// 3. only then is the message built, and given to [`Link::send`]: what came in the meantime shares it.
pub struct Link {
    settings: Arc<LinkSettings>,
    tls: Arc<ClientConfig>,
    authenticator: Authenticator,
    policy: Reconnect,
    state: State,
    timer: Pin<Box<Sleep>>,
    /// The failure that was last said aloud, so that it is said once.
    complaint: Option<String>,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum State {
    /// For the time to try again.
    Waiting {
        until: Instant,
        refused: Option<AccessToken>,
    },
    /// For a token.
    LoggingIn(BoxFuture<AccessToken>),
    /// For the websocket.
    Connecting {
        token: AccessToken,
        socket: BoxFuture<Result<Socket, ConnectError>>,
    },
    Up {
        token: AccessToken,
        connected: Box<Connected>,
    },
    /// For ever.
    Closed,
}

impl Link {
    /// A link that will be made as soon as its events are waited for; on the current runtime.
    pub fn new(
        settings: LinkSettings,
        tls: Arc<ClientConfig>,
        authenticator: Authenticator,
        seed: u64,
    ) -> Self {
        Self {
            settings: Arc::new(settings),
            tls,
            authenticator,
            policy: Reconnect::new(seed),
            state: State::Waiting { until: now(), refused: None },
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            complaint: None,
        }
    }

    /// The next event. Cancel-safe; nothing happens on the link unless this is waited for.
    ///
    /// With `wants_to_send`, reading and [`LinkEvent::Writable`] take turns, so that neither starves the other.
    pub async fn next_event(&mut self, wants_to_send: bool) -> LinkEvent {
        std::future::poll_fn(|cx| self.poll_event(cx, wants_to_send)).await
    }

    /// As [`Link::next_event`].
    pub fn poll_event(&mut self, cx: &mut Context<'_>, wants_to_send: bool) -> Poll<LinkEvent> {
        loop {
            match &mut self.state {
                State::Waiting { until, refused } => {
                    let until = *until;
                    if until > now() {
                        if poll_timer(&mut self.timer, cx, until).is_pending() {
                            return Poll::Pending;
                        }
                        continue;
                    }
                    let (authenticator, refused) = (self.authenticator.clone(), refused.take());
                    self.state = State::LoggingIn(Box::pin(async move {
                        match refused {
                            Some(refused) => authenticator.renewed(&refused).await,
                            None => authenticator.token().await,
                        }
                    }));
                }
                State::LoggingIn(token) => {
                    let Poll::Ready(token) = token.as_mut().poll(cx) else { return Poll::Pending };
                    let socket = connect(self.settings.clone(), self.tls.clone(), token.clone());
                    self.state = State::Connecting { token, socket: Box::pin(socket) };
                }
                State::Connecting { token, socket } => {
                    let Poll::Ready(result) = socket.as_mut().poll(cx) else { return Poll::Pending };
                    let token = token.clone();
                    match result {
                        Ok(socket) => return Poll::Ready(self.go_up(token, socket)),
                        Err(error) => self.complain_and_wait(&error, token),
                    }
                }
                State::Up { connected, .. } => {
                    let event = connected.poll_event(cx, &mut self.timer, wants_to_send);
                    if connected.is_working() {
                        self.policy.handle_working(now());
                    }
                    let Poll::Ready(event) = event else { return Poll::Pending };
                    return Poll::Ready(match event {
                        Ok(event) => event,
                        Err(reason) => self.go_down(reason),
                    });
                }
                State::Closed => return Poll::Pending,
            }
        }
    }

    /// Sends a message. To be called once after [`LinkEvent::Up`] or [`LinkEvent::Writable`]; more is accepted, but
    /// waits in memory. Gives the message back if there is no link. A failure comes as [`LinkEvent::Down`].
    pub fn send(&mut self, message: Outgoing) -> Result<(), Outgoing> {
        match &mut self.state {
            State::Up { connected, .. } => {
                connected.send(message);
                Ok(())
            }
            _ => Err(message),
        }
    }

    /// Whether the link is up.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// The link's round trip, smoothed; `None` while it is not known.
    pub fn round_trip_time(&self) -> Option<Duration> {
        match &self.state {
            State::Up { connected, .. } => connected.round_trip_time(),
            _ => None,
        }
    }

    /// Sends what is waiting and says goodbye, within the time given; the link stays down. Not to be cancelled.
    pub async fn close(&mut self, limit: Duration) {
        self.authenticator.set_online(false);
        if let State::Up { mut connected, .. } = std::mem::replace(&mut self.state, State::Closed) {
            let closed = tokio::time::timeout(limit, connected.close()).await;
            tracing::debug!("link closed{}", if closed.is_err() { ", without an answer" } else { "" });
        }
    }

    fn go_up(&mut self, token: AccessToken, socket: Socket) -> LinkEvent {
        tracing::info!("online");
        self.complaint = None;
        self.authenticator.accepted(&token);
        self.authenticator.set_online(true);
        let connected = Box::new(Connected::new(now(), socket, &self.settings));
        self.state = State::Up { token, connected };
        LinkEvent::Up
    }

    fn go_down(&mut self, reason: DownReason) -> LinkEvent {
        tracing::warn!("offline: {}", Chain(&reason));
        self.authenticator.set_online(false);
        let failure = reason.failure();
        let refused = match &self.state {
            State::Up { token, .. } if failure == Failure::Unauthorized => Some(token.clone()),
            _ => None,
        };
        self.wait(failure, refused);
        LinkEvent::Down(reason)
    }

    fn complain_and_wait(&mut self, error: &ConnectError, token: AccessToken) {
        let failure = error.failure();
        let complaint = Chain(error).to_string();
        if failure != Failure::Unauthorized && self.complaint.as_ref() != Some(&complaint) {
            tracing::warn!("no link: {complaint}; trying again");
            self.complaint = Some(complaint);
        } else {
            tracing::debug!("no link: {complaint}");
        }
        self.wait(failure, Some(token));
    }

    fn wait(&mut self, failure: Failure, token: Option<AccessToken>) {
        let Next { at, new_login } = self.policy.handle_failure(now(), failure);
        tracing::debug!("connecting again in {:.1?}", at.saturating_duration_since(now()));
        let refused = token.filter(|_| new_login);
        if let Some(refused) = &refused {
            self.authenticator.unauthorized(refused);
        }
        self.state = State::Waiting { until: at, refused };
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.authenticator.set_online(false);
    }
}

/// Waits for this time, which may be another one at every call.
pub(super) fn poll_timer(timer: &mut Pin<Box<Sleep>>, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
    let deadline = tokio::time::Instant::from_std(until);
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut().poll(cx)
}

pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
