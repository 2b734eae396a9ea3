//! The ECUs that answer a functional channel, as its configuration lists them.

use connector_hal::can::CanId;

use crate::protocol::isotp::{FlowControlAddress, Responder, Responders};
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::{can_id, invalid};
use crate::relay::wire::request::{IsotpChannelConfig, ResponderConfig, ResponderPair};

/// The longest list of responders. A vehicle has far fewer ECUs; the limit bounds the memory and the time
/// that each frame costs.
const MAX_RESPONDERS: usize = 256;

/// The ECUs that may answer requests with this identifier. A channel with an OBD request identifier receives all OBD
/// responses, with or without a list.
pub(super) fn responders(request: CanId, config: &IsotpChannelConfig) -> Result<Responders, Problem> {
    let listed = &config.response_ids;
    if listed.len() > MAX_RESPONDERS {
        let detail = format!("response_ids has {} entries, more than {MAX_RESPONDERS}.", listed.len());
        return Err(invalid(detail));
    }
    let request_address = config.extended_request_address;
    let response_address = config.extended_response_address;
    let mut list = Vec::with_capacity(listed.len());
    for entry in listed {
        list.push(match entry {
            ResponderConfig::Id(id) => {
                let response = can_id("response_ids", *id)?;
                Responder::answering(response, request_address, response_address)
            }
            ResponderConfig::Pair(pair) => paired(pair, request_address, response_address)?,
        });
    }
    let obd: Box<dyn Iterator<Item = CanId>> = match request.to_socketcan() {
        0x7DF if listed.is_empty() => return Ok(Responders::Obd11),
        0x98DB_33F1 if listed.is_empty() => return Ok(Responders::Obd29),
        0x7DF => Box::new((0x7E8..=0x7EF).map(CanId::standard_truncated)),
        0x98DB_33F1 => Box::new((0x18DA_F100..=0x18DA_F1FF).map(CanId::extended_truncated)),
        _ => Box::new(std::iter::empty()),
    };
    // what the operator says about an ECU comes first
    list.extend(obd.map(|response| Responder::answering(response, request_address, response_address)));
    Ok(Responders::List(list))
}

/// An ECU whose two identifiers the operator states.
fn paired(
    pair: &ResponderPair,
    channel_request_address: Option<u8>,
    channel_response_address: Option<u8>,
) -> Result<Responder, Problem> {
    let response = can_id("response_ids: response_id", pair.response_id)?;
    let id = can_id("response_ids: request_id", pair.request_id)?;
    let own = pair.extended_response_address;
    let response_address = own.or(channel_response_address);
    let address = match (pair.extended_request_address, channel_request_address) {
        (Some(address), _) => Some(address),
        (None, None) => None,
        // one address extension in both directions (mixed addressing)
        (None, Some(to)) if own.is_none() && channel_response_address == Some(to) => Some(to),
        (None, Some(_)) => {
            return Err(invalid(format!(
                "response_ids: the ECU with response_id {response} needs an extended_request_address for flow control."
            )));
        }
    };
    Ok(Responder { response, response_address, flow_control: Some(FlowControlAddress { id, address }) })
}
