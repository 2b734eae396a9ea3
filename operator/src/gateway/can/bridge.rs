//! The tool's side of a CAN gateway, without I/O: terminates ISO-TP on behalf of the remote ECUs.

use std::collections::VecDeque;
use std::time::Instant;

use connector_agent::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FrameSize, NPdu, Padding, physical_request_id,
};
use connector_hal::can::{CanFrame, CanId};

use super::super::copies::{AnswerPath, Copies};
use super::super::cover::{Cover, CoverConfig};
use crate::ecu_address::EcuAddress;

/// How many responses per ECU may wait for a slow tool. Further responses are lost, as on a bus. A tool sends
/// one request at a time, which few responses answer.
const MAX_RESPONSES: usize = 16;
/// How many requests may wait for the shell, which takes them immediately: one for each ECU. Further requests
/// are lost.
const MAX_REQUESTS: usize = 64;
/// The largest number of ECUs, including those discovered by their answers to functional requests. As many as
/// a relay connection has channels.
const MAX_ECUS: usize = 64;

/// How the bridge communicates with the tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CanBridgeConfig {
    /// The ECUs on the tool's bus.
    pub(super) ecus: Vec<EcuAddress>,
    /// The functional identifiers.
    pub(super) functional: Vec<CanId>,
    /// The size of the frames to the tool.
    pub(super) frame_size: FrameSize,
    /// How the bridge covers the delay of the network.
    pub(super) cover: CoverConfig,
}

/// The destination of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Target {
    /// The ECU with this number.
    Ecu(usize),
    /// All ECUs that listen to the functional identifier with this number.
    Functional(usize),
}

/// A remote ECU, as the tool sees it.
struct PresentedEcu {
    address: EcuAddress,
    endpoint: Endpoint,
    cover: Cover,
    responses: VecDeque<Vec<u8>>,
    copies: Copies,
}

/// The tool's side of a CAN gateway.
///
/// After every `handle_*`, take everything from `poll_request` and `poll_frame`, then call `poll_timeout`
/// again.
pub(super) struct CanBridge {
    config: CanBridgeConfig,
    ecus: Vec<PresentedEcu>,
    requests: VecDeque<(Target, Vec<u8>)>,
    /// The ECU that may send the next frame, so that every ECU gets its turn.
    next: usize,
}

impl CanBridge {
    /// A bridge without requests.
    pub(super) fn new(config: CanBridgeConfig) -> Self {
        let ecus = config.ecus.iter().map(|address| PresentedEcu::new(*address, &config)).collect();
        Self { config, ecus, requests: VecDeque::new(), next: 0 }
    }

    /// The address of the ECU with this number.
    pub(super) fn ecu(&self, number: usize) -> Option<EcuAddress> {
        self.ecus.get(number).map(|ecu| ecu.address)
    }

    /// The functional identifier with this number.
    pub(super) fn functional(&self, number: usize) -> Option<CanId> {
        self.config.functional.get(number).copied()
    }

