//! The shell around a bit-rate search: sets the adapter up, listens, and leaves the adapter quiet.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use connector_hal::can::{CanBus, CanBusExt, CanCapabilities, CanError, CanEvent, CanFrame, CanSettings};
use connector_hal::timer::{Deadline, TimerKind};
use tokio::time::timeout;

use super::search::{BitRateSearch, GiveUp, SearchSettings, SearchStep};

/// An adapter that restarts when it is opened, as some with USB do, gets this time before the budget begins.
/// Such an adapter takes up to 2 s; twice that, so that the SLCAN dialogue can also discard what the adapter
/// was sending.
const ADAPTER_TIME: Duration = Duration::from_secs(4);
/// Setting the adapter up at the end takes no longer, or the adapter does not answer: as long as an SLCAN
/// adapter may take to answer a command.
const QUIETEN_TIME: Duration = Duration::from_millis(500);

/// How a bus's bit rate is found.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// The bit rates to try, the likeliest first, in bit/s.
    pub bit_rates: Vec<u32>,
    /// How long to listen at each bit rate for a first frame.
    pub listen_time: Duration,
    /// How long to listen in total.
    pub listen_budget: Duration,
    /// The data bit rate to set where the adapter supports CAN FD, so that FD frames of others are not
    /// errors.
    pub data_bit_rate: Option<u32>,
    /// The time from the first set-up of the adapter to the last; `None` for no limit.
    pub budget: Option<Duration>,
}

/// A CAN bus that is asked only at its own bit rate, so that asking does not disturb the other nodes.
pub struct ProbedBus<'a> {
    bus: &'a mut dyn CanBus,
    settings: ProbeSettings,
    timer: TimerKind,
    deadline: Deadline,
    search: BitRateSearch,
    /// The time when the adapter was first set up.
    started_at: Option<Instant>,
    /// The settings that the adapter accepted last.
    configured: Option<CanSettings>,
    /// The adapter accepted to listen only.
    listens_only: bool,
    /// The bit rate at which frames were heard or acknowledged, or at which the bus is being asked.
    bit_rate: Option<u32>,
    /// The last frame that was heard while listening.
    heard: Option<CanFrame>,
}

/// The end of listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listened {
    /// The bus may be asked at this bit rate, in bit/s. Without `alive`, only one frame may be sent at first;
    /// if no node acknowledges it, the caller calls [`ProbedBus::handle_unacknowledged`] and listens again.
    Ask {
        /// The bit rate, in bit/s.
        bit_rate: u32,
        /// Frames were heard, so the bit rate is right.
        alive: bool,
    },
    /// Nothing may be sent on this bus.
    GiveUp(GiveUp),
    /// The budget is used up.
    OutOfTime,
}

/// The next thing that happened while a bus is asked.
#[derive(Debug)]
pub enum Exchanged {
    /// The adapter took the frame.
    Taken,
    /// The adapter refused the frame: it was not sent.
    Refused,
    /// An event of the bus.
    Event(CanEvent),
    /// The deadline passed.
    Due,
}

impl<'a> ProbedBus<'a> {
    /// A bus whose bit rate is not known yet.
    pub fn new(bus: &'a mut dyn CanBus, settings: ProbeSettings, timer: TimerKind) -> Self {
        let search = BitRateSearch::new(SearchSettings {
            bit_rates: settings.bit_rates.clone(),
            listen_time: settings.listen_time,
            listen_budget: settings.listen_budget,
            listen_only: bus.capabilities().listen_only,
        });
        Self {
            bus,
            settings,
            timer,
            deadline: Deadline::new(timer),
            search,
            started_at: None,
            configured: None,
            listens_only: false,
            bit_rate: None,
            heard: None,
        }
    }

    /// What the adapter can do.
    pub fn capabilities(&self) -> CanCapabilities {
        self.bus.capabilities()
    }

    /// The adapter's name.
    pub fn device(&self) -> &str {
        self.bus.device()
    }

    /// The time when the adapter was first set up.
    pub fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// The bit rate at which frames were heard or acknowledged, in bit/s.
    pub fn bit_rate(&self) -> Option<u32> {
        self.bit_rate
    }

    /// Whether the adapter accepted to listen only, so that silence at a bit rate means something.
    pub fn listens_only(&self) -> bool {
        self.listens_only
    }

    /// The last frame that was heard while listening.
    pub fn heard(&self) -> Option<&CanFrame> {
        self.heard.as_ref()
    }

