//! The channels of a K-line, and the order in which they use the line.
//!
//! One channel at a time has the line: from the first byte of an initialisation or request until the end of
//! the time in which the ECU may answer. Then the next channel that needs the line gets it, in a circle.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use connector_hal::bus::{BusLoad, BusState, LoadMeter};
use connector_hal::kline::{Signal, byte_time};

use super::link::{Key, KlineChannel, cannot_open, lost};
use super::setup::KlineBusSetup;
use super::vin_questions::VinQuestions;
use crate::policy::{BusPolicy, IntentTarget};
use crate::protocol::kline::{Addressing, Config, Endpoint, Initialisation, LineClock};
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::{ChannelKind, pdu_settings, wrong_kind};
use crate::relay::buses::channels::{Channels, Opening};
use crate::relay::channel::{
    ChannelOutput, KeepAliveStop, KlineLinkChange, KlineTransport, Output, PduChannel, PduChannelSettings,
    PduToSend,
};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::codec::{PduFlags, SendFailedDetail};
use crate::vehicle::vin;
use connector_hal::can::CanFrame;

/// The number of closed channels whose links may be ended by StopCommunication. Further links end by P3max.
/// Within the second that the driver has, no more than a few can be ended.
const MAX_CLOSING: usize = 16;

/// The channels of a K-line, as a pure state machine.
///
/// Bytes go in by [`KlineChannels::handle_byte`], signals come out by [`KlineChannels::poll_transmit`].
#[derive(Debug)]
pub(crate) struct KlineChannels {
    name: String,
    initialisation: Initialisation,
    bit_rate: u32,
    channels: BTreeMap<Key, KlineChannel>,
    closed: u32,
    /// The channel that has the line.
    active: Option<Key>,
    last_turn: Key,
    line: LineClock,
    meter: LoadMeter,
    state: BusState,
    keep_alive_stop: Option<KeepAliveStop>,
    policy: Option<BusPolicy>,
    opened: VecDeque<(u16, Result<(), Problem>)>,
    outputs: VecDeque<ChannelOutput>,
    vin_questions: Option<VinQuestions>,
    /// The ECUs get no StopCommunication when the line is left.
    leaves_silently: bool,
}

impl KlineChannels {
    /// A line without channels, whose device is not open yet.
    pub(crate) fn new(setup: &KlineBusSetup, now: Instant) -> Self {
        Self::with(setup.name.clone(), setup.initialisation, setup.bit_rate, now)
    }

    fn with(name: String, initialisation: Initialisation, bit_rate: u32, now: Instant) -> Self {
        Self {
            name,
            initialisation,
            bit_rate,
            channels: BTreeMap::new(),
            closed: 0,
            active: None,
            last_turn: Key::Open(0),
            line: LineClock::new(now),
            meter: LoadMeter::new(now),
            state: BusState::Active,
            keep_alive_stop: None,
            policy: None,
            opened: VecDeque::new(),
            outputs: VecDeque::new(),
            vin_questions: None,
            leaves_silently: false,
        }
    }

    /// Moves all channels out.
    pub(super) fn take(&mut self, now: Instant) -> Self {
        let empty = Self::with(self.name.clone(), self.initialisation, self.bit_rate, now);
        std::mem::replace(self, empty)
    }

    /// Closes all channels, and sends StopCommunication to their ECUs.
    pub(super) fn stop_all(&mut self) {
        let number = |key: &Key| if let Key::Open(number) = key { Some(*number) } else { None };
        let open: Vec<u16> = self.channels.keys().filter_map(number).collect();
        open.into_iter().for_each(|number| self.close_channel(number));
    }

    /// Whether any link is set up or being set up that has to be ended before the line is left.
    pub(super) fn has_links_to_end(&self) -> bool {
        if self.leaves_silently {
            return false;
        }
        self.active.is_some() || self.channels.values().any(|channel| channel.endpoint().is_up())
    }

