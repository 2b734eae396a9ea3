//! Messages from and to bytes, by `simple_doip`'s codec, which checks every length before it takes a byte.

use bytes::{Buf, BytesMut};
use simple_doip::messages::{self as wire, Decode, Encode, MessageError};
use simple_doip::wire::SliceSink;
use simple_doip::{GroupId, try_frame};

use super::{
    ActivationRequest, ActivationResponse, Announcement, DiagnosticAck, DiagnosticMessage, DiagnosticNack,
    Eid, EntityStatus, Gid, HeaderNackCode, LogicalAddress, Message, Payload, ProtocolVersion,
};

/// The length of the generic header, in bytes (ISO 13400-2, table 16).
pub const HEADER_LEN: usize = 8;

/// The first payload type that may bear the default version, which identification requests have when the vehicle's is not
/// known yet (ISO 13400-2, table 16).
const IDENTIFICATION_REQUEST: u16 = 0x0001;
/// The last one: their answer, which some entities give in the version in which they were asked.
const ANNOUNCEMENT: u16 = 0x0004;

/// A message that cannot be sent.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be encoded: {0}")]
pub struct EncodeError(#[source] MessageError);

/// Bytes that are no message; on a stream, where the next one begins can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The second byte is not the first one's inverse.
    #[error("the header begins with 0x{version:02X} 0x{inverse:02X}, not a version and its inverse")]
    IncorrectPattern {
        /// The version.
        version: u8,
        /// What should be its inverse.
        inverse: u8,
    },
    /// A version that such a message cannot have.
    #[error(
        "protocol version 0x{0:02X} is none of 0x01, 0x02, 0x03 (0xFF is for vehicle identification by UDP only)"
    )]
    UnknownVersion(u8),
    /// A payload of this type cannot have this length.
    #[error("a payload of type 0x{payload_type:04X} cannot have {length} bytes")]
    InvalidPayloadLength {
        /// The payload's type.
        payload_type: u16,
        /// Its length.
        length: u32,
    },
    /// A datagram that is shorter or longer than its header says.
    #[error("the header says {length} bytes of payload, the datagram has {actual}")]
    DatagramLength {
        /// What the header says.
        length: u32,
        /// What there is.
        actual: usize,
    },
    /// A datagram that is shorter than a header.
    #[error("{0} bytes are too few for a header")]
    NoHeader(usize),
}

impl DecodeError {
    /// How an entity answers such a message (ISO 13400-2, table 19).
    pub fn nack(self) -> HeaderNackCode {
        match self {
            Self::IncorrectPattern { .. } | Self::UnknownVersion(_) | Self::NoHeader(_) => {
                HeaderNackCode::IncorrectPattern
            }
            Self::InvalidPayloadLength { .. } | Self::DatagramLength { .. } => {
                HeaderNackCode::InvalidPayloadLength
            }
        }
    }
}

/// What came from a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A message.
    Message(Message),
    /// The header of a message that is longer than the decoder takes. Its payload is thrown away as it comes, and what
    /// follows is decoded again.
    TooLarge {
        /// The payload's type.
        payload_type: u16,
        /// Its length, in bytes.
        length: u32,
    },
}

/// Takes a stream apart into messages.
///
/// It keeps no more than one message of the greatest length and what was given at once; so give it what one read gave,
/// and take all messages before the next.
#[derive(Debug)]
pub struct StreamDecoder {
    max_payload: u32,
    buffer: BytesMut,
    /// Bytes still to come of a message that is too long.
    discarding: u32,
    failed: Option<DecodeError>,
}

impl StreamDecoder {
    /// A decoder for messages with payloads of up to so many bytes.
    pub fn new(max_payload: u32) -> Self {
        Self { max_payload, buffer: BytesMut::new(), discarding: 0, failed: None }
    }

