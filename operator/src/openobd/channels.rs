//! The streams of channels: what a script sends goes to the vehicle, and what the vehicle sends goes to the script.

use std::sync::Arc;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use connector_hal::can::{CanFrame, CanId};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::gateway::Live;
use super::mapping::{self, ChannelFields, MappingError};
use super::proto::can_server::Can;
use super::proto::configured_channel::ChannelDefinition;
use super::proto::doip_server::Doip;
use super::proto::kline_server::Kline;
use super::proto::{
    DoipChannel, DoipMessage, IsotpChannel, IsotpMessage, KlineChannel, KlineMessage, RawChannel, RawFrame,
    Tp20Channel, Tp20Message,
};
use super::services::{Responses, Service};
use super::status::status_of_event;
use crate::client::{Channel, Item};
use crate::hex;

/// How many messages may wait for a client that reads slowly. More wait in the channel, which has its own bound.
const WAITING: usize = 64;
/// The longest CAN frame. openOBD has no CAN FD.
const MAX_FRAME: usize = 8;

/// What a message of a script puts on the bus.
#[derive(Debug, PartialEq, Eq)]
enum Outgoing {
    Pdu(Vec<u8>),
    Frame(CanFrame),
    /// The message only opens the channel.
    Nothing,
}

/// A message on the stream of a channel.
trait ChannelMessage: Send + Sized + 'static {
    type Channel: Clone + PartialEq + Send + Sync + 'static;

    /// The channel and the payload.
    fn into_parts(self) -> (Option<Self::Channel>, Option<String>);
    /// The message for a PDU or frame from the vehicle, or `None` if the item is neither.
    fn of_item(channel: &Self::Channel, item: Item) -> Option<Self>;
    /// The channel for `openChannel`.
    fn fields(channel: &Self::Channel) -> Result<ChannelFields, MappingError>;
    /// The channel for `getConfiguration`.
    fn definition(channel: Self::Channel) -> ChannelDefinition;

    /// What goes on the bus for a payload. The first message opens the channel.
    fn outgoing(_: &Self::Channel, payload: Option<String>, _is_first: bool) -> Result<Outgoing, Status> {
        let bytes = payload_bytes(payload.as_deref().unwrap_or_default())?;
        Ok(if bytes.is_empty() { Outgoing::Nothing } else { Outgoing::Pdu(bytes) })
    }
}

/// The identifier as scripts write it: the relay's addresses have SocketCAN's EFF bit.
fn plain(address: u32) -> u32 {
    CanId::try_from(address).map_or(address, CanId::to_number)
}

fn payload_bytes(payload: &str) -> Result<Vec<u8>, Status> {
    hex::parse(payload)
        .map_err(|error| Status::invalid_argument(format!("the payload is not hexadecimal: {error}")))
}

macro_rules! pdu_messages {
    ($($message:ident, $channel:ident, $map:path;)*) => {$(
        impl ChannelMessage for $message {
            type Channel = $channel;

            fn into_parts(self) -> (Option<$channel>, Option<String>) {
                (self.channel, Some(self.payload))
            }

            fn of_item(channel: &$channel, item: Item) -> Option<Self> {
                let Item::Pdu { data, .. } = item else { return None };
                Some(Self { channel: Some(channel.clone()), payload: hex::format(&data) })
            }

            fn fields(channel: &$channel) -> Result<ChannelFields, MappingError> {
                $map(channel)
            }

            fn definition(channel: $channel) -> ChannelDefinition {
                ChannelDefinition::$channel(channel)
            }
        }
    )*};
}

pdu_messages! {
    Tp20Message, Tp20Channel, mapping::tp20;
    KlineMessage, KlineChannel, mapping::kline;
    DoipMessage, DoipChannel, mapping::doip;
}

impl ChannelMessage for IsotpMessage {
    type Channel = IsotpChannel;

    fn into_parts(self) -> (Option<IsotpChannel>, Option<String>) {
        (self.channel, Some(self.payload))
    }

