//! The wire: arbitration, transmission and acknowledgement. A pure state machine; time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::background::BackgroundTraffic;
use super::config::VirtualBusConfig;
use super::node::{BusError, BusNode, is_same_rate, understands};
use super::statistics::BusStatistics;
use crate::bus::{BusState, LoadMeter};
use crate::can::frame_length::INTERMISSION_BITS;
use crate::can::{CanFilter, CanFrame, CanSettings, FrameKind, WireLength};

/// After how many bits receivers with another bit rate detect their first error: within the identifier.
const BITS_BEFORE_DISTURBANCE: u32 = 12;
/// Error flag, the error flags of the other nodes, and error delimiter.
const ERROR_FRAME_BITS: u32 = 6 + 6 + 8;
/// How often an error passive node repeats a frame without acknowledgement. A real node repeats without
/// pause, but no other node is there to see the difference, and simulating every repetition would occupy a
/// core.
const LONELY_PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameSender {
    Node { key: u32, epoch: u32 },
    Background,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FrameOutcome {
    Acknowledged,
    NotAcknowledged,
    Destroyed,
}

/// A frame on the wire.
#[derive(Debug, Clone, Copy)]
struct Transmission {
    sender: FrameSender,
    settings: CanSettings,
    frame: CanFrame,
    outcome: FrameOutcome,
    start: Instant,
    end: Instant,
}

/// The wire and its nodes. `nodes` is in the order of attachment.
pub(super) struct Medium {
    settings: CanSettings,
    granularity: Duration,
    pub nodes: BTreeMap<u32, BusNode>,
    pub background: BackgroundTraffic,
    pub load: LoadMeter,
    pub statistics: BusStatistics,
    /// How many of the next frames to destroy by an injected error.
    pub destroy_next: u32,
    /// How many of the next matching frames to acknowledge without delivering them.
    pub drop_next: (u32, Option<CanFilter>),
    current: Option<Transmission>,
    free_at: Instant,
}

impl Medium {
    pub(super) fn new(config: &VirtualBusConfig, now: Instant) -> Self {
        Self {
            settings: CanSettings {
                bit_rate: config.bit_rate,
                data_bit_rate: config.data_bit_rate,
                listen_only: false,
            },
            granularity: config.timer.granularity(),
            nodes: BTreeMap::new(),
            background: BackgroundTraffic::new(config.load, config.bit_rate, now),
            load: LoadMeter::new(now),
            statistics: BusStatistics::default(),
            destroy_next: 0,
            drop_next: (0, None),
            current: None,
            free_at: now,
        }
    }

    /// The settings of the vehicle's nodes.
    pub(super) fn settings(&self) -> CanSettings {
        self.settings
    }

    /// Appends a frame to the transmit queue of a node.
    pub(super) fn enqueue(&mut self, key: u32, frame: CanFrame, now: Instant) {
        if let Some(node) = self.nodes.get_mut(&key) {
            node.enqueue(frame, now, self.granularity);
        }
    }

    /// When to call [`Medium::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.current {
            Some(transmission) => Some(transmission.end),
            None => self.next_start(),
        }
    }

    /// Simulates the bus up to `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        loop {
            if let Some(transmission) = self.current {
                if transmission.end > now {
                    return;
                }
                self.current = None;
                self.finish(transmission);
            }
            match self.next_start() {
                Some(start) if start <= now => self.begin(start),
                _ => return,
            }
        }
    }

    fn next_start(&self) -> Option<Instant> {
        let heads = self.nodes.values().filter_map(|node| {
            node.listening()?;
            node.outgoing.front().map(|outgoing| outgoing.ready_at)
        });
        let earliest = heads.chain(self.background.ready_at()).min()?;
        Some(earliest.max(self.free_at))
    }

    /// Arbitrates between the frames that are ready at `start`: the lowest identifier wins, and a data frame
    /// wins over a remote frame. Of two equal frames, the node attached first wins; on a real bus the two
    /// would disturb each other.
    fn begin(&mut self, start: Instant) {
        self.background.handle_timeout(start);
        let nodes = self.nodes.iter().filter_map(|(key, node)| {
            let settings = node.listening()?;
            let outgoing = node.outgoing.front().filter(|outgoing| outgoing.ready_at <= start)?;
            Some((FrameSender::Node { key: *key, epoch: node.epoch }, settings, outgoing.frame))
        });
        let background =
            self.background.frame(start).map(|frame| (FrameSender::Background, self.settings, frame));
        let winner = nodes
            .chain(background)
            .min_by_key(|(_, _, frame)| (frame.id().arbitration_key(), frame.kind() == FrameKind::Remote));
        let Some((sender, settings, frame)) = winner else { return };
        let outcome = self.judge(sender, &settings, &frame);
        let length = WireLength::of(&frame);
        let on_wire = match outcome {
            FrameOutcome::Acknowledged => length.duration(&settings),
            FrameOutcome::NotAcknowledged => {
                let error = WireLength { nominal_bits: length.nominal_bits + 6, ..length };
                error.duration(&settings)
            }
            FrameOutcome::Destroyed => {
                let nominal_bits = BITS_BEFORE_DISTURBANCE + ERROR_FRAME_BITS;
                WireLength { nominal_bits, data_bits: 0 }.duration(&settings)
            }
        };
        let intermission = WireLength { nominal_bits: INTERMISSION_BITS, data_bits: 0 };
        let end = start + on_wire;
        self.free_at = end + intermission.duration(&settings);
        self.current = Some(Transmission { sender, settings, frame, outcome, start, end });
    }

    /// Decides the outcome of a frame by the other nodes on the bus.
    fn judge(&mut self, sender: FrameSender, settings: &CanSettings, frame: &CanFrame) -> FrameOutcome {
        let mut acknowledged = false;
        let mut disturbed = false;
        // the senders of the background traffic have the settings of the vehicle
        let hidden = (self.background.is_present() && sender != FrameSender::Background)
            .then_some((self.settings, BusState::Active));
        let others = self
            .nodes
            .iter()
            .filter(|(key, _)| !matches!(sender, FrameSender::Node { key: own, .. } if own == **key))
            .filter_map(|(_, node)| Some((node.participating()?, node.state)));
        for (other, state) in others.chain(hidden) {
            if understands(&other, settings, frame) {
                acknowledged = true;
            } else if state == BusState::Active {
                // only an active error flag destroys the frame; a passive one is invisible on the wire
                disturbed = true;
            }
        }
        if sender == FrameSender::Background {
            acknowledged = true;
        }
        if disturbed || !is_same_rate(settings.bit_rate, self.settings.bit_rate) {
            self.statistics.disturbances += 1;
        }
        if self.destroy_next > 0 {
            self.destroy_next -= 1;
            return FrameOutcome::Destroyed;
        }
        match (disturbed, acknowledged) {
            (true, _) => FrameOutcome::Destroyed,
            (false, true) => FrameOutcome::Acknowledged,
            (false, false) => FrameOutcome::NotAcknowledged,
        }
    }

    fn finish(&mut self, transmission: Transmission) {
        let Transmission { sender, settings, frame, outcome, start, end } = transmission;
        self.load.add(end, self.free_at.saturating_duration_since(start));
        match outcome {
            FrameOutcome::Acknowledged => self.statistics.frames += 1,
            FrameOutcome::NotAcknowledged | FrameOutcome::Destroyed => self.statistics.error_frames += 1,
        }
        let dropped = outcome == FrameOutcome::Acknowledged && self.take_drop(&frame);
        let own = match sender {
            FrameSender::Node { key, .. } => Some(key),
            FrameSender::Background => None,
        };
        for (key, node) in &mut self.nodes {
            let Some(receiver) = node.listening() else { continue };
            if own == Some(*key) {
                continue;
            }
            let understood = understands(&receiver, &settings, &frame);
            match outcome {
                FrameOutcome::Acknowledged if understood && dropped => {}
                FrameOutcome::Acknowledged if understood => node.handle_received(frame, own.is_none(), end),
                // a controller that only listens does not count errors
                _ if receiver.listen_only => node.handle_receive_error(0, end),
                // the first node to flag an error sees a dominant bit after its flag: +8 (ISO 11898-1,
                // 12.1.4.2)
                _ => node.handle_receive_error(if understood { 1 } else { 9 }, end),
            }
        }
        match sender {
            FrameSender::Background if outcome == FrameOutcome::Acknowledged => {
                self.statistics.background_frames += 1;
                self.background.handle_transmitted();
            }
            FrameSender::Background => {}
            FrameSender::Node { key, epoch } => self.settle(key, epoch, outcome, end),
        }
    }

    /// Reports the outcome to the sender.
    fn settle(&mut self, key: u32, epoch: u32, outcome: FrameOutcome, end: Instant) {
        let Some(node) = self.nodes.get_mut(&key).filter(|node| node.epoch == epoch) else { return };
        match outcome {
            FrameOutcome::Acknowledged => node.handle_transmitted(end),
            FrameOutcome::NotAcknowledged => node.handle_transmit_error(BusError::NoAcknowledgement, end),
            FrameOutcome::Destroyed => node.handle_transmit_error(BusError::Protocol, end),
        }
        let lonely = outcome == FrameOutcome::NotAcknowledged && node.state == BusState::Passive;
        if let Some(head) = node.outgoing.front_mut().filter(|_| lonely) {
            head.ready_at = end + LONELY_PAUSE;
        }
    }

    fn take_drop(&mut self, frame: &CanFrame) -> bool {
        let (left, filter) = &mut self.drop_next;
        let applies = *left > 0 && filter.is_none_or(|filter| filter.matches(frame.id()));
        *left -= u32::from(applies);
        applies
    }
}
