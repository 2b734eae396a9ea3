//! The link of a connection: numbering, acknowledging, keeping and resuming (relay protocol, section 4).
//!
//! [`Link`] is a pure state machine, which runs on both ends of a connection.

mod arena;
mod clock;
mod frame_queue;
mod outbox;
mod pacer;
mod peer_clock;
mod records;
mod resume;

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::relay::wire::codec::{CodecError, Header, Payload, Record, Records, Tag};
use outbox::Outbox;
use pacer::Pacer;
use peer_clock::{Echo, PeerClock};

pub use outbox::KEPT_LIMIT;

/// The time after which an acknowledgement is sent alone at the latest: half of the 200 ms of the relay
/// protocol (section 4.3), so that a late timer does not exceed them.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// The received bytes after which an acknowledgement is sent immediately, so that the peer can discard the
/// messages that it keeps: an eighth of what the peer may keep.
const ACK_BYTES: usize = 256 * 1024;
/// The time after which the next message has a `clock` record again: less than the second of the relay protocol
/// (section 4.4), because acknowledgements are up to [`ACK_DELAY`] apart.
const CLOCK_EVERY: Duration = Duration::from_millis(800);

/// The end of a connection at which a link runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The end at the vehicle. It sends frames again after an interruption, and drops the oldest ones at the
    /// limit.
    Connector,
    /// The end of the operator. It never sends a frame to the vehicle twice.
    Operator,
}

/// Why a record could not be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Messages that must not be dropped have reached the limit.
    #[error(
        "the messages that wait for an acknowledgement reach their limit, or all message numbers are used"
    )]
    Overflow,
}

/// Why a message of the peer, or the number in its resuming message, is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The message cannot be decoded.
    #[error("message {seq}: {source}")]
    Codec {
        /// The number of the message; 0 if its header cannot be decoded.
        seq: u32,
        /// Why the message cannot be decoded.
        source: CodecError,
    },
    /// A message is missing before this one.
    #[error("message {found} arrived, but message {expected} was expected")]
    Gap {
        /// The number that was expected.
        expected: u32,
        /// The number of the message that arrived.
        found: u32,
    },
    /// The peer acknowledges a message that was never sent.
    #[error("the peer acknowledges message {acknowledged}, but the last message sent is {sent}")]
    Acknowledgement {
        /// The number that the peer acknowledges.
        acknowledged: u32,
        /// The number of the last message sent.
        sent: u32,
    },
    /// The peer lacks messages that it has acknowledged before, so that they are no longer kept.
    #[error("the peer has messages up to {received}, but messages up to {forgotten} are no longer kept")]
    Forgotten {
        /// The highest number that the peer has received in order.
        received: u32,
        /// The highest number that is no longer kept.
        forgotten: u32,
    },
}

/// One end of a relay connection, which survives the loss of its websocket (relay protocol, section 4).
///
/// A link numbers the messages it sends, keeps them until the peer acknowledges them, and acknowledges those
/// of the peer. After the loss of a websocket, each end reports how far it has received, and the other sends
/// the rest again.
///
/// Both ends also measure each other's clock, so that the connector knows how old a message is (section 4.4).
///
/// A link is a pure state machine: it does no I/O and reads no clock. Its methods fall into four groups:
///
/// - Getters such as [`received`](Self::received) have no effect.
/// - [`handle_message`](Self::handle_message) takes a binary message of the peer and returns its records if
///   it is new.
/// - [`push`](Self::push) queues a record; [`interrupt`](Self::interrupt) and [`resume`](Self::resume) report
///   that the websocket was lost and that another one continues the connection.
/// - `poll_*` methods return the messages to send, and the time of the next timeout.
///
/// After every call of a method of the second or third group:
///
/// 1. While the websocket accepts a message, call [`poll_message`](Self::poll_message) and send the message,
///    until it returns `None`. Records that are queued meanwhile share a message, so do not call it earlier.
/// 2. Call [`poll_timeout`](Self::poll_timeout) and wait until that time, or until something happens. There
///    is nothing to call at the timeout: `poll_message` then returns the acknowledgement that is due.
///
/// After an error of `push` or `resume`, the connection must be closed; an error of `handle_message` refuses
/// one message. `now` never decreases from one call to the next.
///
/// # Example
///
/// A request from the operator to the connector in virtual time. The websocket is lost before the answer
/// arrives.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use connector_agent::relay::link::{Link, Role};
/// use connector_agent::relay::wire::codec::{Payload, PduFlags, Tag};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tag = Tag([1, 2, 3, 4]);
/// let mut now = Instant::now();
/// let mut operator = Link::new(Role::Operator, tag, now);
/// let mut connector = Link::new(Role::Connector, tag, now);
/// let pdu = |data| Payload::Pdu { address: 0, flags: PduFlags::default(), data };
///
/// operator.push(now, now, 1, pdu(&[0x22, 0xF1, 0x90]))?;
/// while let Some(message) = operator.poll_message(now) {
///     let incoming = connector.handle_message(now, &message)?.ok_or("the message is not new")?;
///     let record = incoming.records().next().ok_or("the message has no record")?;
///     assert_eq!((record.channel, record.payload), (1, pdu(&[0x22, 0xF1, 0x90])));
/// }
///
/// // the message with the answer is lost together with the websocket
/// connector.push(now, now, 1, pdu(&[0x62, 0xF1, 0x90]))?;
/// let lost = connector.poll_message(now);
/// assert!(lost.is_some() && !connector.is_all_acknowledged());
/// operator.interrupt();
/// connector.interrupt();
/// assert_eq!(connector.poll_message(now), None);
///
/// // over the next websocket, each end reports how far it has received, and the other sends the rest again
/// now += Duration::from_secs(3);
/// operator.resume(now, connector.received())?;
/// connector.resume(now, operator.received())?;
/// let mut answers = 0;
/// while let Some(message) = connector.poll_message(now) {
///     if let Some(incoming) = operator.handle_message(now, &message)? {
///         answers += incoming.records().count();
///     }
/// }
/// assert_eq!(answers, 1);
///
/// // the acknowledgement goes out alone, because there is nothing else to send
/// assert!(!operator.wants_to_send(now));
/// now = operator.poll_timeout().ok_or("no acknowledgement is due")?;
/// while let Some(message) = operator.poll_message(now) {
///     assert!(connector.handle_message(now, &message)?.is_none());
/// }
/// assert!(connector.is_all_acknowledged() && operator.is_all_acknowledged());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Link {
    role: Role,
    opened: Instant,
    outbox: Outbox,
    pacer: Pacer,
    /// Between [`Link::interrupt`] and [`Link::resume`], nothing is sent.
    is_up: bool,
    /// The highest number received in order.
    received: u32,
    /// The highest number that was acknowledged to the peer.
    acknowledged: u32,
    ack_due: Option<Instant>,
    unacknowledged_bytes: usize,
    peer_clock: PeerClock,
    /// The peer's clock is another one since the last call of [`Link::take_other_clock`].
    has_other_clock: bool,
    /// When a `clock` record was last sent on this websocket.
    clock_sent: Option<Instant>,
    /// Whether a `clock` record is sent although there is nothing else to send.
    is_clock_announced: bool,
}

