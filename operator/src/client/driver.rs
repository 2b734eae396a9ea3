//! The task of a connection: it owns the websocket, and opens another one when the websocket is lost.

use std::sync::Arc;
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::link::Link;
use connector_hal::clock::{now, sleep_until};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::error::{CloseReason, is_offline};
use super::joining::{JoinError, JoinRequest, join};
use super::live::{Live, LiveEvent};
use super::protocol::{Ended, LinkProtocol};
use super::shared::{ChannelCommand, ConnectionSettings, ConnectorRequest, Shared};
use super::socket::Dial;

/// The first pause between attempts to reconnect, which is then doubled up to [`LAST_PAUSE`]. The first
/// attempt follows the loss immediately. The value is a compromise: a flash waits for the link, and a cloud
/// that restarts refuses connections.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between attempts to reconnect. The vendor asks clients to reconnect no faster than every
/// 5 s after a few immediate attempts.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The task of a connection, which [`Driver::drive`] runs.
pub(super) struct Driver {
    dial: Arc<dyn Dial>,
    /// The join for the next websocket, without `received`.
    rejoin: JoinRequest,
    settings: ConnectionSettings,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<ConnectorRequest>,
    commands: mpsc::Receiver<ChannelCommand>,
    protocol: LinkProtocol,
}

impl Driver {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        rejoin: JoinRequest,
        settings: ConnectionSettings,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<ConnectorRequest>,
        commands: mpsc::Receiver<ChannelCommand>,
        link: Link,
    ) -> Self {
        let protocol = LinkProtocol::new(rejoin.uuid, settings.hold, Arc::clone(&shared), link);
        Self { dial, rejoin, settings, shared, requests, commands, protocol }
    }

    /// Runs until the connection ends, then closes all channels with the reason.
    pub(super) async fn drive(mut self, live: Live, backlog: Vec<Message>) {
        let reason = self.run(live, backlog).await;
        tracing::debug!(connection = %self.rejoin.uuid, %reason, "the connection ended");
        self.shared.close(&reason);
    }

    async fn run(&mut self, mut live: Live, mut backlog: Vec<Message>) -> CloseReason {
        loop {
            match self.drive_socket(&mut live, backlog).await {
                Ended::Closed(reason) => {
                    live.close().await;
                    return reason;
                }
                Ended::Lost(error) => {
                    tracing::debug!(connection = %self.rejoin.uuid, %error, "lost the websocket")
                }
            }
            self.protocol.handle_lost(now());
            match self.reconnect().await {
                Ok(again) => (live, backlog) = again,
                Err(reason) => return reason,
            }
        }
    }

    /// Uses a websocket until the websocket or the connection ends.
    async fn drive_socket(&mut self, live: &mut Live, backlog: Vec<Message>) -> Ended {
        for message in backlog {
            if let Err(ended) = self.protocol.handle_message(now(), message) {
                return ended;
            }
        }
        loop {
            if let Err(ended) = self.drive_socket_once(live).await {
                return ended;
            }
        }
    }

    async fn drive_socket_once(&mut self, live: &mut Live) -> Result<(), Ended> {
        self.transmit(live).await?;
        self.check_hold()?;
        self.process_event(live).await
    }

    /// Writes the next message, if the websocket takes one.
    async fn transmit(&mut self, live: &mut Live) -> Result<(), Ended> {
        if live.is_idle()
            && let Some(message) = self.protocol.poll_message(now())
        {
            live.write(message).await?;
        }
        Ok(())
    }

    /// Gives the connection up if a link has been lost for too long.
    fn check_hold(&self) -> Result<(), Ended> {
        match self.protocol.gives_up_at() {
            Some(at) if at <= now() => Err(Ended::Closed(CloseReason::LinkLost)),
            _ => Ok(()),
        }
    }

    /// Waits for the next event of the websocket, the channels or the clock, and handles it.
    async fn process_event(&mut self, live: &mut Live) -> Result<(), Ended> {
        let ack_due = self.protocol.ack_due().filter(|_| live.is_idle());
        let timeout = [self.protocol.gives_up_at(), ack_due].into_iter().flatten().min();
        tokio::select! {
            () = self.shared.dropped.cancelled() => Err(Ended::Closed(CloseReason::Dropped)),
            event = live.next() => match event? {
                LiveEvent::Message(message) => self.protocol.handle_message(now(), message),
                LiveEvent::Flushed => Ok(()),
            },
            Some(request) = self.requests.recv(), if self.protocol.takes_request() => {
                self.protocol.handle_request(request);
                Ok(())
            }
            Some(command) = self.commands.recv(), if self.protocol.takes_command() => {
                self.protocol.handle_command(now(), command)
            }
            () = sleep_until(timeout) => Ok(()),
        }
    }

    /// Opens another websocket and joins the connection again. `connectionResumed` then says where the link
    /// continues.
    async fn reconnect(&mut self) -> Result<(Live, Vec<Message>), CloseReason> {
        let until = self.protocol.gives_up_at().map(Instant::from_std);
        let until = until.unwrap_or_else(|| Instant::now() + self.settings.hold);
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = self.dial_and_join();
            tokio::select! {
                () = self.shared.dropped.cancelled() => return Err(CloseReason::Dropped),
                attempt = tokio::time::timeout_at(until, attempt) => match attempt {
                    Ok(Ok(joined)) => return Ok(joined),
                    Ok(Err(Some(problem))) if !is_offline(&problem) => return Err(CloseReason::Refused(problem)),
                    Ok(Err(_)) => {}
                    Err(_) => return Err(CloseReason::LinkLost),
                }
            }
            // half of the pause is random, so that many operators do not reconnect simultaneously
            let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = self.shared.dropped.cancelled() => return Err(CloseReason::Dropped),
                () = tokio::time::sleep_until((Instant::now() + jittered).min(until)) => {}
            }
            if Instant::now() >= until {
                return Err(CloseReason::LinkLost);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// The error is the problem that the cloud answered with, or `None` if there was no answer.
    async fn dial_and_join(&self) -> Result<(Live, Vec<Message>), Option<Problem>> {
        let socket = self.dial.dial().await.map_err(|error| {
            tracing::debug!(%error, "cannot reconnect");
            None
        })?;
        let mut live = Live::new(socket);
        // the websocket before may still count as joined: the number shows that this is the same operator
        let received = Some(self.protocol.received());
        let request = JoinRequest { received, ..self.rejoin.clone() };
        match join(&mut live, request).await {
            Ok((_, backlog)) => Ok((live, backlog)),
            Err(JoinError::Refused(problem)) => Err(Some(problem)),
            Err(JoinError::Socket(error)) => {
                tracing::debug!(%error, "lost the websocket while joining");
                Err(None)
            }
            Err(JoinError::Timeout(_)) => Err(None),
        }
    }
}