    /// Handles a byte that was on the line.
    pub(super) fn handle_byte(&mut self, now: Instant, byte: u8) {
        let active = self.active.and_then(|active| self.channels.get(&active));
        if active.is_some_and(|channel| channel.endpoint().is_exchanging()) {
            self.line.handle_activity(now);
        } else {
            self.line.handle_foreign_activity(now);
        }
        if let Some(active) = self.active
            && let Some(channel) = self.channels.get_mut(&active)
        {
            let bit_rate = channel.endpoint().config().bit_rate;
            self.meter.add(now, byte_time(bit_rate));
            channel.endpoint_mut().handle_byte(now, byte);
            self.collect(now, active);
        }
        self.ask_for_vin(now);
        self.drive(now);
    }

    /// Asks the next question for the VIN when the one before is answered.
    fn ask_for_vin(&mut self, now: Instant) {
        if let Some(questions) = &mut self.vin_questions {
            questions.advance(now, &mut self.channels);
        }
    }

    /// Handles the end of a slow signal at `at`.
    pub(super) fn handle_sent(&mut self, now: Instant, at: Instant) {
        self.line.handle_activity(at);
        if let Some(active) = self.active
            && let Some(channel) = self.channels.get_mut(&active)
        {
            channel.endpoint_mut().handle_sent(at);
        }
        self.drive(now);
    }

    /// The device of the line was opened or lost.
    pub(super) fn handle_device(&mut self, now: Instant, is_open: bool) {
        let state = if is_open { BusState::Active } else { BusState::Off };
        if is_open {
            self.line = LineClock::new(now);
        }
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        self.active = None;
        self.channels.retain(|key, _| matches!(key, Key::Open(_)));
        let keys: Vec<Key> = self.channels.keys().copied().collect();
        for key in keys {
            if let Some(channel) = self.channels.get_mut(&key) {
                if is_open {
                    channel.pdus.transport_mut().handle_line_back();
                } else {
                    channel.pdus.handle_bus_off(now);
                }
            }
            if let Key::Open(number) = key {
                let text = if is_open { "the K-line is available" } else { "the K-line is gone" };
                let output = Output::bus_state(state, text);
                self.outputs.push_back(ChannelOutput { channel: number, at: now, output });
            }
            self.collect(now, key);
        }
    }

    /// Assigns the line to the next channel that needs it, and handles the deadlines of its link.
    fn drive(&mut self, now: Instant) {
        if self.state == BusState::Off {
            return;
        }
        // each turn ends with a deadline in the future, or with a free line that no channel needs
        for _ in 0..=self.channels.len() {
            if let Some(active) = self.active {
                let Some(channel) = self.channels.get_mut(&active) else {
                    self.active = None;
                    continue;
                };
                channel.endpoint_mut().handle_timeout(now);
                self.collect(now, active);
                if self.active.is_some() {
                    return;
                }
            }
            let Some(next) = self.next_turn(now) else { return };
            self.last_turn = next;
            self.active = Some(next);
            if let Some(channel) = self.channels.get_mut(&next) {
                channel.endpoint_mut().start(now, &self.line);
                self.collect(now, next);
            }
        }
    }

    /// The next channel that needs the line, in a circle.
    fn next_turn(&self, now: Instant) -> Option<Key> {
        let after = self.channels.range((Bound::Excluded(self.last_turn), Bound::Unbounded));
        let wants = |channel: &KlineChannel| channel.endpoint().wants_line().is_some_and(|at| at <= now);
        after.chain(&self.channels).find(|(_, channel)| wants(channel)).map(|(key, _)| *key)
    }

    fn for_each(&mut self, now: Instant, mut act: impl FnMut(&mut KlineChannel)) {
        for key in self.channels.keys().copied().collect::<Vec<_>>() {
            let Some(channel) = self.channels.get_mut(&key) else { continue };
            act(channel);
            self.collect(now, key);
        }
    }

