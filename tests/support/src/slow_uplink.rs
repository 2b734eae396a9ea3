//! A full bus that is monitored over a slow uplink, beside requests on another channel, in virtual time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{EventCode, Payload, PduFlags, Tag};
use connector_hal::can::{CanFrame, CanId};

/// The frames of a full bus at 500 kbit/s, a second.
pub const FULL_BUS: u64 = 4_295;
const RAW: u16 = 1;
const PDUS: u16 = 2;

/// The way from the connector to the operator: a modem with a queue, and a path.
struct Uplink {
    bytes_a_second: f64,
    one_way: Duration,
    /// The bytes that the modem takes before the socket stops being writable.
    queue: f64,
    /// The longest random delay of a message.
    jitter: Duration,
    random: fastrand::Rng,
    /// When the modem has sent everything that it has taken.
    busy_until: Instant,
    messages: VecDeque<(Instant, Bytes)>,
}

impl Uplink {
    fn is_writable(&self, now: Instant) -> bool {
        let queued = self.busy_until.saturating_duration_since(now).as_secs_f64() * self.bytes_a_second;
        queued < self.queue
    }

    fn send(&mut self, now: Instant, message: Bytes) {
        // TCP/IP, TLS and websocket add about 70 bytes
        let time = (message.len() + 70) as f64 / self.bytes_a_second;
        self.busy_until = self.busy_until.max(now) + Duration::from_secs_f64(time);
        let jitter = self.jitter.mul_f64(self.random.f64());
        let at = self.busy_until + self.one_way + jitter;
        let at = self.messages.back().map_or(at, |(last, _)| at.max(*last));
        self.messages.push_back((at, message));
    }
}

/// What the operator received.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From request to response, in order.
    pub responses: Vec<Duration>,
    pub frames: u64,
    pub dropped: u64,
}

impl Outcome {
    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.responses.clone();
        sorted.sort();
        sorted[((sorted.len() - 1) as f64 * share) as usize]
    }
}

/// A link and the traffic on it.
pub struct Scene {
    /// The speed of the uplink in bytes a second, from each second on.
    pub speeds: &'static [(u64, f64)],
    pub round_trip: Duration,
    pub jitter: Duration,
    /// The queue of the modem, in bytes.
    pub queue: f64,
    /// The monitored frames, a second.
    pub frames: u64,
    pub seconds: u64,
}

/// Sends a request every second, while the bus is monitored.
pub fn run(scene: &Scene) -> Outcome {
    let start = Instant::now();
    let one_way = scene.round_trip / 2;
    let mut connector = Link::new(Role::Connector, Tag([0; 4]), start);
    let mut operator = Link::new(Role::Operator, Tag([0; 4]), start);
    let mut uplink = Uplink {
        bytes_a_second: 1.0,
        one_way,
        queue: scene.queue,
        jitter: scene.jitter,
        random: fastrand::Rng::with_seed(1),
        busy_until: start,
        messages: VecDeque::new(),
    };
    let mut downlink: VecDeque<(Instant, Bytes)> = VecDeque::new();
    let mut outcome = Outcome::default();
    let step = Duration::from_micros(500);
    let (mut pushed, mut asked, mut asked_at) = (0, 0, start);
    for tick in 0..scene.seconds * 2_000 {
        let now = start + step * u32::try_from(tick).unwrap();
        let speed = scene.speeds.iter().rfind(|(from, _)| from * 2_000 <= tick);
        uplink.bytes_a_second = speed.unwrap().1;
        while pushed < scene.frames * tick / 2_000 {
            let frame = CanFrame::new(CanId::standard_truncated(0x100), &pushed.to_be_bytes()).unwrap();
            connector.push(now, now, RAW, Payload::Frame(frame)).unwrap();
            pushed += 1;
        }
        // requests at different moments of a second
        if tick >= asked * 2_137 + 2_000 && outcome.responses.len() as u64 == asked {
            let data = [0x22, 0xF1, 0x90];
            let pdu = Payload::Pdu { address: 0, flags: PduFlags::default(), data: &data };
            operator.push(now, now, PDUS, pdu).unwrap();
            (asked, asked_at) = (asked + 1, now);
        }
        while uplink.is_writable(now)
            && let Some(message) = connector.poll_message(now)
        {
            uplink.send(now, message);
        }
        while let Some(message) = operator.poll_message(now) {
            downlink.push_back((now + one_way, message));
        }
        while let Some((_, message)) = downlink.pop_front_if(|(at, _)| *at <= now) {
            let Some(incoming) = connector.handle_message(now, &message).unwrap() else { continue };
            for _ in incoming.records() {
                let data = [0x62, 0xF1, 0x90, 0, 0, 0];
                let pdu = Payload::Pdu { address: 0x7E8, flags: PduFlags::default(), data: &data };
                connector.push(now, now, PDUS, pdu).unwrap();
            }
        }
        while let Some((_, message)) = uplink.messages.pop_front_if(|(at, _)| *at <= now) {
            let Some(incoming) = operator.handle_message(now, &message).unwrap() else { continue };
            for record in incoming.records() {
                match record.payload {
                    Payload::Frame(_) => outcome.frames += 1,
                    Payload::Pdu { .. } => outcome.responses.push(now.duration_since(asked_at)),
                    Payload::Event { code: EventCode::Gap, value, .. } => outcome.dropped += u64::from(value),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    outcome
}

/// 0.5 Mbit/s, in bytes a second.
pub const HALF_MBIT: f64 = 62_500.0;
/// A full bus over 0.5 Mbit/s and 100 ms of round trip.
pub const SCENE: Scene = Scene {
    speeds: &[(0, HALF_MBIT)],
    round_trip: Duration::from_millis(100),
    jitter: Duration::ZERO,
    queue: 32_000.0,
    frames: FULL_BUS,
    seconds: 120,
};
