//! The channels, as every bus of a connection has them.

use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::CanFrame;

use super::{DoipChannels, ONE_READ, collect};
use crate::policy::{BusPolicy, IntentTarget};
use crate::protocol::problem::Problem;
use crate::protocol::uds::READ_DATA_BY_IDENTIFIER;
use crate::relay::buses::channel_setup::{ChannelKind, wrong_kind};
use crate::relay::buses::channels::{Channels, Opening};
use crate::relay::buses::doip::channel::{
    ConnectionKey, DoipChannel, ambiguous_gateway, no_network, silent_gateway, unknown_gateway,
};
use crate::relay::channel::{ChannelOutput, KeepAliveHold, KeepAliveStop, PduToSend};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::codec::PduFlags;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanRequest};
use crate::vehicle::vin;

impl DoipChannels {
    /// The problem that a channel on this connection could not be opened in time.
    fn why_not_opened(&self, key: ConnectionKey) -> Problem {
        let wanted = key.0;
        if !self.is_network_up {
            return no_network(&self.name, wanted);
        }
        if let Some(which) = self.gateways.ambiguity(wanted) {
            return ambiguous_gateway(&self.name, &which);
        }
        if self.connections.contains_key(&key) {
            return silent_gateway(wanted, self.gateways.silent_host());
        }
        unknown_gateway(&self.name, wanted, &self.gateways.describe())
    }
}

impl DoipChannels {
    /// Why TesterPresent on this channel waits: another one is in the middle of an exchange with the ECU.
    fn keep_alive_hold(&self, number: u16) -> KeepAliveHold {
        let ecu = |channel: &DoipChannel| (channel.gateway, channel.pdus.transport().target());
        let kept = self.channels.get(&number).filter(|channel| channel.pdus.has_keep_alive()).map(ecu);
        let is_other = |(other, channel): (&u16, &DoipChannel)| {
            *other != number && Some(ecu(channel)) == kept && channel.pdus.is_busy()
        };
        KeepAliveHold { is_open_ended: kept.is_some() && self.channels.iter().any(is_other), until: None }
    }
}

impl Channels for DoipChannels {
    fn state(&self) -> BusState {
        // channels that are being opened do not count as a failure
        let open = || self.channels.values().filter(|channel| channel.opening.is_none());
        match (open().any(|channel| channel.is_down), open().any(|channel| !channel.is_down)) {
            _ if !self.is_network_up => BusState::Off,
            (false, _) => BusState::Active,
            (true, true) => BusState::Passive,
            (true, false) => BusState::Off,
        }
    }

    fn set_policy(&mut self, policy: BusPolicy) {
        self.policy = Some(policy);
    }

    fn ask(&mut self, now: Instant, target: IntentTarget, request: &[u8]) -> bool {
        self.channels
            .values_mut()
            .any(|channel| channel.pdus.is_to(target) && channel.pdus.ask_briefly(now, request))
    }