    fn of_item(channel: &IsotpChannel, item: Item) -> Option<Self> {
        let Item::Pdu { address, data } = item else { return None };
        let mut channel = channel.clone();
        // on a functional channel, the identifier says which ECU has answered
        if channel.response_id == 0 {
            channel.response_id = plain(address);
        }
        Some(Self { channel: Some(channel), payload: hex::format(&data) })
    }

    fn fields(channel: &IsotpChannel) -> Result<ChannelFields, MappingError> {
        mapping::isotp(channel)
    }

    fn definition(channel: IsotpChannel) -> ChannelDefinition {
        ChannelDefinition::IsotpChannel(channel)
    }
}

impl ChannelMessage for RawFrame {
    type Channel = RawChannel;

    fn into_parts(self) -> (Option<RawChannel>, Option<String>) {
        (self.channel, self.payload)
    }

    fn of_item(channel: &RawChannel, item: Item) -> Option<Self> {
        let Item::Frame(frame) = item else { return None };
        if !frame.is_data() {
            return None;
        }
        let mut channel = channel.clone();
        // a channel that receives every frame has the identifier only here
        channel.response_id.get_or_insert_with(|| frame.id().to_number());
        Some(Self { channel: Some(channel), payload: Some(hex::format(frame.data())) })
    }

    fn fields(channel: &RawChannel) -> Result<ChannelFields, MappingError> {
        mapping::raw(channel)
    }

    fn definition(channel: RawChannel) -> ChannelDefinition {
        ChannelDefinition::RawChannel(channel)
    }

    fn outgoing(channel: &RawChannel, payload: Option<String>, is_first: bool) -> Result<Outgoing, Status> {
        let Some(payload) = payload.filter(|payload| !(is_first && payload.is_empty())) else {
            return Ok(Outgoing::Nothing);
        };
        let bytes = payload_bytes(&payload)?;
        let id = channel.request_id.ok_or_else(|| {
            Status::failed_precondition("the channel has no request_id, so that it only receives")
        })?;
        let id =
            CanId::try_from(id).map_err(|error| Status::invalid_argument(format!("request_id: {error}")))?;
        if bytes.len() > MAX_FRAME {
            let sentence = format!("a CAN frame has at most {MAX_FRAME} bytes, not {}", bytes.len());
            return Err(Status::invalid_argument(sentence));
        }
        let frame = CanFrame::new(id, &bytes).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Outgoing::Frame(frame))
    }
}

/// Serves the stream of a channel until the client, the session or the channel ends.
fn serve<M: ChannelMessage>(live: Arc<Live>, inbound: Streaming<M>) -> Responses<M> {
    let (out, stream) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let mut open = None;
        let ended = tokio::select! {
            over = live.over() => over,
            () = out.closed() => Ok(()),
            driven = drive(&live, inbound, &out, &mut open) => driven,
        };
        if let Some(channel) = open {
            live.close(channel).await;
        }
        if let Err(status) = ended {
            let _the_client_has_gone = out.send(Err(status)).await;
        }
    });
    ReceiverStream::new(stream)
}

async fn drive<M: ChannelMessage>(
    live: &Live,
    mut inbound: Streaming<M>,
    out: &mpsc::Sender<Result<M, Status>>,
    slot: &mut Option<Channel>,
) -> Result<(), Status> {
    let Some(first) = inbound.message().await? else { return Ok(()) };
    let (described, payload) = first.into_parts();
    let described = described.ok_or(MappingError::NoChannel)?;
    let mut configurations = live.configurations.subscribe();
    let mut channel = slot.insert(open::<M>(live, &described, &mut configurations).await?);
    send(channel, M::outgoing(&described, payload, true)?).await?;
    let mut is_sending = true;
    loop {
        tokio::select! {
            message = inbound.message(), if is_sending => {
                let Some(message) = message? else {
                    // the client only listens from now on
                    is_sending = false;
                    continue;
                };
                let (other, payload) = message.into_parts();
                if other.is_some_and(|other| other != described) {
                    return Err(Status::invalid_argument("a stream has one channel; open another stream for another"));
                }
                send(channel, M::outgoing(&described, payload, false)?).await?;
            }
            received = channel.recv() => {
                let item = received?.item;
                if let Some(status) = status_of_event(&item) {
                    return Err(status);
                }
                note(channel, &item);
                if let Some(message) = M::of_item(&described, item)
                    && out.send(Ok(message)).await.is_err()
                {
                    return Ok(());
                }
            }
            Ok(()) = configurations.changed() => {
                // the connector has closed the channel with its bus
                channel = slot.insert(open::<M>(live, &described, &mut configurations).await?);
            }
        }
    }
}

