//! The wire of a simulated K-line. Every byte reaches every node at its end. Two simultaneous bytes become
//! their logical AND. Slow signals are levels.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kline::line::address_levels;
use crate::kline::{ADDRESS_TIME, Signal, byte_time};

/// Up to which difference of their bit rates, in per cent, two nodes understand each other. A UART samples
/// the last of ten bits correctly if the clocks differ by less than half a bit, 5 %.
const TOLERANCE_PERCENT: u32 = 4;
/// How many events wait at a node; beyond this number the oldest are lost. A node that is driven has a few.
const EVENTS: usize = 4096;

/// An event that a node sees on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireEvent {
    /// A byte of any node, also of this one.
    Byte {
        /// The byte as received.
        byte: u8,
        /// The end of the stop bit.
        at: Instant,
    },
    /// A slow signal of another node changed the level.
    Level {
        /// Whether the level is low.
        is_low: bool,
        /// The time of the change.
        at: Instant,
    },
    /// A slow signal of this node has ended.
    Sent {
        /// The end of the signal.
        at: Instant,
    },
}

impl WireEvent {
    fn at(&self) -> Instant {
        match self {
            Self::Byte { at, .. } | Self::Level { at, .. } | Self::Sent { at } => *at,
        }
    }
}

#[derive(Debug)]
struct WireNode {
    /// The bit rate at which the node receives; `None` for any bit rate.
    listens_at: Option<u32>,
    /// The bit rate at which the node sends.
    bit_rate: u32,
    events: VecDeque<PendingEvent>,
}

/// An event that a node will see.
#[derive(Debug, Clone, Copy)]
struct PendingEvent {
    id: u64,
    what: WireEvent,
    /// The bit rate of a byte; `None` if every node can receive the byte.
    bit_rate: Option<u32>,
}

impl WireNode {
    fn push(&mut self, event: PendingEvent) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        let place = self.events.partition_point(|other| other.what.at() <= event.what.at());
        self.events.insert(place, event);
    }

    /// The event as the node receives it at its present bit rate.
    fn read(&self, event: PendingEvent) -> WireEvent {
        match (event.what, event.bit_rate, self.listens_at) {
            (WireEvent::Byte { byte, at }, Some(sent_at), Some(bit_rate))
                if bit_rate.abs_diff(sent_at) * 100 > sent_at.saturating_mul(TOLERANCE_PERCENT) =>
            {
                WireEvent::Byte { byte: byte.rotate_left(3) ^ 0x5A, at }
            }
            (what, ..) => what,
        }
    }
}

/// A byte on the wire.
#[derive(Debug, Clone, Copy)]
struct ByteInFlight {
    id: u64,
    byte: u8,
    start: Instant,
    end: Instant,
}

/// A K-line with its nodes: a pure state machine.
#[derive(Debug, Default)]
pub struct Wire {
    nodes: Vec<WireNode>,
    flights: Vec<ByteInFlight>,
    bytes: u64,
    disturbances: Vec<(u64, u8)>,
}

impl Wire {
    /// Attaches a node that sends and receives at `bit_rate` bit/s; returns its number.
    pub fn attach(&mut self, bit_rate: u32) -> usize {
        self.nodes.push(WireNode { listens_at: Some(bit_rate), bit_rate, events: VecDeque::new() });
        self.nodes.len() - 1
    }

