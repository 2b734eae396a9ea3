//! An ECU on a K-line: a pure state machine over what is seen on the wire.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::kline::sim::WireEvent;
use connector_hal::kline::{ADDRESS_BIT, ADDRESS_TIME, byte_time};

use super::config::KlineEcuConfig;
use super::messages::{self, Request};
use super::services::Services;

const MS: Duration = Duration::from_millis(1);

/// What a tester did that ISO 14230-2 does not allow, with the time that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// The low level of a pulse: 25 ms ± 1 ms.
    PulseLow(Duration),
    /// From the pulse's start to StartCommunication: 50 ms ± 1 ms.
    WakeUp(Duration),
    /// Between two bytes of a request: 5 to 20 ms.
    P4(Duration),
    /// Between the last answer and a request: 55 ms at least.
    P3(Duration),
    /// Between key byte 2 and its complement: 25 to 50 ms.
    W4(Duration),
    /// The line was not idle for 300 ms before the address.
    W5(Duration),
    /// The complement of key byte 2 was another byte.
    Complement(u8),
    /// A request with a wrong checksum, or a header that the key bytes do not allow.
    Malformed(Vec<u8>),
    /// A request when there was no communication.
    NotCommunicating(Vec<u8>),
    /// A byte while the ECU was sending.
    Collision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Asleep,
    /// Waits for the complement of key byte 2, which it has sent by then.
    AwaitsComplement {
        since: Instant,
    },
    Communicating,
}

/// Another ECU's slow initialisation, whose bytes are no message: all that an ECU with patience has to tell by, as the
/// pauses between them are no longer than those it allows in a request.
#[derive(Debug)]
struct Overheard {
    address: u8,
    bytes: Vec<u8>,
}

impl Overheard {
    /// Whether this is the next byte of it.
    fn takes(&mut self, byte: u8) -> bool {
        let is_next = match self.bytes[..] {
            // the synchronisation byte: no message begins like that
            [] => byte >> 6 == 1,
            [_] | [_, _] => true,
            [_, _, second] => byte == !second,
            [_, _, _, _] => byte == !self.address,
            _ => false,
        };
        if is_next {
            self.bytes.push(byte);
        }
        is_next
    }
}

/// See the module.
#[derive(Debug)]
pub struct KlineEcu {
    config: KlineEcuConfig,
    services: Services,
    state: State,
    /// When the last pulse of the right length began.
    pulse_at: Option<Instant>,
    levels: Vec<(Instant, bool)>,
    overheard: Option<Overheard>,
    received: Vec<u8>,
    received_since: Instant,
    /// The pauses between the bytes of the request that is coming in.
    gaps: Vec<Duration>,
    last_byte_at: Option<Instant>,
    /// The end of the last exchange.
    quiet_since: Option<Instant>,
    outgoing: VecDeque<(Instant, u8)>,
    /// Own bytes that have not been heard yet.
    echoes: u32,
    requests: u32,
    ignored_initialisations: u32,
    anomalies: Vec<Anomaly>,
    log: Vec<Vec<u8>>,
}

impl KlineEcu {
    /// An ECU that sleeps.
    pub fn new(config: KlineEcuConfig, now: Instant) -> Self {
        Self {
            config,
            services: Services::default(),
            state: State::Asleep,
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

    /// What it is like.
    pub fn config(&self) -> &KlineEcuConfig {
        &self.config
    }

    /// Changes what it does wrong.
    pub fn config_mut(&mut self) -> &mut KlineEcuConfig {
        &mut self.config
    }

    /// What the tester did wrong.
    pub fn anomalies(&self) -> &[Anomaly] {
        &self.anomalies
    }

    /// The requests that were answered, in order.
    pub fn requests(&self) -> &[Vec<u8>] {
        &self.log
    }

    /// Whether a tester has a communication with it.
    pub fn is_communicating(&self) -> bool {
        self.state == State::Communicating
    }

    /// What was downloaded.
    pub fn memory(&self) -> &[u8] {
        self.services.memory()
    }

    /// Something on the wire.
    pub fn handle_event(&mut self, event: WireEvent) {
        match event {
            WireEvent::Level { is_low, at } => self.handle_level(at, is_low),
            WireEvent::Byte { byte, at } => self.handle_byte(at, byte),
            WireEvent::Sent { .. } => {}
        }
    }

    fn handle_level(&mut self, at: Instant, is_low: bool) {
        if let State::AwaitsComplement { .. } = self.state {
            // the tester has begun anew
            self.state = State::Asleep;
            self.received.clear();
        }
        if !is_low && let Some((since, true)) = self.levels.last().copied() {
            let low = at - since;
            if low < Duration::from_millis(100) {
                self.expect(low, 24 * MS, 26 * MS, Anomaly::PulseLow);
                self.pulse_at = Some(since);
                self.received.clear();
            }
        }
        self.levels.push((at, is_low));
    }

    /// Whether a time is within its limits; if not, it is noted.
    fn expect(
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
        if !self.outgoing.is_empty() && self.state == State::Communicating {
            self.anomalies.push(Anomaly::Collision);
        }
        let start = at - self.byte_time();
        self.levels.clear();
        if let State::AwaitsComplement { since } = self.state {
            return self.handle_complement(start, at, since, byte);
        }
        if self.overheard.as_mut().is_some_and(|overheard| overheard.takes(byte)) {
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
                    self.expect(gap, 5 * MS, 20 * MS, Anomaly::P4);
                }
                self.handle_request(at, request, bytes);
            }
            // between others
            Ok(_) => {}
            Err(()) if self.state == State::Communicating => self.anomalies.push(Anomaly::Malformed(bytes)),
            Err(()) => {}
        }
        self.quiet_since = Some(at);
    }

