//! A bus of a connection: its channels, and whose frame goes next.
//!
//! A pure state machine over the channels. Few frames at a time are handed to the adapter (8), so that a
//! channel that closes, or a bus that goes off, leaves hardly anything behind that could still be sent.

mod kernel;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

use connector_hal::can::{BusState, CanEvent, CanFrame};

use super::channel::{Channel, OpenFailure, Output};
use super::codec::{EventCode, PduFlags};
use crate::isotp::SendFailure;
use crate::scan::{EcuFound, ScanOutcome, Scanner};
use crate::vin;

/// Frames that the adapter may hold without an outcome.
pub(super) const WINDOW: usize = 8;
/// How long a frame may stay without an outcome before the adapter is made to forget it: N_As, and a little.
const STUCK_AFTER: Duration = Duration::from_millis(1200);
/// The same for frames that may not be sent late, once they are too old; not at once, as making the adapter forget them
/// costs what comes in meanwhile.
const STALE_AFTER: Duration = Duration::from_millis(100);

/// Whose frame it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Channel(u16),
    VinReader,
    Scanner,
    /// A channel that was closed since.
    Gone,
}

/// A frame that waits for the adapter to have room.
#[derive(Debug)]
struct Next {
    owner: Owner,
    frame: CanFrame,
    /// Until when it may be sent.
    expires: Option<Instant>,
}

/// A frame that the adapter holds.
#[derive(Debug)]
struct Outstanding {
    owner: Owner,
    since: Instant,
    expires: Option<Instant>,
}

/// Something for the operator: about which channel, when, and what.
#[derive(Debug, Clone, PartialEq)]
pub struct BusOutput {
    /// The channel.
    pub channel: u16,
    /// When it was on the bus.
    pub at: Instant,
    /// What.
    pub output: Output,
}

/// See the module.
#[derive(Debug, Default)]
pub struct BusCore {
    channels: BTreeMap<u16, Channel>,
    vin_reader: Option<Box<vin::Reader>>,
    vin_told: Option<Vec<vin::Candidate>>,
    scanner: Option<Box<Scanner>>,
    scanned: Option<(ScanOutcome, Vec<EcuFound>)>,
    state: BusState,
    next: Option<Next>,
    outstanding: VecDeque<Outstanding>,
    /// What channels that were closed have left to say; as many as channels were closed since the last frame.
    farewells: VecDeque<CanFrame>,
    /// The channel that sent last; the next one has its turn.
    last_turn: u16,
    outputs: VecDeque<BusOutput>,
}

impl BusCore {
    /// Opens a channel; the number must be free.
    pub fn open_channel(&mut self, number: u16, channel: Channel) {
        self.channels.insert(number, channel);
    }

    /// Closes a channel, and discards what it has not sent; false if there is none.
    pub fn close_channel(&mut self, number: u16) -> bool {
        self.disown(Owner::Channel(number));
        let Some(channel) = self.channels.remove(&number) else { return false };
        if self.state != BusState::Off {
            self.farewells.extend(channel.farewell());
        }
        true
    }

    /// What came of a channel whose opening took the ECU; one that failed is closed.
    pub fn poll_opened(&mut self) -> Option<(u16, Result<(), OpenFailure>)> {
        let opened =
            self.channels.iter_mut().find_map(|(number, channel)| Some((*number, channel.poll_opened()?)))?;
        if opened.1.is_err() {
            self.close_channel(opened.0);
        }
        Some(opened)
    }

    /// What is to be sent before the bus is left.
    pub fn farewells(&mut self) -> Vec<CanFrame> {
        let open = self.channels.values().filter_map(Channel::farewell);
        let farewells = self.farewells.drain(..).chain(open).collect();
        if self.state == BusState::Off { Vec::new() } else { farewells }
    }

    /// The bus's state as last heard.
    pub fn state(&self) -> BusState {
        self.state
    }

    /// Whether neither the adapter nor a channel has anything left to send.
    pub fn is_quiet(&self) -> bool {
        self.outstanding.is_empty()
            && self.next.is_none()
            && self.farewells.is_empty()
            && !self.channels.values().any(Channel::is_sending)
    }

