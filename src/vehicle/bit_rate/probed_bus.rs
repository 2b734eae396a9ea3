//! The shell around a bit-rate search: sets the adapter up, listens, and leaves the adapter quiet.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::can::{CanBus, CanBusExt, CanCapabilities, CanError, CanEvent, CanFrame, CanSettings};
use connector_hal::timer::{Deadline, TimerKind};
use tokio::time::timeout;

use super::hear_out::hear_out;
use super::probe::{Probe, ProbeSettings};
use super::search::{GiveUp, SearchStep};

/// Setting the adapter up at the end takes no longer, or the adapter does not answer: as long as an SLCAN
/// adapter may take to answer a command.
const QUIETEN_TIME: Duration = Duration::from_millis(500);

/// A CAN bus that is asked only at its own bit rate, so that asking does not disturb the other nodes.
pub(crate) struct ProbedBus<'a> {
    bus: &'a mut dyn CanBus,
    timer: TimerKind,
    deadline: Deadline,
    probe: Probe,
}

/// The end of listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listened {
    /// The bus may be asked at this bit rate, in bit/s. Without `alive`, only one frame may be sent at first;
    /// if no node acknowledges it, the caller calls [`ProbedBus::handle_unacknowledged`].
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
pub(crate) enum Exchanged {
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
    pub(crate) fn new(bus: &'a mut dyn CanBus, settings: ProbeSettings, timer: TimerKind) -> Self {
        let probe = Probe::new(settings, bus.capabilities().listen_only);
        Self { bus, timer, deadline: Deadline::new(timer), probe }
    }

    /// What the adapter can do.
    pub(crate) fn capabilities(&self) -> CanCapabilities {
        self.bus.capabilities()
    }

    /// The adapter's name.
    pub(crate) fn device(&self) -> &str {
        self.bus.device()
    }

    /// The time when the adapter was first set up.
    pub(crate) fn started_at(&self) -> Option<Instant> {
        self.probe.started_at()
    }

    /// The bit rate at which frames were heard or acknowledged, in bit/s.
    pub(crate) fn bit_rate(&self) -> Option<u32> {
        self.probe.bit_rate()
    }

    /// Whether the adapter accepted to listen only, so that silence at a bit rate means something.
    pub(crate) fn listens_only(&self) -> bool {
        self.probe.listens_only()
    }

    /// The last frame that was heard while listening.
    pub(crate) fn heard(&self) -> Option<&CanFrame> {
        self.probe.heard()
    }

    /// Listens until the bus may be asked, or may not be asked at all.
    ///
    /// # Errors
    ///
    /// The adapter failed.
    pub(crate) async fn listen(&mut self) -> Result<Listened, CanError> {
        loop {
            match self.probe.poll_step() {
                Some(SearchStep::Configure { bit_rate, listen_only }) => {
                    if self.configure(bit_rate, listen_only).await?.is_none() {
                        return Ok(Listened::OutOfTime);
                    }
                }
                Some(SearchStep::Ask { bit_rate, alive }) => return Ok(Listened::Ask { bit_rate, alive }),
                Some(SearchStep::GiveUp(why)) => return Ok(Listened::GiveUp(why)),
                None => self.process_event_or_deadline().await?,
            }
        }
    }

    /// No node acknowledges frames. If true, [`ProbedBus::listen`] continues with the next bit rate. If false, a
    /// node acknowledged a frame or was heard at this bit rate before: the bit rate is right, and asking is
    /// over.
    pub(crate) fn handle_unacknowledged(&mut self) -> bool {
        self.probe.handle_unacknowledged()
    }

