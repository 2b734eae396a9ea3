//! The questions, their targets, and their order.

use std::time::Duration;

use connector_hal::can::CanId;

use crate::protocol::isotp::{
    Addressing, Config, FunctionalConfig, Responder, Responders, Timeouts, physical_request_id,
};
use crate::vehicle::tester_traffic::is_obd_request_id;
use crate::vehicle::vin::answer::Service;

/// The longest answer that may hold a VIN; a longer one is refused before it is collected. The longest known
/// answer, of mode 09, has 20 bytes.
const MAX_ANSWER: usize = 255;
/// N_Cr of a tester (ISO 15765-4). The requests fit into one frame, so N_Bs never runs.
const N_CR: Duration = Duration::from_millis(150);
/// Even on a full bus, a frame is sent within this time. It is a quarter of the 1 s of ISO 15765-2, because
/// all questions share a budget of 1.5 s.
const N_AS: Duration = Duration::from_millis(250);
/// Lower identifiers are not diagnostic ones, except where a manufacturer chose them anyway.
const FIRST_DIAGNOSTIC_ID: u32 = 0x700;
/// The highest 11-bit identifier.
const LAST_STANDARD_ID: u32 = 0x7FF;

/// The receiver of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// Every ECU that listens to this identifier.
    Functional(CanId),
    /// One ECU.
    Physical { request: CanId, response: CanId },
}

impl Target {
    /// The identifier of the request.
    pub(super) fn request(self) -> CanId {
        match self {
            Self::Functional(request) | Self::Physical { request, .. } => request,
        }
    }

    /// The identifier of the answer, if only one can answer.
    pub(super) fn response(self) -> Option<CanId> {
        match self {
            Self::Functional(_) => None,
            Self::Physical { response, .. } => Some(response),
        }
    }
}

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VinProbe {
    pub(super) service: Service,
    pub(super) target: Target,
}

impl VinProbe {
    const fn functional(service: Service, request: CanId) -> Self {
        Self { service, target: Target::Functional(request) }
    }

    const fn physical(service: Service, request: u32, response: u32) -> Self {
        let request = CanId::standard_truncated(request);
        let response = CanId::standard_truncated(response);
        Self { service, target: Target::Physical { request, response } }
    }

    /// A question to the ECU of this address, by 29-bit normal fixed addressing.
    const fn physical_fixed(service: Service, address: u32) -> Self {
        let request = CanId::extended_truncated(0x18DA_00F1 | address << 8);
        let response = CanId::extended_truncated(0x18DA_F100 | address);
        Self { service, target: Target::Physical { request, response } }
    }

    /// A question to the one ECU that answers with this identifier, if its request identifier is known.
    pub(super) fn again(service: Service, response: CanId) -> Option<Self> {
        let known = physical_pairs().find(|pair| pair.0 == response).map(|(_, request)| request);
        let request = known.or_else(|| usual_request(response))?;
        Some(Self { service, target: Target::Physical { request, response } })
    }
}

/// 11-bit functional requests (ISO 15765-4).
pub(super) const FUNCTIONAL_11: CanId = CanId::standard_truncated(0x7DF);
/// 29-bit functional requests (ISO 15765-4).
pub(super) const FUNCTIONAL_29: CanId = CanId::extended_truncated(0x18DB_33F1);

/// The questions in order of likelihood; those of one stage go to different ECUs, and are sent
/// together.
pub(super) const STAGES: [&[VinProbe]; 4] = [
    &[VinProbe::functional(Service::Obd, FUNCTIONAL_11), VinProbe::functional(Service::Obd, FUNCTIONAL_29)],
    &[VinProbe::functional(Service::Uds, FUNCTIONAL_11), VinProbe::functional(Service::Uds, FUNCTIONAL_29)],
    // not with the stage before: an ECU should have one request at a time
    &[
        VinProbe::physical(Service::Uds, 0x7E0, 0x7E8),
        VinProbe::physical(Service::Uds, 0x7C6, 0x7CE),
        VinProbe::physical(Service::Uds, 0x7E2, 0x7EA),
        VinProbe::physical(Service::Uds, 0x760, 0x768),
        VinProbe::physical_fixed(Service::Uds, 0x10),
        VinProbe::physical_fixed(Service::Uds, 0x0E),
        VinProbe::physical(Service::Uds, 0x74F, 0x7B9),
        VinProbe::physical(Service::Uds, 0x733, 0x773),
    ],
    &[VinProbe::physical(Service::Gmlan, 0x24B, 0x64B), VinProbe::physical(Service::Kwp, 0x797, 0x79A)],
];

/// The identifier pairs of all single ECUs that are asked: response, request.
fn physical_pairs() -> impl Iterator<Item = (CanId, CanId)> {
    STAGES.into_iter().flatten().filter_map(|probe| match probe.target {
        Target::Physical { request, response } => Some((response, request)),
        Target::Functional(_) => None,
    })
}

/// The request identifier of an ECU that answers the functional requests of OBD with this identifier.
///
/// ISO 15765-4 assigns 0x7E8…0x7EF and 0x18DAF1xx. Outside these, the makes whose other ECUs listen to 0x7DF (Ford,
/// Mazda, Toyota, Hyundai, Subaru) number them in the same way: requests have bit 3 clear, and responses have bit 3
/// set.
fn usual_request(response: CanId) -> Option<CanId> {
    let raw = response.raw();
    let is_paired = match response.is_extended() {
        true => raw & !0xFF == 0x18DA_F100,
        false => raw >= FIRST_DIAGNOSTIC_ID && raw & 0x8 != 0,
    };
    let is_response = |request: &CanId| physical_pairs().any(|(known, _)| known == *request);
    is_paired.then(|| physical_request_id(response)).filter(|request| !is_response(request))
}