async fn open<M: ChannelMessage>(
    live: &Live,
    described: &M::Channel,
    configurations: &mut watch::Receiver<u64>,
) -> Result<Channel, Status> {
    // a bus that is being configured would close the channel
    let _buses = live.buses.lock().await;
    configurations.mark_unchanged();
    Ok(live.open(M::fields(described)?, Some(M::definition(described.clone()))).await?)
}

async fn send(channel: &Channel, outgoing: Outgoing) -> Result<(), Status> {
    match outgoing {
        Outgoing::Pdu(pdu) => channel.send_owned(pdu, PduFlags { chained: false, confirm: false }).await?,
        Outgoing::Frame(frame) => channel.send_frame(frame).await?,
        Outgoing::Nothing => {}
    }
    Ok(())
}

/// Logs the events that do not end the stream, but that a script's author may look for.
fn note(channel: &Channel, item: &Item) {
    let Item::Event { code, detail, value, text } = item else { return };
    let channel = channel.number();
    match code {
        EventCode::Gap => {
            tracing::warn!(channel, frames = value, "frames were dropped: the script reads too slowly")
        }
        EventCode::KeepAliveFailed => {
            tracing::warn!(channel, detail, text, "the ECU's session was not kept alive");
        }
        _ => tracing::debug!(channel, ?code, detail, value, text, "event"),
    }
}

#[tonic::async_trait]
impl Can for Service {
    type openIsotpStreamStream = Responses<IsotpMessage>;

    async fn open_isotp_stream(
        &self,
        request: Request<Streaming<IsotpMessage>>,
    ) -> Result<Response<Self::openIsotpStreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        Ok(Response::new(serve(live, request.into_inner())))
    }

    type openRawStreamStream = Responses<RawFrame>;

    async fn open_raw_stream(
        &self,
        request: Request<Streaming<RawFrame>>,
    ) -> Result<Response<Self::openRawStreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        Ok(Response::new(serve(live, request.into_inner())))
    }

    type openTp20StreamStream = Responses<Tp20Message>;

    async fn open_tp20_stream(
        &self,
        request: Request<Streaming<Tp20Message>>,
    ) -> Result<Response<Self::openTp20StreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        Ok(Response::new(serve(live, request.into_inner())))
    }
}

#[tonic::async_trait]
impl Kline for Service {
    type openKlineStreamStream = Responses<KlineMessage>;

    async fn open_kline_stream(
        &self,
        request: Request<Streaming<KlineMessage>>,
    ) -> Result<Response<Self::openKlineStreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        Ok(Response::new(serve(live, request.into_inner())))
    }
}

#[tonic::async_trait]
impl Doip for Service {
    type openDoipStreamStream = Responses<DoipMessage>;

    async fn open_doip_stream(
        &self,
        request: Request<Streaming<DoipMessage>>,
    ) -> Result<Response<Self::openDoipStreamStream>, Status> {
        let live = self.gateway.enter(request.metadata())?;
        Ok(Response::new(serve(live, request.into_inner())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_on_a_functional_channel_has_the_plain_identifier_of_its_ecu() {
        for (address, expected) in [(0x7E8, 0x7E8), (0x98DA_F110, 0x18DA_F110)] {
            let functional = IsotpChannel { request_id: 0x18DB_33F1, ..IsotpChannel::default() };
            let item = Item::Pdu { address, data: vec![0x7E, 0x00] };
            let message = IsotpMessage::of_item(&functional, item).unwrap();
            assert_eq!((message.channel.unwrap().response_id, message.payload.as_str()), (expected, "7E00"));
        }
    }
}