    fn is_for_me(&self, request: &Request) -> bool {
        match request.addresses {
            None => self.state == State::Communicating,
            Some((false, target, _)) => target == self.config.address,
            Some((true, target, _)) => self.config.functions.contains(&target),
        }
    }

    fn is_deaf(&mut self) -> bool {
        let misbehaviour = self.config.misbehaviour;
        self.ignored_initialisations += 1;
        misbehaviour.is_silent || self.ignored_initialisations <= misbehaviour.deaf_to
    }

    fn handle_request(&mut self, at: Instant, request: Request, bytes: Vec<u8>) {
        if request.data == [0x81] {
            let Some(pulse_at) = self.pulse_at.take().filter(|_| self.config.fast) else { return };
            let wake_up = self.received_since - pulse_at;
            if !self.expect(wake_up, 49 * MS, 51 * MS, Anomaly::WakeUp) || self.is_deaf() {
                return;
            }
            let [first, second] = self.config.key_bytes;
            match self.config.misbehaviour.refuses_with {
                Some(code) => self.answer_with_addresses(at, &[0x7F, 0x81, code]),
                None => {
                    self.state = State::Communicating;
                    self.requests = 0;
                    self.answer_with_addresses(at, &[0xC1, first, second]);
                }
            }
            return;
        }
        if self.state != State::Communicating {
            return self.anomalies.push(Anomaly::NotCommunicating(request.data));
        }
        if let Some(quiet_since) = self.quiet_since {
            let p3 = self.received_since.saturating_duration_since(quiet_since);
            if p3 > self.config.p3_max + self.config.tolerance {
                self.state = State::Asleep;
                return self.anomalies.push(Anomaly::NotCommunicating(request.data));
            }
            self.expect(p3, 55 * MS, self.config.p3_max, Anomaly::P3);
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
            self.state = State::Asleep;
            return;
        }
        self.log.push(request.data.clone());
        if request.data == [0x82] {
            self.answer(at, &[0xC2]);
            self.state = State::Asleep;
            return;
        }
        if self.config.misbehaviour.busy > 0 {
            self.config.misbehaviour.busy -= 1;
            let service = request.data.first().copied().unwrap_or_default();
            self.answer(at, &[0x7F, service, 0x21]);
            return;
        }
        let mut start = at;
        for (delay, data) in self.services.answer(&self.config, &request.data) {
            start = self.answer(start + delay, &data);
        }
    }

    /// Whether the key bytes allow such a header.
    fn allows(&self, request: &Request) -> bool {
        let [first, _] = self.config.key_bytes;
        let length = if request.has_length_byte { first & 0x02 != 0 } else { first & 0x03 != 0x02 };
        let header = match request.addresses {
            Some(_) => first & 0x08 != 0 || first & 0x0C == 0,
            None => first & 0x04 != 0,
        };
        length && header
    }

