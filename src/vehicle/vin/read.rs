//! Reading the VIN from CAN buses: listening, asking, and leaving the adapters quiet.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use connector_hal::can::{CanBus, CanBusExt, CanCapabilities, CanError, CanEvent, CanFrame, CanSettings};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    BesideCan, Candidate, LATENCY_ALLOWANCE, Outcome, P2, Reader, ReaderEvent, ReaderSettings, VinReport,
};
use crate::config::VinSettings;
use crate::vehicle::bit_rate::{BitRateSearch, GiveUp, SearchSettings, Step};
use crate::vehicle::vin::doip::DoipReading;

/// An adapter that starts anew when it is opened, as some with USB do, gets so much time besides the budget.
const ADAPTER_TIME: Duration = Duration::from_secs(4);
/// Setting an adapter up afterwards takes no longer, or it does not answer.
const QUIETEN_TIME: Duration = Duration::from_millis(500);

/// What [`read`] came to.
pub struct VinReading {
    /// The VIN, or that there is none.
    pub report: VinReport,
    /// The buses, in the order in which they were given.
    pub buses: Vec<BusReading>,
    /// How the other ways ended, in the order in which they were given; without those that another VIN made superfluous.
    pub others: Vec<DoipReading>,
}

/// A bus after reading: nothing more is sent on it, and its adapter listens only, if it can.
pub struct BusReading {
    /// The bus.
    pub bus: Box<dyn CanBus>,
    /// Its bit rate, in bit/s, if frames were heard or acknowledged at it.
    pub bit_rate: Option<u32>,
    /// How reading ended here.
    pub end: BusEnd,
}

/// How reading ended on one bus.
#[derive(Debug)]
pub enum BusEnd {
    /// An ECU told the VIN.
    Told,
    /// ECUs are there, but told no VIN.
    NotTold,
    /// The bus was not asked, or nobody was there to be asked.
    GivenUp(GiveUp),
    /// Another bus told the VIN, or the time was up.
    Stopped,
    /// The adapter failed.
    Failed(CanError),
}

/// Reads the VIN from the vehicle that these buses belong to, within [`VinSettings::budget`].
///
/// The bus that tells a VIN first wins; the others get one P2 to agree or disagree. Dropping the future ends reading
/// and closes the adapters.
pub async fn read(buses: Vec<Box<dyn CanBus>>, settings: &VinSettings) -> VinReading {
    read_beside(buses, Vec::new(), settings).await
}

/// The same, side by side with other ways to read it.
pub async fn read_beside(
    buses: Vec<Box<dyn CanBus>>,
    others: Vec<BesideCan>,
    settings: &VinSettings,
) -> VinReading {
    let since = now();
    let stop = CancellationToken::new();
    let tasks = buses.into_iter().enumerate().map(|(index, bus)| {
        let task = BusTask::new(bus, settings);
        let stop = stop.clone();
        async move { (index, task.run(&stop).await) }
    });
    let mut running: FuturesUnordered<_> = tasks.collect();
    let mut done = Vec::new();
    let mut stop_at: Option<Instant> = None;
    let others = others.into_iter().enumerate();
    let mut others: FuturesUnordered<_> =
        others.map(|(index, other)| async move { (index, other.await) }).collect();
    let mut told_otherwise = Vec::new();
    while !(running.is_empty() && others.is_empty()) {
        tokio::select! {
            biased;
            Some((index, task)) = running.next() => {
                if !task.candidates.is_empty() && stop_at.is_none() {
                    stop_at = Some(now() + P2 + LATENCY_ALLOWANCE);
                }
                done.push((index, task));
            }
            Some((index, other)) = others.next() => {
                if !other.told.is_empty() && stop_at.is_none() {
                    stop_at = Some(now() + P2 + LATENCY_ALLOWANCE);
                }
                told_otherwise.push((now(), index, other));
            }
            () = sleep_until(stop_at) => {
                stop.cancel();
                others.clear();
                stop_at = None;
            }
        }
    }
    sum_up(done, told_otherwise, since)
}

