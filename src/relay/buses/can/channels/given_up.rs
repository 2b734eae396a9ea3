//! A bus that stays off.

use std::time::Instant;

use connector_hal::bus::BusState;

use super::CanChannels;
use crate::relay::channel::{ChannelOutput, Output};

impl CanChannels {
    /// The adapter does not return to the bus, which is off. Each channel reports why.
    pub(in crate::relay::buses::can) fn handle_given_up(&mut self, now: Instant) {
        for number in self.channels.keys() {
            let text = "the bus went off three times in 10 s and stays off until it is configured again";
            let output = Output::bus_state(BusState::Off, text);
            self.outputs.push_back(ChannelOutput { channel: *number, at: now, output });
        }
    }
}
