//! Covers the delay of the network: a gateway's answers on behalf of a remote ECU, until the ECU's own answer
//! arrives.
//!
//! A tool beside the vehicle receives an answer, or a response pending, within P2. Across a network, neither
//! arrives in time. The gateway therefore sends `7F xx 78` (response pending) until the ECU's answer arrives,
//! and `7F xx 25` (no response from subnet component) if no answer will come.

use std::time::{Duration, Instant};

const NEGATIVE_RESPONSE: u8 = 0x7F;
const RESPONSE_PENDING: u8 = 0x78;
const NO_RESPONSE_FROM_SUBNET_COMPONENT: u8 = 0x25;
const POSITIVE_OFFSET: u8 = 0x40;
/// The bit of a sub-function that suppresses the positive response.
const SUPPRESS: u8 = 0x80;
/// The services with a sub-function (ISO 14229-1, table 2).
const WITH_SUB_FUNCTION: [u8; 13] =
    [0x10, 0x11, 0x19, 0x27, 0x28, 0x29, 0x2C, 0x31, 0x3E, 0x83, 0x85, 0x86, 0x87];

/// The time limits of tool and ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoverConfig {
    /// P2 of the tool: how long the tool waits for a first response. The gateway uses a fifth of it, because
    /// tool and gateway may both be busy.
    pub p2: Duration,
    /// P2* of the tool: how long the tool waits after a response pending. The gateway uses two fifths of it.
    pub p2_star: Duration,
    /// P2 of the ECU, counted from the request on its bus.
    pub ecu_p2: Duration,
    /// How long a request may take to the vehicle, including a link that stalls without being lost.
    pub allowance: Duration,
}

impl Default for CoverConfig {
    fn default() -> Self {
        Self {
            p2: Duration::from_millis(50),
            p2_star: Duration::from_secs(5),
            ecu_p2: Duration::from_secs(1),
            allowance: Duration::from_secs(16),
        }
    }
}

/// The timer behind a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum CoverTimer {
    /// P2 or P2* of the tool: a response pending is due.
    P2,
    /// The gateway gives up waiting for the ECU.
    Patience,
}

/// A request without its final response.
#[derive(Debug)]
struct PendingRequest {
    service: u8,
    asked: Instant,
    pending_at: Instant,
    gives_up_at: Instant,
    /// The tool has received a response pending.
    covered: bool,
}

/// Covers one ECU. One request is under way at a time; a new request replaces the one before.
#[derive(Debug)]
pub(super) struct Cover {
    config: CoverConfig,
    exchange: Option<PendingRequest>,
    /// When the link was lost. Meanwhile, the ECU's time stops and the tool's time continues.
    down_since: Option<Instant>,
    answer: Option<Vec<u8>>,
}

impl Cover {
    /// A cover without a request under way.
    pub(super) fn new(config: CoverConfig) -> Self {
        Self { config, exchange: None, down_since: None, answer: None }
    }

    /// The tool sent a request to this ECU alone.
    pub(super) fn handle_request(&mut self, now: Instant, pdu: &[u8]) {
        let Some(service) = pdu.first().copied().filter(|_| expects_response(pdu)) else { return };
        self.exchange = Some(PendingRequest {
            service,
            asked: now,
            pending_at: now + self.config.p2 / 5,
            gives_up_at: now + self.config.ecu_p2 + self.config.allowance,
            covered: false,
        });
    }

    /// The ECU's response arrived, and goes to the tool.
    pub(super) fn handle_response(&mut self, now: Instant, pdu: &[u8]) {
        match *pdu {
            [NEGATIVE_RESPONSE, service, RESPONSE_PENDING, ..] => self.handle_pending(now, service),
            [NEGATIVE_RESPONSE, service, ..] => self.end(service),
            [first, ..] => self.end(first.wrapping_sub(POSITIVE_OFFSET)),
            [] => {}
        }
    }

