//! A tester and ECUs on one simulated line with its own clock. Every step advances the clock to the next
//! event, so that the test rounds no time and waits for no time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_agent::protocol::kline::{Config, Endpoint, Event, LineClock};
use connector_hal::kline::Signal;
use connector_hal::kline::sim::{Wire, WireEvent};
use connector_sim::vehicle::kline::{Anomaly, KlineEcu, KlineEcuConfig};

pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) struct Rig {
    pub wire: Wire,
    pub endpoints: Vec<Endpoint>,
    pub ecus: Vec<KlineEcu>,
    pub events: Vec<(usize, Event)>,
    /// The signals that the tester sent, with their times.
    pub sent: Vec<(Instant, Signal)>,
    /// Every byte on the line, as the tester received it.
    pub heard: Vec<u8>,
    pub now: Instant,
    pub start: Instant,
    /// The interface does not echo the bytes that it sends.
    pub is_open_circuit: bool,
    /// The time for which the interface holds a byte before it passes the byte to the tester.
    pub latency: Duration,
    pub line: LineClock,
    tester: usize,
    nodes: Vec<usize>,
    active: Option<usize>,
    /// The bytes that the interface holds.
    kept: VecDeque<(Instant, u8)>,
}

impl Rig {
    pub(super) fn new(endpoints: Vec<Config>, ecus: Vec<KlineEcuConfig>) -> Self {
        let start = Instant::now();
        let mut wire = Wire::default();
        let tester = wire.attach(endpoints[0].bit_rate);
        let nodes = ecus.iter().map(|ecu| wire.attach(ecu.bit_rate)).collect();
        Self {
            wire,
            endpoints: endpoints.into_iter().map(|config| Endpoint::new(config, start)).collect(),
            ecus: ecus.into_iter().map(|ecu| KlineEcu::new(ecu, start)).collect(),
            events: Vec::new(),
            sent: Vec::new(),
            heard: Vec::new(),
            now: start,
            start,
            is_open_circuit: false,
            latency: Duration::ZERO,
            line: LineClock::new(start),
            tester,
            nodes,
            active: None,
            kept: VecDeque::new(),
        }
    }

    /// Runs for this long.
    pub(super) fn run(&mut self, limit: Duration) {
        let until = self.now + limit;
        while self.step(until) {}
        self.now = until;
    }

    /// Runs until the first event that `wanted` accepts. `events` also has all events before it.
    pub(super) fn run_until(&mut self, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let until = self.now + limit;
        let mut seen = self.events.len();
        loop {
            self.settle();
            while let Some((_, event)) = self.events.get(seen) {
                seen += 1;
                if wanted(event) {
                    return Some(event.clone());
                }
            }
            if !self.step(until) {
                self.now = until;
                return None;
            }
        }
    }