    /// Bytes from the stream; ignored after an error.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next message that is whole; after an error, the same error for ever.
    pub fn poll_message(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.decode().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    /// How many bytes wait for the rest of their message.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn decode(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if self.discarding > 0 {
            let dropped = usize::try_from(self.discarding).unwrap_or(usize::MAX).min(self.buffer.len());
            self.buffer.advance(dropped);
            self.discarding -= u32::try_from(dropped).unwrap_or(self.discarding);
        }
        let Some(bytes) = self.buffer.get(..HEADER_LEN) else { return Ok(None) };
        let header = header(bytes)?;
        edition(header.protocol_version())?;
        let length = header.payload_length();
        // all that the header can tell is looked at before anything is waited for
        if length > self.max_payload {
            self.buffer.advance(HEADER_LEN);
            self.discarding = length;
            return Ok(Some(Decoded::TooLarge { payload_type: header.payload_type().into(), length }));
        }
        if !header.payload_type().allows_payload_length(length) {
            return Err(DecodeError::InvalidPayloadLength {
                payload_type: header.payload_type().into(),
                length,
            });
        }
        let frame = try_frame(&self.buffer).map_err(|error| explain(&error, &self.buffer))?;
        let Some((frame, consumed)) = frame else { return Ok(None) };
        let message = message(&frame.header, frame.payload)?;
        self.buffer.advance(consumed);
        Ok(Some(Decoded::Message(message)))
    }
}

/// The header, if its messages are understood.
fn header(bytes: &[u8]) -> Result<wire::Header, DecodeError> {
    let (header, _) = wire::Header::decode(bytes).map_err(|error| explain(&error, bytes))?;
    known(header.protocol_version())?;
    Ok(header)
}

fn message(header: &wire::Header, payload: &[u8]) -> Result<Message, DecodeError> {
    let payload_type = header.payload_type().into();
    let payload = match wire::Payload::decode(payload, header.payload_type()) {
        Ok(decoded) => from_wire(decoded.to_owned_payload())?,
        Err(MessageError::UnsupportedPayloadType(_)) => {
            Payload::Other { payload_type, data: payload.to_vec() }
        }
        Err(_) => {
            let length = header.payload_length();
            return Err(DecodeError::InvalidPayloadLength { payload_type, length });
        }
    };
    Ok(Message { version: known(header.protocol_version())?, payload })
}

/// The one message that a datagram is.
pub fn decode_datagram(bytes: &[u8]) -> Result<Message, DecodeError> {
    let Some((front, payload)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(DecodeError::NoHeader(bytes.len()));
    };
    let header = header(front)?;
    if !matches!(u16::from(header.payload_type()), IDENTIFICATION_REQUEST..=ANNOUNCEMENT) {
        edition(header.protocol_version())?;
    }
    let length = header.payload_length();
    if usize::try_from(length) != Ok(payload.len()) {
        return Err(DecodeError::DatagramLength { length, actual: payload.len() });
    }
    message(&header, payload)
}

impl Message {
    /// The message's bytes.
    ///
    /// An error for a diagnostic message without data, and for a payload above 4 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let protocol_version = wire::ProtocolVersion::from(u8::from(self.version));
        if let Payload::Other { payload_type, data } = &self.payload {
            let size = data.len();
            let length =
                u32::try_from(size).map_err(|_| EncodeError(MessageError::PayloadTooLarge { size }))?;
            let header = wire::Header::new(protocol_version, (*payload_type).into(), length);
            let mut bytes = encode(&header)?;
            bytes.extend_from_slice(data);
            return Ok(bytes);
        }
        encode(&wire::Message { protocol_version, payload: to_wire(&self.payload) })
    }
}

fn encode(value: &impl Encode<Error = MessageError>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; value.encoded_size().map_err(EncodeError)?];
    value.encode(&mut SliceSink::new(&mut bytes)).map_err(EncodeError)?;
    Ok(bytes)
}

/// The version, if its messages are understood.
fn known(version: wire::ProtocolVersion) -> Result<ProtocolVersion, DecodeError> {
    let version = ProtocolVersion::from(u8::from(version));
    if version.is_supported() { Ok(version) } else { Err(DecodeError::UnknownVersion(version.into())) }
}

