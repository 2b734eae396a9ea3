//! Who is tool and who is ECU in a recording, told by what they say.

use std::collections::{BTreeMap, BTreeSet};

use connector_agent::protocol::isotp::physical_request_id;
use connector_hal::can::CanId;

use super::answers;
use super::reassembly::{RecordedFlowControl, RecordedPdu};
use crate::vehicle::ecu::Target;

/// The bit of a service identifier that makes it a response's (ISO 14229-1, 7.3).
const RESPONSE: u8 = 0x40;

/// The identifiers of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// The ECUs' request and response identifiers.
    pub ecus: Vec<(CanId, CanId)>,
    /// The identifiers by which every ECU is asked.
    pub functional: Vec<CanId>,
}

impl Roles {
    /// Tells the roles by three observations: responses have a bit in their first byte that requests don't have; a
    /// flow control goes between an ECU's two identifiers; and what is asked of one ECU alone is not always asked
    /// without wanting a response. An ECU that was only ever asked functionally gets the request identifier that is as
    /// far from its response as the other ECUs' are.
    pub(super) fn infer(pdus: &[RecordedPdu], flow_controls: &[RecordedFlowControl]) -> Self {
        let is_response =
            |recorded: &&RecordedPdu| recorded.pdu.first().is_some_and(|first| first & RESPONSE != 0);
        let responses: BTreeSet<CanId> =
            pdus.iter().filter(is_response).map(|recorded| recorded.id).collect();
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

    /// Whom a request under this identifier is for; `None` if it is no request's identifier.
    pub fn target(&self, id: CanId) -> Option<Target> {
        if self.functional.contains(&id) {
            return Some(Target::Functional);
        }
        self.ecus.iter().any(|(request, _)| *request == id).then_some(Target::Physical)
    }

    /// Whether the ECU with this response identifier hears the request identifier.
    pub fn hears(&self, response: CanId, request: CanId) -> bool {
        self.functional.contains(&request) || self.ecus.contains(&(request, response))
    }
}

/// Pairs of response and request identifier where a request that wanted a response was answered next.
fn asked_alone(pdus: &[RecordedPdu], requests: &BTreeSet<CanId>) -> Vec<(CanId, CanId)> {
    const SUPPRESS: u8 = 0x80;
    let wants_response = |pdu: &[u8]| pdu.get(1).is_none_or(|second| second & SUPPRESS == 0);
    let mut pairs: Vec<(CanId, CanId)> = Vec::new();
    for (index, request) in pdus.iter().enumerate().filter(|(_, pdu)| requests.contains(&pdu.id)) {
        let next = pdus.iter().skip(index + 1).find(|pdu| !requests.contains(&pdu.id));
        let answer = next.filter(|next| {
            wants_response(&request.pdu)
                && request.pdu.first().is_some_and(|service| answers(&next.pdu, *service))
        });
        pairs.extend(answer.map(|answer| (answer.id, request.id)));
    }
    // an identifier that several answer asks them all
    let several = |request: CanId| {
        pairs.iter().filter(|pair| pair.1 == request).map(|pair| pair.0).collect::<BTreeSet<_>>().len() > 1
    };
    pairs.iter().copied().filter(|(_, request)| !several(*request)).collect()
}

/// Whether a request of the log is answered by this identifier.
fn is_answer(pdus: &[RecordedPdu], request: &RecordedPdu, id: CanId) -> bool {
    let Some(service) = request.pdu.first() else { return false };
    pdus.iter().any(|pdu| pdu.id == id && pdu.start >= request.end && answers(&pdu.pdu, *service))
}
