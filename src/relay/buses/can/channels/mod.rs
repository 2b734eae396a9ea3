//! The channels of a CAN bus, and which of them sends the next frame.
//!
//! At most eight frames at a time are in the adapter ([`held::WINDOW`]), so that a channel that closes, or a bus that goes
//! off, leaves few frames behind that could still be sent.

mod events;
mod given_up;
pub(super) mod held;
mod keep_alive;
mod kernel;
mod outcomes;
mod policy;
mod readers;
mod testers;
mod tp20;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Instant;

use connector_hal::bus::{BusLoad, BusState};
use connector_hal::can::{CanFrame, CanSettings};

use super::setup::channel_of;
use crate::config::IsotpStack;
use crate::policy::{BusPolicy, IntentTarget};
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::ChannelKind;
use crate::relay::buses::channels::{Channels, Opening};
use crate::relay::channel::{CanChannel, ChannelOutput, KeepAliveStop, PduToSend};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::codec::PduFlags;
use crate::vehicle::scan::{EcuFound, FoundEcu, ScanOutcome, ScanRequest, ScanSettings, Scanner};
use crate::vehicle::vin;
use held::{NextFrame, OutstandingFrame, Owner, WINDOW};
use testers::OtherTesters;
use tp20::Tp20Channels;

/// The channels of a CAN bus.
///
/// Events of the adapter go in by [`CanChannels::handle_event`]. Frames come out by [`CanChannels::poll_transmit`],
/// each followed by [`CanChannels::handle_accepted`] or [`CanChannels::handle_refused`].
#[derive(Debug)]
pub struct CanChannels {
    name: String,
    settings: CanSettings,
    isotp: IsotpStack,
    channels: BTreeMap<u16, CanChannel>,
    tp20: Tp20Channels,
    ignition: Option<bool>,
    vin_reader: Option<Box<vin::VinReader>>,
    vins: Option<Vec<vin::Candidate>>,
    vin_outcome: Option<vin::ReaderOutcome>,
    scanner: Option<Box<Scanner>>,
    scanned: Option<(ScanOutcome, Vec<EcuFound>)>,
    testers: OtherTesters,
    /// Only one frame is in the adapter until `is_proved`.
    needs_proof: bool,
    /// Another node has sent or acknowledged a frame since the adapter was set up.
    is_proved: bool,
    state: BusState,
    load: BusLoad,
    next: Option<NextFrame>,
    outstanding: VecDeque<OutstandingFrame>,
    /// The last frames of channels that were closed; at most one for each channel closed since the last frame.
    farewells: VecDeque<CanFrame>,
    /// Frames of the connector itself: questions for the speed, and what gives control back to an ECU.
    own_frames: VecDeque<CanFrame>,
    policy: Option<BusPolicy>,
    /// No farewell is sent when the bus is left.
    leaves_silently: bool,
    /// The number of the channel that sent last.
    last_turn: u16,
    outputs: VecDeque<ChannelOutput>,
}