    /// Collects the outputs of a channel. Frees the line when the channel has finished.
    fn collect(&mut self, now: Instant, key: Key) {
        let Some(channel) = self.channels.get_mut(&key) else { return };
        channel.pdus.handle_events(now);
        let mut failed = None;
        while let Some(change) = channel.pdus.transport_mut().poll_change() {
            match (change, key) {
                (KlineLinkChange::Up(key_bytes), Key::Open(number)) => {
                    tracing::debug!(channel = number, %key_bytes, "the K-line link is set up");
                    if std::mem::take(&mut channel.is_opening) {
                        self.opened.push_back((number, Ok(())));
                    }
                }
                (KlineLinkChange::Down(failure), Key::Open(number)) if channel.is_opening => {
                    failed = Some((number, failure));
                }
                (KlineLinkChange::Down(failure), Key::Open(number)) => {
                    tracing::debug!(channel = number, %failure, "the K-line link is down");
                    self.outputs.push_back(ChannelOutput { channel: number, at: now, output: lost(failure) });
                }
                (_, Key::Closing(_)) => {}
            }
        }
        while let Some(output) = channel.pdus.poll_output() {
            if let Key::Open(number) = key {
                self.outputs.push_back(ChannelOutput { channel: number, at: now, output });
            }
        }
        let is_busy = channel.endpoint().is_busy();
        let is_over = matches!(key, Key::Closing(_)) && !is_busy && channel.endpoint().wants_line().is_none();
        if !is_busy {
            self.active.take_if(|active| *active == key);
        }
        if let Some((number, failure)) = failed {
            self.opened.push_back((number, Err(cannot_open(number, failure))));
        }
        if failed.is_some() || is_over {
            self.channels.remove(&key);
        }
    }

    /// The next signal to send on the line.
    pub(super) fn poll_transmit(&mut self) -> Option<Signal> {
        self.channels.get_mut(&self.active?)?.endpoint_mut().poll_transmit()
    }
}

impl Channels for KlineChannels {
    fn state(&self) -> BusState {
        self.state
    }

    fn load(&self, now: Instant) -> BusLoad {
        self.meter.load(now)
    }

    fn set_policy(&mut self, policy: BusPolicy) {
        self.policy = Some(policy);
    }

    fn ask(&mut self, now: Instant, target: IntentTarget, request: &[u8]) -> bool {
        let mut addressed = self.channels.iter_mut().filter(|(_, channel)| channel.pdus.is_to(target));
        let asked =
            addressed.find_map(|(key, channel)| channel.pdus.ask_briefly(now, request).then_some(*key));
        asked.iter().for_each(|key| self.collect(now, *key));
        self.drive(now);
        asked.is_some()
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        _limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        let ChannelKind::Kline(kline) = kind else { return Err(wrong_kind(&self.name, "kline_bus", kind)) };
        let addressing = Addressing::of(kline.ecu_id);
        let mut config = Config::new(addressing, self.initialisation, self.bit_rate);
        config.keyword = kline.keyword.map(|keyword| (keyword.key_byte_1, keyword.key_byte_2));
        config.p2 = kline.options.p2_ms.map(|ms| Duration::from_millis(u64::from(ms)));
        let settings = pdu_settings(&kline.options);
        let address = config.addressing.address();
        let is_same = |(key, channel): (&Key, &KlineChannel)| match key {
            Key::Open(other) if channel.endpoint().config().addressing.address() == address => Some(*other),
            _ => None,
        };
        if let Some(other) = self.channels.iter().find_map(is_same) {
            let detail = format!("Channel {other} talks to the ECU 0x{address:02X} already.");
            return Err(ProblemKind::EcuInUse.problem(detail));
        }
        let mut endpoint = Endpoint::new(config, now);
        endpoint.connect();
        // the link has its own keep-alive, without which it would end
        let settings = PduChannelSettings { keep_alive: false, ..settings };
        let mut pdus = PduChannel::new(Box::new(KlineTransport::new(endpoint)), settings, now);
        pdus.set_keep_alive(now, self.keep_alive_stop);
        if let Some(policy) = &self.policy {
            pdus.set_policy(policy.channel(IntentTarget::Address(address)));
        }
        self.channels.insert(Key::Open(number), KlineChannel { pdus, is_opening: true });
        Ok(Opening::UnderWay)
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        self.opened.pop_front()
    }

