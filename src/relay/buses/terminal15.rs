//! The bus of terminal 15: what the ignition is, told at once to whoever opens a channel, and again at every change.

use std::collections::{BTreeSet, VecDeque};
use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::bus::BusStatus;
use connector_hal::can::CanFrame;

use super::bus::{Opening, Progress, SessionBus};
use super::setup::{ChannelKind, wrong_kind};
use crate::protocol::problem::Problem;
use crate::relay::buses::can::channels::BusOutput;
use crate::relay::channel::Output;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::codec::{PduFlags, SendFailedDetail};

/// See the module.
pub(crate) struct Terminal15Bus {
    name: String,
    ignition: Option<bool>,
    has_started: bool,
    channels: BTreeSet<u16>,
    outputs: VecDeque<BusOutput>,
}

impl Terminal15Bus {
    pub(crate) fn new(name: String, ignition: Option<bool>) -> Self {
        Self { name, ignition, has_started: false, channels: BTreeSet::new(), outputs: VecDeque::new() }
    }

    fn tell(&mut self, at: Instant, channel: u16, output: Output) {
        self.outputs.push_back(BusOutput { channel, at, output });
    }

    fn refuse(&mut self, now: Instant, number: u16) {
        self.tell(now, number, Output::send_failed(SendFailedDetail::RefusedByPolicy));
    }
}

impl SessionBus for Terminal15Bus {
    fn name(&self) -> &str {
        &self.name
    }

    fn poll(&mut self, _cx: &mut Context<'_>) -> Poll<Progress> {
        if std::mem::replace(&mut self.has_started, true) {
            Poll::Pending
        } else {
            Poll::Ready(Progress::Started)
        }
    }

    fn has_started(&self) -> bool {
        self.has_started
    }

    fn status(&self) -> BusStatus {
        BusStatus::default()
    }

    fn take_state_change(&mut self) -> bool {
        false
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        _limits: &SessionLimits,
    ) -> Result<Opening, Problem> {
        let ChannelKind::Terminal15(_) = kind else {
            return Err(wrong_kind(&self.name, "terminal15_bus", kind));
        };
        self.channels.insert(number);
        self.tell(now, number, Output::Terminal15(self.ignition));
        Ok(Opening::Done)
    }

    fn close_channel(&mut self, number: u16) {
        self.channels.remove(&number);
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, _flags: PduFlags, _data: &[u8]) {
        self.refuse(now, number);
    }

    fn handle_refused_pdu(&mut self, _now: Instant, _number: u16, _flags: PduFlags) {}

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        self.refuse(now, number);
    }

    fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        if std::mem::replace(&mut self.ignition, ignition) != ignition {
            for channel in self.channels.clone() {
                self.tell(now, channel, Output::Terminal15(ignition));
            }
        }
    }

    fn set_keep_alive(&mut self, _now: Instant, _enabled: bool) {}

    fn poll_output(&mut self) -> Option<BusOutput> {
        self.outputs.pop_front()
    }

    fn return_to_default_sessions(&mut self, _now: Instant) {}

    fn is_quiet(&self) -> bool {
        true
    }
}