impl CanChannels {
    /// A bus without channels. Its channels use this ISO-TP stack if their settings allow it.
    pub fn new(name: impl Into<String>, settings: CanSettings, isotp: IsotpStack) -> Self {
        Self {
            name: name.into(),
            settings,
            isotp,
            channels: BTreeMap::new(),
            tp20: Tp20Channels::default(),
            ignition: None,
            vin_reader: None,
            vins: None,
            vin_outcome: None,
            scanner: None,
            scanned: None,
            testers: OtherTesters::default(),
            needs_proof: false,
            is_proved: false,
            state: BusState::default(),
            load: BusLoad::default(),
            next: None,
            outstanding: VecDeque::new(),
            farewells: VecDeque::new(),
            own_frames: VecDeque::new(),
            policy: None,
            leaves_silently: false,
            last_turn: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether a second frame waits until another node has acknowledged the first one, or has sent one. A silent bus may
    /// have another bit rate.
    #[must_use]
    pub(crate) fn with_proof(self, needs_proof: bool) -> Self {
        Self { needs_proof, ..self }
    }

    /// Adds an open channel with a number that is free.
    pub fn insert(&mut self, number: u16, channel: CanChannel) {
        self.channels.insert(number, channel);
    }

    /// Removes a channel; its ECU still gets the channel's last frame.
    fn remove(&mut self, number: u16) {
        let is_held = self.outstanding.iter().any(|frame| frame.owner == Owner::Channel(number));
        self.disown(Owner::Channel(number));
        self.testers.handle_closed();
        let Some(mut channel) = self.channels.remove(&number) else { return };
        if is_held {
            channel.handle_abandoned();
        }
        if self.state != BusState::Off {
            self.farewells.extend(channel.farewell());
        }
    }

    /// The last frames of all channels, to be sent before the bus is left.
    pub(super) fn farewells(&mut self) -> Vec<CanFrame> {
        let open = self.channels.values().filter_map(CanChannel::farewell);
        let farewells = self.farewells.drain(..).chain(open).collect();
        if self.leaves_silently || self.state == BusState::Off { Vec::new() } else { farewells }
    }

    /// Sets the load, as the adapter reports it.
    pub(super) fn set_load(&mut self, load: BusLoad) {
        self.load = load;
    }

    /// The frame to hand to the adapter now; it stays the same until [`CanChannels::handle_accepted`].
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.discard_stale_next(now);
        if self.next.is_none() && self.state != BusState::Off && self.is_window_open() {
            self.next = self.next_frame(now);
        }
        self.next.as_ref().map(|next| next.frame)
    }

    /// Whether the bus has this bit rate, or is used without proof.
    fn is_proved(&self) -> bool {
        self.is_proved || !self.needs_proof
    }

    /// Whether the adapter may get another frame.
    fn is_window_open(&self) -> bool {
        match self.is_proved() {
            true => self.outstanding.len() < WINDOW,
            false => self.outstanding.len() + self.kernel_pdus() == 0,
        }
    }

    /// Discards the frame that waits for the adapter if it has waited too long.
    fn discard_stale_next(&mut self, now: Instant) {
        let Some(stale) = self.next.take_if(|next| next.is_stale(now)) else { return };
        match (stale.owner, stale.expires) {
            (Owner::Channel(number), Some(_)) => {
                if let Some(channel) = self.channels.get_mut(&number) {
                    channel.handle_too_old();
                    collect(number, channel, now, &mut self.outputs);
                }
            }
            (owner, _) => self.handle_never_sent(now, owner),
        }
    }

    /// The number of the next channel, in a circle.
    fn turn_after(&self, number: u16) -> Option<u16> {
        let mut after = self.channels.range((Bound::Excluded(number), Bound::Unbounded));
        after.next().or_else(|| self.channels.iter().next()).map(|(number, _)| *number)
    }

    /// The next frame: channels take turns. The VIN reader and a scan send nothing while any channel is busy.
    fn next_frame(&mut self, now: Instant) -> Option<NextFrame> {
        if let Some(frame) = self.farewells.pop_front().or_else(|| self.own_frames.pop_front()) {
            return Some(NextFrame { owner: Owner::Gone, frame, since: now, expires: None });
        }
        let mut number = self.turn_after(self.last_turn);
        for _ in 0..self.channels.len() {
            let turn = number?;
            if let Some((frame, expires)) = self.poll_channel(now, turn) {
                self.last_turn = turn;
                return Some(NextFrame { owner: Owner::Channel(turn), frame, since: now, expires });
            }
            number = self.turn_after(turn);
        }
        // an ECU that receives a request in the middle of a transfer drops the transfer
        if self.hold_reader(now) {
            return None;
        }
        self.stop_reader_beside_tester(now);
        if let Some(frame) = self.vin_reader.as_mut().and_then(|reader| reader.poll_transmit(now)) {
            return Some(NextFrame { owner: Owner::VinReader, frame, since: now, expires: None });
        }
        let channels = &self.channels;
        let is_busy = |request| channels.values().any(|channel| channel.is_busy_with(request));
        let frame = self.scanner.as_mut()?.poll_transmit(now, is_busy)?;
        Some(NextFrame { owner: Owner::Scanner, frame, since: now, expires: None })
    }

    fn poll_channel(&mut self, now: Instant, number: u16) -> Option<(CanFrame, Option<Instant>)> {
        let channel = self.channels.get_mut(&number)?;
        let frame = channel.poll_transmit(now);
        collect(number, channel, now, &mut self.outputs);
        frame
    }

    fn for_each_channel(&mut self, at: Instant, mut act: impl FnMut(&mut CanChannel)) {
        for (number, channel) in &mut self.channels {
            act(channel);
            collect(*number, channel, at, &mut self.outputs);
        }
    }

    /// Acts on one channel. While the bus is off, its PDUs and frames fail immediately.
    fn with_channel(&mut self, now: Instant, number: u16, act: impl FnOnce(&mut CanChannel)) {
        if let Some(channel) = self.channels.get_mut(&number) {
            act(channel);
            if self.state == BusState::Off {
                channel.handle_bus_off(now);
            }
            collect(number, channel, now, &mut self.outputs);
        }
    }
}

impl Channels for CanChannels {
    fn state(&self) -> BusState {
        self.state
    }

