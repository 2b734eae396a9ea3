//! Conversions between this module's payloads and those of `simple_doip`.

use simple_doip::GroupId;
use simple_doip::messages as wire;

use crate::protocol::doip::{
    ActivationRequest, ActivationResponse, Announcement, DiagnosticAck, DiagnosticMessage, DiagnosticNack,
    Eid, EntityStatus, Gid, LogicalAddress, Payload,
};

/// A payload as it is encoded.
pub(super) enum WirePayload<'a> {
    /// A payload type that `simple_doip` knows.
    Known(wire::Payload<'a>),
    /// Any other payload type; the bytes are sent unchanged.
    Other { payload_type: u16, data: &'a [u8] },
}

fn address(address: simple_doip::LogicalAddress) -> LogicalAddress {
    LogicalAddress::new(address.into())
}

fn wire_address(address: LogicalAddress) -> simple_doip::LogicalAddress {
    address.get().into()
}

/// Returns the payload, or `None` for a type that this module has no name for.
pub(super) fn from_wire(payload: wire::OwnedPayload) -> Option<Payload> {
    use wire::OwnedPayload as Wire;
    Some(match payload {
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
        _ => return None,
    })
}

/// Returns the payload in the form in which it is encoded.
pub(super) fn to_wire(payload: &Payload) -> WirePayload<'_> {
    use wire::Payload as Wire;
    WirePayload::Known(match payload {
        Payload::HeaderNack(code) => Wire::DoIPNack(u8::from(*code).into()),
        Payload::IdentificationRequest => Wire::VehicleIdentificationRequest,
        Payload::IdentificationRequestByEid(eid) => Wire::VehicleIdentificationRequestWithEid(eid.0),
        Payload::IdentificationRequestByVin(vin) => Wire::VehicleIdentificationRequestWithVin(*vin),
        Payload::Announcement(announcement) => Wire::VehicleAnnouncement(announcement.into()),
        Payload::ActivationRequest(request) => Wire::RoutingActivationRequest(request.into()),
        Payload::ActivationResponse(response) => Wire::RoutingActivationResponse(response.into()),
        Payload::AliveCheckRequest => Wire::AliveCheckRequest,
        Payload::AliveCheckResponse(source) => {
            Wire::AliveCheckResponse(wire::AliveCheckResponse { source_address: wire_address(*source) })
        }
        Payload::EntityStatusRequest => Wire::EntityStatusRequest,
        Payload::EntityStatusResponse(status) => Wire::EntityStatusResponse(status.into()),
        Payload::PowerModeRequest => Wire::PowerModeInfoRequest,
        Payload::PowerModeResponse(mode) => Wire::PowerModeInfoResponse(u8::from(*mode).into()),
        Payload::Diagnostic(message) => Wire::DiagnosticMessage(message.into()),
        Payload::DiagnosticAck(ack) => Wire::DiagnosticMessageAck(ack.into()),
        Payload::DiagnosticNack(nack) => Wire::DiagnosticMessageNack(nack.into()),
        Payload::Other { payload_type, data } => {
            return WirePayload::Other { payload_type: *payload_type, data };
        }
    })
}

impl From<&Announcement> for wire::VehicleIdentificationResponse {
    fn from(announcement: &Announcement) -> Self {
        Self {
            vin: announcement.vin,
            logical_address: wire_address(announcement.address),
            entity_id: announcement.eid.0,
            group_id: announcement.gid.and_then(|gid| GroupId::new(gid.0).ok()),
            further_action: u8::from(announcement.further_action).into(),
            vin_gid_sync_status: announcement.sync_status.map(|status| u8::from(status).into()),
        }
    }
}

impl From<&ActivationRequest> for wire::RoutingActivationRequest {
    fn from(request: &ActivationRequest) -> Self {
        Self {
            source_address: wire_address(request.source),
            activation_type: u8::from(request.activation_type).into(),
            reserved: [0; 4],
            reserved_vehicle_manufacturer: request.oem,
        }
    }
}

impl From<&ActivationResponse> for wire::RoutingActivationResponse {
    fn from(response: &ActivationResponse) -> Self {
        Self {
            logical_address_tester: wire_address(response.tester),
            logical_address_of_doip_entity: wire_address(response.entity),
            routing_activation_response_code: u8::from(response.code).into(),
            reserved_oem: [0; 4],
            oem_specific: response.oem,
        }
    }
}

impl From<&EntityStatus> for wire::EntityStatusResponse {
    fn from(status: &EntityStatus) -> Self {
        Self {
            node_type: u8::from(status.node_type).into(),
            max_concurrent_tcp_sockets: status.max_sockets,
            open_tcp_sockets: status.open_sockets,
            max_data_size: status.max_data_size,
        }
    }
}

impl<'a> From<&'a DiagnosticMessage> for wire::DiagnosticMessage<'a> {
    fn from(message: &'a DiagnosticMessage) -> Self {
        Self {
            source_address: wire_address(message.source),
            target_address: wire_address(message.target),
            user_data: &message.data,
        }
    }
}

impl<'a> From<&'a DiagnosticAck> for wire::DiagnosticMessageAck<'a> {
    fn from(ack: &'a DiagnosticAck) -> Self {
        Self {
            source_address: wire_address(ack.source),
            target_address: wire_address(ack.target),
            ack_code: ack.code.into(),
            previous_message_data: &ack.previous,
        }
    }
}

impl<'a> From<&'a DiagnosticNack> for wire::DiagnosticMessageNack<'a> {
    fn from(nack: &'a DiagnosticNack) -> Self {
        Self {
            source_address: wire_address(nack.source),
            target_address: wire_address(nack.target),
            nack_code: u8::from(nack.code).into(),
            previous_message_data: &nack.previous,
        }
    }
}
