//! The frames that the adapter holds, and their outcomes.

use std::time::{Duration, Instant};

use super::held::{NextFrame, OutstandingFrame, Owner};
use super::{CanChannels, collect};
use crate::protocol::isotp::SendFailure;
use crate::relay::channel::CanChannel;

/// The time after which a frame without an outcome makes the agent reset the adapter: N_As (1 s, ISO 15765-2)
/// and a margin, so that a transfer fails by its own timer first.
const STUCK_AFTER: Duration = Duration::from_millis(1200);
/// The shortest time before a frame that has become too old makes the agent reset the adapter. The value is a
/// compromise: a reset loses the frames that arrive meanwhile, and without it the adapter may still send the
/// frame.
const STALE_AFTER: Duration = Duration::from_millis(100);

impl CanChannels {
    /// The adapter took the frame of [`CanChannels::poll_transmit`].
    pub fn handle_accepted(&mut self, now: Instant) {
        if let Some(NextFrame { owner, expires, frame, .. }) = self.next.take() {
            if let Owner::Channel(number) = owner
                && let Some(channel) = self.channels.get_mut(&number)
            {
                channel.handle_accepted(now, &frame);
            }
            if matches!(owner, Owner::VinReader | Owner::Scanner) {
                self.testers.handle_question(now);
            }
            self.outstanding.push_back(OutstandingFrame { owner, since: now, expires, outcome: None });
        }
    }

    /// The adapter refused the frame for good. Older frames of its owner may still wait for their outcomes.
    pub(crate) fn handle_refused(&mut self, now: Instant) {
        if let Some(next) = self.next.take() {
            self.handle_never_sent(now, next.owner);
        }
    }

    /// The newest frame of this owner will not be sent.
    pub(super) fn handle_never_sent(&mut self, now: Instant, owner: Owner) {
        match owner {
            // all frames of a channel have one format, so the adapter refuses all of them or none
            Owner::Channel(number) => {
                self.handle_channel_outcome(now, now, number, Some(SendFailure::NotAcknowledged));
            }
            Owner::VinReader => {
                if let Some(reader) = &mut self.vin_reader {
                    reader.handle_refused(now);
                    self.end_vin_reader();
                }
            }
            Owner::Scanner => {
                if let Some(scanner) = &mut self.scanner {
                    scanner.handle_refused();
                    self.end_scan();
                }
            }
            Owner::Gone => {}
        }
    }

    /// The oldest frame that the adapter holds has its outcome.
    pub(super) fn handle_outcome(&mut self, now: Instant, at: Instant, failure: Option<SendFailure>) {
        self.handle_outcome_of(now, at, 0, failure);
    }

    /// A frame that the adapter holds has its outcome; `older` frames have none yet. The frames of different channels do
    /// not wait for each other, those of one owner do.
    pub(super) fn handle_outcome_of(
        &mut self,
        now: Instant,
        at: Instant,
        older: usize,
        failure: Option<SendFailure>,
    ) {
        let mut unsettled = self.outstanding.iter_mut().filter(|frame| frame.outcome.is_none());
        if let Some(frame) = unsettled.nth(older) {
            frame.outcome = Some((at, failure));
        }
        while let Some(place) = self.settled_place()
            && let Some(frame) = self.outstanding.remove(place)
            && let Some((at, failure)) = frame.outcome
        {
            self.deliver_outcome(now, at, frame.owner, failure);
        }
    }

    /// The place of a frame with an outcome, before which its owner has no frame.
    fn settled_place(&self) -> Option<usize> {
        let is_first = |place: usize, owner: Owner| {
            self.outstanding.iter().take(place).all(|older| older.owner != owner)
        };
        let mut frames = self.outstanding.iter().enumerate();
        frames.position(|(place, frame)| frame.outcome.is_some() && is_first(place, frame.owner))
    }

    fn deliver_outcome(&mut self, now: Instant, at: Instant, owner: Owner, failure: Option<SendFailure>) {
        match owner {
            Owner::Channel(number) => self.handle_channel_outcome(now, at, number, failure),
            Owner::VinReader => {
                if let Some(reader) = &mut self.vin_reader {
                    match failure {
                        None => reader.handle_transmitted(now),
                        Some(_) => reader.handle_transmit_failed(now),
                    }
                    self.end_vin_reader();
                }
            }
            Owner::Scanner => {
                if let Some(scanner) = &mut self.scanner {
                    match failure {
                        None => scanner.handle_transmitted(now),
                        Some(_) => scanner.handle_transmit_failed(now),
                    }
                    self.end_scan();
                }
            }
            Owner::Gone => {}
        }
    }

    fn handle_channel_outcome(
        &mut self,
        now: Instant,
        at: Instant,
        number: u16,
        failure: Option<SendFailure>,
    ) {
        if let Some(channel) = self.channels.get_mut(&number) {
            match failure {
                None => channel.handle_transmitted(now),
                Some(failure) => channel.handle_transmit_failed(now, failure),
            }
            collect(number, channel, at, &mut self.outputs);
        }
    }

    /// Whether the adapter holds a frame that it cannot send. If so, set the adapter up again and call
    /// [`CanChannels::handle_reset`].
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|at| at <= now)
    }

    pub(super) fn stuck_at(&self) -> Option<Instant> {
        let oldest = self.outstanding.front()?;
        let stuck_at = oldest.since + STUCK_AFTER;
        // a frame that becomes too old does not justify disturbing a transfer that may still succeed
        let would_spoil = self.vin_reader.is_some() || self.channels.values().any(CanChannel::is_sending);
        match oldest.expires {
            Some(expires) if !would_spoil => Some(stuck_at.min(expires.max(oldest.since + STALE_AFTER))),
            _ => Some(stuck_at),
        }
    }

    /// The adapter was set up again, and has discarded all frames. The frame that waited for it fails too.
    pub fn handle_reset(&mut self, now: Instant) {
        self.is_proved = false;
        self.testers.handle_set_up(now);
        let next = self.next.take();
        self.outstanding.extend(next.map(|next| OutstandingFrame {
            owner: next.owner,
            since: now,
            expires: None,
            outcome: None,
        }));
        while !self.outstanding.is_empty() {
            self.handle_outcome(now, now, Some(SendFailure::NotAcknowledged));
        }
        self.reset_kernel_channels(now);
    }

    /// Removes the owner from the frames that the adapter holds, and discards the frame that waits for it.
    pub(super) fn disown(&mut self, owner: Owner) {
        self.next.take_if(|next| next.owner == owner);
        for outstanding in &mut self.outstanding {
            if outstanding.owner == owner {
                outstanding.owner = Owner::Gone;
            }
        }
    }

    /// The bus is off: all frames that wait for it or that the adapter holds fail.
    pub(super) fn fail_all(&mut self, now: Instant) {
        let held = self.outstanding.drain(..).map(|outstanding| outstanding.owner);
        for owner in held.chain(self.next.take().map(|next| next.owner)) {
            // the PDU that an ISO-TP channel is sending fails as a whole, below
            if let Owner::Channel(number) = owner
                && let Some(channel @ CanChannel::Raw(_)) = self.channels.get_mut(&number)
            {
                channel.handle_transmit_failed(now, SendFailure::BusOff);
            }
        }
        self.farewells.clear();
        self.for_each_channel(now, |channel| channel.handle_bus_off(now));
    }
}

#[cfg(test)]
#[path = "outcomes_tests.rs"]
mod tests;