    fn load(&self, _now: Instant) -> BusLoad {
        self.load
    }

    fn set_policy(&mut self, policy: BusPolicy) {
        self.policy = Some(policy);
    }

    fn ask(&mut self, now: Instant, target: IntentTarget, request: &[u8]) -> bool {
        self.ask_ecu(now, target, request)
    }

    fn release_requests(&mut self, now: Instant) {
        self.for_each_channel(now, |channel| channel.handle_policy_change(now));
    }

    fn can_ask_speed(&self, obd: bool, _doip_did: Option<u16>) -> bool {
        obd && self.state != BusState::Off
    }

    fn ask_speed(&mut self, now: Instant, obd: bool, _doip_did: Option<u16>) -> bool {
        obd && self.ask_speed_by_obd(now)
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        if let ChannelKind::Tp20(config) = kind {
            if self.state == BusState::Off {
                return Err(ProblemKind::BusUnavailable.problem(format!("Bus {:?} is off.", self.name)));
            }
            let mut channel = self.tp20.open(&self.name, number, config, limits.max_pdu, now)?;
            self.apply_policy(&mut channel, kind);
            self.insert(number, channel);
            if let Some(scanner) = &mut self.scanner {
                self.tp20.addresses().for_each(|ecu| scanner.handle_tp20_open(ecu));
            }
            return Ok(Opening::UnderWay);
        }
        let is_fd = self.settings.data_bit_rate.is_some();
        let mut channel = channel_of(&self.name, kind, is_fd, limits.max_pdu, self.isotp, now)?;
        self.apply_policy(&mut channel, kind);
        self.insert(number, channel);
        Ok(Opening::Done)
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        let (number, outcome) =
            self.channels.iter_mut().find_map(|(number, channel)| Some((*number, channel.poll_opened()?)))?;
        let outcome = outcome.map_err(|failure| {
            self.remove(number);
            let ecu = self.tp20.close(number);
            tp20::not_opened(&self.name, ecu, failure)
        });
        Some((number, outcome))
    }

    fn close_channel(&mut self, number: u16) {
        self.tp20.close(number);
        self.remove(number);
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, pdu: PduToSend<'_>) {
        self.with_channel(now, number, |channel| channel.handle_pdu(now, pdu));
    }

    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.handle_refused_pdu(flags);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, frame: CanFrame, expires: Instant) {
        self.with_channel(now, number, |channel| channel.handle_frame_to_send(now, frame, expires));
    }

    fn handle_ignition(&mut self, _now: Instant, ignition: Option<bool>) {
        self.ignition = ignition;
        if let Some(scanner) = &mut self.scanner {
            scanner.handle_ignition(ignition);
        }
    }

    fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        self.for_each_channel(now, |channel| channel.set_keep_alive(now, stop));
    }

    fn leave_silently(&mut self) {
        self.leaves_silently = true;
    }

    fn return_to_default_sessions(&mut self, now: Instant) {
        self.for_each_channel(now, |channel| channel.return_to_default_session(now));
    }

    fn is_busy(&self, now: Instant) -> bool {
        self.channels.values().any(|channel| channel.is_busy(now))
    }

    fn is_quiet(&self) -> bool {
        self.outstanding.is_empty()
            && self.next.is_none()
            && self.farewells.is_empty()
            && self.own_frames.is_empty()
            && !self.channels.values().any(CanChannel::is_sending)
    }

    fn start_scan(&mut self, now: Instant, request: &ScanRequest) -> bool {
        let bit_rate = self.settings.bit_rate;
        let settings = ScanSettings { bit_rate, request: request.clone(), shares_bus: true };
        let mut scanner = Scanner::new(settings, now);
        scanner.handle_ignition(self.ignition);
        self.tp20.addresses().for_each(|ecu| scanner.handle_tp20_open(ecu));
        if self.state == BusState::Off {
            scanner.handle_bus_off();
        }
        self.disown(Owner::Scanner);
        self.testers.handle_change();
        self.scanner = Some(Box::new(scanner));
        self.end_scan();
        true
    }

    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        self.end_scan();
        let (outcome, ecus) = self.scanned.take()?;
        Some((outcome, ecus.into_iter().map(FoundEcu::Can).collect()))
    }

    fn can_read_vin(&self) -> bool {
        true
    }

    fn start_vin_reader(&mut self, _now: Instant, settings: vin::ReaderSettings) -> bool {
        self.disown(Owner::VinReader);
        self.testers.handle_change();
        // no ECU can report a VIN while the bus is off
        let is_off = self.state == BusState::Off;
        self.vins = is_off.then(Vec::new);
        self.vin_outcome = is_off.then_some(vin::ReaderOutcome::NotAcknowledged);
        self.vin_reader = (!is_off).then(|| Box::new(vin::VinReader::new(settings)));
        true
    }

    fn stop_vin_reader(&mut self) {
        self.vin_reader = None;
        self.testers.handle_change();
        self.disown(Owner::VinReader);
    }

    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.vins.take()
    }

    fn vin_outcome(&self) -> Option<vin::ReaderOutcome> {
        self.vin_outcome
    }

    fn handle_timeout(&mut self, now: Instant) {
        let numbers: Vec<u16> = self.channels.keys().copied().collect();
        for number in numbers {
            self.handle_channel_timeout(now, number);
        }
        self.hold_reader(now);
        if let Some(reader) = &mut self.vin_reader {
            reader.handle_timeout(now);
            self.end_vin_reader();
        }
        if let Some(scanner) = &mut self.scanner {
            scanner.handle_timeout(now);
            self.end_scan();
        }
    }

    fn poll_output(&mut self) -> Option<ChannelOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let due =
            |(number, channel): (&u16, &CanChannel)| channel.poll_timeout(self.keep_alive_hold(*number));
        let channels = self.channels.iter().filter_map(due).min();
        let reader = self.vin_reader.as_ref().and_then(|reader| reader.poll_timeout()).map(|(at, _)| at);
        let scanner = self.scanner.as_ref().and_then(|scanner| scanner.poll_timeout());
        let is_held = self.vin_reader.is_some() || self.scanner.is_some();
        let quiet = self.channels.values().filter_map(CanChannel::busy_until).max().filter(|_| is_held);
        [channels, self.stuck_at(), reader, scanner, quiet].into_iter().flatten().min()
    }
}

fn collect(number: u16, channel: &mut CanChannel, at: Instant, outputs: &mut VecDeque<ChannelOutput>) {
    while let Some(output) = channel.poll_output() {
        outputs.push_back(ChannelOutput { channel: number, at, output });
    }
}