    /// Listens until the bus may be asked, or may not be asked at all.
    ///
    /// # Errors
    ///
    /// The adapter failed.
    pub async fn listen(&mut self) -> Result<Listened, CanError> {
        loop {
            match self.search.poll_step() {
                Some(SearchStep::Configure { bit_rate, listen_only }) => {
                    if self.configure(bit_rate, listen_only).await?.is_none() {
                        return Ok(Listened::OutOfTime);
                    }
                }
                Some(SearchStep::Ask { bit_rate, alive }) => {
                    self.bit_rate = Some(bit_rate);
                    return Ok(Listened::Ask { bit_rate, alive });
                }
                Some(SearchStep::GiveUp(why)) => return Ok(Listened::GiveUp(why)),
                None => self.listen_on().await?,
            }
        }
    }

    /// No node acknowledged the first frame. [`ProbedBus::listen`] continues with the next bit rate.
    pub fn handle_unacknowledged(&mut self) {
        self.bit_rate = None;
        self.search.handle_unacknowledged();
    }

    /// Hands `outgoing` to the adapter, or waits for the next event or the deadline.
    ///
    /// # Errors
    ///
    /// The adapter failed.
    pub async fn exchange(
        &mut self,
        outgoing: &mut Option<CanFrame>,
        until: Option<Instant>,
    ) -> Result<Exchanged, CanError> {
        self.deadline.set(until);
        poll_fn(|cx| {
            if let Some(frame) = outgoing
                && let Poll::Ready(taken) = self.bus.poll_send(cx, frame)
            {
                *outgoing = None;
                return Poll::Ready(match taken {
                    Ok(()) => Ok(Exchanged::Taken),
                    Err(error) if error.is_fatal() => Err(error),
                    Err(error) => {
                        tracing::debug!(%error, "the adapter refused a frame");
                        Ok(Exchanged::Refused)
                    }
                });
            }
            if let Poll::Ready(event) = self.bus.poll_event(cx) {
                return Poll::Ready(event.map(Exchanged::Event));
            }
            self.deadline.poll_expired(cx).map(|()| Ok(Exchanged::Due))
        })
        .await
    }

    /// Discards the frames that the adapter has not sent yet. The adapter only listens afterwards, if it can.
    pub async fn quieten(&mut self) {
        let Some(settings) = self.configured else { return };
        let bit_rate = self.bit_rate.unwrap_or(settings.bit_rate);
        let quiet = CanSettings { bit_rate, listen_only: self.listens_only, ..settings };
        if !matches!(timeout(QUIETEN_TIME, self.bus.configure(quiet)).await, Ok(Ok(()))) {
            tracing::debug!(device = self.bus.device(), "the adapter keeps its settings");
        }
    }

    /// Sets the adapter up for the search; `None` if there was no time.
    async fn configure(&mut self, bit_rate: u32, listen_only: bool) -> Result<Option<()>, CanError> {
        let now = self.timer.now();
        let until = self.settings.budget.map(|budget| match self.started_at {
            Some(started_at) => started_at + budget,
            None => now + ADAPTER_TIME,
        });
        let set_up = self.set_up_with_fallback(bit_rate, listen_only);
        let result = match until {
            Some(until) => match timeout(until.saturating_duration_since(now), set_up).await {
                Ok(result) => result,
                Err(_) => return Ok(None),
            },
            None => set_up.await,
        };
        match result {
            Ok(()) => self.search.handle_configured(self.timer.now()),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the adapter does not accept these settings");
                self.search.handle_refused();
            }
        }
        Ok(Some(()))
    }

    /// Sets the adapter up with CAN FD if the adapter supports it, and otherwise without.
    async fn set_up_with_fallback(&mut self, bit_rate: u32, listen_only: bool) -> Result<(), CanError> {
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
        self.started_at.get_or_insert_with(|| self.timer.now());
        self.configured = Some(settings);
        self.listens_only |= settings.listen_only;
        Ok(())
    }

    /// Passes the next event or deadline to the search.
    async fn listen_on(&mut self) -> Result<(), CanError> {
        self.deadline.set(self.search.poll_timeout());
        tokio::select! {
            biased;
            event = self.bus.event() => match event? {
                CanEvent::Received { frame, .. } => {
                    self.heard = Some(frame);
                    self.search.handle_frame(self.timer.now(), &frame);
                }
                CanEvent::State(state) => self.search.handle_bus_state(self.timer.now(), state),
                _ => {}
            },
            () = self.deadline.expired() => self.search.handle_timeout(self.timer.now()),
        }
        Ok(())
    }
}
