//! The rate at which raw frames are sent, so that PDUs do not wait behind them.
//!
//! A message that is on its way cannot be overtaken. On a slow uplink, the queues of modem and network would hold
//! seconds of frames in front of every PDU. The pacer therefore measures how long messages take until their
//! acknowledgement, and how many bytes arrive: when messages begin to queue, it sends frames a little slower than they
//! arrive. Only frames are paced.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::outbox::NextMessage;

/// The queueing from which frames are sent slower, beside the time of a slice: little beside the round trip of a mobile
/// link.
const MAX_QUEUEING: Duration = Duration::from_millis(15);
/// The queueing from which a limit begins. Above the jitter of a link that is fast enough.
const FIRST_QUEUEING: Duration = Duration::from_millis(40);
/// The time for which queueing has to last. Single messages are late for other reasons.
const RECENT: Duration = Duration::from_millis(300);
/// The queueing from which only the last measurement of arrival counts, because the link has become slower.
const SEVERE: Duration = Duration::from_millis(200);
/// The time for which the shortest round trip counts. Afterwards the path may be another one.
const BASE_WINDOW: Duration = Duration::from_secs(10);
/// The interval in which arrival is measured, at least: the peer acknowledges every 100 to 200 ms.
const MEASURE_FOR: Duration = Duration::from_millis(400);
/// The number of measurements of which the highest counts.
const MEASUREMENTS: usize = 8;
/// The lowest rate of frames, in bytes a second. Without frames on their way, a rate could not be measured again.
const MIN_RATE: f64 = 2_000.0;
/// The share of the measured rate that is used after queueing. The rest lets the queue in the network drain, and leaves
/// room for PDUs.
const BACK_OFF: f64 = 0.85;
/// The longest time for which no frame is sent after frames have queued up: half of the time after which waiting frames
/// are dropped.
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// The bytes of frames that are sent together: the frames of 15 ms, between the two limits. A PDU waits for one slice
/// at most.
const SLICE: f64 = 0.015;
/// Below this size the headers of TCP, TLS and websocket outweigh the frames.
const MIN_SLICE: f64 = 512.0;
/// The contract's bound of a message (relay protocol, section 4.2).
const MAX_SLICE: f64 = 64.0 * 1024.0;
/// The spacing of the noted messages: fine enough to measure [`MAX_QUEUEING`].
const NOTE_EVERY: Duration = Duration::from_millis(4);
/// The number of noted messages: those of a second.
const MAX_NOTES: usize = 256;
/// The number of round trips that are recent: those of [`RECENT`], at one for each
/// [`NOTE_EVERY`].
const MAX_RECENT: usize = 80;
/// The bytes on their way up to which a message meets no queue of ours: one packet of TCP.
const UNQUEUED: u64 = 1_500;
/// The time without queueing after which the rate is unlimited again, if frames never waited in it.
const RELEASE_AFTER: Duration = Duration::from_secs(5);

/// A message that was sent.
#[derive(Debug, Clone, Copy)]
struct Sent {
    seq: u32,
    at: Instant,
    /// The number of bytes sent up to and including this message.
    total: u64,
    /// Whether little else was on its way.
    is_unqueued: bool,
}

/// The rate of frames while messages queue.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// Bytes a second.
    rate: f64,
    /// The rate at which messages last arrived while they queued.
    capacity: f64,
    /// The bytes that may be sent at `updated`.
    credit: f64,
    updated: Instant,
    /// When the rate was last raised.
    raised: Instant,
    /// When frames last waited for credit.
    needed: Instant,
    /// Until when no frame is sent, so that the queue empties.
    paused_until: Instant,
}

/// Paces raw frames.
#[derive(Debug)]
pub(super) struct Pacer {
    sent: VecDeque<Sent>,
    sent_total: u64,
    arrived_total: u64,
    /// The shortest round trips of the present window and of the one before.
    base: [Option<Duration>; 2],
    base_since: Option<Instant>,
    /// The last round trips, and when they ended.
    recent: VecDeque<(Instant, Duration)>,
    /// The arrival at the beginning of the present measurement.
    measured: Option<(Instant, u64)>,
    /// The last measurements of arrival, in bytes a second.
    arrival: VecDeque<f64>,
    limit: Option<Limit>,
}

impl Pacer {
    /// A pacer that has measured nothing yet, and so limits nothing.
    pub(super) fn new() -> Self {
        Self {
            sent: VecDeque::with_capacity(MAX_NOTES),
            sent_total: 0,
            arrived_total: 0,
            base: [None; 2],
            base_since: None,
            recent: VecDeque::with_capacity(MAX_RECENT),
            measured: None,
            arrival: VecDeque::with_capacity(MEASUREMENTS + 1),
            limit: None,
        }
    }

    /// A numbered message is sent.
    pub(super) fn handle_sent(&mut self, now: Instant, message: &NextMessage) {
        let NextMessage { seq, ref bytes, frame_bytes } = *message;
        if let Some(limit) = &mut self.limit {
            limit.update(now);
            limit.credit -= frame_bytes as f64;
        }
        let is_unqueued = self.sent_total - self.arrived_total <= UNQUEUED;
        self.sent_total += bytes.len() as u64;
        let is_full = self.sent.len() >= MAX_NOTES;
        match self.sent.back_mut() {
            Some(last) if is_full || now.saturating_duration_since(last.at) < NOTE_EVERY => {
                last.seq = seq;
                last.total = self.sent_total;
            }
            _ => self.sent.push_back(Sent { seq, at: now, total: self.sent_total, is_unqueued }),
        }
    }