fn sum_up(
    mut done: Vec<(usize, BusTask<'_>)>,
    mut told_otherwise: Vec<(Instant, usize, DoipReading)>,
    since: Instant,
) -> VinReading {
    let others_since = (!told_otherwise.is_empty()).then_some(since);
    let started_at = done.iter().filter_map(|(_, task)| task.started_at).chain(others_since).min();
    let others_ended = told_otherwise.iter().map(|(at, ..)| *at);
    let ended_at = done.iter().filter_map(|(_, task)| task.ended_at).chain(others_ended).max();
    let elapsed = started_at.zip(ended_at).map(|(start, end)| end.saturating_duration_since(start));
    done.sort_by_key(|(index, task)| (task.told_at.is_none(), task.told_at, *index));
    let mut told: Vec<(Option<Instant>, Vec<Candidate>)> =
        done.iter().map(|(_, task)| (task.told_at, task.candidates.clone())).collect();
    told.extend(told_otherwise.iter().map(|(at, _, other)| (Some(*at), other.told.clone())));
    told.sort_by_key(|(at, candidates)| (candidates.is_empty(), at.is_none(), *at));
    let told: Vec<_> = told.into_iter().map(|(_, candidates)| candidates).collect();
    let report = VinReport::from_buses(&told, elapsed.unwrap_or_default());
    done.sort_by_key(|(index, _)| *index);
    let buses = done.into_iter().map(|(_, task)| task.into_reading()).collect();
    told_otherwise.sort_by_key(|(_, index, _)| *index);
    let others = told_otherwise.into_iter().map(|(.., other)| other).collect();
    VinReading { report, buses, others }
}

/// Reading from one bus.
struct BusTask<'a> {
    bus: Box<dyn CanBus>,
    settings: &'a VinSettings,
    /// From when the adapter was ready.
    started_at: Option<Instant>,
    candidates: Vec<Candidate>,
    told_at: Option<Instant>,
    ended_at: Option<Instant>,
    bit_rate: Option<u32>,
    /// What the adapter was last set to.
    configured: Option<CanSettings>,
    /// It lets itself be set to listen only.
    listens_only: bool,
    end: BusEnd,
}

impl<'a> BusTask<'a> {
    fn new(bus: Box<dyn CanBus>, settings: &'a VinSettings) -> Self {
        Self {
            bus,
            settings,
            started_at: None,
            candidates: Vec::new(),
            told_at: None,
            ended_at: None,
            bit_rate: None,
            configured: None,
            listens_only: false,
            end: BusEnd::Stopped,
        }
    }

    async fn run(mut self, stop: &CancellationToken) -> Self {
        let end = tokio::select! {
            biased;
            end = self.drive() => Some(end.unwrap_or_else(BusEnd::Failed)),
            () = stop.cancelled() => None,
        };
        self.ended_at = Some(now());
        self.end = match end {
            Some(end) => end,
            None if self.candidates.is_empty() => BusEnd::Stopped,
            None => BusEnd::Told,
        };
        self.quieten().await;
        tracing::debug!(device = self.bus.device(), end = ?self.end, bit_rate = self.bit_rate, "VIN reading ended");
        self
    }

    fn into_reading(self) -> BusReading {
        BusReading { bus: self.bus, bit_rate: self.bit_rate, end: self.end }
    }

    fn until(&self) -> Instant {
        self.started_at.unwrap_or_else(now) + self.settings.budget
    }

    async fn drive(&mut self) -> Result<BusEnd, CanError> {
        let mut search = BitRateSearch::new(SearchSettings {
            bit_rates: self.settings.bit_rates.clone(),
            listen_time: self.settings.listen_time,
            // the other half is for asking
            listen_budget: self.settings.budget / 2,
            listen_only: self.bus.capabilities().listen_only,
        });
        let mut heard = None;
        loop {
            match search.poll_step() {
                Some(Step::Configure { bit_rate, listen_only }) => {
                    let until = self.started_at.map_or_else(|| now() + ADAPTER_TIME, |_| self.until());
                    match timeout_at(until.into(), self.configure(bit_rate, listen_only)).await {
                        Ok(Ok(())) => search.handle_configured(now()),
                        Ok(Err(error)) if error.is_fatal() => return Err(error),
                        Ok(Err(error)) => {
                            tracing::debug!(%error, "the adapter is not set up so");
                            search.handle_refused();
                        }
                        Err(_) => return Ok(BusEnd::Stopped),
                    }
                }
                Some(Step::Ask { bit_rate, alive }) => {
                    tracing::debug!(device = self.bus.device(), bit_rate, alive, "asking for the VIN");
                    self.bit_rate = Some(bit_rate);
                    match self.ask(alive, heard).await? {
                        Outcome::Told => return Ok(BusEnd::Told),
                        Outcome::NotAcknowledged if !alive => {
                            self.bit_rate = None;
                            search.handle_unacknowledged();
                        }
                        Outcome::NotAcknowledged | Outcome::NotTold => return Ok(BusEnd::NotTold),
                    }
                }
                Some(Step::GiveUp(why)) => return Ok(BusEnd::GivenUp(why)),
                None => {
                    tokio::select! {
                        biased;
                        event = self.bus.event() => match event? {
                            CanEvent::Received { frame, .. } => {
                                heard = Some(frame);
                                search.handle_frame(now(), &frame);
                            }
                            CanEvent::State(state) => search.handle_bus_state(now(), state),
                            _ => {}
                        },
                        () = sleep_until(search.poll_timeout()) => search.handle_timeout(now()),
                    }
                }
            }
        }
    }