/// The version, if it is one of an edition of the standard.
fn edition(version: wire::ProtocolVersion) -> Result<(), DecodeError> {
    match ProtocolVersion::from(u8::from(version)) {
        ProtocolVersion::Default => Err(DecodeError::UnknownVersion(ProtocolVersion::Default.into())),
        _ => Ok(()),
    }
}

/// What is wrong with these bytes, in our words.
fn explain(error: &MessageError, bytes: &[u8]) -> DecodeError {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or_default();
    if let MessageError::VersionInverseIncorrect { .. } = error {
        return DecodeError::IncorrectPattern { version: byte(0), inverse: byte(1) };
    }
    DecodeError::InvalidPayloadLength {
        payload_type: u16::from_be_bytes([byte(2), byte(3)]),
        length: u32::from_be_bytes([byte(4), byte(5), byte(6), byte(7)]),
    }
}

fn address(address: simple_doip::LogicalAddress) -> LogicalAddress {
    LogicalAddress::new(address.into())
}

fn wire_address(address: LogicalAddress) -> simple_doip::LogicalAddress {
    address.get().into()
}

fn from_wire(payload: wire::OwnedPayload) -> Result<Payload, DecodeError> {
    use wire::OwnedPayload as Wire;
    Ok(match payload {
        Wire::DoIPNack(code) => Payload::HeaderNack(u8::from(code).into()),
        Wire::AliveCheckRequest => Payload::AliveCheckRequest,
        Wire::AliveCheckResponse(response) => Payload::AliveCheckResponse(address(response.source_address)),
        Wire::DiagnosticMessage(message) => Payload::Diagnostic(DiagnosticMessage {
            source: address(message.source_address),
            target: address(message.target_address),
            data: message.user_data,
        }),
        Wire::DiagnosticMessageAck(ack) => Payload::DiagnosticAck(DiagnosticAck {
            source: address(ack.source_address),
            target: address(ack.target_address),
            code: ack.ack_code.into(),
            previous: ack.previous_message_data,
        }),
        Wire::DiagnosticMessageNack(nack) => Payload::DiagnosticNack(DiagnosticNack {
            source: address(nack.source_address),
            target: address(nack.target_address),
            code: u8::from(nack.nack_code).into(),
            previous: nack.previous_message_data,
        }),
        Wire::EntityStatusRequest => Payload::EntityStatusRequest,
        Wire::EntityStatusResponse(status) => Payload::EntityStatusResponse(EntityStatus {
            node_type: u8::from(status.node_type).into(),
            max_sockets: status.max_concurrent_tcp_sockets,
            open_sockets: status.open_tcp_sockets,
            max_data_size: status.max_data_size,
        }),
        Wire::PowerModeInfoRequest => Payload::PowerModeRequest,
        Wire::PowerModeInfoResponse(mode) => Payload::PowerModeResponse(u8::from(mode).into()),
        Wire::RoutingActivationRequest(request) => Payload::ActivationRequest(ActivationRequest {
            source: address(request.source_address),
            activation_type: u8::from(request.activation_type).into(),
            oem: request.reserved_vehicle_manufacturer,
        }),
        Wire::RoutingActivationResponse(response) => Payload::ActivationResponse(ActivationResponse {
            tester: address(response.logical_address_tester),
            entity: address(response.logical_address_of_doip_entity),
            code: u8::from(response.routing_activation_response_code).into(),
            oem: response.oem_specific,
        }),
        Wire::VehicleAnnouncement(response) | Wire::VehicleIdentificationResponse(response) => {
            Payload::Announcement(Announcement {
                vin: response.vin,
                address: address(response.logical_address),
                eid: Eid(response.entity_id),
                gid: response.group_id.map(|gid| Gid(gid.to_bytes())),
                further_action: u8::from(response.further_action).into(),
                sync_status: response.vin_gid_sync_status.map(|status| u8::from(status).into()),
            })
        }
        Wire::VehicleIdentificationRequest => Payload::IdentificationRequest,
        Wire::VehicleIdentificationRequestWithEid(eid) => Payload::IdentificationRequestByEid(Eid(eid)),
        Wire::VehicleIdentificationRequestWithVin(vin) => Payload::IdentificationRequestByVin(vin),
        // the codec gives no other kind without saying that it could not decode it
        _ => return Err(DecodeError::InvalidPayloadLength { payload_type: 0, length: 0 }),
    })
}

