//! Both ends, the cloud and the two links, and the course of events that a seed decides.

use std::ops::AddAssign;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::relay::link::{KEPT_LIMIT, Link, LinkError, Role};
use connector_agent::relay::wire::codec::{EventCode, Header, Payload, PduFlags, Records, Tag};
use connector_hal::can::{CanFrame, CanId};

use super::hop::{Hop, Item};

const TAG: Tag = Tag([9, 9, 9, 9]);
const PDUS: u16 = 1;
const FRAMES: u16 = 2;
/// The maximum age of frames of raw channels.
const MAX_AGE: Duration = Duration::from_millis(500);

/// The totals of a course of events.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Summary {
    pub pdus: u64,
    pub frames: u64,
    pub gap_frames: u64,
    pub frames_too_old: u64,
    pub cuts: u64,
    pub stalls: u64,
    pub messages_cut_off: u64,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.pdus += other.pdus;
        self.frames += other.frames;
        self.gap_frames += other.gap_frames;
        self.frames_too_old += other.frames_too_old;
        self.cuts += other.cuts;
        self.stalls += other.stalls;
        self.messages_cut_off += other.messages_cut_off;
    }
}

/// One end, with counters of the sent and received records.
struct End {
    link: Link,
    pdus_sent: u32,
    frames_sent: u32,
    pdus_received: u32,
    last_frame: u32,
    frames_received: u32,
    gap_frames: u32,
}

impl End {
    fn new(role: Role, now: Instant) -> Self {
        Self {
            link: Link::new(role, TAG, now),
            pdus_sent: 0,
            frames_sent: 0,
            pdus_received: 0,
            last_frame: 0,
            frames_received: 0,
            gap_frames: 0,
        }
    }

    fn push_pdu(&mut self, now: Instant, len: usize) {
        // an end waits instead of overflowing; the connector's PDUs are too few to fill the link
        if self.link.kept_bytes() + len + 100 > KEPT_LIMIT {
            return;
        }
        self.pdus_sent += 1;
        let mut data = self.pdus_sent.to_be_bytes().to_vec();
        data.resize(4 + len, self.pdus_sent as u8);
        let payload = Payload::Pdu { address: 0x7E8, flags: PduFlags::default(), data: &data };
        self.link.push(now, now, PDUS, payload).unwrap();
    }

    /// Sends a frame that contains its number and its time of creation.
    fn push_frame(&mut self, now: Instant, start: Instant) {
        self.frames_sent += 1;
        let created = u32::try_from(now.duration_since(start).as_micros()).unwrap();
        let mut data = [0; 8];
        data[..4].copy_from_slice(&self.frames_sent.to_be_bytes());
        data[4..].copy_from_slice(&created.to_be_bytes());
        let frame = CanFrame::new(CanId::standard(0x123).unwrap(), &data).unwrap();
        self.link.push(now, now, FRAMES, Payload::Frame(frame)).unwrap();
    }
}

/// One of the two links.
#[derive(Debug, Clone, Copy)]
enum Side {
    Vehicle,
    Operator,
}

/// The directions to the cloud and from it.
const UP: usize = 0;
const DOWN: usize = 1;

pub(super) struct Rig {
    rng: fastrand::Rng,
    start: Instant,
    now: Instant,
    is_flood: bool,
    connector: End,
    operator: End,
    /// Connector to cloud, cloud to connector; `None` while that link is down.
    vehicle_side: Option<[Hop; 2]>,
    /// Operator to cloud, cloud to operator.
    operator_side: Option<[Hop; 2]>,
    vehicle_side_back: Instant,
    operator_side_back: Instant,
    delay: [Duration; 2],
    /// The shortest delay of a message to the connector so far.
    least_transit: Option<Duration>,
    /// The number of the last frame that the operator's end put into a message.
    last_frame_sent: u32,
    summary: Summary,
}

