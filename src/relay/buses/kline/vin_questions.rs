//! Asking the ECUs at the other end of open links for the VIN: a pure state machine.
//!
//! The questions are asked one at a time, between the requests of the operator, and their answers are not relayed.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::link::{Key, KlineChannel};
use crate::protocol::uds::P2_STAR;
use crate::vehicle::vin::{Candidate, EcuAddress, Service, VinAnswer, VinSource};

/// ReadECUIdentification of ISO 14230-3 (`1A 90`, as in GMLAN), then ReadDataByIdentifier of UDS (ISO 14229-6).
const QUESTIONS: [Service; 2] = [Service::Gmlan, Service::Uds];
/// How long an answer may take: P3min and P2max, both far below, and the messages themselves at 9600 bit/s.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How long a question waits before it looks again whether the channel is busy.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A question that has no answer yet.
#[derive(Debug)]
struct Asked {
    link: Key,
    until: Instant,
}

/// A reading of the VIN over the open links of a K-line.
#[derive(Debug)]
pub(super) struct VinQuestions {
    until: Instant,
    /// The questions that are left.
    left: VecDeque<(Key, Service)>,
    asked: Option<Asked>,
    /// When to look again whether the channel of the next question is busy.
    look_at: Option<Instant>,
    candidates: Vec<Candidate>,
}

impl VinQuestions {
    /// The questions to the ECUs of these channels, to be asked before `until`.
    pub(super) fn new(until: Instant, channels: &BTreeMap<Key, KlineChannel>) -> Self {
        let links = channels.iter().filter(|(key, channel)| channel.is_up(**key)).map(|(key, _)| *key);
        let left = links.flat_map(|link| QUESTIONS.map(|service| (link, service))).collect();
        Self { until, left, asked: None, look_at: None, candidates: Vec::new() }
    }

    /// Whether all questions are answered, or their time is over.
    pub(super) fn is_finished(&self) -> bool {
        self.asked.is_none() && self.left.is_empty()
    }

    /// The VINs, in the order in which they came.
    pub(super) fn into_candidates(self) -> Vec<Candidate> {
        self.candidates
    }

    /// When to call [`VinQuestions::advance`] if nothing happens until then.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let asked = self.asked.as_ref().map(|asked| asked.until);
        (!self.is_finished()).then(|| asked.or(self.look_at).map_or(self.until, |at| at.min(self.until)))
    }

    /// Handles an answer or its absence, and asks the next question.
    pub(super) fn advance(&mut self, now: Instant, channels: &mut BTreeMap<Key, KlineChannel>) {
        if self.until <= now {
            self.stop(channels);
        }
        while !self.is_finished() {
            if let Some(Asked { link, until }) = self.asked.take()
                && let Some(still_asked) = self.handle_answer(now, link, until, channels)
            {
                self.asked = Some(still_asked);
                return;
            }
            let Some(&(link, service)) = self.left.front() else { return };
            let Some(channel) = channels.get_mut(&link).filter(|channel| channel.is_up(link)) else {
                self.left.pop_front();
                continue;
            };
            if !channel.pdus.ask(now, service.request()) {
                self.look_at = Some(now + LOOK_EVERY);
                return;
            }
            self.left.pop_front();
            self.look_at = None;
            self.asked = Some(Asked { link, until: now + ANSWER_TIME });
        }
    }

    /// Asks nothing more, and awaits no answer.
    pub(super) fn stop(&mut self, channels: &mut BTreeMap<Key, KlineChannel>) {
        self.left.clear();
        if let Some(Asked { link, .. }) = self.asked.take() {
            end(link, channels);
        }
    }

    /// Handles the answer to a question. Returns the question if its answer may still come.
    fn handle_answer(
        &mut self,
        now: Instant,
        link: Key,
        until: Instant,
        channels: &mut BTreeMap<Key, KlineChannel>,
    ) -> Option<Asked> {
        let channel = channels.get_mut(&link)?;
        let answer = channel.pdus.own_request().take_answer().map(|pdu| VinAnswer::parse(&pdu));
        match answer {
            None if now < until => return Some(Asked { link, until }),
            Some(VinAnswer::Pending(_)) => return Some(Asked { link, until: now + P2_STAR }),
            Some(VinAnswer::Vin(service, vin)) => {
                let source = if service == Service::Uds { VinSource::Uds } else { VinSource::Kwp };
                let address = EcuAddress::Kline(channel.endpoint().config().addressing.address());
                self.candidates.push(Candidate { vin, source, address });
                self.left.retain(|(other, _)| *other != link);
            }
            // the ECU does not answer, or its answer was disturbed
            None => self.left.retain(|(other, _)| *other != link),
            Some(_) => {}
        }
        end(link, channels);
        None
    }
}

/// The answer on this channel is awaited no longer.
fn end(link: Key, channels: &mut BTreeMap<Key, KlineChannel>) {
    if let Some(channel) = channels.get_mut(&link) {
        channel.pdus.own_request().end();
    }
}
