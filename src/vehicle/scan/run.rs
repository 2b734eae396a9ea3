//! The shell around a scan: a bus of its own, its bit rate found, scanned, and left listening.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanBus, CanBusExt, CanError, CanEvent, CanFrame, CanSettings};
use connector_hal::timer::{Deadline, TimerKind};

use super::{EcuFound, Progress, ScanOutcome, ScanSettings, Scanner};
use crate::vehicle::bit_rate::{BitRateSearch, GiveUp, SearchSettings, Step};

/// How long to listen at each bit rate for a first frame.
const LISTEN_TIME: Duration = Duration::from_millis(100);
/// How long to listen in all.
const LISTEN_BUDGET: Duration = Duration::from_millis(750);
/// The data bit rate to set where the adapter can do CAN FD, so that FD frames of others are no errors.
const DATA_BIT_RATE: u32 = 2_000_000;
/// Setting the adapter up afterwards takes no longer, or it does not answer.
const QUIETEN_TIME: Duration = Duration::from_millis(500);

/// How a scan ended, and what it has found until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanEnd {
    /// Why it ended.
    pub outcome: ScanOutcome,
    /// The ECUs, by identifier.
    pub ecus: Vec<EcuFound>,
    /// The bit rate at which they answered, in bit/s.
    pub bit_rate: u32,
    /// How long it took.
    pub elapsed: Duration,
}

/// Why a bus was not scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The adapter failed.
    #[error(transparent)]
    Can(#[from] CanError),
    /// Nothing may be sent on this bus.
    #[error("nothing was asked")]
    GivenUp(GiveUp),
}

/// What goes on outside the bus while it is scanned.
pub trait Surroundings {
    /// Whether the ignition is on, where that can be told.
    fn ignition(&self) -> Option<bool>;
    /// How far the scan is.
    fn tell(&mut self, progress: Progress);
}

/// Scans a bus at one of these bit rates, which is looked for as for the VIN: by listening, then by one frame at the
/// likeliest.
///
/// # Errors
///
/// The adapter cannot be set up, or fails; nobody is on the bus, or its bit rate is another.
pub async fn scan(
    bus: &mut dyn CanBus,
    bit_rates: &[u32],
    timer: TimerKind,
    surroundings: &mut impl Surroundings,
) -> Result<ScanEnd, ScanError> {
    let mut search = BitRateSearch::new(SearchSettings {
        bit_rates: bit_rates.to_vec(),
        listen_time: LISTEN_TIME,
        listen_budget: LISTEN_BUDGET,
        listen_only: bus.capabilities().listen_only,
    });
    loop {
        match search.poll_step() {
            Some(Step::Configure { bit_rate, listen_only }) => {
                match configure(bus, bit_rate, listen_only).await {
                    Ok(()) => search.handle_configured(timer.now()),
                    Err(error) if error.is_fatal() => return Err(error.into()),
                    Err(error) => {
                        tracing::debug!(%error, "the adapter is not set up so");
                        search.handle_refused();
                    }
                }
            }
            Some(Step::Ask { bit_rate, alive }) => {
                let end = scan_at(bus, bit_rate, timer, surroundings).await?;
                if end.outcome == ScanOutcome::NotAcknowledged && !alive {
                    search.handle_unacknowledged();
                    continue;
                }
                quieten(bus, bit_rate).await;
                return Ok(end);
            }
            Some(Step::GiveUp(why)) => return Err(ScanError::GivenUp(why)),
            None => {
                let mut deadline = Deadline::new(timer);
                deadline.set(search.poll_timeout());
                tokio::select! {
                    biased;
                    event = bus.event() => match event? {
                        CanEvent::Received { frame, .. } => search.handle_frame(timer.now(), &frame),
                        CanEvent::State(state) => search.handle_bus_state(timer.now(), state),
                        _ => {}
                    },
                    () = deadline.expired() => search.handle_timeout(timer.now()),
                }
            }
        }
    }
}

/// Sets the adapter up, with CAN FD if it can.
async fn configure(bus: &mut dyn CanBus, bit_rate: u32, listen_only: bool) -> Result<(), CanError> {
    let classic = CanSettings { bit_rate, data_bit_rate: None, listen_only };
    if bus.capabilities().fd {
        let fd = CanSettings { data_bit_rate: Some(DATA_BIT_RATE), ..classic };
        match bus.configure(fd).await {
            Err(error) if !error.is_fatal() => {}
            result => return result,
        }
    }
    bus.configure(classic).await
}

/// Lets the adapter only listen, if it can; what was found counts, whatever it does now.
async fn quieten(bus: &mut dyn CanBus, bit_rate: u32) {
    if bus.capabilities().listen_only
        && !matches!(tokio::time::timeout(QUIETEN_TIME, configure(bus, bit_rate, true)).await, Ok(Ok(())))
    {
        tracing::debug!(device = bus.device(), "the adapter stays as it is");
    }
}

async fn scan_at(
    bus: &mut dyn CanBus,
    bit_rate: u32,
    timer: TimerKind,
    surroundings: &mut impl Surroundings,
) -> Result<ScanEnd, CanError> {
    let started = timer.now();
    let mut scanner = Scanner::new(ScanSettings { bit_rate }, started);
    let mut deadline = Deadline::new(timer);
    let mut outgoing: Option<CanFrame> = None;
    loop {
        let now = timer.now();
        if scanner.poll_timeout().is_some_and(|at| at <= now) {
            scanner.handle_timeout(now);
            scanner.handle_ignition(surroundings.ignition());
        }
        surroundings.tell(scanner.progress());
        if let Some(outcome) = scanner.outcome() {
            let elapsed = now.saturating_duration_since(started);
            return Ok(ScanEnd { outcome, ecus: scanner.ecus(), bit_rate, elapsed });
        }
        if outgoing.is_none() {
            outgoing = scanner.poll_transmit(now, |_| false);
        }
        deadline.set(scanner.poll_timeout());
        let step = poll_fn(|cx| {
            if let Some(frame) = &outgoing
                && let Poll::Ready(taken) = bus.poll_send(cx, frame)
            {
                return Poll::Ready(Happened::Taken(taken));
            }
            if let Poll::Ready(event) = bus.poll_event(cx) {
                return Poll::Ready(Happened::Event(event));
            }
            deadline.poll_expired(cx).map(|()| Happened::Due)
        });
        match step.await {
            Happened::Taken(Ok(())) => outgoing = None,
            Happened::Taken(Err(error)) if error.is_fatal() => return Err(error),
            Happened::Taken(Err(error)) => {
                tracing::debug!(%error, "the adapter refused a frame");
                outgoing = None;
                scanner.handle_transmit_failed(timer.now());
            }
            Happened::Event(event) => handle_event(&mut scanner, timer.now(), &event?),
            Happened::Due => {}
        }
    }
}

enum Happened {
    Taken(Result<(), CanError>),
    Event(Result<CanEvent, CanError>),
    Due,
}

fn handle_event(scanner: &mut Scanner, now: Instant, event: &CanEvent) {
    match event {
        CanEvent::Received { frame, .. } => scanner.handle_frame(now, frame),
        CanEvent::Transmitted { .. } => scanner.handle_transmitted(now),
        CanEvent::TransmitFailed { .. } => scanner.handle_transmit_failed(now),
        CanEvent::State(BusState::Off) => scanner.handle_bus_off(),
        CanEvent::State(_) | CanEvent::Lost(_) => {}
    }
}