    /// Hands `outgoing` to the adapter, or waits for the next event or the deadline.
    ///
    /// # Errors
    ///
    /// The adapter failed.
    pub(crate) async fn exchange(
        &mut self,
        outgoing: &mut Option<CanFrame>,
        until: Option<Instant>,
    ) -> Result<Exchanged, CanError> {
        self.deadline.set(until);
        let exchanged = poll_fn(|cx| {
            if let Poll::Ready(transmitted) = self.poll_transmit(cx, outgoing) {
                return Poll::Ready(transmitted);
            }
            if let Poll::Ready(event) = self.bus.poll_event(cx) {
                return Poll::Ready(event.map(Exchanged::Event));
            }
            self.deadline.poll_expired(cx).map(|()| Ok(Exchanged::Due))
        })
        .await?;
        if let Exchanged::Event(event) = &exchanged {
            self.probe.handle_exchanged(event, self.bus.capabilities().confirms_transmission);
        }
        Ok(exchanged)
    }

    /// Discards the frames that the adapter has not sent yet. The adapter only listens afterwards, if it can.
    pub(crate) async fn quieten(&mut self) {
        let Some(quiet) = self.probe.quiet_settings() else { return };
        if !matches!(timeout(QUIETEN_TIME, self.bus.configure(quiet)).await, Ok(Ok(()))) {
            tracing::debug!(device = self.bus.device(), "the adapter keeps its settings");
        }
    }

    /// Hands `outgoing` to the adapter; pending while there is no frame, or no room for it.
    fn poll_transmit(
        &mut self,
        cx: &mut Context<'_>,
        outgoing: &mut Option<CanFrame>,
    ) -> Poll<Result<Exchanged, CanError>> {
        let Some(frame) = outgoing else { return Poll::Pending };
        let taken = ready!(self.bus.poll_send(cx, frame));
        *outgoing = None;
        Poll::Ready(match taken {
            Ok(()) => Ok(Exchanged::Taken),
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                tracing::debug!(%error, "the adapter refused a frame");
                Ok(Exchanged::Refused)
            }
        })
    }

    /// Sets the adapter up for the search; `None` if there was no time.
    async fn configure(&mut self, bit_rate: u32, listen_only: bool) -> Result<Option<()>, CanError> {
        let now = self.timer.now();
        let until = self.probe.set_up_until(now);
        let set_up = self.set_up(bit_rate, listen_only);
        let result = match until {
            Some(until) => match timeout(until.saturating_duration_since(now), set_up).await {
                Ok(result) => result,
                Err(_) => return Ok(None),
            },
            None => set_up.await,
        };
        match result {
            Ok(settings) => self.probe.handle_configured(self.timer.now(), settings),
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, "the adapter does not accept these settings");
                self.probe.handle_refused();
            }
        }
        Ok(Some(()))
    }

    /// Sets the adapter up with CAN FD if the adapter supports it, and otherwise without. Returns the settings
    /// that the adapter accepted.
    async fn set_up(&mut self, bit_rate: u32, listen_only: bool) -> Result<CanSettings, CanError> {
        let settings = CanSettings { bit_rate, data_bit_rate: None, listen_only };
        if let Some(with_fd) = self.probe.with_fd(settings).filter(|_| self.bus.capabilities().fd) {
            match self.bus.configure(with_fd).await {
                Ok(()) => return Ok(with_fd),
                Err(error) if error.is_fatal() => return Err(error),
                Err(_) => {}
            }
        }
        self.bus.configure(settings).await.map(|()| settings)
    }

    /// Passes the next event or deadline to the search.
    async fn process_event_or_deadline(&mut self) -> Result<(), CanError> {
        self.deadline.set(self.probe.poll_timeout());
        tokio::select! {
            biased;
            event = self.bus.event() => self.probe.handle_event(self.timer.now(), &event?),
            () = self.deadline.expired() => {
                let listens = |event: &_| {
                    self.probe.handle_event(self.timer.now(), event);
                    self.probe.poll_timeout().is_some()
                };
                hear_out(self.bus, listens).await?;
                self.probe.handle_timeout(self.timer.now());
            }
        }
        Ok(())
    }
}
