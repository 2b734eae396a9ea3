//! An ECU on a K-line: a pure state machine over the events on the wire.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::kline::byte_time;
use connector_hal::kline::sim::WireEvent;

use super::anomaly::Anomaly;
use super::config::KlineEcuConfig;
use super::messages::{self, Request};
use super::phase::{Overheard, Phase};
use super::services::Services;
use super::timing::{Limits, Times};

/// The unit of the standard's times.
pub(super) const MS: Duration = Duration::from_millis(1);

/// An ECU on a K-line.
#[derive(Debug)]
pub struct KlineEcu {
    pub(super) config: KlineEcuConfig,
    services: Services,
    times: Times,
    limits: Limits,
    pub(super) phase: Phase,
    /// The start of the last pulse with the right length.
    pub(super) pulse_at: Option<Instant>,
    pub(super) levels: Vec<(Instant, bool)>,
    pub(super) overheard: Option<Overheard>,
    pub(super) received: Vec<u8>,
    pub(super) received_since: Instant,
    /// The pauses between the bytes of the incoming request.
    gaps: Vec<Duration>,
    last_byte_at: Option<Instant>,
    /// The end of the last exchange.
    pub(super) quiet_since: Option<Instant>,
    outgoing: VecDeque<(Instant, u8)>,
    /// The number of sent bytes whose echo is still expected.
    echoes: u32,
    pub(super) requests: u32,
    pub(super) ignored_initialisations: u32,
    pub(super) anomalies: Vec<Anomaly>,
    log: Vec<Vec<u8>>,
}