    /// Changes a node's bit rate, also for bytes that the node has not read yet.
    pub fn set_bit_rate(&mut self, node: usize, bit_rate: u32) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.bit_rate = bit_rate;
            node.listens_at = Some(bit_rate);
        }
    }

    /// Lets a node receive bytes at any bit rate until a bit rate is set.
    pub(super) fn listen_at_any(&mut self, node: usize) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.listens_at = None;
        }
    }

    /// How many bytes have been transmitted.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Inverts the bits of `mask` in one byte: the one that follows `after` further bytes.
    pub fn disturb(&mut self, after: u64, mask: u8) {
        self.disturbances.push((self.bytes + after, mask));
    }

    /// Adds a byte of no node, which each node receives at its own bit rate.
    pub fn add_noise(&mut self, at: Instant, byte: u8) {
        self.bytes += 1;
        let id = self.bytes;
        for node in &mut self.nodes {
            node.push(PendingEvent { id, what: WireEvent::Byte { byte, at }, bit_rate: None });
        }
    }

    /// Transmits a signal of the node `from`.
    pub fn transmit(&mut self, start: Instant, from: usize, signal: Signal) {
        match signal {
            Signal::Byte(byte) => self.transmit_byte(start, from, byte),
            Signal::Pulse(low) => {
                self.transmit_levels(start, from, vec![(Duration::ZERO, true), (low, false)], low);
            }
            Signal::Address(address) => {
                self.transmit_levels(start, from, address_levels(address), ADDRESS_TIME)
            }
        }
    }

    fn transmit_byte(&mut self, start: Instant, from: usize, byte: u8) {
        let Some(bit_rate) = self.nodes.get(from).map(|node| node.bit_rate) else { return };
        let number = self.bytes;
        self.bytes += 1;
        let mut flight = ByteInFlight { id: self.bytes, byte, start, end: start + byte_time(bit_rate) };
        self.disturbances.retain(|(disturbed, mask)| {
            if *disturbed == number {
                flight.byte ^= mask;
            }
            *disturbed > number
        });
        self.flights.retain(|other| other.end + Duration::from_secs(1) > start);
        let sent = flight.byte;
        for other in self.flights.iter().filter(|other| other.end > start && other.start < flight.end) {
            // a low level wins
            flight.byte &= other.byte;
            for event in
                self.nodes.iter_mut().flat_map(|node| &mut node.events).filter(|event| event.id == other.id)
            {
                if let WireEvent::Byte { byte, .. } = &mut event.what {
                    *byte &= sent;
                }
            }
        }
        let what = WireEvent::Byte { byte: flight.byte, at: flight.end };
        for node in &mut self.nodes {
            node.push(PendingEvent { id: flight.id, what, bit_rate: Some(bit_rate) });
        }
        self.flights.push(flight);
    }

    fn transmit_levels(&mut self, start: Instant, from: usize, levels: Vec<(Duration, bool)>, end: Duration) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let mut push = |what| node.push(PendingEvent { id: 0, what, bit_rate: None });
            if index == from {
                push(WireEvent::Sent { at: start + end });
                continue;
            }
            for (at, is_low) in &levels {
                push(WireEvent::Level { is_low: *is_low, at: start + *at });
            }
        }
    }

    /// The next event that the node has seen by `now`.
    pub fn poll_event(&mut self, now: Instant, node: usize) -> Option<WireEvent> {
        let node = self.nodes.get_mut(node)?;
        let event = node.events.pop_front_if(|event| event.what.at() <= now)?;
        Some(node.read(event))
    }

    /// When the node's next event happens.
    pub fn poll_timeout(&self, node: usize) -> Option<Instant> {
        self.nodes.get(node)?.events.front().map(|event| event.what.at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_reaches_every_node_at_the_end_of_its_stop_bit() {
        let mut wire = Wire::default();
        let (tester, ecu) = (wire.attach(10_400), wire.attach(10_400));
        let start = Instant::now();
        wire.transmit(start, tester, Signal::Byte(0x81));
        let end = start + byte_time(10_400);
        for node in [tester, ecu] {
            assert_eq!(wire.poll_event(end - Duration::from_nanos(1), node), None);
            assert_eq!(wire.poll_event(end, node), Some(WireEvent::Byte { byte: 0x81, at: end }));
        }
    }

    #[test]
    fn every_node_receives_two_simultaneous_bytes_as_their_logical_and() {
        let mut wire = Wire::default();
        let (tester, ecu) = (wire.attach(10_400), wire.attach(10_400));
        let start = Instant::now();
        wire.transmit(start, tester, Signal::Byte(0xF0));
        wire.transmit(start + Duration::from_micros(300), ecu, Signal::Byte(0x3C));
        let late = start + Duration::from_secs(1);
        for node in [tester, ecu] {
            for _ in 0..2 {
                assert!(matches!(wire.poll_event(late, node), Some(WireEvent::Byte { byte: 0x30, .. })));
            }
        }
    }

    #[test]
    fn a_node_at_another_bit_rate_reads_different_bytes() {
        let mut wire = Wire::default();
        let (tester, ecu) = (wire.attach(10_400), wire.attach(9_600));
        let start = Instant::now();
        wire.transmit(start, tester, Signal::Byte(0x81));
        let late = start + Duration::from_secs(1);
        assert!(matches!(wire.poll_event(late, ecu), Some(WireEvent::Byte { byte, .. }) if byte != 0x81));
        // the bit rate at the time of reading decides
        wire.transmit(late, tester, Signal::Byte(0x81));
        wire.set_bit_rate(ecu, 10_400);
        let later = late + Duration::from_secs(1);
        assert!(matches!(wire.poll_event(later, ecu), Some(WireEvent::Byte { byte: 0x81, .. })));
        wire.set_bit_rate(ecu, 300);
        wire.listen_at_any(ecu);
        wire.transmit(later, tester, Signal::Byte(0x81));
        let latest = later + Duration::from_secs(1);
        assert!(matches!(wire.poll_event(latest, ecu), Some(WireEvent::Byte { byte: 0x81, .. })));
    }
}
