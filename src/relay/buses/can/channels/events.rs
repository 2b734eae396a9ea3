//! The events of the adapter.

use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::CanEvent;

use super::CanChannels;
use crate::protocol::isotp::SendFailure;
use crate::protocol::uds::OBD_CURRENT_DATA;
use crate::relay::channel::{CanChannel, ChannelOutput, Output};

impl CanChannels {
    /// Handles an event of the adapter.
    pub fn handle_event(&mut self, now: Instant, event: &CanEvent) {
        match event {
            CanEvent::Received { frame, at } => {
                self.is_proved |= !frame.is_error();
                let is_from_kernel = self.is_from_kernel(*at, frame);
                let is_own_answer = !is_from_kernel && self.report_heard(now, frame);
                if is_own_answer {
                    self.for_each_channel(*at, |channel| channel.handle_policy_change(now));
                }
                self.for_each_channel(*at, |channel| {
                    // a raw channel does not receive frames that its own connection sent
                    let is_hidden = is_own_answer && !channel.awaits(now, OBD_CURRENT_DATA);
                    if !is_hidden && (!is_from_kernel || !matches!(channel, CanChannel::Raw(_))) {
                        channel.handle_frame(now, frame);
                    }
                });
                // an ECU must get only one flow control
                let is_covered = self.channels.values().any(|channel| channel.is_receiving_from(frame));
                if is_covered {
                    self.channels.values_mut().for_each(|channel| channel.skip_flow_control(now, frame));
                }
                let may_be_ours = is_from_kernel || is_own_answer || self.note_tester(now, frame);
                if let Some(reader) = self.vin_reader.as_mut().filter(|_| !is_from_kernel) {
                    reader.set_shares_bus(may_be_ours || self.scanner.is_some());
                    reader.handle_frame(now, frame);
                    if is_covered {
                        reader.skip_flow_control(now, frame);
                    }
                    self.end_vin_reader();
                }
                if let Some(scanner) = self.scanner.as_mut().filter(|_| !is_from_kernel) {
                    scanner.set_shares_bus(may_be_ours || self.vin_reader.is_some());
                    scanner.handle_frame(now, frame);
                    self.end_scan();
                }
            }
            CanEvent::Transmitted { at } => {
                self.is_proved = true;
                self.handle_outcome(now, *at, None);
            }
            CanEvent::TransmitFailed { at } => {
                self.handle_outcome(now, *at, Some(SendFailure::NotAcknowledged))
            }
            CanEvent::Overtaking { older, is_transmitted, at } => {
                self.is_proved |= *is_transmitted;
                let failure = (!is_transmitted).then_some(SendFailure::NotAcknowledged);
                self.handle_outcome_of(now, *at, *older, failure);
            }
            CanEvent::State(state) => self.handle_state(now, *state),
            CanEvent::Lost(frames) => self.for_each_channel(now, |channel| channel.handle_lost(*frames)),
        }
    }

    /// The bus changed state. When it goes off, all frames and PDUs that wait for it fail.
    pub(crate) fn handle_state(&mut self, now: Instant, state: BusState) {
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
            self.fail_all(now);
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
