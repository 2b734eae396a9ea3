//! The roles of the identifiers in a recording, inferred from the messages.

use std::collections::{BTreeMap, BTreeSet};

use connector_agent::protocol::isotp::physical_request_id;
use connector_hal::can::CanId;

use super::reassembly::{RecordedFlowControl, RecordedPdu};
use super::steps::is_response;
use crate::vehicle::ecu::Target;

/// The bit that distinguishes a response's service identifier from a request's (ISO 14229-1, 7.3).
const RESPONSE: u8 = 0x40;

/// The identifiers of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// The ECUs' request and response identifiers.
    pub ecus: Vec<(CanId, CanId)>,
    /// The identifiers of functional requests.
    pub functional: Vec<CanId>,
}

impl Roles {
    /// Infers the roles from three observations. A bit in the first byte distinguishes responses from
    /// requests. A flow control connects an ECU's two identifiers. Physical requests do not always suppress
    /// the response. An ECU that was only asked functionally gets a request identifier with the same
    /// distance from its response identifier as the other ECUs have.
    pub(super) fn infer(pdus: &[RecordedPdu], flow_controls: &[RecordedFlowControl]) -> Self {
        let has_response_bit =
            |recorded: &&RecordedPdu| recorded.pdu.first().is_some_and(|first| first & RESPONSE != 0);
        let responses: BTreeSet<CanId> =
            pdus.iter().filter(has_response_bit).map(|recorded| recorded.id).collect();
        let requests: BTreeSet<CanId> =
            pdus.iter().map(|recorded| recorded.id).filter(|id| !responses.contains(id)).collect();

        let mut paired: BTreeMap<CanId, CanId> = BTreeMap::new();
        for control in flow_controls {
            let both = [(control.from, control.to), (control.to, control.from)];
            if let Some((response, request)) =
                both.into_iter().find(|(a, b)| responses.contains(a) && requests.contains(b))
            {
                paired.entry(response).or_insert(request);
            }
        }
        for (response, request) in asked_alone(pdus, &requests) {
            paired.entry(response).or_insert(request);
        }
        let offset = paired.iter().next().map(|(response, request)| (response.raw(), request.raw()));
        let guess = |response: CanId| {
            let shifted = offset.and_then(|(of_response, of_request)| {
                response.raw().checked_add(of_request)?.checked_sub(of_response)
            });
            let same_format =
                |raw| if response.is_extended() { CanId::extended(raw) } else { CanId::standard(raw) }.ok();
            shifted.and_then(same_format).unwrap_or_else(|| physical_request_id(response))
        };
        let ecus: Vec<(CanId, CanId)> = responses
            .iter()
            .filter(|id| paired.contains_key(id) || pdus.iter().any(|pdu| is_answer(pdus, pdu, **id)))
            .map(|response| (paired.get(response).copied().unwrap_or_else(|| guess(*response)), *response))
            .collect();
        let functional =
            requests.into_iter().filter(|id| ecus.iter().all(|(request, _)| request != id)).collect();
        Self { ecus, functional }
    }

    /// The addressing of requests with this identifier; `None` if it is not an identifier of requests.
    pub fn target(&self, id: CanId) -> Option<Target> {
        if self.functional.contains(&id) {
            return Some(Target::Functional);
        }
        self.ecus.iter().any(|(request, _)| *request == id).then_some(Target::Physical)
    }

    /// Whether the ECU with this response identifier receives the request identifier.
    pub fn receives(&self, response: CanId, request: CanId) -> bool {
        self.functional.contains(&request) || self.ecus.contains(&(request, response))
    }
}

/// Pairs of response and request identifier, where the next PDU after a request that wanted a response is
/// the answer.
fn asked_alone(pdus: &[RecordedPdu], requests: &BTreeSet<CanId>) -> Vec<(CanId, CanId)> {
    const SUPPRESS: u8 = 0x80;
    let wants_response = |pdu: &[u8]| pdu.get(1).is_none_or(|second| second & SUPPRESS == 0);
    let mut pairs: Vec<(CanId, CanId)> = Vec::new();
    for (index, request) in pdus.iter().enumerate().filter(|(_, pdu)| requests.contains(&pdu.id)) {
        let next = pdus.iter().skip(index + 1).find(|pdu| !requests.contains(&pdu.id));
        let answer = next.filter(|next| {
            wants_response(&request.pdu)
                && request.pdu.first().is_some_and(|service| is_response(&next.pdu, *service))
        });
        pairs.extend(answer.map(|answer| (answer.id, request.id)));
    }
    // an identifier that several ECUs answer is functional
    let several = |request: CanId| {
        pairs.iter().filter(|pair| pair.1 == request).map(|pair| pair.0).collect::<BTreeSet<_>>().len() > 1
    };
    pairs.iter().copied().filter(|(_, request)| !several(*request)).collect()
}

/// Whether an ECU answers `request` with this identifier.
fn is_answer(pdus: &[RecordedPdu], request: &RecordedPdu, id: CanId) -> bool {
    let Some(service) = request.pdu.first() else { return false };
    pdus.iter().any(|pdu| pdu.id == id && pdu.start >= request.end && is_response(&pdu.pdu, *service))
}
