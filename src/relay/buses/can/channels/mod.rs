//! A bus of a connection: its channels, and whose frame goes next.
//!
//! A pure state machine over the channels. Few frames at a time are handed to the adapter (8), so that a
//! channel that closes, or a bus that goes off, leaves hardly anything behind that could still be sent.

mod kernel;
mod readers;
mod turns;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::{CanEvent, CanFrame};

use crate::protocol::isotp::SendFailure;
use crate::relay::channel::{Channel, OpenFailure, Output};
use crate::relay::wire::codec::{EventCode, PduFlags};
use crate::vehicle::scan::{EcuFound, ScanOutcome, Scanner};
use crate::vehicle::vin;
pub(super) use turns::WINDOW;
use turns::{Next, Outstanding, Owner};

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
    vin_reader: Option<Box<vin::VinReader>>,
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
