//! The VIN by CAN: finds the bus's bit rate, asks the ECUs, and leaves the adapter quiet.

mod ecus;
mod event;
mod peer;
mod presence;
mod probes;
mod questions;
mod reader;
mod timing;

use std::time::{Duration, Instant};

use connector_hal::can::{CanBus, CanError, CanEvent};
use connector_hal::timer::TimerKind;
use tokio_util::sync::CancellationToken;

pub use self::event::{ReaderEvent, ReaderOutcome, ReaderSettings, ReaderTimer};
pub use self::reader::VinReader;
pub(crate) use self::timing::LATENCY_ALLOWANCE;
use super::report::Candidate;
use crate::config::VinSettings;
use crate::vehicle::bit_rate::{Exchanged, GiveUp, Listened, ProbeSettings, ProbedBus};

/// The clock of the shell. Tests can pause it.
const CLOCK: TimerKind = TimerKind::Runtime;

/// A bus after reading: nothing more is sent on it, and its adapter only listens, if it can.
pub struct BusReading {
    /// The bus.
    pub bus: Box<dyn CanBus>,
    /// The bus's bit rate, in bit/s, if frames were heard or acknowledged at it.
    pub bit_rate: Option<u32>,
    /// How reading ended on this bus.
    pub end: BusEnd,
}

/// How reading ended on one bus.
#[derive(Debug)]
pub enum BusEnd {
    /// An ECU sent the VIN.
    Answered,
    /// ECUs are on the bus, but none sent a VIN.
    NotAnswered,
    /// Another tester is on the bus.
    OtherTester,
    /// The bus was not asked, or no node acknowledged a frame.
    GivenUp(GiveUp),
    /// Another bus delivered the VIN, or the time was up.
    Stopped,
    /// The adapter failed.
    Failed(CanError),
}

/// What one bus contributes to a reading.
pub(super) struct BusResult {
    pub(super) reading: BusReading,
    /// The VINs, in the order in which they came.
    pub(super) candidates: Vec<Candidate>,
    /// The time when the adapter was ready.
    pub(super) started_at: Option<Instant>,
    /// The time of the first VIN.
    pub(super) found_at: Option<Instant>,
    pub(super) ended_at: Instant,
}

/// Reads the VIN from one bus, until `stop` is cancelled at the latest.
pub(super) async fn read_bus(
    mut bus: Box<dyn CanBus>,
    settings: &VinSettings,
    stop: &CancellationToken,
) -> BusResult {
    let mut asking = AskedBus {
        budget: settings.budget,
        listen_first: settings.listen_first,
        candidates: Vec::new(),
        found_at: None,
    };
    let mut probed = ProbedBus::new(bus.as_mut(), probe_settings(settings), CLOCK);
    let end = tokio::select! {
        biased;
        end = asking.run(&mut probed) => end.unwrap_or_else(BusEnd::Failed),
        () = stop.cancelled() => match asking.candidates.is_empty() {
            true => BusEnd::Stopped,
            false => BusEnd::Answered,
        },
    };
    let ended_at = CLOCK.now();
    if !matches!(end, BusEnd::Failed(_)) {
        probed.quieten().await;
    }
    let (bit_rate, started_at) = (probed.bit_rate(), probed.started_at());
    tracing::debug!(device = bus.device(), ?end, bit_rate, "VIN reading ended");
    let AskedBus { candidates, found_at, .. } = asking;
    BusResult { reading: BusReading { bus, bit_rate, end }, candidates, started_at, found_at, ended_at }
}

fn probe_settings(settings: &VinSettings) -> ProbeSettings {
    ProbeSettings {
        bit_rates: settings.bit_rates.clone(),
        listen_time: settings.listen_time,
        // the other half is for asking
        listen_budget: settings.budget / 2,
        data_bit_rate: settings.data_bit_rate,
        budget: Some(settings.budget),
    }
}

/// Asks the ECUs of one bus, at one bit rate after the other.
struct AskedBus {
    /// The time from when the adapter is ready.
    budget: Duration,
    /// How long to listen for another tester before the first question.
    listen_first: Duration,
    candidates: Vec<Candidate>,
    found_at: Option<Instant>,
}