    fn close_channel(&mut self, number: u16) {
        let Some(mut channel) = self.channels.remove(&Key::Open(number)) else { return };
        let was_active = self.active.take_if(|active| *active == Key::Open(number)).is_some();
        let closing = self.channels.keys().filter(|key| matches!(key, Key::Closing(_))).count();
        if closing >= MAX_CLOSING || !(channel.endpoint().is_up() || was_active) {
            return;
        }
        channel.is_opening = false;
        channel.endpoint_mut().stop();
        self.closed = self.closed.wrapping_add(1);
        let key = Key::Closing(self.closed);
        self.channels.insert(key, channel);
        if was_active {
            self.active = Some(key);
        }
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, pdu: PduToSend<'_>) {
        let is_off = self.state == BusState::Off;
        if let Some(channel) = self.channels.get_mut(&Key::Open(number)) {
            channel.pdus.handle_pdu(now, pdu);
            if is_off {
                channel.pdus.handle_bus_off(now);
            }
            self.collect(now, Key::Open(number));
        }
        self.drive(now);
    }

    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        if let Some(channel) = self.channels.get_mut(&Key::Open(number)) {
            channel.pdus.handle_refused_pdu(flags);
            self.collect(now, Key::Open(number));
        }
    }

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        let output = Output::send_failed(SendFailedDetail::RefusedByPolicy);
        if self.channels.contains_key(&Key::Open(number)) {
            self.outputs.push_back(ChannelOutput { channel: number, at: now, output });
        }
    }

    fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        self.keep_alive_stop = stop;
        self.for_each(now, |channel| channel.pdus.set_keep_alive(now, stop));
    }

    fn leave_silently(&mut self) {
        self.leaves_silently = true;
    }

    /// Sends StopCommunication, which ends the diagnostic session on a K-line.
    fn return_to_default_sessions(&mut self, _now: Instant) {
        self.stop_all();
    }

    fn is_busy(&self, _now: Instant) -> bool {
        !self.is_quiet() || self.channels.values().any(|channel| channel.pdus.is_busy())
    }

    fn is_quiet(&self) -> bool {
        let waits = |(key, channel): (&Key, &KlineChannel)| {
            matches!(key, Key::Closing(_)) || channel.pdus.is_sending()
        };
        self.active.is_none() && !self.channels.iter().any(waits)
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.for_each(now, |channel| {
            if channel.pdus.poll_timeout().is_some_and(|at| at <= now) {
                channel.pdus.handle_timeout(now);
            }
        });
        self.ask_for_vin(now);
        self.drive(now);
    }

    fn release_requests(&mut self, now: Instant) {
        self.for_each(now, |channel| channel.pdus.handle_events(now));
        self.drive(now);
    }

    fn can_read_vin(&self) -> bool {
        self.state == BusState::Active && self.channels.iter().any(|(key, channel)| channel.is_up(*key))
    }

    /// Asks the ECUs to which a link is open. The initialisation of another ECU could end these links.
    fn start_vin_reader(&mut self, now: Instant, settings: vin::ReaderSettings) -> bool {
        let can_read = self.can_read_vin();
        self.vin_questions = can_read.then(|| VinQuestions::new(settings.until, &self.channels));
        self.ask_for_vin(now);
        self.drive(now);
        can_read
    }

    fn stop_vin_reader(&mut self) {
        if let Some(mut questions) = self.vin_questions.take() {
            questions.stop(&mut self.channels);
        }
    }

    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.vin_questions.take_if(|questions| questions.is_finished()).map(VinQuestions::into_candidates)
    }

    fn poll_output(&mut self) -> Option<ChannelOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let chains = self.channels.values().filter_map(|channel| channel.pdus.poll_timeout()).min();
        let line = match self.active {
            _ if self.state == BusState::Off => None,
            Some(active) => self
                .channels
                .get(&active)
                .and_then(|channel| channel.endpoint().poll_timeout())
                .map(|(at, _)| at),
            None => self.channels.values().filter_map(|channel| channel.endpoint().wants_line()).min(),
        };
        let questions = self.vin_questions.as_ref().and_then(VinQuestions::poll_timeout);
        [chains, line, questions].into_iter().flatten().min()
    }
}