    fn handle_pending(&mut self, now: Instant, service: u8) {
        let exchange = self.exchange.get_or_insert(PendingRequest {
            // after a functional request, or one with suppressed positive response: a response will follow
            service,
            asked: now,
            pending_at: now,
            gives_up_at: now,
            covered: true,
        });
        if exchange.service == service {
            exchange.covered = true;
            exchange.pending_at = now + self.config.p2_star * 2 / 5;
            exchange.gives_up_at = now + self.config.p2_star + self.config.allowance;
        }
    }

    fn end(&mut self, service: u8) {
        self.exchange.take_if(|exchange| exchange.service == service);
    }

    /// The request is on the ECU's bus. The time since the request bounds the time for the answer's way back.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        let CoverConfig { ecu_p2, allowance, .. } = self.config;
        if let Some(exchange) = &mut self.exchange {
            let way = (now.saturating_duration_since(exchange.asked) * 4).max(Duration::from_secs(2));
            exchange.gives_up_at = now + ecu_p2 + way.min(allowance);
        }
    }

    /// The request under way will not be answered. The tool is notified only if it received a response
    /// pending.
    pub(super) fn handle_failed(&mut self) {
        // without a response pending, the tool receives nothing, as from an absent ECU
        if let Some(exchange) = self.exchange.take().filter(|exchange| exchange.covered) {
            self.answer = Some(negative(exchange.service, NO_RESPONSE_FROM_SUBNET_COMPONENT));
        }
    }

    /// The request under way will not be answered. The tool is notified, because its request was
    /// acknowledged.
    pub(super) fn handle_failed_after_acknowledgement(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            self.answer = Some(negative(exchange.service, NO_RESPONSE_FROM_SUBNET_COMPONENT));
        }
    }

    /// The link to the ECU is lost, or back.
    pub(super) fn handle_link(&mut self, now: Instant, up: bool) {
        if !up {
            self.down_since.get_or_insert(now);
        } else if let Some(since) = self.down_since.take()
            && let Some(exchange) = &mut self.exchange
        {
            exchange.gives_up_at += now.saturating_duration_since(since);
        }
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, timer)) = self.poll_timeout()
            && at <= now
        {
            match timer {
                CoverTimer::Patience => self.handle_failed(),
                CoverTimer::P2 => {
                    let again = (self.config.p2_star * 2 / 5).max(Duration::from_millis(1));
                    let Some(exchange) = &mut self.exchange else { return };
                    exchange.covered = true;
                    exchange.pending_at = now + again;
                    self.answer = Some(negative(exchange.service, RESPONSE_PENDING));
                }
            }
        }
    }

    /// The next answer to the tool on behalf of the ECU.
    pub(super) fn poll_answer(&mut self) -> Option<Vec<u8>> {
        self.answer.take()
    }

    /// When to call `handle_timeout`, and for which timer.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, CoverTimer)> {
        let exchange = self.exchange.as_ref()?;
        let gives_up = self.down_since.is_none().then_some((exchange.gives_up_at, CoverTimer::Patience));
        gives_up.into_iter().chain([(exchange.pending_at, CoverTimer::P2)]).min()
    }
}

fn negative(service: u8, code: u8) -> Vec<u8> {
    vec![NEGATIVE_RESPONSE, service, code]
}