impl Link {
    /// The link of a connection that is opened now. The link is up.
    pub fn new(role: Role, tag: Tag, now: Instant) -> Self {
        Self {
            role,
            opened: now,
            outbox: Outbox::new(tag),
            pacer: Pacer::new(),
            is_up: true,
            received: 0,
            acknowledged: 0,
            ack_due: None,
            unacknowledged_bytes: 0,
            peer_clock: PeerClock::new(),
            has_other_clock: false,
            clock_sent: None,
            is_clock_announced: false,
        }
    }

    /// Sets the limit of the messages that are kept, in bytes; [`KEPT_LIMIT`] by default.
    #[must_use]
    pub fn with_kept_limit(mut self, limit: usize) -> Self {
        self.outbox.set_kept_limit(limit);
        self
    }

    /// The highest number received in order, as `connectorHello` and the resuming messages report it.
    pub fn received(&self) -> u32 {
        self.received
    }

    /// Whether messages may be sent: false between [`Link::interrupt`] and [`Link::resume`].
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// The size of the messages that are kept, in bytes. A sender that can wait should stay well below
    /// [`KEPT_LIMIT`].
    pub fn kept_bytes(&self) -> usize {
        self.outbox.kept_bytes()
    }

    /// Whether everything that was pushed has been acknowledged.
    pub fn is_all_acknowledged(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Whether no message was sent or received yet, so that a lost websocket has lost none.
    pub(crate) fn is_unused(&self) -> bool {
        self.received == 0 && self.outbox.last_seq() == 0
    }

    /// Queues a record about something that happened at `at`.
    ///
    /// Frames wait apart from all other records, which go ahead of them. A frame that has waited for a second
    /// while the link is up, and the oldest frames beyond 128 KiB, are dropped. When the limit of the messages
    /// that are kept is reached, the oldest frames in them are dropped. A `gap` event in the place of dropped frames
    /// reports their number. If there are no frames to drop, the record is refused, and the connection must be
    /// closed.
    pub fn push(
        &mut self,
        now: Instant,
        at: Instant,
        channel: u16,
        payload: Payload<'_>,
    ) -> Result<(), PushError> {
        let (clock, at) = (self.clock(now), self.clock(at));
        if matches!(payload, Payload::Frame(_)) {
            if self.pacer.room(now) == 0 {
                self.pacer.handle_waiting(now);
            }
            if self.is_up {
                self.outbox.drop_late_frames(clock);
            }
        }
        self.outbox.push(clock, at, channel, payload).map_err(|_| PushError::Overflow)
    }

    /// Whether [`Link::poll_message`] would return a message.
    pub fn wants_to_send(&self, now: Instant) -> bool {
        let is_ack_due = self.ack_due.is_some_and(|due| due <= now);
        self.is_up && (self.is_clock_announced || is_ack_due || self.outbox.has_unsent(self.pacer.room(now)))
    }

    /// When [`Link::wants_to_send`] becomes true by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let frames = self.outbox.has_frames_waiting().then(|| self.pacer.poll_timeout()).flatten();
        [self.ack_due, frames].into_iter().flatten().min().filter(|_| self.is_up)
    }