fn to_wire(payload: &Payload) -> wire::Payload<'_> {
    use wire::Payload as Wire;
    match payload {
        Payload::HeaderNack(code) => Wire::DoIPNack(u8::from(*code).into()),
        Payload::IdentificationRequest => Wire::VehicleIdentificationRequest,
        Payload::IdentificationRequestByEid(eid) => Wire::VehicleIdentificationRequestWithEid(eid.0),
        Payload::IdentificationRequestByVin(vin) => Wire::VehicleIdentificationRequestWithVin(*vin),
        Payload::Announcement(announcement) => {
            Wire::VehicleAnnouncement(wire::VehicleIdentificationResponse {
                vin: announcement.vin,
                logical_address: wire_address(announcement.address),
                entity_id: announcement.eid.0,
                group_id: announcement.gid.and_then(|gid| GroupId::new(gid.0).ok()),
                further_action: u8::from(announcement.further_action).into(),
                vin_gid_sync_status: announcement.sync_status.map(|status| u8::from(status).into()),
            })
        }
        Payload::ActivationRequest(request) => {
            Wire::RoutingActivationRequest(wire::RoutingActivationRequest {
                source_address: wire_address(request.source),
                activation_type: u8::from(request.activation_type).into(),
                reserved: [0; 4],
                reserved_vehicle_manufacturer: request.oem,
            })
        }
        Payload::ActivationResponse(response) => {
            Wire::RoutingActivationResponse(wire::RoutingActivationResponse {
                logical_address_tester: wire_address(response.tester),
                logical_address_of_doip_entity: wire_address(response.entity),
                routing_activation_response_code: u8::from(response.code).into(),
                reserved_oem: [0; 4],
                oem_specific: response.oem,
            })
        }
        Payload::AliveCheckRequest => Wire::AliveCheckRequest,
        Payload::AliveCheckResponse(source) => {
            Wire::AliveCheckResponse(wire::AliveCheckResponse { source_address: wire_address(*source) })
        }
        Payload::EntityStatusRequest => Wire::EntityStatusRequest,
        Payload::EntityStatusResponse(status) => Wire::EntityStatusResponse(wire::EntityStatusResponse {
            node_type: u8::from(status.node_type).into(),
            max_concurrent_tcp_sockets: status.max_sockets,
            open_tcp_sockets: status.open_sockets,
            max_data_size: status.max_data_size,
        }),
        Payload::PowerModeRequest => Wire::PowerModeInfoRequest,
        Payload::PowerModeResponse(mode) => Wire::PowerModeInfoResponse(u8::from(*mode).into()),
        Payload::Diagnostic(message) => Wire::DiagnosticMessage(wire::DiagnosticMessage {
            source_address: wire_address(message.source),
            target_address: wire_address(message.target),
            user_data: &message.data,
        }),
        Payload::DiagnosticAck(ack) => Wire::DiagnosticMessageAck(wire::DiagnosticMessageAck {
            source_address: wire_address(ack.source),
            target_address: wire_address(ack.target),
            ack_code: ack.code.into(),
            previous_message_data: &ack.previous,
        }),
        Payload::DiagnosticNack(nack) => Wire::DiagnosticMessageNack(wire::DiagnosticMessageNack {
            source_address: wire_address(nack.source),
            target_address: wire_address(nack.target),
            nack_code: u8::from(nack.code).into(),
            previous_message_data: &nack.previous,
        }),
        // encoded by its caller
        Payload::Other { .. } => Wire::AliveCheckRequest,
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