/// The 11-bit identifiers from 0x700 on that were heard.
#[derive(Debug, Clone, Default)]
struct DiagnosticIds([u64; 4]);

impl DiagnosticIds {
    fn place(id: CanId) -> Option<(usize, u64)> {
        let offset = id.raw().checked_sub(FIRST_DIAGNOSTIC_ID).filter(|_| !id.is_extended())?;
        Some((usize::try_from(offset / 64).ok()?, 1 << (offset % 64)))
    }

    fn insert(&mut self, id: CanId) {
        if let Some((word, bit)) = Self::place(id)
            && let Some(word) = self.0.get_mut(word)
        {
            *word |= bit;
        }
    }

    fn contain(&self, id: CanId) -> bool {
        Self::place(id).is_some_and(|(word, bit)| self.0.get(word).is_some_and(|word| word & bit != 0))
    }
}

/// Whether testers send with this identifier: a standard assigns it to testers, or a probe uses it for its request.
/// Some makes use lower identifiers for ordinary messages.
pub(super) fn is_request_id(id: CanId) -> bool {
    let is_asked = || STAGES.into_iter().flatten().any(|probe| probe.target.request() == id);
    is_obd_request_id(id) || !id.is_extended() && id.raw() >= FIRST_DIAGNOSTIC_ID && is_asked()
}

/// Whether ECUs respond to testers with this identifier: a standard says so, or this is an ECU that is asked.
pub(super) fn is_response_id(id: CanId) -> bool {
    let is_asked = || physical_pairs().any(|(response, _)| response == id);
    match id.is_extended() {
        true => Responders::Obd29.include(id),
        false => is_obd_response(id) || id.raw() >= FIRST_DIAGNOSTIC_ID && is_asked(),
    }
}

/// Identifiers of the questions, and of answers to them, that other nodes were heard to use.
#[derive(Debug, Clone, Default)]
pub(super) struct HeardIds {
    requests: Vec<CanId>,
    /// Response identifiers that were heard before the first question, and so are no answers.
    unasked: Vec<CanId>,
    /// All diagnostic identifiers, and those before the first question.
    all: DiagnosticIds,
    before: DiagnosticIds,
}

impl HeardIds {
    /// Keeps the identifier of a frame that was heard, if it matters. `asked` is whether the frame can be an
    /// answer.
    pub(super) fn note(&mut self, id: CanId, asked: bool) {
        self.all.insert(id);
        if !asked {
            self.before.insert(id);
        }
        let is_request = STAGES.into_iter().flatten().any(|probe| probe.target.request() == id);
        if is_request && !self.requests.contains(&id) {
            self.requests.push(id);
        }
        let is_answer = asked && (id.is_extended() || id.raw() >= FIRST_DIAGNOSTIC_ID);
        let known =
            !is_answer && (physical_pairs().any(|(response, _)| response == id) || is_obd_response(id));
        if known && !self.unasked.contains(&id) {
            self.unasked.push(id);
        }
    }

    /// Whether no other node uses the identifiers: two nodes sending with one identifier destroy each other's
    /// frames, and a vehicle whose ordinary messages have an ECU's diagnostic identifier has no such ECU.
    pub(super) fn allow(&self, target: Target) -> bool {
        let response_is_free = target.response().is_none_or(|response| !self.unasked.contains(&response));
        response_is_free && !self.is_request_in_use(target.request())
    }

    /// Whether a functional request may be answered with this identifier, so that flow control to the ECU disturbs no
    /// other node.
    pub(super) fn may_answer(&self, response: CanId) -> bool {
        let is_known = physical_pairs().any(|(known, _)| known == response) || is_obd_response(response);
        is_known
            || usual_request(response)
                .is_none_or(|request| !self.before.contain(response) && !self.is_request_in_use(request))
    }

    fn is_request_in_use(&self, request: CanId) -> bool {
        self.requests.contains(&request) || self.all.contain(request)
    }
}

fn is_obd_response(id: CanId) -> bool {
    Responders::Obd11.include(id)
}

fn timeouts() -> Timeouts {
    Timeouts { n_as: N_AS, n_ar: N_AS, n_cr: N_CR, ..Timeouts::default() }
}

/// The transport settings for one ECU.
pub(super) fn physical_config(request: CanId, response: CanId) -> Config {
    let mut config = Config::new(Addressing::normal(request, response));
    config.max_pdu = MAX_ANSWER;
    config.timeouts = timeouts();
    config
}

/// The transport settings for a functional request, with the ECUs that may answer.
pub(super) fn functional_config(request: CanId, heard: &HeardIds) -> FunctionalConfig {
    let responders = if request.is_extended() {
        Responders::Obd29
    } else {
        // manufacturers let 0x7DF reach their other ECUs too: an answer left without flow control would
        // keep such an ECU from taking the request meant for it alone
        let known = physical_pairs()
            .filter(|(response, _)| !response.is_extended() && response.raw() >= FIRST_DIAGNOSTIC_ID);
        let usual = (FIRST_DIAGNOSTIC_ID..=LAST_STANDARD_ID).map(CanId::standard_truncated);
        let usual = usual.filter_map(|response| Some((response, usual_request(response)?)));
        let free = |(response, request): &(CanId, CanId)| {
            heard.may_answer(*response)
                && heard.allow(Target::Physical { request: *request, response: *response })
        };
        // of two pairs with one response identifier, the first counts
        let pairs = known.chain(usual).filter(free);
        Responders::List(pairs.map(|(response, request)| Responder::pair(response, request)).collect())
    };
    let mut config = FunctionalConfig::new(request, responders);
    config.max_pdu = MAX_ANSWER;
    config.timeouts = timeouts();
    config
}