    /// The peer has acknowledged the messages up to this one.
    pub(super) fn handle_acknowledged(&mut self, now: Instant, seq: u32) {
        let mut newest = None;
        while let Some(sent) = self.sent.pop_front_if(|sent| sent.seq <= seq) {
            newest = Some(sent);
        }
        let Some(newest) = newest else { return };
        self.arrived_total = newest.total;
        self.measure_arrival(now);
        self.note_round_trip(now, newest);
        let Some(queueing) = self.queueing(now) else { return };
        let allowed = self.limit.map_or(FIRST_QUEUEING, |limit| MAX_QUEUEING + limit.slice_time());
        if queueing > allowed {
            self.slow_down(now, queueing);
        } else if let Some(limit) = &mut self.limit
            && !limit.speed_up(now)
        {
            self.limit = None;
        }
    }

    fn measure_arrival(&mut self, now: Instant) {
        let (since, total) = *self.measured.get_or_insert((now, self.arrived_total));
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= MEASURE_FOR {
            self.arrival.push_back((self.arrived_total - total) as f64 / elapsed.as_secs_f64());
            if self.arrival.len() > MEASUREMENTS {
                self.arrival.pop_front();
            }
            self.measured = Some((now, self.arrived_total));
        }
    }

    fn note_round_trip(&mut self, now: Instant, newest: Sent) {
        let round_trip = now.saturating_duration_since(newest.at);
        if self.base_since.is_none_or(|since| now.saturating_duration_since(since) >= BASE_WINDOW) {
            self.base = [None, self.base[0]];
            self.base_since = Some(now);
        }
        let [present, before] = &mut self.base;
        *present = Some(present.map_or(round_trip, |least| least.min(round_trip)));
        if newest.is_unqueued {
            // the path itself takes this long, also if it was faster before
            *before = None;
            *present = Some(round_trip);
        }
        match self.recent.back_mut() {
            Some((at, least)) if now.saturating_duration_since(*at) < NOTE_EVERY => {
                *least = round_trip.min(*least);
            }
            _ => self.recent.push_back((now, round_trip)),
        }
    }

    /// How much longer messages take than on an empty path, for some time at least.
    fn queueing(&mut self, now: Instant) -> Option<Duration> {
        let base = *self.base.iter().flatten().min()?;
        // keep one round trip that is older, so that those that are kept cover the whole time
        while self.recent.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RECENT) {
            self.recent.pop_front();
        }
        let (first, _) = self.recent.front()?;
        let least = self.recent.iter().map(|(_, round_trip)| *round_trip).min()?;
        (now.saturating_duration_since(*first) >= RECENT).then(|| least.saturating_sub(base))
    }

    fn slow_down(&mut self, now: Instant, queueing: Duration) {
        let highest = self.arrival.iter().copied().fold(0.0, f64::max);
        let arrival = if queueing < SEVERE { Some(highest) } else { self.arrival.back().copied() };
        let Some(arrival) = arrival.filter(|arrival| *arrival > 0.0) else { return };
        self.recent.clear();
        let capacity = self.limit.map_or(arrival, |limit| limit.rate.min(arrival));
        let rate = (capacity * BACK_OFF).max(MIN_RATE);
        let needed = self.limit.map_or(now, |limit| limit.needed);
        let paused_until = now + queueing.min(MAX_PAUSE);
        self.limit =
            Some(Limit { rate, capacity, credit: 0.0, updated: now, raised: now, needed, paused_until });
    }

    /// The number of bytes of frames that may be sent now: none, or at least a slice.
    pub(super) fn room(&self, now: Instant) -> usize {
        let Some(limit) = &self.limit else { return usize::MAX };
        let credit = limit.credit_at(now);
        if credit >= limit.slice() && now >= limit.paused_until { credit as usize } else { 0 }
    }

    /// When frames that wait may be sent. Call it while frames wait.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let limit = self.limit.as_ref()?;
        let missing = (limit.slice() - limit.credit).max(0.0) / limit.rate;
        Some((limit.updated + Duration::from_secs_f64(missing)).max(limit.paused_until))
    }

    /// Frames wait for their turn.
    pub(super) fn handle_waiting(&mut self, now: Instant) {
        if let Some(limit) = &mut self.limit {
            limit.needed = now;
        }
    }

    /// The websocket was lost: nothing that was measured holds for the next one.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }
}

impl Limit {
    fn slice(&self) -> f64 {
        (self.rate * SLICE).clamp(MIN_SLICE, MAX_SLICE)
    }

    fn slice_time(&self) -> Duration {
        Duration::from_secs_f64(self.slice() / self.rate)
    }

    fn credit_at(&self, now: Instant) -> f64 {
        let earned = now.saturating_duration_since(self.updated).as_secs_f64() * self.rate;
        (self.credit + earned).min(2.0 * self.slice())
    }

    fn update(&mut self, now: Instant) {
        self.credit = self.credit_at(now);
        self.updated = now;
    }

    /// Raises the rate, slowly near the rate at which messages last queued. Returns false if no limit is needed.
    fn speed_up(&mut self, now: Instant) -> bool {
        self.update(now);
        let elapsed = now.saturating_duration_since(self.raised).as_secs_f64().min(0.5);
        self.raised = now;
        let a_second = match self.rate / self.capacity {
            share if share < 0.95 => 0.2,
            share if share < 1.1 => 0.02,
            share if share < 1.5 => 0.1,
            _ => 0.5,
        };
        self.rate += self.rate * a_second * elapsed;
        now.saturating_duration_since(self.needed) < RELEASE_AFTER
    }
}
