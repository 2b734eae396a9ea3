//! A channel: PDUs and frames to and from the vehicle, and requests that wait for their responses.

use std::sync::Arc;
use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use connector_hal::can::CanFrame;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::error::{CloseReason, ExchangeError};
use super::inbox::{Inbox, Item, Received};
use super::shared::{ChannelCommand, LinkState, Shared};

/// The longest PDU that may be sent: the protocol's default bound.
const MAX_PDU: usize = 1 << 20;
/// The transfer rate of a slow bus, in bytes per second: ISO-TP at 20 kbit/s is a little faster. A PDU gets
/// this additional time.
const SLOWEST: u32 = 1000;
/// Detail 6 of `send-failed`: the connector's answer to a PDU that is too long.
const REFUSED: u16 = 6;

const NEGATIVE_RESPONSE: u8 = 0x7F;
const RESPONSE_PENDING: u8 = 0x78;
const BUSY_REPEAT_REQUEST: u8 = 0x21;
const POSITIVE_OFFSET: u8 = 0x40;

/// How long a request waits for an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// P2: the time to the first response, counted from the request on the bus.
    pub p2: Duration,
    /// P2*: the time to the response after a response pending.
    pub p2_star: Duration,
    /// The time that the network may add: the round trip, and a link that stalls without being lost.
    pub allowance: Duration,
    /// The pause before a request to a busy ECU is repeated.
    pub busy_pause: Duration,
    /// How many times a request to a busy ECU is repeated.
    pub busy_retries: u32,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            p2: Duration::from_secs(1),
            p2_star: Duration::from_secs(5),
            // a link that is silent for 15 s counts as lost, and then this clock stops
            allowance: Duration::from_secs(16),
            busy_pause: Duration::from_secs(1),
            busy_retries: 5,
        }
    }
}

/// An ECU's response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The sender: a CAN identifier with SocketCAN's EFF bit.
    pub address: u32,
    /// The PDU.
    pub data: Vec<u8>,
    /// When the response was complete, on the connector's clock, since the connection was opened.
    pub at: Duration,
}

/// The kind of response of a PDU to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResponseKind {
    /// The positive response.
    Positive,
    /// Response pending: the ECU needs more time.
    Pending,
    /// A negative response with this code.
    Negative(u8),
    /// The PDU does not answer this request.
    Unrelated,
}

impl ResponseKind {
    /// Classifies a PDU that follows a request for this service.
    pub(crate) fn of(service: u8, response: &[u8]) -> Self {
        match response {
            [NEGATIVE_RESPONSE, about, RESPONSE_PENDING, ..] if *about == service => Self::Pending,
            [NEGATIVE_RESPONSE, about, code, ..] if *about == service => Self::Negative(*code),
            [first, ..] if *first == service.wrapping_add(POSITIVE_OFFSET) => Self::Positive,
            _ => Self::Unrelated,
        }
    }
}

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
        if pdu.len() > MAX_PDU {
            return Err(ExchangeError::NotSent(REFUSED));
        }
        self.command(ChannelCommand::Pdu { channel: self.number, flags, data: pdu.to_vec() }).await
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
        let mut wait = Wait::new(self, transfer_time(pdu.len()) + timing.p2 + timing.allowance);
        loop {
            let Some(received) = wait.recv().await? else {
                return Err(ExchangeError::NoResponse { after: wait.limit });
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
        let mut wait = Wait::new(self, timing.p2 + timing.allowance);
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
    let Item::Event { code, detail, value, .. } = item else { return None };
    match code {
        EventCode::SendFailed => Some(ExchangeError::NotSent(*detail)),
        EventCode::ReceiveFailed => Some(ExchangeError::ReceiveFailed(*detail)),
        EventCode::ChainBroken => Some(ExchangeError::ChainBroken { count: *value, code: *detail }),
        _ => None,
    }
}

/// Waits for items on a channel, with a clock that stops while a link is lost.
pub(crate) struct Wait<'a> {
    channel: &'a Channel,
    state: watch::Receiver<LinkState>,
    pub(crate) limit: Duration,
    deadline: Instant,
}

impl<'a> Wait<'a> {
    pub(crate) fn new(channel: &'a Channel, limit: Duration) -> Self {
        Self { channel, state: channel.state(), limit, deadline: Instant::now() + limit }
    }

    /// Restarts the wait with this limit.
    pub(crate) fn restart(&mut self, limit: Duration) {
        self.limit = limit;
        self.deadline = Instant::now() + limit;
    }

    fn restart_until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// The next item, or `None` when the time is over.
    pub(crate) async fn recv(&mut self) -> Result<Option<Received>, ExchangeError> {
        loop {
            let is_up = *self.state.borrow_and_update() == LinkState::Up;
            tokio::select! {
                biased;
                received = self.channel.recv() => return received.map(Some).map_err(ExchangeError::Closed),
                // the channel reports a closed connection
                Ok(()) = self.state.changed() => {
                    if !is_up {
                        self.deadline = self.deadline.max(Instant::now() + self.limit);
                    }
                }
                () = tokio::time::sleep_until(self.deadline), if is_up => return Ok(None),
            }
        }
    }
}
