//! The gate before programming services: closed until the VIN is confirmed. A pure state machine.
//!
//! What asks for a programming service waits here while the VIN is read, and with it everything that the operator sends
//! behind it on the same channel.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use crate::relay::wire::codec::{Payload, PduFlags, Record};

/// The longest time that a programming service waits. A reading takes up to 1.5 s, after at most as long a wait for quiet
/// channels; testers wait 5 s after response pending (P2*).
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The number of records that may wait, of all channels: as many as wait on one channel.
const MAX_RECORDS: usize = 64;
/// The number of bytes that may wait, of all channels: as many as wait on one channel.
const MAX_BYTES: usize = 512 * 1024;

/// Why the VIN is not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VinObstacle {
    /// The reading has not ended in time.
    NotReadYet,
    /// None of the buses can read it.
    NoBus,
    /// The channels were in use for the whole time of the reading.
    ChannelsInUse,
    /// Another tester is on the bus.
    OtherTester,
    /// No node acknowledges frames.
    NotAcknowledged,
    /// The operator has muted what the connector sends on its own account.
    Muted,
    /// The ignition is off, and no ECU reports a VIN.
    IgnitionOff,
    /// No ECU reports a VIN.
    NotReported,
    /// The vehicle has another VIN.
    AnotherVin,
}

impl VinObstacle {
    /// Why a programming service is refused, and what to do, in words.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::NotReadYet => {
                "the VIN is not read yet, and no programming service is sent before: send again"
            }
            Self::NoBus => {
                "no bus of the connection can read the VIN, which must be confirmed before programming: open a channel \
                 to an ECU, or another bus, and send again"
            }
            Self::ChannelsInUse => {
                "the channels were in use, so that the VIN could not be read, which must be confirmed before \
                 programming: pause on all channels for a second, and send again"
            }
            Self::OtherTester => {
                "another tester is in use, so that the VIN was not read, which must be confirmed before programming: \
                 disconnect the other tester, and send again"
            }
            Self::NotAcknowledged => {
                "no ECU is awake to report the VIN, which must be confirmed before programming: switch the ignition \
                 on, and send again"
            }
            Self::Muted => {
                "the connector is muted, so that the VIN is not read, which must be confirmed before programming: send \
                 unmuteLocals, and send again"
            }
            Self::IgnitionOff => {
                "the ignition is off and no ECU reports a VIN, which must be confirmed before programming: switch the \
                 ignition on, and send again"
            }
            Self::NotReported => {
                "no ECU reports a VIN, which must be confirmed before programming: to program such a vehicle, open the \
                 connection without a VIN"
            }
            Self::AnotherVin => "the vehicle has another VIN than the connection is meant for",
        }
    }
}

/// Whether programming services may be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum GateState {
    /// No VIN was required, or the vehicle has confirmed it.
    #[default]
    Open,
    /// The vehicle has not confirmed the VIN.
    Closed,
    /// The vehicle has not confirmed the VIN, and it has to be read.
    Wanted,
}

/// A record of the operator that waits.
#[derive(Debug)]
pub(super) struct WaitingRecord {
    pub(super) channel: u16,
    content: Content,
    /// Until when the record may be sent.
    pub(super) expires: Instant,
    /// Until when the record waits if it asks for a programming service.
    until: Instant,
    pub(super) is_programming: bool,
}

#[derive(Debug)]
enum Content {
    Frame(CanFrame),
    Pdu { address: u32, flags: PduFlags, data: Vec<u8> },
}

impl WaitingRecord {
    /// The record as it arrived.
    pub(super) fn record(&self) -> Record<'_> {
        let payload = match &self.content {
            Content::Frame(frame) => Payload::Frame(*frame),
            Content::Pdu { address, flags, data } => Payload::Pdu { address: *address, flags: *flags, data },
        };
        Record { channel: self.channel, offset: 0, payload }
    }

    /// Whether the record is too old to be sent. A chained PDU waits on purpose.
    pub(super) fn is_too_old(&self, now: Instant) -> bool {
        let is_chained = matches!(self.content, Content::Pdu { flags: PduFlags { chained: true, .. }, .. });
        !is_chained && self.expires < now
    }

    fn len(&self) -> usize {
        match &self.content {
            Content::Frame(frame) => frame.data().len(),
            Content::Pdu { data, .. } => data.len(),
        }
    }
}

/// The gate before programming services, and what waits there.
#[derive(Debug, Default)]
pub(super) struct VinGate {
    /// The connection is meant for a certain vehicle.
    is_required: bool,
    state: GateState,
    waiting: VecDeque<WaitingRecord>,
    bytes: usize,
    /// Channels of which a PDU was refused because too many wait, and its flags.
    overflowed: Vec<(u16, PduFlags)>,
}