    /// Sets the adapter up, with CAN FD if it can.
    async fn configure(&mut self, bit_rate: u32, listen_only: bool) -> Result<(), CanError> {
        let fd = self.settings.data_bit_rate.filter(|_| self.bus.capabilities().fd);
        if let Some(data_bit_rate) = fd {
            let settings = CanSettings { bit_rate, data_bit_rate: Some(data_bit_rate), listen_only };
            match self.set_up(settings).await {
                Err(error) if !error.is_fatal() => {}
                result => return result,
            }
        }
        self.set_up(CanSettings { bit_rate, data_bit_rate: None, listen_only }).await
    }

    async fn set_up(&mut self, settings: CanSettings) -> Result<(), CanError> {
        self.bus.configure(settings).await?;
        self.started_at.get_or_insert_with(now);
        self.configured = Some(settings);
        self.listens_only |= settings.listen_only;
        Ok(())
    }

    async fn ask(&mut self, alive: bool, heard: Option<CanFrame>) -> Result<Outcome, CanError> {
        let CanCapabilities { confirms_transmission, .. } = self.bus.capabilities();
        let until = self.until();
        let mut reader = Reader::new(ReaderSettings { until, alive, confirms_transmission });
        if !self.listens_only {
            reader.trust_bit_rate();
        }
        if let Some(frame) = heard {
            reader.handle_frame(now(), &frame);
        }
        let mut outgoing = None;
        loop {
            outgoing = outgoing.or_else(|| reader.poll_transmit(now()));
            while let Some(event) = reader.poll_event() {
                match event {
                    ReaderEvent::Told(candidate) => {
                        self.told_at = self.told_at.or_else(|| Some(now()));
                        self.candidates.push(candidate);
                    }
                    ReaderEvent::Finished(outcome) => return Ok(outcome),
                }
            }
            let deadline = reader.poll_timeout().map(|(at, _)| at);
            tokio::select! {
                biased;
                event = exchange(self.bus.as_mut(), &mut outgoing) => match event? {
                    Some(CanEvent::Received { frame, .. }) => reader.handle_frame(now(), &frame),
                    Some(CanEvent::Transmitted { .. }) => {
                        // some adapters show that only by their first answer
                        reader.set_confirms_transmission(self.bus.capabilities().confirms_transmission);
                        reader.handle_transmitted(now());
                    }
                    Some(CanEvent::TransmitFailed { .. }) => reader.handle_transmit_failed(now()),
                    Some(CanEvent::State(state)) => reader.handle_bus_state(now(), state),
                    Some(CanEvent::Lost(_)) | None => {}
                },
                () = sleep_until(deadline) => reader.handle_timeout(now()),
            }
        }
    }

    /// Takes back what the adapter has not sent yet, and lets it only listen, if it can.
    async fn quieten(&mut self) {
        let (Some(settings), false) = (self.configured, self.has_failed()) else { return };
        let bit_rate = self.bit_rate.unwrap_or(settings.bit_rate);
        let quiet = CanSettings { bit_rate, listen_only: self.listens_only, ..settings };
        let result = timeout(QUIETEN_TIME, self.bus.configure(quiet)).await;
        if !matches!(result, Ok(Ok(()))) {
            tracing::debug!(device = self.bus.device(), "the adapter stays as it is");
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.end, BusEnd::Failed(_))
    }
}

/// Hands `outgoing` to the adapter, or waits for its next event; `None` means that the frame was taken.
async fn exchange(
    bus: &mut dyn CanBus,
    outgoing: &mut Option<CanFrame>,
) -> Result<Option<CanEvent>, CanError> {
    poll_fn(|cx| {
        if let Some(frame) = outgoing
            && let Poll::Ready(taken) = bus.poll_send(cx, frame)
        {
            *outgoing = None;
            return Poll::Ready(taken.map(|()| None));
        }
        bus.poll_event(cx).map(|event| event.map(Some))
    })
    .await
}

/// Waits until then; forever, if there is no time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The runtime's time, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
