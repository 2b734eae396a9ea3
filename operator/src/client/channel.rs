//! A channel: PDUs and frames to and from the vehicle, and requests that wait for their responses.

use std::sync::Arc;
use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use connector_hal::can::CanFrame;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::error::{CloseReason, ExchangeError, SendFailure};
use super::inbox::{Inbox, Item, Received};
use super::response::{Response, ResponseKind, Timing};
use super::shared::{ChannelCommand, LinkState, Shared};
use super::wait::Wait;

/// The longest PDU that may be sent: the protocol's default bound.
const MAX_PDU: usize = 1 << 20;
/// The transfer rate of a slow bus, in bytes per second: ISO-TP at 20 kbit/s is a little faster. A PDU gets
/// this additional time.
const SLOWEST: u32 = 1000;
/// Detail 6 of `send-failed`: the connector's answer to a PDU that is too long.
const REFUSED: u16 = 6;
/// The negative response code of a busy ECU (ISO 14229-1).
const BUSY_REPEAT_REQUEST: u8 = 0x21;

/// An open channel, for one sender and one receiver at a time. After it is dropped, incoming items are
/// discarded.
#[derive(Debug)]
pub struct Channel {
    number: u16,
    inbox: Arc<Inbox>,
    commands: mpsc::Sender<ChannelCommand>,
    shared: Arc<Shared>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.shared.forget(self.number);
    }
}

impl Channel {
    pub(super) fn new(
        number: u16,
        inbox: Arc<Inbox>,
        commands: mpsc::Sender<ChannelCommand>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { number, inbox, commands, shared }
    }

    /// The number of the channel on its connection.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Sends a PDU. Waits while too many PDUs are under way.
    pub async fn send(&self, pdu: &[u8], flags: PduFlags) -> Result<(), ExchangeError> {
        self.send_owned(pdu.to_vec(), flags).await
    }

    /// Like [`Channel::send`], without a copy of the PDU.
    pub async fn send_owned(&self, pdu: Vec<u8>, flags: PduFlags) -> Result<(), ExchangeError> {
        if pdu.len() > MAX_PDU {
            let text = format!("the request is longer than {MAX_PDU} bytes");
            return Err(ExchangeError::NotSent(SendFailure { detail: REFUSED, text }));
        }
        self.command(ChannelCommand::Pdu { channel: self.number, flags, data: pdu }).await
    }

    /// Sends a frame. A frame lost with a link is not repeated.
    pub async fn send_frame(&self, frame: CanFrame) -> Result<(), ExchangeError> {
        self.command(ChannelCommand::Frame { channel: self.number, frame }).await
    }

    async fn command(&self, command: ChannelCommand) -> Result<(), ExchangeError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| ExchangeError::Closed(self.shared.close_reason()))
    }

    /// The next PDU, frame or event; cancel-safe.
    pub async fn recv(&self) -> Result<Received, CloseReason> {
        self.inbox.recv().await
    }

    /// Discards all items that have not been taken.
    pub fn discard_received(&self) {
        while let Some(Ok(received)) = self.inbox.try_recv() {
            tracing::debug!(?received, "discarded");
        }
    }

    /// The state of the path to the connector.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state()
    }

    /// Waits for items within this limit.
    pub(crate) fn wait(&self, limit: Duration) -> Wait<'_> {
        Wait::new(&self.inbox, self.state(), limit)
    }

    /// Sends a request and waits for its positive response. A response pending extends the wait, and a
    /// request to a busy ECU is repeated. Items that came before the request are discarded.
    pub async fn request(&self, pdu: &[u8], timing: &Timing) -> Result<Response, ExchangeError> {
        let mut retries = timing.busy_retries;
        loop {
            match self.request_once(pdu, timing).await {
                Err(ExchangeError::Negative { code: BUSY_REPEAT_REQUEST, .. }) if retries > 0 => {
                    retries -= 1;
                    tokio::time::sleep(timing.busy_pause).await;
                }
                result => return result,
            }
        }
    }

    async fn request_once(&self, pdu: &[u8], timing: &Timing) -> Result<Response, ExchangeError> {
        self.discard_received();
        let service = pdu.first().copied().unwrap_or_default();
        self.send(pdu, PduFlags { chained: false, confirm: true }).await?;
        let mut wait = self.wait(transfer_time(pdu.len()) + timing.p2 + timing.allowance);
        loop {
            let Some(received) = wait.recv().await? else {
                return Err(ExchangeError::NoResponse { after: wait.limit() });
            };
            match received.item {
                Item::Pdu { address, data } => match ResponseKind::of(service, &data) {
                    ResponseKind::Positive => return Ok(Response { address, data, at: received.at }),
                    ResponseKind::Pending => wait.restart(timing.p2_star + timing.allowance),
                    ResponseKind::Negative(code) => return Err(ExchangeError::Negative { service, code }),
                    ResponseKind::Unrelated => {}
                },
                Item::Event { code: EventCode::Sent, .. } => wait.restart(timing.p2 + timing.allowance),
                item => failure(&item).map_or(Ok(()), Err)?,
            }
        }
    }

    /// Sends a functional request and collects the responses of all ECUs until `window` after the request was
    /// on the bus. A response pending extends the wait for the ECU that sent it.
    pub async fn request_functional(
        &self,
        pdu: &[u8],
        window: Duration,
        timing: &Timing,
    ) -> Result<Vec<Response>, ExchangeError> {
        self.discard_received();
        let service = pdu.first().copied().unwrap_or_default();
        self.send(pdu, PduFlags { chained: false, confirm: true }).await?;
        let mut wait = self.wait(timing.p2 + timing.allowance);
        let (mut responses, mut pending): (Vec<Response>, Vec<u32>) = (Vec::new(), Vec::new());
        let mut collecting_until = None;
        loop {
            let Some(received) = wait.recv().await? else { return Ok(responses) };
            match received.item {
                Item::Pdu { address, data } => match ResponseKind::of(service, &data) {
                    ResponseKind::Pending => {
                        if !pending.contains(&address) {
                            pending.push(address);
                        }
                        wait.restart(timing.p2_star + timing.allowance);
                    }
                    ResponseKind::Positive | ResponseKind::Negative(_) => {
                        pending.retain(|who| *who != address);
                        responses.push(Response { address, data, at: received.at });
                        if let Some(until) = collecting_until.filter(|_| pending.is_empty()) {
                            wait.restart_until(until);
                        }
                    }
                    ResponseKind::Unrelated => {}
                },
                Item::Event { code: EventCode::Sent, .. } => {
                    collecting_until = Some(Instant::now() + window);
                    wait.restart(window);
                }
                item => failure(&item).map_or(Ok(()), Err)?,
            }
        }
    }
}

/// How long the bus may take to transfer a request.
fn transfer_time(len: usize) -> Duration {
    Duration::from_secs(1) * u32::try_from(len).unwrap_or(u32::MAX) / SLOWEST
}

/// The error that an event reports about the request under way, if any.
pub(crate) fn failure(item: &Item) -> Option<ExchangeError> {
    let Item::Event { code, detail, value, text } = item else { return None };
    match code {
        EventCode::SendFailed => {
            Some(ExchangeError::NotSent(SendFailure { detail: *detail, text: text.clone() }))
        }
        EventCode::ReceiveFailed => Some(ExchangeError::ReceiveFailed(*detail)),
        EventCode::ChainBroken => Some(ExchangeError::ChainBroken { count: *value, code: *detail }),
        _ => None,
    }
}
