//! The wire: every byte reaches every node at its end, two at once are their logical AND, and slow signals are levels.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kline::{ADDRESS_TIME, Signal, address_levels, byte_time};

/// Nodes whose bit rates differ by more than so many per cent do not understand each other.
const TOLERANCE_PERCENT: u32 = 4;
/// Events that may wait at a node; the oldest are lost.
const EVENTS: usize = 4096;

/// What a node sees of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireEvent {
    /// A byte, the node's own too.
    Byte {
        /// What could be read.
        byte: u8,
        /// The end of its stop bit.
        at: Instant,
    },
    /// A slow signal of another node changed the level.
    Level {
        /// Low, or high again.
        is_low: bool,
        /// When.
        at: Instant,
    },
    /// A slow signal of this node is over.
    Sent {
        /// When.
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
struct Node {
    bit_rate: u32,
    events: VecDeque<(u64, WireEvent)>,
}

impl Node {
    fn push(&mut self, id: u64, event: WireEvent) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        let place = self.events.partition_point(|(_, other)| other.at() <= event.at());
        self.events.insert(place, (id, event));
    }
}

/// A byte that is on its way.
#[derive(Debug, Clone, Copy)]
struct Flight {
    id: u64,
    byte: u8,
    start: Instant,
    end: Instant,
}

/// A K-line with its nodes: a pure state machine.
#[derive(Debug, Default)]
pub struct Wire {
    nodes: Vec<Node>,
    flights: Vec<Flight>,
    bytes: u64,
    disturbances: Vec<(u64, u8)>,
}

impl Wire {
    /// Adds a node that sends and listens at this bit rate, in bit/s.
    pub fn attach(&mut self, bit_rate: u32) -> usize {
        self.nodes.push(Node { bit_rate, events: VecDeque::new() });
        self.nodes.len() - 1
    }

    /// Changes a node's bit rate.
    pub fn set_bit_rate(&mut self, node: usize, bit_rate: u32) {
        if let Some(node) = self.nodes.get_mut(node) {
            node.bit_rate = bit_rate;
        }
    }

    /// How many bytes there were.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Inverts the bits of `mask` in the byte that comes after so many others.
    pub fn disturb(&mut self, after: u64, mask: u8) {
        self.disturbances.push((self.bytes + after, mask));
    }

    /// A byte that no node sent, at the bit rate that each listens at.
    pub fn add_noise(&mut self, at: Instant, byte: u8) {
        self.bytes += 1;
        let id = self.bytes;
        for node in &mut self.nodes {
            node.push(id, WireEvent::Byte { byte, at });
        }
    }

    /// A node puts this on the wire.
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
        let mut flight = Flight { id: self.bytes, byte, start, end: start + byte_time(bit_rate) };
        self.disturbances.retain(|(disturbed, mask)| {
            if *disturbed == number {
                flight.byte ^= mask;
            }
            *disturbed > number
        });
        self.flights.retain(|other| other.end + Duration::from_secs(1) > start);
        let sent = flight.byte;
        for other in self.flights.iter().filter(|other| other.end > start && other.start < flight.end) {
            // low wins
            flight.byte &= other.byte;
            for (_, event) in
                self.nodes.iter_mut().flat_map(|node| &mut node.events).filter(|(id, _)| *id == other.id)
            {
                if let WireEvent::Byte { byte, .. } = event {
                    *byte &= sent;
                }
            }
        }
        for node in &mut self.nodes {
            let is_understood =
                node.bit_rate.abs_diff(bit_rate) * 100 <= bit_rate.saturating_mul(TOLERANCE_PERCENT);
            let byte = if is_understood { flight.byte } else { flight.byte.rotate_left(3) ^ 0x5A };
            node.push(flight.id, WireEvent::Byte { byte, at: flight.end });
        }
        self.flights.push(flight);
    }

    fn transmit_levels(&mut self, start: Instant, from: usize, levels: Vec<(Duration, bool)>, end: Duration) {
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if index == from {
                node.push(0, WireEvent::Sent { at: start + end });
                continue;
            }
            for (at, is_low) in &levels {
                node.push(0, WireEvent::Level { is_low: *is_low, at: start + *at });
            }
        }
    }

    /// What a node has seen until now.
    pub fn poll_event(&mut self, now: Instant, node: usize) -> Option<WireEvent> {
        let events = &mut self.nodes.get_mut(node)?.events;
        let is_due = events.front().is_some_and(|(_, event)| event.at() <= now);
        if is_due { events.pop_front().map(|(_, event)| event) } else { None }
    }

    /// When there will be something for this node.
    pub fn poll_timeout(&self, node: usize) -> Option<Instant> {
        self.nodes.get(node)?.events.front().map(|(_, event)| event.at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_reaches_every_node_when_its_stop_bit_is_over() {
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
    fn two_bytes_at_once_are_their_logical_and_for_everybody() {
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
    fn a_node_at_another_bit_rate_reads_something_else() {
        let mut wire = Wire::default();
        let (tester, ecu) = (wire.attach(10_400), wire.attach(9_600));
        let start = Instant::now();
        wire.transmit(start, tester, Signal::Byte(0x81));
        let late = start + Duration::from_secs(1);
        assert!(matches!(wire.poll_event(late, ecu), Some(WireEvent::Byte { byte, .. }) if byte != 0x81));
    }
}
