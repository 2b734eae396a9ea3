//! The bus of terminal 15: it reports the ignition to each channel when the channel opens, and at every
//! change.

use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::task::Context;
use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::CanFrame;
use connector_hal::future::BoxFuture;

use super::bus::{BusDriver, Driven};
use super::channel_setup::{ChannelKind, wrong_kind};
use super::channels::{Channels, Opening};
use crate::protocol::problem::Problem;
use crate::relay::channel::{ChannelOutput, KeepAliveStop, Output, PduToSend};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::codec::{PduFlags, SendFailedDetail};

/// The channels of the terminal 15 bus.
pub(crate) struct Terminal15Channels {
    name: String,
    ignition: Option<bool>,
    channels: BTreeSet<u16>,
    outputs: VecDeque<ChannelOutput>,
}

impl Terminal15Channels {
    pub(crate) fn new(name: String, ignition: Option<bool>) -> Self {
        Self { name, ignition, channels: BTreeSet::new(), outputs: VecDeque::new() }
    }

    fn emit(&mut self, at: Instant, channel: u16, output: Output) {
        self.outputs.push_back(ChannelOutput { channel, at, output });
    }

    fn refuse(&mut self, now: Instant, number: u16) {
        self.emit(now, number, Output::send_failed(SendFailedDetail::RefusedByPolicy));
    }
}

impl Channels for Terminal15Channels {
    fn state(&self) -> BusState {
        BusState::Active
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        _limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        let ChannelKind::Terminal15(_) = kind else {
            return Err(wrong_kind(&self.name, "terminal15_bus", kind));
        };
        self.channels.insert(number);
        self.emit(now, number, Output::Terminal15(self.ignition));
        Ok(Opening::Done)
    }

    fn close_channel(&mut self, number: u16) {
        self.channels.remove(&number);
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, _pdu: PduToSend<'_>) {
        self.refuse(now, number);
    }

    fn handle_refused_pdu(&mut self, _now: Instant, _number: u16, _flags: PduFlags) {}

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        self.refuse(now, number);
    }

    fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        if std::mem::replace(&mut self.ignition, ignition) != ignition {
            for channel in self.channels.clone() {
                self.emit(now, channel, Output::Terminal15(ignition));
            }
        }
    }

    fn set_keep_alive(&mut self, _now: Instant, _stop: Option<KeepAliveStop>) {}

    fn return_to_default_sessions(&mut self, _now: Instant) {}

    fn is_busy(&self, _now: Instant) -> bool {
        false
    }

    fn is_quiet(&self) -> bool {
        true
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_output(&mut self) -> Option<ChannelOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Terminal 15 has no device: the board reports the ignition to the connection.
pub(crate) struct Terminal15Driver;

impl BusDriver for Terminal15Driver {
    type Channels = Terminal15Channels;
    type Device = ();
    type Error = Infallible;

    const DEVICE: &str = "board";

    fn open(&self) -> BoxFuture<'static, Result<(), Infallible>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn handle_opened(&mut self, _now: Instant, _device: &mut (), _channels: &mut Terminal15Channels) {}

    fn handle_lost(&mut self, _now: Instant, _error: &Infallible, _channels: &mut Terminal15Channels) {}

    fn drive(
        &mut self,
        _cx: &mut Context<'_>,
        _now: Instant,
        _device: &mut (),
        _channels: &mut Terminal15Channels,
    ) -> Driven<(), Infallible> {
        Driven::Idle
    }
}