    /// Reads the VIN on this bus, beside the channels.
    pub fn start_vin_reader(&mut self, reader: vin::Reader) {
        self.vin_reader = Some(Box::new(reader));
    }

    /// Which VINs were told, once reading is done.
    pub fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.vin_told.take()
    }

    /// Ends the VIN reader when it is finished.
    fn end_vin_reader(&mut self) {
        let Some(reader) = &mut self.vin_reader else { return };
        while let Some(event) = reader.poll_event() {
            if let vin::ReaderEvent::Finished(_) = event {
                self.vin_told = Some(reader.candidates().to_vec());
                self.vin_reader = None;
                self.disown(Owner::VinReader);
                return;
            }
        }
    }

    /// Looks for ECUs on this bus, beside the channels.
    pub fn start_scan(&mut self, scanner: Scanner) {
        self.scanner = Some(Box::new(scanner));
        self.end_scan();
    }

    /// The scan that runs.
    pub fn scanner_mut(&mut self) -> Option<&mut Scanner> {
        self.scanner.as_deref_mut()
    }

    /// How the scan ended and what it found, once it has.
    pub fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<EcuFound>)> {
        self.end_scan();
        self.scanned.take()
    }

    fn end_scan(&mut self) {
        if let Some(scanner) = &self.scanner
            && let Some(outcome) = scanner.outcome()
        {
            self.scanned = Some((outcome, scanner.ecus()));
            self.scanner = None;
            self.disown(Owner::Scanner);
        }
    }

    /// Forgets whose frames those are that the adapter still holds, and the one that it does not hold yet.
    fn disown(&mut self, owner: Owner) {
        self.next.take_if(|next| next.owner == owner);
        for outstanding in &mut self.outstanding {
            if outstanding.owner == owner {
                outstanding.owner = Owner::Gone;
            }
        }
    }

    /// A PDU of the operator.
    pub fn handle_pdu(&mut self, now: Instant, number: u16, flags: PduFlags, data: &[u8]) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.handle_pdu(now, flags, data);
            if self.state == BusState::Off {
                channel.handle_bus_off(now);
            }
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// A PDU of the operator that was refused before it came here.
    pub fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.handle_refused_pdu(flags);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// Asks the ECUs that were brought out of their default session to go back there.
    pub fn return_to_default_sessions(&mut self, now: Instant) {
        self.for_each_channel(now, |channel| {
            if let Channel::Pdu(channel) = channel {
                channel.return_to_default_session(now);
            }
        });
    }

    /// Whether channels that send TesterPresent by themselves may do so.
    pub fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        self.for_each_channel(now, |channel| {
            if let Channel::Pdu(channel) = channel {
                channel.set_keep_alive(now, enabled);
            }
        });
    }

    /// A frame of the operator, to be sent before `expires`.
    pub fn handle_frame_to_send(&mut self, now: Instant, number: u16, frame: CanFrame, expires: Instant) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.handle_frame_to_send(frame, expires);
            if self.state == BusState::Off {
                channel.handle_bus_off(now);
            }
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// What the adapter reports.
    pub fn handle_event(&mut self, now: Instant, event: &CanEvent) {
        match event {
            CanEvent::Received { frame, at } => {
                let is_kernels = self.is_kernels(*at, frame);
                self.for_each_channel(*at, |channel| {
                    // who listens to the bus is not told what it sent itself
                    if !is_kernels || matches!(channel, Channel::Pdu(_)) {
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

    fn handle_outcome(&mut self, now: Instant, at: Instant, failure: Option<SendFailure>) {
        match self.outstanding.pop_front().map(|outstanding| outstanding.owner) {
            Some(Owner::Channel(number)) => {
                if let Some(channel) = self.channels.get_mut(&number) {
                    match failure {
                        None => channel.handle_transmitted(now),
                        Some(failure) => channel.handle_transmit_failed(now, failure),
                    }
                    collect(number, channel, at, &mut self.outputs);
                }
            }
            Some(Owner::VinReader) => {
                if let Some(reader) = &mut self.vin_reader {
                    match failure {
                        None => reader.handle_transmitted(now),
                        Some(_) => reader.handle_transmit_failed(now),
                    }
                    self.end_vin_reader();
                }
            }
            Some(Owner::Scanner) => {
                if let Some(scanner) = &mut self.scanner {
                    match failure {
                        None => scanner.handle_transmitted(now),
                        Some(_) => scanner.handle_transmit_failed(now),
                    }
                    self.end_scan();
                }
            }
            Some(Owner::Gone) | None => {}
        }
    }

    /// The bus changed state; going off, everything that waits for it is thrown away, and its channels are told.
    pub fn handle_state(&mut self, now: Instant, state: BusState) {
        if self.state == state {
            return;
        }
        self.state = state;
        let (detail, text) = match state {
            BusState::Active => (0, "the bus is active"),
            BusState::Passive => (1, "the bus is error passive"),
            BusState::Off => (2, "the bus is off"),
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
            let output = Output::Event { code: EventCode::BusState, detail, value: 0, text };
            self.outputs.push_back(BusOutput { channel: *number, at: now, output });
        }
    }

    /// The bus is off: nothing that waits for it, or that the adapter holds, will be sent.
    fn throw_away_all(&mut self, now: Instant) {
        let held = self.outstanding.drain(..).map(|outstanding| outstanding.owner);
        for owner in held.chain(self.next.take().map(|next| next.owner)) {
            // what an ISO-TP channel has under way fails as a whole, below
            if let Owner::Channel(number) = owner
                && let Some(channel @ Channel::Raw(_)) = self.channels.get_mut(&number)
            {
                channel.handle_transmit_failed(now, SendFailure::BusOff);
            }
        }
        self.farewells.clear();
        self.for_each_channel(now, |channel| channel.handle_bus_off(now));
    }

    /// Whether the adapter holds a frame that it cannot get rid of; it should be set up anew, then
    /// [`BusCore::handle_reset`] called.
    pub fn is_stuck(&self, now: Instant) -> bool {
        self.stuck_at().is_some_and(|at| at <= now)
    }

    fn stuck_at(&self) -> Option<Instant> {
        let oldest = self.outstanding.front()?;
        let stuck_at = oldest.since + STUCK_AFTER;
        // a frame that goes stale is no reason to spoil a transfer that may still get through
        let would_spoil = self.vin_reader.is_some() || self.channels.values().any(Channel::is_sending);
        match oldest.expires {
            Some(expires) if !would_spoil => Some(stuck_at.min(expires.max(oldest.since + STALE_AFTER))),
            _ => Some(stuck_at),
        }
    }

    /// The adapter is set up anew, and forgets every frame; one that it had no room for is too old by now.
    pub fn handle_reset(&mut self, now: Instant) {
        let next = self.next.take();
        self.outstanding.extend(next.map(|next| Outstanding {
            owner: next.owner,
            since: now,
            expires: None,
        }));
        while !self.outstanding.is_empty() {
            self.handle_outcome(now, now, Some(SendFailure::NotAcknowledged));
        }
        self.reset_kernels(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_off = self.state == BusState::Off;
        self.for_each_channel(now, |channel| {
            if channel.poll_timeout().is_some_and(|at| at <= now) {
                channel.handle_timeout(now);
                if is_off && channel.is_sending() {
                    channel.handle_bus_off(now);
                }
            }
        });
        if let Some(reader) = &mut self.vin_reader {
            reader.handle_timeout(now);
            self.end_vin_reader();
        }
        if let Some(scanner) = &mut self.scanner {
            scanner.handle_timeout(now);
            self.end_scan();
        }
    }

    fn for_each_channel(&mut self, at: Instant, mut act: impl FnMut(&mut Channel)) {
        for (number, channel) in &mut self.channels {
            act(channel);
            collect(*number, channel, at, &mut self.outputs);
        }
    }

    /// The frame to hand to the adapter now; it stays the same until [`BusCore::handle_accepted`].
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.discard_stale_next(now);
        if self.next.is_none() && self.state != BusState::Off && self.outstanding.len() < WINDOW {
            self.next = self.next_frame(now);
        }
        self.next.as_ref().map(|next| next.frame)
    }

    /// The frame that waits for room may have waited too long.
    fn discard_stale_next(&mut self, now: Instant) {
        let stale = self.next.take_if(|next| next.expires.is_some_and(|expires| expires < now));
        if let Some(Next { owner: Owner::Channel(number), .. }) = stale
            && let Some(channel) = self.channels.get_mut(&number)
        {
            channel.handle_too_old();
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// The next channel's number, round about.
    fn turn_after(&self, number: u16) -> Option<u16> {
        let mut after = self.channels.range((Bound::Excluded(number), Bound::Unbounded));
        after.next().or_else(|| self.channels.iter().next()).map(|(number, _)| *number)
    }

    /// Asks the channels in turn, the VIN reader and a scan last.
    fn next_frame(&mut self, now: Instant) -> Option<Next> {
        if let Some(frame) = self.farewells.pop_front() {
            return Some(Next { owner: Owner::Gone, frame, expires: None });
        }
        let mut number = self.turn_after(self.last_turn);
        for _ in 0..self.channels.len() {
            let turn = number?;
            while let Some((frame, expires)) = self.poll_channel(now, turn) {
                if self.is_given_by_another(turn, &frame) {
                    self.handle_not_needed(now, turn);
                } else {
                    self.last_turn = turn;
                    return Some(Next { owner: Owner::Channel(turn), frame, expires });
                }
            }
            number = self.turn_after(turn);
        }
        if let Some(frame) = self.vin_reader.as_mut().and_then(|reader| reader.poll_transmit(now)) {
            return Some(Next { owner: Owner::VinReader, frame, expires: None });
        }
        let channels = &self.channels;
        let is_busy = |request| channels.values().any(|channel| channel.is_busy_with(request));
        let frame = self.scanner.as_mut()?.poll_transmit(now, is_busy)?;
        Some(Next { owner: Owner::Scanner, frame, expires: None })
    }

    fn poll_channel(&mut self, now: Instant, number: u16) -> Option<(CanFrame, Option<Instant>)> {
        let channel = self.channels.get_mut(&number)?;
        let frame = channel.poll_transmit(now);
        collect(number, channel, now, &mut self.outputs);
        frame
    }

    /// Whether it is the flow control of a functional channel for an answer that another channel receives too, and
    /// meets with its own: an ECU is to get one.
    fn is_given_by_another(&self, number: u16, frame: &CanFrame) -> bool {
        self.channels.get(&number).is_some_and(|channel| channel.is_functional_flow_control(frame))
            && self.channels.values().any(|channel| channel.is_receiving_from(frame.id()))
    }

    fn handle_not_needed(&mut self, now: Instant, number: u16) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.handle_transmitted(now);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    /// The adapter took the frame.
    pub fn handle_accepted(&mut self, now: Instant) {
        if let Some(Next { owner, expires, .. }) = self.next.take() {
            self.outstanding.push_back(Outstanding { owner, since: now, expires });
        }
    }

    /// The adapter refused the frame, and will not take it later either.
    pub fn handle_refused(&mut self, now: Instant) {
        if let Some(Next { owner, expires, .. }) = self.next.take() {
            // its outcome is the newest: it gets it at once, ahead of those before it, whose owners do not mix theirs
            self.outstanding.push_front(Outstanding { owner, since: now, expires });
            self.handle_outcome(now, now, Some(SendFailure::NotAcknowledged));
        }
    }

    /// The next thing for the operator.
    pub fn poll_output(&mut self) -> Option<BusOutput> {
        self.outputs.pop_front()
    }

    /// When [`BusCore::handle_timeout`] or a look at [`BusCore::is_stuck`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let channels = self.channels.values().filter_map(Channel::poll_timeout).min();
        let reader = self.vin_reader.as_ref().and_then(|reader| reader.poll_timeout()).map(|(at, _)| at);
        let scanner = self.scanner.as_ref().and_then(|scanner| scanner.poll_timeout());
        [channels, self.stuck_at(), reader, scanner].into_iter().flatten().min()
    }
}

fn collect(number: u16, channel: &mut Channel, at: Instant, outputs: &mut VecDeque<BusOutput>) {
    while let Some(output) = channel.poll_output() {
        outputs.push_back(BusOutput { channel: number, at, output });
    }
}