    /// The configured ECUs.
    pub(super) fn addresses(&self) -> impl Iterator<Item = EcuAddress> + '_ {
        self.config.ecus.iter().copied()
    }

    /// A tool left or arrived: discards everything under way.
    pub(super) fn handle_reset(&mut self) {
        *self = Self::new(self.config.clone());
    }

    /// The tool sent a frame.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if !frame.is_data() {
            return;
        }
        if let Some(number) = self.config.functional.iter().position(|id| *id == frame.id()) {
            // functional requests are single frames (ISO 15765-2, 10.1)
            if let Ok(NPdu::SingleFrame { data }) = NPdu::decode(frame.data(), 0) {
                let pdu = data.to_vec();
                self.request(Target::Functional(number), pdu);
            }
            return;
        }
        for number in 0..self.ecus.len() {
            let Some(ecu) = self.ecus.get_mut(number) else { return };
            if ecu.endpoint.handle_frame(now, frame) {
                self.settle(now, number);
            }
        }
    }

    /// An ECU answered; `address` is the ECU, in the notation of the relay.
    pub(super) fn handle_response(&mut self, now: Instant, target: Target, address: u32, pdu: &[u8]) {
        let (number, path) = match target {
            Target::Ecu(number) => (Some(number), AnswerPath::Physical),
            Target::Functional(_) => (self.responder(address), AnswerPath::Functional),
        };
        let Some((number, ecu)) = number.and_then(|number| Some((number, self.ecus.get_mut(number)?))) else {
            return tracing::debug!(
                address,
                "discarding the response of an ECU that cannot be presented to the tool"
            );
        };
        if ecu.copies.is_copy(now, path, pdu) {
            return;
        }
        ecu.cover.handle_response(now, pdu);
        ecu.respond(pdu.to_vec());
        self.settle(now, number);
    }

    /// The number of the ECU with this response identifier. An unknown ECU is added.
    fn responder(&mut self, address: u32) -> Option<usize> {
        let response = CanId::try_from(address).ok()?;
        let known = self.ecus.iter().position(|ecu| ecu.address.response == response);
        known.or_else(|| {
            if self.ecus.len() >= MAX_ECUS {
                return None;
            }
            let request = physical_request_id(response);
            self.ecus.push(PresentedEcu::new(EcuAddress { request, response, extended: None }, &self.config));
            Some(self.ecus.len() - 1)
        })
    }

    /// A request is on the vehicle's bus.
    pub(super) fn handle_sent(&mut self, now: Instant, target: Target) {
        if let Target::Ecu(number) = target
            && let Some(ecu) = self.ecus.get_mut(number)
        {
            ecu.cover.handle_sent(now);
        }
    }

    /// A request was not sent, or its response was incomplete.
    pub(super) fn handle_failed(&mut self, now: Instant, target: Target) {
        if let Target::Ecu(number) = target
            && let Some(ecu) = self.ecus.get_mut(number)
        {
            ecu.cover.handle_failed();
            self.settle(now, number);
        }
    }

    /// The link to the connector is lost, or back.
    pub(super) fn handle_link(&mut self, now: Instant, up: bool) {
        self.ecus.iter_mut().for_each(|ecu| ecu.cover.handle_link(now, up));
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for number in 0..self.ecus.len() {
            let Some(ecu) = self.ecus.get_mut(number) else { return };
            ecu.cover.handle_timeout(now);
            if ecu.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
                ecu.endpoint.handle_timeout(now);
            }
            self.settle(now, number);
        }
    }

    /// The next request to a remote ECU.
    pub(super) fn poll_request(&mut self) -> Option<(Target, Vec<u8>)> {
        self.requests.pop_front()
    }

    /// The next frame for the tool, which counts as sent.
    pub(super) fn poll_frame(&mut self, now: Instant) -> Option<CanFrame> {
        for turn in 0..self.ecus.len() {
            let number = (self.next + turn) % self.ecus.len();
            let Some(ecu) = self.ecus.get_mut(number) else { continue };
            if let Some(frame) = ecu.endpoint.poll_transmit(now) {
                ecu.endpoint.handle_transmitted(now);
                self.settle(now, number);
                self.next = number + 1;
                return Some(frame);
            }
        }
        None
    }

    /// When to call `handle_timeout`.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let timers = |ecu: &PresentedEcu| {
            let (endpoint, cover) = (ecu.endpoint.poll_timeout(), ecu.cover.poll_timeout());
            endpoint.map(|(at, _)| at).into_iter().chain(cover.map(|(at, _)| at)).min()
        };
        self.ecus.iter().filter_map(timers).min()
    }

    fn request(&mut self, target: Target, pdu: Vec<u8>) {
        if self.requests.len() < MAX_REQUESTS {
            self.requests.push_back((target, pdu));
        } else {
            tracing::warn!("too many requests from the tool; one is lost");
        }
    }

    /// Passes requests from the tool and responses to the tool on until nothing more is left to do.
    fn settle(&mut self, now: Instant, number: usize) {
        let Some(ecu) = self.ecus.get_mut(number) else { return };
        let mut requests = Vec::new();
        loop {
            if let Some(answer) = ecu.cover.poll_answer() {
                ecu.respond(answer);
            } else if let Some(event) = ecu.endpoint.poll_event() {
                match event {
                    Event::Received { pdu, .. } => {
                        ecu.cover.handle_request(now, &pdu);
                        requests.push(pdu);
                    }
                    Event::SendFailed { failure } => {
                        tracing::debug!(ecu = %ecu.address, %failure, "the tool did not receive a response");
                    }
                    Event::ReceiveFailed { failure, .. } => {
                        tracing::debug!(ecu = %ecu.address, %failure, "the tool did not complete a request");
                    }
                    Event::ReceptionStarted { .. } | Event::Sent { .. } => {}
                }
            } else if !ecu.endpoint.is_sending()
                && let Some(response) = ecu.responses.pop_front()
            {
                if let Err(error) = ecu.endpoint.send(now, &response) {
                    tracing::warn!(ecu = %ecu.address, %error, "a response cannot be sent to the tool");
                }
            } else {
                break;
            }
        }
        requests.into_iter().for_each(|pdu| self.request(Target::Ecu(number), pdu));
    }
}

