//! The frames that a channel sends, and their outcomes.

use std::time::Instant;

use connector_hal::can::CanFrame;

use super::Channel;
use super::state::{ChannelFrame, ChannelState};
use crate::protocol::tp20::CloseReason;

/// Number of frames that may be without an outcome: twice as many as of one connection, because frames of an
/// earlier connection of the channel may still be without one.
const MAX_IN_FLIGHT: usize = 32;
impl Channel {
    /// Reports that the oldest frame without an outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        let Some(owner) = self.in_flight.pop_front().filter(|owner| owner.generation == self.generation)
        else {
            return;
        };
        match &mut self.state {
            ChannelState::SettingUp(setup) if owner.is_setup => setup.handle_transmitted(now),
            ChannelState::Connected(connection) if !owner.is_setup => {
                connection.handle_transmitted(now);
                self.settle(now);
            }
            _ => {}
        }
    }

    /// Reports that the oldest frame without an outcome will not be sent, or with [`CloseReason::BusOff`]
    /// that none will.
    pub fn handle_transmit_failed(&mut self, now: Instant, reason: CloseReason) {
        if reason == CloseReason::BusOff {
            self.in_flight.clear();
            match &mut self.state {
                ChannelState::Idle => {}
                ChannelState::SettingUp(_) => self.give_up(reason),
                ChannelState::Connected(connection) => {
                    connection.handle_transmit_failed(now, reason);
                    self.settle(now);
                }
            }
            return;
        }
        let Some(owner) = self.in_flight.pop_front().filter(|owner| owner.generation == self.generation)
        else {
            return;
        };
        match &mut self.state {
            ChannelState::SettingUp(setup) if owner.is_setup && setup.is_in_flight() => self.give_up(reason),
            ChannelState::Connected(connection) if !owner.is_setup => {
                connection.handle_transmit_failed(now, reason);
                self.settle(now);
            }
            _ => {}
        }
    }

    /// Returns the next frame to send. Each frame needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let (frame, is_setup) = match &mut self.state {
            ChannelState::Idle => return None,
            ChannelState::SettingUp(setup) => (setup.poll_transmit(&self.config)?, true),
            ChannelState::Connected(connection) => (connection.poll_transmit(now)?, false),
        };
        self.in_flight.push_back(ChannelFrame { generation: self.generation, is_setup });
        self.leave_if_done();
        Some(frame)
    }
}
