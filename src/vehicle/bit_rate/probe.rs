//! The decisions of a [`ProbedBus`](super::ProbedBus): the bit-rate search, the settings to try on the
//! adapter, and the time for each set-up.

use std::time::{Duration, Instant};

use connector_hal::can::{CanEvent, CanFrame, CanSettings};

use super::search::{BitRateSearch, SearchSettings, SearchStep};

/// An adapter that restarts when it is opened, as some with USB do, gets this time before the budget begins.
/// Such an adapter takes up to 2 s; twice that, so that the SLCAN dialogue can also discard what the adapter
/// was sending.
const ADAPTER_TIME: Duration = Duration::from_secs(4);

/// How a bus's bit rate is found.
#[derive(Debug, Clone)]
pub(crate) struct ProbeSettings {
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

/// The search for a bus's bit rate, and the settings that its adapter accepted: a pure state machine.
#[derive(Debug)]
pub(super) struct Probe {
    data_bit_rate: Option<u32>,
    budget: Option<Duration>,
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
    /// A node sent a frame or acknowledged one at the present bit rate, so no other bit rate is tried.
    is_proved: bool,
}

impl Probe {
    /// Begins the search. `can_listen_only` is whether the adapter can listen without acknowledging.
    pub(super) fn new(settings: ProbeSettings, can_listen_only: bool) -> Self {
        let ProbeSettings { bit_rates, listen_time, listen_budget, data_bit_rate, budget } = settings;
        let search = SearchSettings { bit_rates, listen_time, listen_budget, listen_only: can_listen_only };
        Self {
            data_bit_rate,
            budget,
            search: BitRateSearch::new(search),
            started_at: None,
            configured: None,
            listens_only: false,
            bit_rate: None,
            heard: None,
            is_proved: false,
        }
    }

    /// The time when the adapter was first set up.
    pub(super) fn started_at(&self) -> Option<Instant> {
        self.started_at
    }

    /// The bit rate at which frames were heard or acknowledged, in bit/s.
    pub(super) fn bit_rate(&self) -> Option<u32> {
        self.bit_rate
    }

    /// Whether the adapter accepted to listen only.
    pub(super) fn listens_only(&self) -> bool {
        self.listens_only
    }

    /// The last frame that was heard while listening.
    pub(super) fn heard(&self) -> Option<&CanFrame> {
        self.heard.as_ref()
    }

    /// The settings with CAN FD; `None` if the bus has no data bit rate.
    pub(super) fn with_fd(&self, settings: CanSettings) -> Option<CanSettings> {
        let data_bit_rate = Some(self.data_bit_rate?);
        Some(CanSettings { data_bit_rate, ..settings })
    }

    /// The time by which a set-up that begins now must have ended; `None` for no limit.
    pub(super) fn set_up_until(&self, now: Instant) -> Option<Instant> {
        let budget = self.budget?;
        Some(self.started_at.map_or_else(|| now + ADAPTER_TIME, |started_at| started_at + budget))
    }

    /// The settings that leave the adapter quiet: it listens only, if it can. `None` if the adapter was never
    /// set up.
    pub(super) fn quiet_settings(&self) -> Option<CanSettings> {
        let settings = self.configured?;
        let bit_rate = self.bit_rate.unwrap_or(settings.bit_rate);
        Some(CanSettings { bit_rate, listen_only: self.listens_only, ..settings })
    }

    /// The adapter accepted these settings.
    pub(super) fn handle_configured(&mut self, now: Instant, settings: CanSettings) {
        self.started_at.get_or_insert(now);
        self.configured = Some(settings);
        self.listens_only |= settings.listen_only;
        self.search.handle_configured(now);
    }

    /// The adapter accepted none of the settings.
    pub(super) fn handle_refused(&mut self) {
        self.search.handle_refused();
    }

    /// An event of the bus, while the search listens.
    pub(super) fn handle_event(&mut self, now: Instant, event: &CanEvent) {
        match event {
            CanEvent::Received { frame, .. } => {
                self.heard = Some(*frame);
                self.search.handle_frame(now, frame);
            }
            CanEvent::State(state) => self.search.handle_bus_state(now, *state),
            CanEvent::Transmitted { .. }
            | CanEvent::TransmitFailed { .. }
            | CanEvent::Overtaking { .. }
            | CanEvent::Lost(_) => {}
        }
    }

    /// An event of the bus, while it is asked. `confirms` is whether the adapter reports a frame as sent only
    /// when a node acknowledged it.
    pub(super) fn handle_exchanged(&mut self, event: &CanEvent, confirms: bool) {
        self.is_proved |= match event {
            CanEvent::Received { frame, .. } => !frame.is_error(),
            CanEvent::Transmitted { .. } => confirms,
            CanEvent::Overtaking { is_transmitted, .. } => *is_transmitted && confirms,
            CanEvent::TransmitFailed { .. } | CanEvent::State(_) | CanEvent::Lost(_) => false,
        };
    }

    /// No node acknowledges frames. False if a node did so, or was heard, at this bit rate before: then the
    /// bit rate is right, and the search does not continue.
    pub(super) fn handle_unacknowledged(&mut self) -> bool {
        if self.is_proved {
            return false;
        }
        self.bit_rate = None;
        self.search.handle_unacknowledged();
        true
    }

    /// The deadline of [`Probe::poll_timeout`] may have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.search.handle_timeout(now);
    }

    /// The next step of the search, returned once; `None` while the search listens.
    pub(super) fn poll_step(&mut self) -> Option<SearchStep> {
        let step = self.search.poll_step();
        if let Some(SearchStep::Ask { bit_rate, alive }) = step {
            self.bit_rate = Some(bit_rate);
            self.is_proved = alive;
        }
        step
    }

    /// The time of the next [`Probe::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.search.poll_timeout()
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
