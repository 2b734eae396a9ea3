//! The configuration of ISO-TP channels.

use connector_agent::relay::wire::request::{
    IsotpChannelConfig, PaddingConfig, ResponderConfig, ResponderPair, Switch,
};
use connector_hal::can::CanId;

use crate::ecu_address::EcuAddress;

/// The configuration of an ISO-TP channel with the protocol's defaults. Without a response identifier, the
/// channel is functional.
pub fn isotp_channel(
    bus: &str,
    request: CanId,
    response: Option<CanId>,
    extended: Option<u8>,
    keep_alive: Switch,
) -> IsotpChannelConfig {
    IsotpChannelConfig {
        bus_name: bus.to_owned(),
        request_id: request.to_socketcan(),
        response_id: response.map(CanId::to_socketcan),
        response_ids: Vec::new(),
        extended_request_address: extended,
        extended_response_address: extended,
        padding: PaddingConfig::Enabled,
        padding_byte: None,
        keep_alive,
        block_size: None,
        st_min: None,
        frame_format: None,
        tx_dl: None,
        max_age_ms: None,
        p2_ms: None,
        p2_star_ms: None,
    }
}

/// Whether an identifier addresses all OBD ECUs (ISO 15765-4), whose response identifiers the connector
/// knows.
pub(crate) fn is_obd_functional(request: CanId) -> bool {
    matches!(request.to_socketcan(), 0x7DF | 0x98DB_33F1)
}

/// The configuration of a functional ISO-TP channel, on which these ECUs answer.
pub(crate) fn functional_channel(
    bus: &str,
    request: CanId,
    ecus: impl Iterator<Item = EcuAddress>,
) -> IsotpChannelConfig {
    let mut config = isotp_channel(bus, request, None, None, Switch::Disabled);
    if !is_obd_functional(request) {
        config.response_ids = ecus.map(responder).collect();
    }
    config
}

fn responder(ecu: EcuAddress) -> ResponderConfig {
    ResponderConfig::Pair(ResponderPair {
        response_id: ecu.response.to_socketcan(),
        request_id: ecu.request.to_socketcan(),
        extended_request_address: ecu.extended,
        extended_response_address: ecu.extended,
    })
}
