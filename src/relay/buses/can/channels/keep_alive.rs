//! TesterPresent waits while any channel is in the middle of an exchange with the ECU: S3 does not run then
//! (ISO 14229-2), and an ECU that is busy with a request may have no buffer for another one.

use std::time::Instant;

use connector_hal::bus::BusState;

use super::{CanChannels, collect};
use crate::relay::channel::KeepAliveHold;

impl CanChannels {
    /// Why TesterPresent on this channel waits for others.
    pub(super) fn keep_alive_hold(&self, number: u16) -> KeepAliveHold {
        let mut hold = KeepAliveHold::default();
        if let Some(target) = self.channels.get(&number).and_then(|channel| channel.kept_alive()) {
            let others = self.channels.iter().filter(|(other, _)| **other != number);
            others.for_each(|(_, other)| other.hold_keep_alive(target, &mut hold));
        }
        hold
    }

    /// Handles the deadlines of a channel.
    pub(super) fn handle_channel_timeout(&mut self, now: Instant, number: u16) {
        let hold = self.keep_alive_hold(number);
        let is_off = self.state == BusState::Off;
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let timeouts = [channel.poll_timeout(hold), channel.busy_until()];
        if timeouts.into_iter().flatten().any(|at| at <= now) {
            channel.handle_timeout(now, hold);
            if is_off && channel.is_sending() {
                channel.handle_bus_off(now);
            }
        }
        collect(number, channel, now, &mut self.outputs);
    }
}