    fn release_requests(&mut self, now: Instant) {
        for (number, channel) in &mut self.channels {
            channel.pdus.handle_events(now);
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    fn can_ask_speed(&self, _obd: bool, doip_did: Option<u16>) -> bool {
        let is_open = |channel: &DoipChannel| channel.opening.is_none() && !channel.is_down;
        doip_did.is_some() && self.channels.values().any(is_open)
    }

    /// Asks the ECU of any channel that is open.
    fn ask_speed(&mut self, now: Instant, _obd: bool, doip_did: Option<u16>) -> bool {
        let is_busy = self.channels.values().any(|channel| channel.pdus.is_exchanging());
        let Some(did) = doip_did.filter(|_| !is_busy) else { return false };
        let [high, low] = did.to_be_bytes();
        let mut open =
            self.channels.values_mut().filter(|channel| channel.opening.is_none() && !channel.is_down);
        open.any(|channel| channel.pdus.ask_briefly(now, &[READ_DATA_BY_IDENTIFIER, high, low]))
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        match kind {
            ChannelKind::Doip(config) => self.open_doip(now, number, config, limits),
            other => Err(wrong_kind(&self.name, "doip_bus", other)),
        }
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        self.opened.pop_front()
    }

    fn close_channel(&mut self, number: u16) {
        let Some(closed) = self.channels.remove(&number) else { return };
        self.outputs.retain(|output| output.channel != number);
        let key = closed.key();
        if !self.channels.values().any(|channel| channel.key() == key) {
            self.connections.remove(&key);
        }
        if !self.channels.values().any(|channel| channel.gateway == closed.gateway) {
            self.gateways.unpin(closed.gateway);
        }
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, pdu: PduToSend<'_>) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.handle_pdu(now, pdu);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.handle_refused_pdu(flags);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.refuse();
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_ignition(&mut self, _now: Instant, ignition: Option<bool>) {
        self.is_ignition_off = ignition == Some(false);
        if self.is_ignition_off {
            self.scanning.stop(ScanOutcome::IgnitionOff);
        }
    }

    fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        self.keep_alive_stop = stop;
        for (number, channel) in &mut self.channels {
            channel.pdus.set_keep_alive(now, stop);
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    fn take_returned(&mut self) -> bool {
        std::mem::take(&mut self.has_returned)
    }

    fn set_room(&mut self, left: usize, total: usize) {
        let longest = self.channels.values().map(|channel| channel.max_pdu).max().unwrap_or_default();
        self.room = left;
        self.least_room = (longest + ONE_READ).min(total / 2);
    }

    fn return_to_default_sessions(&mut self, now: Instant) {
        for (number, channel) in &mut self.channels {
            channel.pdus.return_to_default_session(now);
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    fn is_busy(&self, _now: Instant) -> bool {
        self.channels.values().any(|channel| channel.pdus.is_busy())
    }

    fn is_quiet(&self) -> bool {
        !self.channels.values().any(|channel| channel.pdus.is_sending())
    }

    fn start_scan(&mut self, _now: Instant, request: &ScanRequest) -> bool {
        if self.is_ignition_off {
            self.scanning.end(ScanOutcome::IgnitionOff, Vec::new());
        } else if self.is_network_up {
            self.scanning.request(request.clone());
        } else {
            self.scanning.end(ScanOutcome::BusOff, Vec::new());
        }
        true
    }

    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        self.scanning.take_ended()
    }

    fn can_read_vin(&self) -> bool {
        true
    }

    fn start_vin_reader(&mut self, _now: Instant, settings: vin::ReaderSettings) -> bool {
        if self.is_network_up {
            self.vin_reading.request(settings.until);
        }
        self.is_network_up
    }

    fn stop_vin_reader(&mut self) {
        self.vin_reading.abort();
    }

    fn set_muted(&mut self, is_muted: bool) {
        self.is_muted = is_muted;
    }

    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.vin_reading.take_ended()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let mut failed = Vec::new();
        let holds: Vec<KeepAliveHold> =
            self.channels.keys().map(|number| self.keep_alive_hold(*number)).collect();
        for ((number, channel), hold) in self.channels.iter_mut().zip(holds) {
            if channel.pdus.poll_timeout_with(hold).is_some_and(|at| at <= now) {
                channel.pdus.handle_timeout_with(now, hold);
                collect(*number, channel, now, &mut self.outputs);
            }
            let ends_identification = channel.identified_until.take_if(|until| *until <= now).is_some();
            let is_ambiguous = ends_identification && self.gateways.ambiguity(channel.gateway).is_some();
            if channel.opening.is_some_and(|until| until <= now || is_ambiguous) {
                failed.push((*number, channel.key()));
            }
        }
        for (number, key) in failed {
            let problem = self.why_not_opened(key);
            self.opened.push_back((number, Err(problem)));
            self.close_channel(number);
        }
    }

    fn poll_output(&mut self) -> Option<ChannelOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let of_channel = |(number, channel): (&u16, &DoipChannel)| {
            let pdus = channel.pdus.poll_timeout_with(self.keep_alive_hold(*number));
            [pdus, channel.opening, channel.identified_until]
        };
        let channels = self.channels.iter().flat_map(of_channel);
        channels.chain([self.next_question()]).flatten().min()
    }
}
