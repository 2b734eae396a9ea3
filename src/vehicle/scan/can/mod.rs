//! Looking for ECUs on a CAN bus: one TesterPresent to each identifier that may be an ECU's, and a second one
//! to be sure.
//!
//! [`Scanner`] is a pure state machine. [`scan`] is the shell around it for a bus that no session uses: it
//! finds the bit rate, scans, and leaves the adapter quiet. In a session, the bus passes its frames to the
//! scanner besides its channels.
//!
//! The scanner asks in this order:
//!
//! 1. Nothing, for three seconds: the scanner does not use identifiers of other nodes, and does not take their
//!    frames for answers.
//! 2. The vehicle's speed: a bus is scanned only if an ECU reports that the vehicle stands, or a person confirmed
//!    it.
//! 3. `3E 00` to 0x700…0x7FF except 0x7DF, and to 0x241…0x25F, where General Motors has its ECUs; to
//!    0x600…0x6FF only if that was asked for. An ECU that answers is asked again alone, because the answer's
//!    identifier may be any.
//! 4. `3E 00` to 0x18DAxxF1, where the answer names the ECU.
//! 5. `3E 00` with every extended address to 0x750, and to 0x6F1 if that was asked for.
//! 6. A TP2.0 channel to every logical address, closed immediately.

mod acknowledgement;
mod answer;
mod noise;
mod pacing;
mod plan;
mod proofs;
mod resolve;
mod scanner;
mod sent;
mod stage;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanBus, CanError, CanEvent, CanFrame};
use connector_hal::timer::TimerKind;

pub use self::scanner::{ScanSettings, Scanner};
use super::outcome::{ScanObserver, ScanOutcome};
use super::report::EcuFound;
use super::request::ScanRequest;
use crate::vehicle::bit_rate::{Exchanged, GiveUp, Listened, ProbeSettings, ProbedBus};

/// How long to listen at each bit rate for a first frame: as long as before a reading of the VIN.
const LISTEN_TIME: Duration = Duration::from_millis(100);
/// How long to listen in total: half of the default budget of a reading of the VIN, 1.5 s.
const LISTEN_BUDGET: Duration = Duration::from_millis(750);
/// The data bit rate to set where the adapter supports CAN FD, so that FD frames of others are not errors
/// (ISO 15765-4).
const DATA_BIT_RATE: u32 = 2_000_000;

/// How a scan ended, and the ECUs that it found until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEnd {
    /// The reason why the scan ended.
    pub outcome: ScanOutcome,
    /// The ECUs, by identifier.
    pub ecus: Vec<EcuFound>,
    /// The bit rate at which they answered, in bit/s.
    pub bit_rate: u32,
    /// The time that the scan took.
    pub elapsed: Duration,
}

/// The reason why a bus was not scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The adapter failed.
    #[error(transparent)]
    Can(#[from] CanError),
    /// Nothing may be sent on this bus.
    #[error("the bus was not scanned")]
    GivenUp(GiveUp),
}

/// Scans a bus at one of these bit rates. The bit rate is found as for the VIN: by listening, then by one
/// frame at the likeliest bit rate.
///
/// # Errors
///
/// The adapter cannot be set up or fails, no node is on the bus, or the bus has another bit rate.
pub async fn scan(
    bus: &mut dyn CanBus,
    bit_rates: &[u32],
    request: &ScanRequest,
    timer: TimerKind,
    observer: &mut impl ScanObserver,
) -> Result<ScanEnd, ScanError> {
    let settings = ProbeSettings {
        bit_rates: bit_rates.to_vec(),
        listen_time: LISTEN_TIME,
        listen_budget: LISTEN_BUDGET,
        data_bit_rate: Some(DATA_BIT_RATE),
        budget: None,
    };
    let mut bus = ProbedBus::new(bus, settings, timer);
    let end = find_and_scan(&mut bus, request, timer, observer).await;
    if !matches!(end, Err(ScanError::Can(_))) {
        bus.quieten().await;
    }
    end
}

async fn find_and_scan(
    bus: &mut ProbedBus<'_>,
    request: &ScanRequest,
    timer: TimerKind,
    observer: &mut impl ScanObserver,
) -> Result<ScanEnd, ScanError> {
    loop {
        match bus.listen().await? {
            Listened::Ask { bit_rate, .. } => {
                let settings = ScanSettings { bit_rate, request: request.clone(), shares_bus: false };
                let end = scan_at(bus, settings, timer, observer).await?;
                if end.outcome != ScanOutcome::NotAcknowledged || !bus.handle_unacknowledged() {
                    return Ok(end);
                }
            }
            Listened::GiveUp(why) => return Err(ScanError::GivenUp(why)),
            // cannot happen without a budget
            Listened::OutOfTime => return Err(ScanError::GivenUp(GiveUp::NoNode)),
        }
    }
}

async fn scan_at(
    bus: &mut ProbedBus<'_>,
    settings: ScanSettings,
    timer: TimerKind,
    observer: &mut impl ScanObserver,
) -> Result<ScanEnd, CanError> {
    let (started, bit_rate) = (timer.now(), settings.bit_rate);
    let mut scanner = Scanner::new(settings, started);
    if let Some(frame) = bus.heard() {
        scanner.handle_frame(started, frame);
    }
    let mut outgoing: Option<CanFrame> = None;
    loop {
        let now = timer.now();
        observer.handle_progress(scanner.progress());
        if let Some(outcome) = scanner.outcome() {
            let elapsed = now.saturating_duration_since(started);
            return Ok(ScanEnd { outcome, ecus: scanner.ecus(), bit_rate, elapsed });
        }
        if outgoing.is_none() {
            outgoing = scanner.poll_transmit(now, |_| false);
        }
        match bus.exchange(&mut outgoing, scanner.poll_timeout()).await? {
            Exchanged::Refused => scanner.handle_refused(),
            Exchanged::Event(event) => handle_event(&mut scanner, timer.now(), &event),
            Exchanged::Taken => {}
            // only now have all events been read that a deadline may wait for
            Exchanged::Due => {
                scanner.handle_timeout(timer.now());
                scanner.handle_ignition(observer.ignition());
            }
        }
    }
}

fn handle_event(scanner: &mut Scanner, now: Instant, event: &CanEvent) {
    match event {
        CanEvent::Received { frame, .. } => scanner.handle_frame(now, frame),
        CanEvent::Transmitted { .. } => scanner.handle_transmitted(now),
        CanEvent::TransmitFailed { .. } => scanner.handle_transmit_failed(now),
        CanEvent::State(BusState::Off) => scanner.handle_bus_off(),
        // the adapter was not asked for outcomes in another order
        CanEvent::State(_) | CanEvent::Lost(_) | CanEvent::Overtaking { .. } => {}
    }
}