    /// Handles all due events, then advances to the next one. Returns false if there is none before `until`.
    fn step(&mut self, until: Instant) -> bool {
        self.settle();
        let mut times: VecDeque<Instant> = self.ecus.iter().filter_map(KlineEcu::poll_timeout).collect();
        times
            .extend(self.nodes.iter().chain([&self.tester]).filter_map(|node| self.wire.poll_timeout(*node)));
        times.extend(self.kept.front().map(|(at, _)| *at));
        match self.active {
            Some(active) => times.extend(self.endpoints[active].poll_timeout().map(|(at, _)| at)),
            None => times.extend(self.endpoints.iter().filter_map(Endpoint::wants_line)),
        }
        let Some(next) = times.into_iter().min() else { return false };
        assert!(next >= self.now, "the time does not go backwards");
        if next >= until {
            return false;
        }
        assert_ne!(next, self.now, "every due event was handled");
        self.now = next;
        true
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let mut busy = false;
            for (ecu, node) in self.ecus.iter_mut().zip(&self.nodes) {
                while let Some(event) = self.wire.poll_event(self.now, *node) {
                    ecu.handle_event(event);
                    busy = true;
                }
                ecu.handle_timeout(self.now);
                if let Some(byte) = ecu.poll_transmit(self.now) {
                    self.wire.transmit(self.now, *node, Signal::Byte(byte));
                    busy = true;
                }
            }
            while let Some(event) = self.wire.poll_event(self.now, self.tester) {
                busy = true;
                self.handle_wire(event);
            }
            while let Some((_, byte)) = self.kept.pop_front_if(|(at, _)| *at <= self.now) {
                busy = true;
                self.handle_byte(byte);
            }
            busy |= self.drive_tester();
            if !busy {
                return;
            }
        }
        panic!("an endless loop");
    }

    fn handle_wire(&mut self, event: WireEvent) {
        match event {
            WireEvent::Byte { byte, at } if !self.is_open_circuit => {
                self.kept.push_back((at + self.latency, byte));
            }
            WireEvent::Sent { at } => {
                self.line.handle_activity(self.now);
                if let Some(active) = self.active {
                    self.endpoints[active].handle_sent(at);
                }
            }
            _ => self.line.handle_activity(self.now),
        }
    }

    /// Passes a byte to the tester.
    pub(super) fn handle_byte(&mut self, byte: u8) {
        if self.active.is_some_and(|active| self.endpoints[active].is_exchanging()) {
            self.line.handle_activity(self.now);
        } else {
            self.line.handle_foreign_activity(self.now);
        }
        self.heard.push(byte);
        if let Some(active) = self.active {
            self.endpoints[active].handle_byte(self.now, byte);
        }
    }

    fn drive_tester(&mut self) -> bool {
        if self.active.is_none() {
            let wants = |(index, endpoint): (usize, &Endpoint)| endpoint.wants_line().map(|at| (at, index));
            let next = self.endpoints.iter().enumerate().filter_map(wants).min();
            if let Some((at, index)) = next
                && at <= self.now
            {
                self.endpoints[index].start(self.now, &self.line);
                self.active = Some(index);
            }
        }
        let mut busy = false;
        if let Some(active) = self.active {
            let endpoint = &mut self.endpoints[active];
            if endpoint.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                endpoint.handle_timeout(self.now);
                busy = true;
            }
            while let Some(signal) = endpoint.poll_transmit() {
                busy = true;
                self.sent.push((self.now, signal));
                self.wire.transmit(self.now, self.tester, signal);
            }
            if !endpoint.is_busy() {
                self.active = None;
                busy = true;
            }
        }
        for (index, endpoint) in self.endpoints.iter_mut().enumerate() {
            while let Some(event) = endpoint.poll_event() {
                busy = true;
                self.events.push((index, event));
            }
        }
        busy
    }

    /// Runs until an endpoint can take a PDU.
    pub(super) fn run_until_free(&mut self, endpoint: usize) {
        let until = self.now + Duration::from_secs(30);
        loop {
            self.settle();
            let endpoint = &self.endpoints[endpoint];
            if !endpoint.is_sending() || !self.step(until) {
                return;
            }
        }
    }

    /// Sends a PDU and returns the answers until the next request could be sent.
    pub(super) fn ask(&mut self, endpoint: usize, pdu: &[u8]) -> Vec<Vec<u8>> {
        let before = self.events.len();
        self.endpoints[endpoint].send(pdu).unwrap();
        let until = self.now + Duration::from_secs(30);
        loop {
            self.settle();
            let is_over = !self.endpoints[endpoint].is_sending() && self.active.is_none();
            if is_over || !self.step(until) {
                break;
            }
        }
        let received = |(index, event): &(usize, Event)| match event {
            Event::Received { pdu, .. } if *index == endpoint => Some(pdu.clone()),
            _ => None,
        };
        self.events[before..].iter().filter_map(received).collect()
    }

    pub(super) fn anomalies(&self) -> Vec<Anomaly> {
        self.ecus.iter().flat_map(|ecu| ecu.anomalies().to_vec()).collect()
    }

    pub(super) fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| wanted(event))
    }
}