    /// The next message for the socket; call it only when the socket can take one.
    pub fn poll_message(&mut self, now: Instant) -> Option<Bytes> {
        if !self.wants_to_send(now) {
            return None;
        }
        let clock = self.clock(now);
        self.acknowledged = self.received;
        self.ack_due = None;
        self.unacknowledged_bytes = 0;
        let room = self.pacer.room(now);
        let echo = self.take_echo(now);
        let sent = if echo.is_none() || self.outbox.takes_clock() {
            self.outbox.next_message(clock, self.received, room, echo)
        } else {
            // the next message was sealed before, so that the clock goes ahead of it
            None
        };
        let Some(sent) = sent else {
            return Some(self.outbox.acknowledgement(clock, self.received, echo));
        };
        self.pacer.handle_sent(now, &sent);
        Some(sent.bytes)
    }

    /// Handles a message of the peer. Returns `None` if the message is not new, or belongs to another
    /// connection.
    ///
    /// A message with a record that cannot be decoded is refused as a whole, but counts as received, so that
    /// it does not block the messages behind it.
    pub fn handle_message<'a>(
        &mut self,
        now: Instant,
        message: &'a [u8],
    ) -> Result<Option<Incoming<'a>>, LinkError> {
        let header = Header::decode(message).map_err(|source| LinkError::Codec { seq: 0, source })?;
        if header.tag != self.outbox.tag() {
            return Ok(None);
        }
        self.handle_acknowledgement(now, header.ack)?;
        let records = Records::new(message, &header);
        if header.seq == 0 {
            let (echo, _) = check(&records);
            self.peer_clock.handle_message(self.clock(now), header.time, echo);
            return Ok(None);
        }
        if header.seq <= self.received {
            // the acknowledgement may have been lost
            self.ack_due.get_or_insert(now + ACK_DELAY);
            return Ok(None);
        }
        let expected = self.received.saturating_add(1);
        if header.seq != expected {
            return Err(LinkError::Gap { expected, found: header.seq });
        }
        self.received = header.seq;
        self.unacknowledged_bytes += message.len();
        let due = if self.unacknowledged_bytes >= ACK_BYTES { now } else { now + ACK_DELAY };
        self.ack_due = Some(self.ack_due.map_or(due, |earlier| earlier.min(due)));
        let (echo, error) = check(&records);
        self.has_other_clock |= self.peer_clock.handle_numbered(header.time);
        self.peer_clock.handle_message(self.clock(now), header.time, echo);
        match error {
            Some(source) => Err(LinkError::Codec { seq: header.seq, source }),
            None => Ok(Some(Incoming { age: self.age(now, header.time), time: header.time, records })),
        }
    }

    fn handle_acknowledgement(&mut self, now: Instant, acknowledged: u32) -> Result<(), LinkError> {
        let sent = self.outbox.last_seq();
        if acknowledged > sent {
            return Err(LinkError::Acknowledgement { acknowledged, sent });
        }
        self.outbox.acknowledge(acknowledged);
        self.pacer.handle_acknowledged(now, acknowledged);
        Ok(())
    }
}

/// A new message of the peer, with its age.
#[derive(Debug)]
pub struct Incoming<'a> {
    age: Duration,
    time: u64,
    records: Records<'a>,
}

impl<'a> Incoming<'a> {
    /// The records, in order, except those of the clock. Each of them has been checked.
    pub fn records(&self) -> impl Iterator<Item = Record<'a>> + use<'a> {
        let records = self.records.clone().filter_map(Result::ok);
        records.filter(|record| !matches!(record.payload, Payload::Clock { .. }))
    }

    /// The age of a record: the age of the message, and the time that the record waited before the message
    /// was sealed.
    pub fn age_of(&self, record: &Record<'_>) -> Duration {
        self.age.saturating_add(Duration::from_micros(waited(record)))
    }

    /// The peer's clock when a record began to wait for its message, in µs; see [`Link::age`].
    pub(crate) fn time_of(&self, record: &Record<'_>) -> u64 {
        self.time.saturating_sub(waited(record))
    }
}

/// How long a record waited before its message was sealed, in µs.
fn waited(record: &Record<'_>) -> u64 {
    u64::from(record.offset.min(0).unsigned_abs())
}

/// The content of the `clock` record among these records, and the first record that cannot be decoded.
fn check(records: &Records<'_>) -> (Option<Echo>, Option<CodecError>) {
    let mut found = None;
    for record in records.clone() {
        match record {
            Ok(Record { payload: Payload::Clock { echo, hold }, .. }) => found = Some(Echo { echo, hold }),
            Ok(_) => {}
            Err(error) => return (found, Some(error)),
        }
    }
    (found, None)
}
