//! Whose frame goes next, and what becomes of those that the adapter holds.

use std::ops::Bound;
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::CanFrame;

use super::{BusCore, collect};
use crate::protocol::isotp::SendFailure;
use crate::relay::channel::Channel;

/// Frames that the adapter may hold without an outcome.
pub(in crate::relay) const WINDOW: usize = 8;
/// How long a frame may stay without an outcome before the adapter is made to forget it: N_As, and a little.
const STUCK_AFTER: Duration = Duration::from_millis(1200);
/// The same for frames that may not be sent late, once they are too old; not at once, as making the adapter forget them
/// costs what comes in meanwhile.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// Whose frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Channel(u16),
    VinReader,
    Scanner,
    /// A channel that was closed since.
    Gone,
}

/// A frame that waits for the adapter to have room.
#[derive(Debug)]
pub(super) struct Next {
    owner: Owner,
    frame: CanFrame,
    /// Until when it may be sent.
    expires: Option<Instant>,
}

/// A frame that the adapter holds.
#[derive(Debug)]
pub(super) struct Outstanding {
    owner: Owner,
    since: Instant,
    expires: Option<Instant>,
}

impl BusCore {
    /// The frame to hand to the adapter now; it stays the same until [`BusCore::handle_accepted`].
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.discard_stale_next(now);
        if self.next.is_none() && self.state != BusState::Off && self.outstanding.len() < WINDOW {
            self.next = self.next_frame(now);
        }
        self.next.as_ref().map(|next| next.frame)
    }

    /// The frame that waits for room may have waited too long.
    fn discard_stale_next(&mut self, now: Instant) {
        let stale = self.next.take_if(|next| next.expires.is_some_and(|expires| expires < now));
        if let Some(Next { owner: Owner::Channel(number), .. }) = stale
            && let Some(channel) = self.channels.get_mut(&number)
        {
            channel.handle_too_old();
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// The next channel's number, round about.
    fn turn_after(&self, number: u16) -> Option<u16> {
        let mut after = self.channels.range((Bound::Excluded(number), Bound::Unbounded));
        after.next().or_else(|| self.channels.iter().next()).map(|(number, _)| *number)
    }

    /// Asks the channels in turn, the VIN reader and a scan last.
    fn next_frame(&mut self, now: Instant) -> Option<Next> {
        if let Some(frame) = self.farewells.pop_front() {
            return Some(Next { owner: Owner::Gone, frame, expires: None });
        }
        let mut number = self.turn_after(self.last_turn);
        for _ in 0..self.channels.len() {
            let turn = number?;
            while let Some((frame, expires)) = self.poll_channel(now, turn) {
                if self.is_given_by_another(turn, &frame) {
                    self.handle_not_needed(now, turn);
                } else {
                    self.last_turn = turn;
                    return Some(Next { owner: Owner::Channel(turn), frame, expires });
                }
            }
            number = self.turn_after(turn);
        }
        if let Some(frame) = self.vin_reader.as_mut().and_then(|reader| reader.poll_transmit(now)) {
            return Some(Next { owner: Owner::VinReader, frame, expires: None });
        }
        let channels = &self.channels;
        let is_busy = |request| channels.values().any(|channel| channel.is_busy_with(request));
        let frame = self.scanner.as_mut()?.poll_transmit(now, is_busy)?;
        Some(Next { owner: Owner::Scanner, frame, expires: None })
    }

    fn poll_channel(&mut self, now: Instant, number: u16) -> Option<(CanFrame, Option<Instant>)> {
        let channel = self.channels.get_mut(&number)?;
        let frame = channel.poll_transmit(now);
        collect(number, channel, now, &mut self.outputs);
        frame
    }

    /// Whether it is the flow control of a functional channel for an answer that another channel receives too, and
    /// meets with its own: an ECU is to get one.
    fn is_given_by_another(&self, number: u16, frame: &CanFrame) -> bool {
        self.channels.get(&number).is_some_and(|channel| channel.is_functional_flow_control(frame))
            && self.channels.values().any(|channel| channel.is_receiving_from(frame.id()))
    }

    fn handle_not_needed(&mut self, now: Instant, number: u16) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.handle_transmitted(now);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// The adapter took the frame.
    pub fn handle_accepted(&mut self, now: Instant) {
        if let Some(Next { owner, expires, .. }) = self.next.take() {
            self.outstanding.push_back(Outstanding { owner, since: now, expires });
        }
    }

    /// The adapter refused the frame, and will not take it later either.
    pub fn handle_refused(&mut self, now: Instant) {
        if let Some(Next { owner, expires, .. }) = self.next.take() {
            // its outcome is the newest: it gets it at once, ahead of those before it, whose owners do not mix theirs
            self.outstanding.push_front(Outstanding { owner, since: now, expires });
            self.handle_outcome(now, now, Some(SendFailure::NotAcknowledged));
        }
    }

    pub(super) fn handle_outcome(&mut self, now: Instant, at: Instant, failure: Option<SendFailure>) {
        match self.outstanding.pop_front().map(|outstanding| outstanding.owner) {
            Some(Owner::Channel(number)) => {
                if let Some(channel) = self.channels.get_mut(&number) {
                    match failure {
                        None => channel.handle_transmitted(now),
                        Some(failure) => channel.handle_transmit_failed(now, failure),
                    }
                    collect(number, channel, at, &mut self.outputs);
                }
            }
            Some(Owner::VinReader) => {
                if let Some(reader) = &mut self.vin_reader {
                    match failure {
                        None => reader.handle_transmitted(now),
                        Some(_) => reader.handle_transmit_failed(now),
                    }
                    self.end_vin_reader();
                }
            }
            Some(Owner::Scanner) => {
                if let Some(scanner) = &mut self.scanner {
                    match failure {
                        None => scanner.handle_transmitted(now),
                        Some(_) => scanner.handle_transmit_failed(now),
                    }
                    self.end_scan();
                }
            }
            Some(Owner::Gone) | None => {}
        }
    }

    /// Whether the adapter holds a frame that it cannot get rid of; it should be set up anew, then
    /// [`BusCore::handle_reset`] called.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|at| at <= now)
    }

    pub(super) fn stuck_at(&self) -> Option<Instant> {
        let oldest = self.outstanding.front()?;
        let stuck_at = oldest.since + STUCK_AFTER;
        // a frame that goes stale is no reason to spoil a transfer that may still get through
        let would_spoil = self.vin_reader.is_some() || self.channels.values().any(Channel::is_sending);
        match oldest.expires {
            Some(expires) if !would_spoil => Some(stuck_at.min(expires.max(oldest.since + STALE_AFTER))),
            _ => Some(stuck_at),
        }
    }

    /// The adapter is set up anew, and forgets every frame; one that it had no room for is too old by now.
    pub fn handle_reset(&mut self, now: Instant) {
        let next = self.next.take();
        self.outstanding.extend(next.map(|next| Outstanding {
            owner: next.owner,
            since: now,
            expires: None,
        }));
        while !self.outstanding.is_empty() {
            self.handle_outcome(now, now, Some(SendFailure::NotAcknowledged));
        }
        self.reset_kernels(now);
    }

    /// Forgets whose frames those are that the adapter still holds, and the one that it does not hold yet.
    pub(super) fn disown(&mut self, owner: Owner) {
        self.next.take_if(|next| next.owner == owner);
        for outstanding in &mut self.outstanding {
            if outstanding.owner == owner {
                outstanding.owner = Owner::Gone;
            }
        }
    }

    /// The bus is off: nothing that waits for it, or that the adapter holds, will be sent.
    pub(super) fn throw_away_all(&mut self, now: Instant) {
        let held = self.outstanding.drain(..).map(|outstanding| outstanding.owner);
        for owner in held.chain(self.next.take().map(|next| next.owner)) {
            // what an ISO-TP channel has under way fails as a whole, below
            if let Owner::Channel(number) = owner
                && let Some(channel @ Channel::Raw(_)) = self.channels.get_mut(&number)
            {
                channel.handle_transmit_failed(now, SendFailure::BusOff);
            }
        }
        self.farewells.clear();
        self.for_each_channel(now, |channel| channel.handle_bus_off(now));
    }
}