impl PresentedEcu {
    fn new(address: EcuAddress, config: &CanBridgeConfig) -> Self {
        let addressing = match address.extended {
            Some(byte) => Addressing::extended(address.response, address.request, byte, byte),
            None => Addressing::normal(address.response, address.request),
        };
        let endpoint = Endpoint::new(Config {
            frame_size: config.frame_size,
            padding: Padding::Detection(0xCC),
            ..Config::new(addressing)
        });
        let cover = Cover::new(config.cover);
        Self { address, endpoint, cover, responses: VecDeque::new(), copies: Copies::default() }
    }

    fn respond(&mut self, response: Vec<u8>) {
        if self.responses.len() < MAX_RESPONSES {
            self.responses.push_back(response);
        } else {
            tracing::warn!(ecu = %self.address, "the tool does not take its responses; one is lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(id: u32) -> CanId {
        CanId::try_from(id).unwrap()
    }

    fn gateway() -> CanBridge {
        let ecu = |number: u32| EcuAddress {
            request: id(0x7E0 + number),
            response: id(0x7E8 + number),
            extended: None,
        };
        CanBridge::new(CanBridgeConfig {
            ecus: vec![ecu(0), ecu(1)],
            functional: vec![id(0x7DF)],
            frame_size: FrameSize::Classic,
            cover: CoverConfig::default(),
        })
    }

    fn frame(identifier: u32, data: &[u8]) -> CanFrame {
        CanFrame::new(id(identifier), data).unwrap()
    }

    fn frames(gateway: &mut CanBridge, now: Instant) -> Vec<(u32, Vec<u8>)> {
        std::iter::from_fn(|| gateway.poll_frame(now))
            .map(|frame| (frame.id().raw(), frame.data().to_vec()))
            .collect()
    }

    #[test]
    fn the_gateway_answers_flow_control_and_sends_only_whole_requests() {
        let (mut gateway, now) = (gateway(), Instant::now());
        gateway.handle_frame(now, &frame(0x7E0, &[0x10, 10, 0x2E, 0xF1, 0x5A, 1, 2, 3]));
        let flow_control = vec![(0x7E8, vec![0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC])];
        assert_eq!(frames(&mut gateway, now), flow_control);
        assert_eq!(gateway.poll_request(), None);
        gateway.handle_frame(now, &frame(0x7E0, &[0x21, 4, 5, 6, 7]));
        let pdu = vec![0x2E, 0xF1, 0x5A, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(gateway.poll_request(), Some((Target::Ecu(0), pdu)));
    }

    #[test]
    fn the_gateway_covers_a_late_response_with_response_pending() {
        let (mut gateway, now) = (gateway(), Instant::now());
        gateway.handle_frame(now, &frame(0x7E1, &[0x03, 0x22, 0xF1, 0x90]));
        assert_eq!(gateway.poll_request(), Some((Target::Ecu(1), vec![0x22, 0xF1, 0x90])));
        let due = gateway.poll_timeout().unwrap();
        assert_eq!(due, now + Duration::from_millis(10));
        gateway.handle_timeout(due);
        let heard = frames(&mut gateway, due);
        assert_eq!((heard[0].0, &heard[0].1[..4]), (0x7E9, &[3, 0x7F, 0x22, 0x78][..]));
        gateway.handle_response(due, Target::Ecu(1), 0x7E9, &[0x62, 0xF1, 0x90, 0x41]);
        let heard = frames(&mut gateway, due);
        assert_eq!((heard[0].0, &heard[0].1[..5]), (0x7E9, &[4, 0x62, 0xF1, 0x90, 0x41][..]));
        assert_eq!(gateway.poll_timeout(), None);
    }

    #[test]
    fn each_ecus_answer_to_a_functional_request_has_its_identifier_and_comes_once() {
        let (mut gateway, now) = (gateway(), Instant::now());
        gateway.handle_frame(now, &frame(0x7DF, &[0x02, 0x01, 0x00, 0, 0, 0, 0, 0]));
        let target = Target::Functional(0);
        assert_eq!(gateway.poll_request(), Some((target, vec![0x01, 0x00])));
        gateway.handle_response(now, target, 0x7E8, &[0x41, 0, 1]);
        // the copy from the ECU's own channel
        gateway.handle_response(now, Target::Ecu(0), 0x7E8, &[0x41, 0, 1]);
        gateway.handle_response(now, Target::Ecu(1), 0x7E9, &[0x41, 0, 2]);
        gateway.handle_response(now, target, 0x7E9, &[0x41, 0, 2]);
        // an ECU that was not configured
        gateway.handle_response(now, target, 0x7EB, &[0x41, 0, 3]);
        let answers: Vec<_> = frames(&mut gateway, now).into_iter().map(|(id, data)| (id, data[3])).collect();
        assert_eq!(answers, [(0x7E8, 1), (0x7E9, 2), (0x7EB, 3)]);
        assert_eq!(gateway.ecu(2).map(|ecu| ecu.request), Some(id(0x7E3)));
    }

    #[test]
    fn a_request_to_all_ecus_is_not_covered() {
        let (mut gateway, now) = (gateway(), Instant::now());
        gateway.handle_frame(now, &frame(0x7DF, &[0x02, 0x01, 0x00]));
        let target = Target::Functional(0);
        assert_eq!(gateway.poll_request(), Some((target, vec![0x01, 0x00])));
        gateway.handle_sent(now, target);
        assert_eq!(gateway.poll_timeout(), None, "no response pending is due");
        // far longer than any P2*
        let later = now + Duration::from_secs(60);
        gateway.handle_timeout(later);
        gateway.handle_failed(later, target);
        assert_eq!(frames(&mut gateway, later), []);
    }

    #[test]
    fn the_same_answer_to_two_requests_comes_twice() {
        let (mut gateway, now) = (gateway(), Instant::now());
        for _ in 0..2 {
            gateway.handle_frame(now, &frame(0x7DF, &[0x02, 0x01, 0x00]));
            gateway.handle_response(now, Target::Functional(0), 0x7E8, &[0x41, 0, 1]);
        }
        // from the other channel, but too late for a copy
        let later = now + Duration::from_secs(1);
        gateway.handle_frame(later, &frame(0x7E0, &[0x02, 0x01, 0x00]));
        gateway.handle_response(later, Target::Ecu(0), 0x7E8, &[0x41, 0, 1]);
        assert_eq!(frames(&mut gateway, later).len(), 3);
    }

    #[test]
    fn a_tool_that_sends_endless_nonsense_uses_bounded_memory() {
        let (mut gateway, now) = (gateway(), Instant::now());
        for _ in 0..1000 {
            gateway.handle_frame(now, &frame(0x7DF, &[0x02, 0x01, 0x00]));
            gateway.handle_frame(now, &frame(0x7E0, &[0x03, 0x22, 0xF1, 0x90]));
            gateway.handle_frame(now, &frame(0x7E0, &[0xFF; 8]));
            gateway.handle_response(now, Target::Ecu(0), 0x7E8, &[0; 100]);
        }
        assert!(gateway.requests.len() <= MAX_REQUESTS);
        assert!(gateway.ecus.iter().all(|ecu| ecu.responses.len() <= MAX_RESPONSES));
        gateway.handle_reset();
        assert_eq!((gateway.poll_request(), gateway.poll_frame(now)), (None, None));
    }
}