impl Rig {
    pub(super) fn new(seed: u64, is_flood: bool) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let start = Instant::now();
        let delay = [0; 2].map(|_| Duration::from_micros(rng.u64(0..150_000)));
        Self {
            start,
            now: start,
            is_flood,
            connector: End::new(Role::Connector, start),
            operator: End::new(Role::Operator, start),
            vehicle_side: Some(Default::default()),
            operator_side: Some(Default::default()),
            vehicle_side_back: start,
            operator_side_back: start,
            delay,
            least_transit: None,
            last_frame_sent: 0,
            summary: Summary::default(),
            rng,
        }
    }

    pub(super) fn run(mut self) -> Summary {
        let duration = Duration::from_millis(self.rng.u64(1_000..6_000));
        while self.now < self.start + duration {
            let pause = self.rng.u64(0..60_000);
            self.pass_until(self.now + Duration::from_micros(pause));
            self.do_random_step();
        }
        // at the end the network is good, and everything arrives
        self.vehicle_side_back = self.now;
        self.operator_side_back = self.now;
        for _ in 0..2000 {
            if self.is_complete() {
                break;
            }
            self.pass_until(self.now + Duration::from_millis(50));
        }
        self.check_final_state();
        self.summary
    }

    fn do_random_step(&mut self) {
        match self.rng.u32(0..100) {
            0..20 => {
                let len = if self.rng.u32(0..50) == 0 { 70_000 } else { self.rng.usize(0..3_000) };
                self.connector.push_pdu(self.now, len);
            }
            20..40 => {
                let len = self.rng.usize(0..3_000);
                self.operator.push_pdu(self.now, len);
            }
            40..60 => (0..self.rng.u32(1..20)).for_each(|_| self.connector.push_frame(self.now, self.start)),
            60..85 => (0..self.rng.u32(1..5)).for_each(|_| self.operator.push_frame(self.now, self.start)),
            85..88 => self.cut_vehicle_side(),
            88..91 => self.cut_operator_side(),
            91..96 => self.stall(),
            _ if self.is_flood => (0..9_000).for_each(|_| self.connector.push_frame(self.now, self.start)),
            _ => {}
        }
    }

    fn stall(&mut self) {
        self.summary.stalls += 1;
        let until = self.now + Duration::from_millis(self.rng.u64(1..3_000));
        let side = if self.rng.bool() { &mut self.vehicle_side } else { &mut self.operator_side };
        if let Some(hops) = side {
            hops[self.rng.usize(0..2)].stall(until);
        }
    }

    fn back_at(&mut self) -> Instant {
        // most links are back within 50 ms
        let away = if self.rng.u32(0..3) > 0 { self.rng.u64(0..50) } else { self.rng.u64(0..4_000) };
        self.now + Duration::from_millis(away)
    }

    fn cut_vehicle_side(&mut self) {
        let Some([mut up, mut down]) = self.vehicle_side.take() else { return };
        self.summary.cuts += 1;
        self.vehicle_side_back = self.back_at();
        let (to_cloud, lost_up) = up.cut(&mut self.rng);
        let (to_connector, lost_down) = down.cut(&mut self.rng);
        self.summary.messages_cut_off += lost_up + lost_down;
        to_connector.into_iter().for_each(|item| self.at_connector(item));
        to_cloud.into_iter().for_each(|item| self.at_cloud_from_connector(item));
        self.connector.link.interrupt();
        self.send(Side::Operator, DOWN, Item::Interrupted);
    }

    fn cut_operator_side(&mut self) {
        let Some([mut up, mut down]) = self.operator_side.take() else { return };
        self.summary.cuts += 1;
        self.operator_side_back = self.back_at();
        let (to_cloud, lost_up) = up.cut(&mut self.rng);
        let (to_operator, lost_down) = down.cut(&mut self.rng);
        self.summary.messages_cut_off += lost_up + lost_down;
        to_operator.into_iter().for_each(|item| self.at_operator(item));
        to_cloud.into_iter().for_each(|item| self.at_cloud_from_operator(item));
        self.operator.link.interrupt();
    }

    /// Advances the time, and carries all items until then.
    fn pass_until(&mut self, until: Instant) {
        loop {
            self.reconnect();
            self.deliver();
            self.transmit();
            let next = self.next_at().filter(|at| *at > self.now);
            match next.filter(|at| *at < until) {
                Some(at) => self.now = at,
                None => break,
            }
        }
        self.now = until;
    }

    fn next_at(&self) -> Option<Instant> {
        let hops = [&self.vehicle_side, &self.operator_side].into_iter().flatten().flatten();
        let acks = [self.connector.link.poll_timeout(), self.operator.link.poll_timeout()];
        let back = [
            self.vehicle_side.is_none().then_some(self.vehicle_side_back),
            self.operator_side.is_none().then_some(self.operator_side_back),
        ];
        hops.filter_map(Hop::next_at)
            .chain(acks.into_iter().flatten())
            .chain(back.into_iter().flatten())
            .min()
    }

    fn reconnect(&mut self) {
        if self.vehicle_side.is_none() && self.vehicle_side_back <= self.now {
            self.vehicle_side = Some(Default::default());
            let received = self.connector.link.received();
            self.send(Side::Vehicle, UP, Item::Hello { received });
        }
        if self.operator_side.is_none() && self.operator_side_back <= self.now {
            self.operator_side = Some(Default::default());
            let received = self.operator.link.received();
            self.send(Side::Operator, UP, Item::Join { received });
        }
    }

    fn deliver(&mut self) {
        loop {
            let now = self.now;
            let vehicle = self.vehicle_side.as_mut();
            if let Some((index, item)) = vehicle.and_then(|hops| receive(hops, now)) {
                if index == 0 {
                    self.at_cloud_from_connector(item)
                } else {
                    self.at_connector(item)
                }
                continue;
            }
            let operator = self.operator_side.as_mut();
            if let Some((index, item)) = operator.and_then(|hops| receive(hops, now)) {
                if index == 0 {
                    self.at_cloud_from_operator(item)
                } else {
                    self.at_operator(item)
                }
                continue;
            }
            return;
        }
    }

    fn transmit(&mut self) {
        while self.vehicle_side.as_ref().is_some_and(|hops| hops[0].is_writable()) {
            let Some(message) = self.connector.link.poll_message(self.now) else { break };
            self.send(Side::Vehicle, UP, Item::Binary(message));
        }
        while self.operator_side.as_ref().is_some_and(|hops| hops[0].is_writable()) {
            let Some(message) = self.operator.link.poll_message(self.now) else { break };
            self.note_frames_sent(&message);
            self.send(Side::Operator, UP, Item::Binary(message));
        }
    }

    /// Frames toward the vehicle are sent once and never again.
    fn note_frames_sent(&mut self, message: &Bytes) {
        let header = Header::decode(message).unwrap();
        for record in Records::new(message, &header).map(Result::unwrap) {
            if let Payload::Frame(frame) = record.payload {
                let (number, _) = numbers(&frame);
                assert!(number > self.last_frame_sent, "frame {number} is sent toward the vehicle again");
                self.last_frame_sent = number;
            }
        }
    }

    fn send(&mut self, side: Side, direction: usize, item: Item) {
        let (hops, delay) = match side {
            Side::Vehicle => (&mut self.vehicle_side, self.delay[0]),
            Side::Operator => (&mut self.operator_side, self.delay[1]),
        };
        let jitter = Duration::from_micros(self.rng.u64(0..5_000));
        if let Some(hops) = hops {
            hops[direction].send(self.now, delay + jitter, item);
        }
    }

    /// The cloud forwards an item, or discards it if the other link is down.
    fn at_cloud_from_connector(&mut self, item: Item) {
        match item {
            Item::Hello { received } => self.send(Side::Operator, DOWN, Item::Resumed { received }),
            item => self.send(Side::Operator, DOWN, item),
        }
    }

    fn at_cloud_from_operator(&mut self, item: Item) {
        match item {
            Item::Join { received } => self.send(Side::Vehicle, DOWN, Item::Resume { received }),
            item => self.send(Side::Vehicle, DOWN, item),
        }
    }

    fn at_connector(&mut self, item: Item) {
        match item {
            Item::Binary(message) => self.message_at_connector(&message),
            Item::Resume { received } => {
                self.connector.link.resume(self.now, received).unwrap();
                let received = self.connector.link.received();
                self.send(Side::Vehicle, UP, Item::Resumed { received });
            }
            item => panic!("{item:?} is not for the connector"),
        }
    }

    fn message_at_connector(&mut self, message: &Bytes) {
        let header = Header::decode(message).unwrap();
        let transit = self.now.duration_since(self.start + Duration::from_micros(header.time));
        let incoming = match self.connector.link.handle_message(self.now, message) {
            Ok(incoming) => incoming,
            // the cloud discarded earlier messages; resuming brings them again
            Err(LinkError::Gap { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        // a repeated message says nothing about the network
        if incoming.is_none() && header.seq != 0 {
            return;
        }
        let least = self.least_transit.map_or(transit, |least| least.min(transit));
        self.least_transit = Some(least);
        let Some(incoming) = incoming else { return };
        for record in incoming.records() {
            match record.payload {
                Payload::Pdu { data, .. } => receive_pdu(&mut self.connector, data),
                Payload::Frame(frame) => {
                    if incoming.age_of(&record) > MAX_AGE {
                        self.summary.frames_too_old += 1;
                        continue;
                    }
                    let (number, created) = numbers(&frame);
                    assert!(
                        number > self.connector.last_frame,
                        "frame {number} arrived twice or out of order"
                    );
                    self.connector.last_frame = number;
                    self.connector.frames_received += 1;
                    let created = self.start + Duration::from_micros(u64::from(created));
                    let age = self.now.duration_since(created);
                    // by the clock, the shorter half of a round trip counts as long as the other one
                    let half = self.connector.link.round_trip(self.now).unwrap_or_default() / 2;
                    let most = MAX_AGE + least.max(half);
                    assert!(age <= most, "frame {number} reached the vehicle after {age:?}");
                }
                payload => panic!("{payload:?} is not for the connector"),
            }
        }
    }

    fn at_operator(&mut self, item: Item) {
        match item {
            Item::Binary(message) => self.message_at_operator(&message),
            Item::Interrupted => self.operator.link.interrupt(),
            Item::Resumed { received } => {
                if !self.operator.link.is_up() {
                    self.operator.link.resume(self.now, received).unwrap();
                    let received = self.operator.link.received();
                    self.send(Side::Operator, UP, Item::Resume { received });
                }
            }
            item => panic!("{item:?} is not for the operator"),
        }
    }

    fn message_at_operator(&mut self, message: &Bytes) {
        let incoming = match self.operator.link.handle_message(self.now, message) {
            Ok(incoming) => incoming,
            Err(LinkError::Gap { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let Some(incoming) = incoming else { return };
        for record in incoming.records() {
            match record.payload {
                Payload::Pdu { data, .. } => receive_pdu(&mut self.operator, data),
                Payload::Frame(frame) => {
                    let (number, _) = numbers(&frame);
                    assert!(
                        number > self.operator.last_frame,
                        "frame {number} arrived twice or out of order"
                    );
                    self.operator.last_frame = number;
                    self.operator.frames_received += 1;
                }
                Payload::Event { code: EventCode::Gap, value, .. } => self.operator.gap_frames += value,
                payload => panic!("{payload:?} was never sent"),
            }
        }
    }

    fn is_complete(&self) -> bool {
        let is_up = self.connector.link.is_up() && self.operator.link.is_up();
        is_up && self.connector.link.is_all_acknowledged() && self.operator.link.is_all_acknowledged()
    }

    fn check_final_state(&mut self) {
        let (connector, operator) = (&self.connector, &self.operator);
        assert_eq!(operator.pdus_received, connector.pdus_sent, "PDUs from the vehicle");
        assert_eq!(connector.pdus_received, operator.pdus_sent, "PDUs toward the vehicle");
        assert_eq!(
            operator.frames_received + operator.gap_frames,
            connector.frames_sent,
            "frames from the vehicle, with those reported as gaps"
        );
        assert!(self.is_complete(), "some records have not arrived");
        self.summary.pdus += u64::from(operator.pdus_received + connector.pdus_received);
        self.summary.frames += u64::from(operator.frames_received + connector.frames_received);
        self.summary.gap_frames += u64::from(operator.gap_frames);
    }
}

fn receive(hops: &mut [Hop; 2], now: Instant) -> Option<(usize, Item)> {
    hops.iter_mut().enumerate().find_map(|(index, hop)| Some((index, hop.receive(now)?)))
}

fn receive_pdu(end: &mut End, data: &[u8]) {
    let number = u32::from_be_bytes(data[..4].try_into().unwrap());
    assert_eq!(number, end.pdus_received + 1, "a PDU was lost, duplicated or out of order");
    assert!(data[4..].iter().all(|byte| *byte == number as u8), "the data of PDU {number} has changed");
    end.pdus_received = number;
}

fn numbers(frame: &CanFrame) -> (u32, u32) {
    let data = frame.data();
    (u32::from_be_bytes(data[..4].try_into().unwrap()), u32::from_be_bytes(data[4..].try_into().unwrap()))
}
