//! Relays frames between a bus and a link, as a session does, without I/O.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::config::IsotpStack;
use connector_agent::policy::{Framing, IntentTarget, SharedPolicy};
use connector_agent::relay::buses::Channels;
use connector_agent::relay::buses::can::channels::CanChannels;
use connector_agent::relay::channel::{CanChannel, Output, RawChannel};
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{Header, Payload, Record, Tag};
use connector_hal::can::{CanEvent, CanFrame, CanId, CanSettings, FdFlags};

const CHANNEL: u16 = 7;

/// A bus with a raw channel, and both ends of a link.
pub struct Relay {
    now: Instant,
    bus: CanChannels,
    link: Link,
    /// The operator's end.
    peer: Link,
    /// The frames of the operator and of the vehicle, of which one comes after the other.
    frames: Vec<CanFrame>,
    next: usize,
    pub frames_a_message: u32,
    /// Unacknowledged messages at the websocket and the peer.
    pub in_flight: usize,
    unacknowledged: VecDeque<Bytes>,
    pub relayed: u64,
    /// The frame that the operator sends.
    message: Vec<u8>,
    seq: u32,
}

impl Relay {
    pub fn new(frame: CanFrame) -> Self {
        Self::with_policy(vec![frame], None)
    }

    /// A bus whose policy judges these frames, which have one identifier.
    pub fn judged(frames: Vec<CanFrame>, policy: SharedPolicy) -> Self {
        Self::with_policy(frames, Some(policy))
    }

    fn with_policy(frames: Vec<CanFrame>, policy: Option<SharedPolicy>) -> Self {
        let now = Instant::now();
        let tag = Tag([1, 2, 3, 4]);
        let mut bus = CanChannels::new(
            "vehicle",
            CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false },
            IsotpStack::Own,
        );
        let id = frames.first().map(CanFrame::id);
        let mut channel = CanChannel::Raw(RawChannel::new(id, id, true));
        if let Some(policy) = policy {
            let policy = policy.bus(0, Some("HS"));
            channel.set_policy(&policy, IntentTarget::None, Framing::default());
            bus.set_policy(policy);
        }
        bus.insert(CHANNEL, channel);
        Self {
            now,
            bus,
            link: Link::new(Role::Connector, tag, now),
            peer: Link::new(Role::Operator, tag, now),
            frames,
            next: 0,
            frames_a_message: 1,
            in_flight: 400,
            unacknowledged: VecDeque::with_capacity(8192),
            relayed: 0,
            message: Vec::with_capacity(64),
            seq: 0,
        }
    }

    fn next_frame(&mut self) -> CanFrame {
        self.next = (self.next + 1) % self.frames.len();
        self.frames[self.next]
    }

    pub fn carry_from_vehicle(&mut self, frames: u32) {
        for index in 0..frames {
            self.now += Duration::from_micros(230);
            let frame = self.next_frame();
            self.bus.handle_event(self.now, &CanEvent::Received { frame, at: self.now });
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

    /// Passes the oldest message to the peer, and the peer's answer back.
    fn acknowledge(&mut self) {
        let message = self.unacknowledged.pop_front().unwrap();
        let incoming = self.peer.handle_message(self.now, &message).unwrap().unwrap();
        self.relayed += incoming.records().count() as u64;
        drop(message);
        if let Some(answer) = self.peer.poll_message(self.now) {
            assert!(self.link.handle_message(self.now, &answer).unwrap().is_none());
        }
    }

    pub fn toward_vehicle(&mut self, frames: u32) {
        for _ in 0..frames {
            self.now += Duration::from_micros(230);
            self.seq += 1;
            self.message.clear();
            let sent = self.next_frame();
            let header = Header {
                record_count: 1,
                tag: Tag([1, 2, 3, 4]),
                seq: self.seq,
                ack: 0,
                time: u64::from(self.seq) * 230,
            };
            header.encode(&mut self.message);
            Record { channel: CHANNEL, offset: 0, payload: Payload::Frame(sent) }.encode(&mut self.message);
            let incoming = self.link.handle_message(self.now, &self.message).unwrap().unwrap();
            for record in incoming.records() {
                let Payload::Frame(frame) = record.payload else { panic!("{record:?}") };
                let expires = self.now + Duration::from_millis(500);
                self.bus.handle_frame_to_send(self.now, record.channel, frame, expires);
            }
            let frame = self.bus.poll_transmit(self.now).unwrap();
            assert_eq!(frame, sent);
            self.bus.handle_accepted(self.now);
            self.bus.handle_event(self.now, &CanEvent::Transmitted { at: self.now });
            assert!(self.bus.poll_output().is_none());
            // from time to time, an acknowledgement
            drop(self.link.poll_message(self.now));
        }
    }
}

pub fn classic(byte: u8) -> CanFrame {
    CanFrame::new(CanId::try_from(0x7E8).unwrap(), &[byte; 8]).unwrap()
}

pub fn fd(byte: u8) -> CanFrame {
    let flags = FdFlags { bit_rate_switch: true, error_state: false };
    CanFrame::new_fd(CanId::try_from(0x7E8).unwrap(), flags, &[byte; 64]).unwrap()
}
