//! Relaying allocates nothing a frame once it is under way: on a device without much memory, nothing can run out, and
//! nothing gets fragmented, however long a session lasts.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::relay::bus::BusCore;
use connector_agent::relay::channel::{Channel, Output, RawChannel};
use connector_agent::relay::codec::{Header, Payload, Record, Tag};
use connector_agent::relay::link::{Link, Role};
use connector_hal::can::{CanEvent, CanFrame, CanId, FdFlags};

/// The system's allocator, and how often this thread asked it for memory.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn count_one() {
    // a thread that is ending has no counter any more
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is handed on to the system's allocator, as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_one();
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_one();
        // SAFETY: as above.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often memory is asked for meanwhile.
fn allocations(mut act: impl FnMut()) -> u64 {
    let before = COUNT.get();
    act();
    COUNT.get() - before
}

#[test]
fn the_counter_counts() {
    let mut kept = Vec::new();
    assert_eq!(allocations(|| kept.push(Box::new([0_u8; 64]))), 2);
    assert_eq!(allocations(|| kept[0][0] = 1), 0);
}

/// Frames from the bus to the websocket, each in a message of its own, acknowledged after a while.
#[test]
fn a_frame_from_the_vehicle_costs_no_allocation() {
    for (what, frame) in [("classic", classic(1)), ("FD", fd(1))] {
        let mut relay = Relay::new(frame);
        relay.from_vehicle(2000);
        assert_eq!(allocations(|| relay.from_vehicle(20_000)), 0, "{what}");
    }
}

/// The same when many frames share a message.
#[test]
fn frames_that_share_a_message_cost_no_allocation() {
    let mut relay = Relay::new(classic(1));
    relay.frames_a_message = 64;
    relay.in_flight = 40;
    relay.from_vehicle(20_000);
    assert_eq!(allocations(|| relay.from_vehicle(64_000)), 0);
}

/// Frames from the websocket to the bus.
#[test]
fn a_frame_toward_the_vehicle_costs_no_allocation() {
    let mut relay = Relay::new(classic(1));
    relay.toward_vehicle(2000);
    assert_eq!(allocations(|| relay.toward_vehicle(20_000)), 0);
}

/// What a peer that does not answer for a while costs is given back when it does.
#[test]
fn after_a_peer_that_lagged_there_is_no_allocation_again() {
    let mut relay = Relay::new(classic(1));
    relay.in_flight = 4000;
    relay.from_vehicle(20_000);
    relay.in_flight = 400;
    relay.from_vehicle(20_000);
    assert_eq!(allocations(|| relay.from_vehicle(20_000)), 0);
}

const CHANNEL: u16 = 7;

/// A bus with a raw channel, and both ends of a link.
struct Relay {
    now: Instant,
    bus: BusCore,
    link: Link,
    /// The operator's end.
    peer: Link,
    frame: CanFrame,
    frames_a_message: u32,
    /// Messages that the websocket and the peer have and that are not acknowledged.
    in_flight: usize,
    unacknowledged: VecDeque<Bytes>,
    relayed: u64,
    /// What the operator sends.
    message: Vec<u8>,
    seq: u32,
}

impl Relay {
    fn new(frame: CanFrame) -> Self {
        let now = Instant::now();
        let tag = Tag([1, 2, 3, 4]);
        let mut bus = BusCore::default();
        bus.open_channel(CHANNEL, Channel::Raw(RawChannel::new(Some(frame.id()), Some(frame.id()), true)));
        Self {
            now,
            bus,
            link: Link::new(Role::Connector, tag, now),
            peer: Link::new(Role::Operator, tag, now),
            frame,
            frames_a_message: 1,
            in_flight: 400,
            unacknowledged: VecDeque::with_capacity(8192),
            relayed: 0,
            message: Vec::with_capacity(64),
            seq: 0,
        }
    }

    fn from_vehicle(&mut self, frames: u32) {
        for index in 0..frames {
            self.now += Duration::from_micros(230);
            self.bus.handle_event(self.now, &CanEvent::Received { frame: self.frame, at: self.now });
            while let Some(output) = self.bus.poll_output() {
                let Output::Frame(frame) = output.output else { panic!("{output:?}") };
                self.link.push(self.now, output.at, output.channel, Payload::Frame(frame)).unwrap();
            }
            if index % self.frames_a_message == self.frames_a_message - 1 {
                let message = self.link.poll_message(self.now).unwrap();
                self.unacknowledged.push_back(message);
            }
            while self.unacknowledged.len() > self.in_flight {
                self.acknowledge();
            }
        }
    }

    /// The peer gets the oldest message, and what it answers comes back.
    fn acknowledge(&mut self) {
        let message = self.unacknowledged.pop_front().unwrap();
        let incoming = self.peer.handle_message(self.now, &message).unwrap().unwrap();
        self.relayed += incoming.records().count() as u64;
        drop(message);
        if let Some(answer) = self.peer.poll_message(self.now) {
            assert!(self.link.handle_message(self.now, &answer).unwrap().is_none());
        }
    }

    fn toward_vehicle(&mut self, frames: u32) {
        for _ in 0..frames {
            self.now += Duration::from_micros(230);
            self.seq += 1;
            self.message.clear();
            let header = Header {
                record_count: 1,
                tag: Tag([1, 2, 3, 4]),
                seq: self.seq,
                ack: 0,
                time: u64::from(self.seq) * 230,
            };
            header.encode(&mut self.message);
            Record { channel: CHANNEL, offset: 0, payload: Payload::Frame(self.frame) }
                .encode(&mut self.message);
            let incoming = self.link.handle_message(self.now, &self.message).unwrap().unwrap();
            for record in incoming.records() {
                let Payload::Frame(frame) = record.payload else { panic!("{record:?}") };
                let expires = self.now + Duration::from_millis(500);
                self.bus.handle_frame_to_send(self.now, record.channel, frame, expires);
            }
            let frame = self.bus.poll_transmit(self.now).unwrap();
            assert_eq!(frame, self.frame);
            self.bus.handle_accepted(self.now);
            self.bus.handle_event(self.now, &CanEvent::Transmitted { at: self.now });
            assert!(self.bus.poll_output().is_none());
            // an acknowledgement now and then
            drop(self.link.poll_message(self.now));
        }
    }
}

fn classic(byte: u8) -> CanFrame {
    CanFrame::new(CanId::try_from(0x7E8).unwrap(), &[byte; 8]).unwrap()
}

fn fd(byte: u8) -> CanFrame {
    let flags = FdFlags { bit_rate_switch: true, error_state: false };
    CanFrame::new_fd(CanId::try_from(0x7E8).unwrap(), flags, &[byte; 64]).unwrap()
}