impl KlineEcu {
    /// Creates an ECU that sleeps.
    pub fn new(config: KlineEcuConfig, now: Instant) -> Self {
        Self {
            config,
            services: Services::default(),
            times: Times::default(),
            limits: Limits::NORMAL,
            phase: Phase::Asleep,
            pulse_at: None,
            levels: Vec::new(),
            overheard: None,
            received: Vec::new(),
            received_since: now,
            gaps: Vec::new(),
            last_byte_at: None,
            quiet_since: None,
            outgoing: VecDeque::new(),
            echoes: 0,
            requests: 0,
            ignored_initialisations: 0,
            anomalies: Vec::new(),
            log: Vec::new(),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &KlineEcuConfig {
        &self.config
    }

    /// The configuration, to change the ECU's faults.
    pub fn config_mut(&mut self) -> &mut KlineEcuConfig {
        &mut self.config
    }

    /// The tester's violations so far.
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    /// The answered requests, in order.
    pub fn requests(&self) -> &[Vec<u8>] {
        &self.log
    }

    /// Whether a tester communicates with the ECU.
    pub fn is_communicating(&self) -> bool {
        self.phase == Phase::Communicating
    }

    /// The downloaded bytes.
    pub fn memory(&self) -> &[u8] {
        self.services.memory()
    }

    /// Handles an event on the wire.
    pub fn handle_event(&mut self, event: WireEvent) {
        match event {
            WireEvent::Level { is_low, at } => self.handle_level(at, is_low),
            WireEvent::Byte { byte, at } => self.handle_byte(at, byte),
            WireEvent::Sent { .. } => {}
        }
    }

    /// Whether `time` is within its limits. Otherwise records the anomaly.
    pub(super) fn expect(
        &mut self,
        time: Duration,
        min: Duration,
        max: Duration,
        wrong: fn(Duration) -> Anomaly,
    ) -> bool {
        let tolerance = self.config.tolerance;
        let is_right = time + tolerance >= min && time <= max.saturating_add(tolerance);
        if !is_right {
            self.anomalies.push(wrong(time));
        }
        is_right
    }

    fn byte_time(&self) -> Duration {
        byte_time(self.config.bit_rate)
    }

    fn handle_byte(&mut self, at: Instant, byte: u8) {
        if self.echoes > 0 {
            self.echoes -= 1;
            self.quiet_since = Some(at);
            return;
        }
        if !self.outgoing.is_empty() && self.phase == Phase::Communicating {
            self.anomalies.push(Anomaly::Collision);
        }
        let start = at - self.byte_time();
        self.levels.clear();
        if let Phase::AwaitsComplement { since } = self.phase {
            return self.handle_complement(start, at, since, byte);
        }
        if self.overheard.as_mut().is_some_and(|overheard| overheard.accepts(byte)) {
            self.quiet_since = Some(at);
            return;
        }
        self.overheard = None;
        match self.last_byte_at {
            Some(last) if !self.received.is_empty() => {
                let gap = start.saturating_duration_since(last);
                self.gaps.push(gap);
                if gap > 20 * MS + self.config.tolerance {
                    self.received.clear();
                }
            }
            _ => {}
        }
        if self.received.is_empty() {
            self.received_since = start;
            self.gaps.clear();
        }
        self.last_byte_at = Some(at);
        self.received.push(byte);
        let Some(read) = messages::read(&self.received) else { return };
        let bytes = std::mem::take(&mut self.received);
        match read {
            Ok(request) if self.is_for_me(&request) => {
                for gap in std::mem::take(&mut self.gaps) {
                    self.expect(gap, self.limits.p4_min, 20 * MS, Anomaly::P4);
                }
                self.handle_request(at, request, bytes);
            }
            // for another ECU
            Ok(_) => {}
            Err(()) if self.phase == Phase::Communicating => self.anomalies.push(Anomaly::Malformed(bytes)),
            Err(()) => {}
        }
        self.quiet_since = Some(at);
    }

    fn is_for_me(&self, request: &Request) -> bool {
        match request.addresses {
            None => self.phase == Phase::Communicating,
            Some((false, target, _)) => target == self.config.address,
            Some((true, target, _)) => self.config.functions.contains(&target),
        }
    }

    fn handle_request(&mut self, at: Instant, request: Request, bytes: Vec<u8>) {
        if request.data == [0x81] {
            return self.handle_start_communication(at);
        }
        if self.phase != Phase::Communicating {
            return self.anomalies.push(Anomaly::NotCommunicating(request.data));
        }
        if let Some(quiet_since) = self.quiet_since {
            let p3 = self.received_since.saturating_duration_since(quiet_since);
            if p3 > self.config.p3_max + self.config.tolerance {
                self.phase = Phase::Asleep;
                return self.anomalies.push(Anomaly::NotCommunicating(request.data));
            }
            self.expect(p3, self.limits.p3_min, self.config.p3_max, Anomaly::P3);
        }
        if !self.allows(&request) {
            return self.anomalies.push(Anomaly::Malformed(bytes));
        }
        if self.config.misbehaviour.is_silent {
            return;
        }
        self.requests += 1;
        if self.config.misbehaviour.forgets_after.is_some_and(|after| self.requests > after) {
            self.config.misbehaviour.forgets_after = None;
            self.phase = Phase::Asleep;
            return;
        }
        self.log.push(request.data.clone());
        if request.data == [0x82] {
            self.answer(at, &[0xC2]);
            self.phase = Phase::Asleep;
            return;
        }
        if let [0x83, parameters @ ..] = &request.data[..] {
            let answer = self.times.answer(parameters);
            self.answer(at, &answer);
            self.times.apply(&mut self.config, &mut self.limits);
            return;
        }
        if self.config.misbehaviour.busy > 0 {
            self.config.misbehaviour.busy -= 1;
            let service = request.data.first().copied().unwrap_or_default();
            self.answer(at, &[0x7F, service, 0x21]);
            return;
        }
        let script = self.config.scripts.iter_mut().find(|script| script.request == request.data);
        let (answers, disturbed) = match script {
            Some(script) => (script.answers.clone(), script.disturbed.take()),
            None => (self.services.answer(&self.config, &request.data), None),
        };
        let mut start = at;
        for (index, (delay, data)) in answers.into_iter().enumerate() {
            self.config.misbehaviour.wrong_checksums += u32::from(disturbed == Some(index));
            start = self.answer(start + delay, &data);
        }
    }

    /// Whether the key bytes allow the header of this request.
    fn allows(&self, request: &Request) -> bool {
        let [first, _] = self.config.key_bytes;
        let length = if request.has_length_byte { first & 0x02 != 0 } else { first & 0x03 != 0x02 };
        let header = match request.addresses {
            Some(_) => first & 0x08 != 0 || first & 0x0C == 0,
            None => first & 0x04 != 0,
        };
        length && header
    }

    /// Queues an answer P2 after `from`. Returns the time of its end.
    fn answer(&mut self, from: Instant, data: &[u8]) -> Instant {
        let [first, _] = self.config.key_bytes;
        let has_addresses = first & 0x08 != 0 || first & 0x0C == 0;
        let addresses = has_addresses.then_some((0xF1, self.config.address));
        let bytes = messages::write(addresses, first & 0x03 == 0x02, data);
        self.send_answer(from, &bytes)
    }

    pub(super) fn answer_with_addresses(&mut self, from: Instant, data: &[u8]) {
        let bytes = messages::write(Some((0xF1, self.config.address)), false, data);
        self.send_answer(from, &bytes);
    }

    /// Sends an answer P2 after `from`, with the configured faults. Returns the time of its end.
    fn send_answer(&mut self, from: Instant, answer: &[u8]) -> Instant {
        let misbehaviour = &mut self.config.misbehaviour;
        let mut bytes: Vec<u8> =
            misbehaviour.noise_before.into_iter().chain(answer.iter().copied()).collect();
        if misbehaviour.wrong_checksums > 0 {
            misbehaviour.wrong_checksums -= 1;
            if let Some(last) = bytes.last_mut() {
                *last ^= 0xFF;
            }
        } else if misbehaviour.truncated > 0 {
            misbehaviour.truncated -= 1;
            bytes.truncate(bytes.len() / 2);
        }
        bytes.extend(misbehaviour.noise_after);
        self.send(from + self.config.p2, &bytes)
    }

    pub(super) fn send(&mut self, start: Instant, bytes: &[u8]) -> Instant {
        let mut at = start;
        for byte in bytes {
            self.outgoing.push_back((at, *byte));
            at += self.byte_time() + self.config.p1;
        }
        at - self.config.p1
    }

    /// Returns the byte to put on the wire now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<u8> {
        let (at, byte) = *self.outgoing.front()?;
        if now < at {
            return None;
        }
        self.outgoing.pop_front();
        self.echoes += 1;
        // a late machine must not send its bytes back to back
        let next_at = now + self.byte_time();
        if let Some((next, _)) = self.outgoing.front_mut() {
            *next = (*next).max(next_at);
        }
        Some(byte)
    }

    /// Handles expired deadlines.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((start, _)) = self.levels.first().copied()
            && self.address_at() <= Some(now)
        {
            self.handle_address(start);
        }
    }

    /// The time of the next call of [`KlineEcu::handle_timeout`] or [`KlineEcu::poll_transmit`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let outgoing = self.outgoing.front().map(|(at, _)| *at);
        [outgoing, self.address_at()].into_iter().flatten().min()
    }
}