impl AskedBus {
    async fn run(&mut self, bus: &mut ProbedBus<'_>) -> Result<BusEnd, CanError> {
        loop {
            match bus.listen().await? {
                Listened::Ask { bit_rate, alive } => {
                    tracing::debug!(device = bus.device(), bit_rate, alive, "asking for the VIN");
                    match self.ask(bus, alive).await? {
                        ReaderOutcome::Answered => return Ok(BusEnd::Answered),
                        ReaderOutcome::OtherTester => return Ok(BusEnd::OtherTester),
                        ReaderOutcome::NotAcknowledged if bus.handle_unacknowledged() => {}
                        ReaderOutcome::NotAcknowledged | ReaderOutcome::NotAnswered | ReaderOutcome::Held => {
                            return Ok(BusEnd::NotAnswered);
                        }
                    }
                }
                Listened::GiveUp(why) => return Ok(BusEnd::GivenUp(why)),
                Listened::OutOfTime => return Ok(BusEnd::Stopped),
            }
        }
    }

    async fn ask(&mut self, bus: &mut ProbedBus<'_>, alive: bool) -> Result<ReaderOutcome, CanError> {
        let since = bus.started_at().unwrap_or_else(|| CLOCK.now());
        let until = since + self.budget + self.listen_first;
        let confirms_transmission = bus.capabilities().confirms_transmission;
        let settings = ReaderSettings { until, alive, confirms_transmission, shares_bus: false };
        let mut reader = VinReader::new(settings);
        if !bus.listens_only() {
            reader.trust_bit_rate();
        }
        if let Some(frame) = bus.heard() {
            reader.handle_frame(CLOCK.now(), frame);
        }
        self.listen(bus, &mut reader).await?;
        let mut outgoing = None;
        loop {
            outgoing = outgoing.or_else(|| reader.poll_transmit(CLOCK.now()));
            if let Some(outcome) = self.take_events(&mut reader) {
                return Ok(outcome);
            }
            let deadline = reader.poll_timeout().map(|(at, _)| at);
            match bus.exchange(&mut outgoing, deadline).await? {
                Exchanged::Taken => {}
                Exchanged::Refused => reader.handle_refused(CLOCK.now()),
                Exchanged::Event(event) => {
                    // some adapters show only by their first answer whether they confirm frames
                    reader.set_confirms_transmission(bus.capabilities().confirms_transmission);
                    handle_event(&mut reader, CLOCK.now(), &event);
                }
                Exchanged::Due => reader.handle_timeout(CLOCK.now()),
            }
        }
    }

    /// Listens for another tester. The reader sends nothing until it is polled.
    async fn listen(&self, bus: &mut ProbedBus<'_>, reader: &mut VinReader) -> Result<(), CanError> {
        let until = CLOCK.now() + self.listen_first;
        while CLOCK.now() < until {
            if let Exchanged::Event(event) = bus.exchange(&mut None, Some(until)).await? {
                handle_event(reader, CLOCK.now(), &event);
            }
        }
        Ok(())
    }

    /// Keeps the VINs; returns the outcome once reading has ended.
    fn take_events(&mut self, reader: &mut VinReader) -> Option<ReaderOutcome> {
        while let Some(event) = reader.poll_event() {
            match event {
                ReaderEvent::Answered(candidate) => {
                    self.found_at.get_or_insert_with(|| CLOCK.now());
                    self.candidates.push(candidate);
                }
                ReaderEvent::Finished(outcome) => return Some(outcome),
            }
        }
        None
    }
}

fn handle_event(reader: &mut VinReader, now: Instant, event: &CanEvent) {
    match event {
        CanEvent::Received { frame, .. } => reader.handle_frame(now, frame),
        CanEvent::Transmitted { .. } => reader.handle_transmitted(now),
        CanEvent::TransmitFailed { .. } => reader.handle_transmit_failed(now),
        CanEvent::State(state) => reader.handle_bus_state(now, *state),
        // the adapter was not asked for outcomes in another order
        CanEvent::Lost(_) | CanEvent::Overtaking { .. } => {}
    }
}
