//! Events of the adapter and of time.

use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::CanEvent;

use super::CanChannels;
use crate::protocol::isotp::SendFailure;
use crate::relay::channel::{Channel, ChannelOutput, Output};

impl CanChannels {
    /// What the adapter reports.
    pub fn handle_event(&mut self, now: Instant, event: &CanEvent) {
        match event {
            CanEvent::Received { frame, at } => {
                let is_kernels = self.is_kernels(*at, frame);
                self.for_each_channel(*at, |channel| {
                    // a raw channel does not receive frames of its own connection
                    if !is_kernels || !matches!(channel, Channel::Raw(_)) {
                        channel.handle_frame(now, frame);
                    }
                });
                if let Some(reader) = self.vin_reader.as_mut().filter(|_| !is_kernels) {
                    reader.handle_frame(now, frame);
                    self.end_vin_reader();
                }
                if let Some(scanner) = &mut self.scanner {
                    scanner.handle_frame(now, frame);
                    self.end_scan();
                }
            }
            CanEvent::Transmitted { at } => self.handle_outcome(now, *at, None),
            CanEvent::TransmitFailed { at } => {
                self.handle_outcome(now, *at, Some(SendFailure::NotAcknowledged))
            }
            CanEvent::State(state) => self.handle_state(now, *state),
            CanEvent::Lost(frames) => self.for_each_channel(now, |channel| channel.handle_lost(*frames)),
        }
    }

    /// The bus changed state; going off, everything that waits for it is thrown away, and its channels are told.
    pub fn handle_state(&mut self, now: Instant, state: BusState) {
        if self.state == state {
            return;
        }
        self.state = state;
        let text = match state {
            BusState::Active => "the bus is active",
            BusState::Passive => "the bus is error passive",
            BusState::Off => "the bus is off",
        };
        if state == BusState::Off {
            self.throw_away_all(now);
        }
        if let Some(reader) = &mut self.vin_reader {
            reader.handle_bus_state(now, state);
            self.end_vin_reader();
        }
        if state == BusState::Off
            && let Some(scanner) = &mut self.scanner
        {
            scanner.handle_bus_off();
            self.end_scan();
        }
        for number in self.channels.keys() {
            let output = Output::bus_state(state, text);
            self.outputs.push_back(ChannelOutput { channel: *number, at: now, output });
        }
    }
}