/// Whether the ECU answers this request on success.
fn expects_response(pdu: &[u8]) -> bool {
    match *pdu {
        [service, sub_function, ..] => sub_function & SUPPRESS == 0 || !WITH_SUB_FUNCTION.contains(&service),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: [u8; 3] = [0x22, 0xF1, 0x90];
    const ANSWER: [u8; 4] = [0x62, 0xF1, 0x90, 0x41];
    const PENDING: [u8; 3] = [0x7F, 0x22, 0x78];

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// A cover with this request, and the time of the request.
    fn asked(pdu: &[u8]) -> (Cover, Instant) {
        let (mut cover, start) = (Cover::new(CoverConfig::default()), Instant::now());
        cover.handle_request(start, pdu);
        (cover, start)
    }

    /// Advances the time to the next deadline, and returns the answer.
    fn step(cover: &mut Cover) -> Option<(Instant, Option<Vec<u8>>)> {
        let (at, _) = cover.poll_timeout()?;
        cover.handle_timeout(at);
        Some((at, cover.poll_answer()))
    }

    #[test]
    fn an_answer_within_p2_is_not_covered() {
        let (mut cover, start) = asked(&READ);
        cover.handle_timeout(start + ms(9));
        cover.handle_response(start + ms(9), &ANSWER);
        assert_eq!((cover.poll_answer(), cover.poll_timeout()), (None, None));
    }

    #[test]
    fn a_late_answer_is_covered_repeatedly_and_in_time() {
        let (mut cover, start) = asked(&READ);
        for at in [10, 2010, 4010] {
            assert_eq!(step(&mut cover), Some((start + ms(at), Some(PENDING.to_vec()))));
        }
        cover.handle_response(start + ms(5000), &ANSWER);
        assert_eq!((cover.poll_answer(), cover.poll_timeout()), (None, None));
    }

    #[test]
    fn the_ecus_own_response_pending_counts_as_ours() {
        let (mut cover, start) = asked(&READ);
        cover.handle_response(start + ms(5), &PENDING);
        assert_eq!(step(&mut cover), Some((start + ms(2005), Some(PENDING.to_vec()))));
        cover.handle_response(start + ms(2500), &[0x7F, 0x22, 0x31]);
        assert_eq!(cover.poll_timeout(), None);
    }

    #[test]
    fn a_request_without_response_is_not_covered_until_the_ecu_says_pending() {
        let (mut cover, start) = asked(&[0x3E, 0x80]);
        assert_eq!(cover.poll_timeout(), None);
        cover.handle_response(start, &[0x7F, 0x3E, 0x78]);
        assert_eq!(step(&mut cover), Some((start + ms(2000), Some(vec![0x7F, 0x3E, 0x78]))));
    }

    #[test]
    fn tester_present_without_response_does_not_affect_the_pending_request() {
        let (mut cover, start) = asked(&READ);
        cover.handle_request(start + ms(1), &[0x3E, 0x80]);
        assert_eq!(step(&mut cover), Some((start + ms(10), Some(PENDING.to_vec()))));
    }

    #[test]
    fn a_silent_ecu_times_out_only_after_the_request_was_on_its_bus() {
        let (mut cover, start) = asked(&READ);
        cover.handle_sent(start + ms(300));
        let mut answers = Vec::new();
        while let Some((at, answer)) = step(&mut cover) {
            answers.push((at.saturating_duration_since(start), answer.unwrap()));
        }
        let pending = PENDING.to_vec();
        let expected = [(ms(10), pending.clone()), (ms(2010), pending), (ms(3300), vec![0x7F, 0x22, 0x25])];
        assert_eq!(answers, expected);
    }

    #[test]
    fn a_refusal_before_any_cover_is_not_passed_on() {
        let (mut cover, _) = asked(&READ);
        cover.handle_failed();
        assert_eq!((cover.poll_answer(), cover.poll_timeout()), (None, None));
    }

    #[test]
    fn a_lost_link_extends_the_cover_and_does_not_time_out_the_ecu() {
        let (mut cover, start) = asked(&READ);
        cover.handle_sent(start + ms(5));
        cover.handle_link(start + ms(8), false);
        for at in (10..40_000).step_by(2000) {
            assert_eq!(step(&mut cover), Some((start + ms(at), Some(PENDING.to_vec()))));
        }
        cover.handle_link(start + ms(40_000), true);
        cover.handle_response(start + ms(40_100), &ANSWER);
        assert_eq!((cover.poll_answer(), cover.poll_timeout()), (None, None));
    }

    #[test]
    fn an_answer_to_another_request_ends_no_cover() {
        let (mut cover, start) = asked(&READ);
        cover.handle_response(start, &[0x7F, 0x10, 0x22]);
        cover.handle_response(start, &[0x50, 0x03]);
        assert!(cover.poll_timeout().is_some());
    }
}