    /// Puts an answer P2 after `from`; says when it will be over.
    fn answer(&mut self, from: Instant, data: &[u8]) -> Instant {
        let [first, _] = self.config.key_bytes;
        let has_addresses = first & 0x08 != 0 || first & 0x0C == 0;
        let addresses = has_addresses.then_some((0xF1, self.config.address));
        let mut bytes = messages::write(addresses, first & 0x03 == 0x02, data);
        let misbehaviour = &mut self.config.misbehaviour;
        if misbehaviour.wrong_checksums > 0 {
            misbehaviour.wrong_checksums -= 1;
            if let Some(last) = bytes.last_mut() {
                *last ^= 0xFF;
            }
        } else if misbehaviour.truncated > 0 {
            misbehaviour.truncated -= 1;
            bytes.truncate(bytes.len() / 2);
        }
        self.send(from + self.config.p2, &bytes)
    }

    fn answer_with_addresses(&mut self, from: Instant, data: &[u8]) {
        let bytes = messages::write(Some((0xF1, self.config.address)), false, data);
        self.send(from + self.config.p2, &bytes);
    }

    fn send(&mut self, start: Instant, bytes: &[u8]) -> Instant {
        let mut at = start;
        for byte in bytes {
            self.outgoing.push_back((at, *byte));
            at += self.byte_time() + self.config.p1;
        }
        at - self.config.p1
    }

    /// The levels since the first one are an address: answers, if it is the own one.
    fn handle_address(&mut self, start: Instant) {
        let level_at = |at: Instant| {
            let before = self.levels.iter().take_while(|(since, _)| *since <= at);
            before.last().is_some_and(|(_, is_low)| *is_low)
        };
        // each bit is looked at in its middle
        let bit = |number: u32| level_at(start + ADDRESS_BIT * number + ADDRESS_BIT / 2);
        let address = (0..8).fold(0u8, |byte, index| byte | u8::from(!bit(index + 1)) << index);
        let is_byte = bit(0) && !bit(9);
        self.levels.clear();
        let is_mine = address == self.config.address || self.config.functions.contains(&address);
        if !is_byte {
            return;
        }
        if !self.config.slow || !is_mine || self.is_deaf() {
            self.received.clear();
            self.overheard = Some(Overheard { address, bytes: Vec::new() });
            return;
        }
        if let Some(quiet_since) = self.quiet_since {
            let w5 = start.saturating_duration_since(quiet_since);
            self.expect(w5, 300 * MS, Duration::MAX, Anomaly::W5);
        }
        let [first, second] = self.config.key_bytes;
        let synchronisation = self.config.misbehaviour.synchronisation.unwrap_or(0x55);
        // W1 100 ms, W2 and W3 10 ms
        let at = self.send(start + ADDRESS_TIME + 100 * MS, &[synchronisation]);
        let at = self.send(at + 10 * MS, &[first]);
        let at = self.send(at + 10 * MS, &[second]);
        self.state = State::AwaitsComplement { since: at };
        // which of its addresses it confirms
        self.received = vec![address];
    }

    fn handle_complement(&mut self, start: Instant, at: Instant, since: Instant, byte: u8) {
        let address = self.received.first().copied().unwrap_or(self.config.address);
        self.received.clear();
        self.state = State::Asleep;
        if byte != !self.config.key_bytes[1] {
            return self.anomalies.push(Anomaly::Complement(byte));
        }
        if !self.expect(start.saturating_duration_since(since), 25 * MS, 50 * MS, Anomaly::W4) {
            return;
        }
        let confirmed = if self.config.misbehaviour.confirms_wrong_address { address } else { !address };
        self.send(at + 30 * MS, &[confirmed]);
        self.state = State::Communicating;
        self.requests = 0;
    }

    /// The byte to put on the wire now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<u8> {
        let (at, byte) = *self.outgoing.front()?;
        if now < at {
            return None;
        }
        self.outgoing.pop_front();
        self.echoes += 1;
        // a machine that is late must not put its bytes together
        let next_at = now + self.byte_time();
        if let Some((next, _)) = self.outgoing.front_mut() {
            *next = (*next).max(next_at);
        }
        Some(byte)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((start, _)) = self.levels.first().copied()
            && self.address_at() <= Some(now)
        {
            self.handle_address(start);
        }
    }

    /// When the levels since the first low one can be read as an address.
    fn address_at(&self) -> Option<Instant> {
        self.levels.first().map(|(start, _)| *start + ADDRESS_TIME)
    }

    /// When [`KlineEcu::handle_timeout`] or [`KlineEcu::poll_transmit`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let outgoing = self.outgoing.front().map(|(at, _)| *at);
        [outgoing, self.address_at()].into_iter().flatten().min()
    }
}