impl VinGate {
    /// The VIN has to be confirmed from now on.
    pub(super) fn require(&mut self) {
        self.is_required = true;
        self.state = GateState::Closed;
    }

    /// The vehicle may be another one: the VIN has to be confirmed again, if that was required.
    pub(super) fn handle_returned(&mut self) {
        if self.is_required {
            self.state = GateState::Closed;
        }
    }

    /// The VIN is confirmed.
    pub(super) fn open(&mut self) {
        self.state = GateState::Open;
    }

    /// Whether programming services may be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state == GateState::Open
    }

    /// Whether a VIN was required, and the vehicle has confirmed it.
    pub(super) fn is_confirmed(&self) -> bool {
        self.is_required && self.is_open()
    }

    /// The VIN has to be read.
    pub(super) fn want(&mut self) {
        self.state = GateState::Wanted;
    }

    /// Whether the VIN has to be read, since the last call of this method.
    pub(super) fn take_wanted(&mut self) -> bool {
        let is_wanted = self.state == GateState::Wanted;
        if is_wanted {
            self.state = GateState::Closed;
        }
        is_wanted
    }

    /// Whether a record that asks for no programming service has to wait, because an earlier one of its channel does.
    pub(super) fn has_waiting(&self, channel: u16) -> bool {
        self.waiting.iter().any(|waiting| waiting.channel == channel)
            || self.overflowed.iter().any(|(overflowed, _)| *overflowed == channel)
    }

    /// Keeps a record until the VIN is confirmed. Returns false if there is no room.
    pub(super) fn push(
        &mut self,
        now: Instant,
        record: &Record<'_>,
        expires: Instant,
        is_programming: bool,
    ) -> bool {
        let content = match record.payload {
            Payload::Frame(frame) => Content::Frame(frame),
            Payload::Pdu { address, flags, data } => {
                let has_overflowed = self.overflowed.iter().any(|(channel, _)| *channel == record.channel);
                if has_overflowed || self.bytes + data.len() > MAX_BYTES || self.waiting.len() >= MAX_RECORDS
                {
                    if !has_overflowed {
                        self.overflowed.push((record.channel, flags));
                    }
                    return false;
                }
                Content::Pdu { address, flags, data: data.to_vec() }
            }
            _ => return false,
        };
        if self.waiting.len() >= MAX_RECORDS {
            return false;
        }
        let until = expires.min(now + MAX_WAIT);
        let waiting = WaitingRecord { channel: record.channel, content, expires, until, is_programming };
        self.bytes += waiting.len();
        self.waiting.push_back(waiting);
        true
    }

    /// Discards what waits on a channel that is closed.
    pub(super) fn discard(&mut self, channel: u16) {
        self.waiting.retain(|waiting| waiting.channel != channel);
        self.overflowed.retain(|(overflowed, _)| *overflowed != channel);
        self.bytes = self.waiting.iter().map(WaitingRecord::len).sum();
    }

    /// When [`VinGate::take_due`] returns a record by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.iter().filter(|waiting| waiting.is_programming).map(|waiting| waiting.until).min()
    }

    /// All records, in order. The VIN is confirmed, or cannot be.
    pub(super) fn take_all(&mut self) -> VecDeque<WaitingRecord> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }

    /// The records that have waited long enough, and those behind them on their channels, in order.
    pub(super) fn take_due(&mut self, now: Instant) -> VecDeque<WaitingRecord> {
        if self.due().is_none_or(|due| due > now) {
            return VecDeque::new();
        }
        let mut taken = VecDeque::new();
        let mut blocked: Vec<u16> = Vec::new();
        for waiting in self.take_all() {
            let is_blocked = blocked.contains(&waiting.channel);
            if is_blocked || waiting.is_programming && waiting.until > now {
                if !is_blocked {
                    blocked.push(waiting.channel);
                }
                self.bytes += waiting.len();
                self.waiting.push_back(waiting);
            } else {
                taken.push_back(waiting);
            }
        }
        taken
    }

    /// The channels on which nothing waits any more, and of which a PDU was refused because too many waited.
    pub(super) fn take_overflowed(&mut self) -> Vec<(u16, PduFlags)> {
        let waiting = &self.waiting;
        let still_waits = |channel: u16| waiting.iter().any(|waiting| waiting.channel == channel);
        self.overflowed.extract_if(.., |(channel, _)| !still_waits(*channel)).collect()
    }
}
