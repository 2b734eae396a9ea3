//! A connection on the connector: its buses, its channels, and its link to the operator.
//!
//! The session decides nothing about protocols: requests and binary messages go in by `handle_*`, the buses are moved
//! along by [`RelayConnection::poll_drive`], replies come out by [`RelayConnection::poll_text`] and binary messages by
//! [`RelayConnection::poll_message`], which is to be called only when the websocket can take one.

mod records;
mod requests;
mod scans;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use uuid::Uuid;

use super::link::{Link, Role};
use crate::relay::buses::bus::{AnyBus, Progress};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::Envelope;
use crate::relay::wire::codec::Tag;
use crate::relay::wire::request::{OpenChannel, Request};
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin;

pub use crate::relay::wire::CloseReason;

/// Buses that a connection may have.
const MAX_BUSES: usize = 16;
/// Requests that may wait while buses are being set up; more are refused.
const MAX_WAITING_REQUESTS: usize = 64;
/// Replies and errors that may wait for the websocket; further errors are left out, and further requests not served.
const MAX_TEXTS: usize = 256;

/// What a session needs to know from outside.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// The connection.
    pub connection_uuid: Uuid,
    /// How long a lost link is waited for.
    pub hold: Duration,
    /// Its bounds.
    pub limits: RelayLimits,
    /// The buses of this connector.
    pub hardware: Hardware,
}

/// A bus in `connectorStatusUpdate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BusReport {
    /// Its name.
    pub bus_name: String,
    /// `active`, `passive` or `off`.
    pub state: &'static str,
    /// 0…1.
    pub load: f32,
}

struct OpenedChannel {
    bus: usize,
    max_age: Duration,
    /// What asked for it, so that asking again is answered alike.
    request: OpenChannel,
    /// The request that is not answered yet: the vehicle is being asked.
    opening: Option<Option<String>>,
}

/// Reading the VIN beside the channels.
struct VinReading {
    since: Instant,
    budget: Duration,
    buses: usize,
    told: Vec<Vec<vin::Candidate>>,
}

/// See the module.
pub struct RelayConnection {
    settings: RelaySettings,
    link: Link,
    buses: Vec<Box<dyn AnyBus>>,
    channels: BTreeMap<u16, OpenedChannel>,
    /// The `configureBuses` that is not answered yet.
    configuring: Option<Option<String>>,
    waiting: VecDeque<(Request, Option<String>)>,
    texts: VecDeque<Envelope>,
    hold_until: Option<Instant>,
    closed: Option<CloseReason>,
    vin_reading: Option<VinReading>,
    scans: Vec<scans::Scan>,
    pdus_relayed: u64,
    ignition: Option<bool>,
    /// When TesterPresent is no longer sent, as the ignition is off.
    stop_keep_alive_at: Option<Instant>,
    has_stopped_keep_alive: bool,
}

impl RelayConnection {
    /// A connection that was just opened.
    pub fn new(settings: RelaySettings, now: Instant) -> Self {
        let tag = Tag::from(settings.connection_uuid);
        let link = Link::new(Role::Connector, tag, now).with_kept_limit(settings.limits.max_kept_bytes);
        Self {
            settings,
            link,
            buses: Vec::new(),
            channels: BTreeMap::new(),
            configuring: None,
            waiting: VecDeque::new(),
            texts: VecDeque::new(),
            hold_until: None,
            closed: None,
            vin_reading: None,
            scans: Vec::new(),
            pdus_relayed: 0,
            ignition: None,
            stop_keep_alive_at: None,
            has_stopped_keep_alive: false,
        }
    }

    /// The connection's name.
    pub fn connection_uuid(&self) -> Uuid {
        self.settings.connection_uuid
    }

    /// The highest number received in order, for `connectorHello`.
    pub fn received(&self) -> u32 {
        self.link.received()
    }

    /// PDUs that went either way.
    pub fn pdus_relayed(&self) -> u64 {
        self.pdus_relayed
    }

    /// Why the connection is over, once it is.
    pub fn closed(&self) -> Option<CloseReason> {
        self.closed
    }

    /// The buses' states and loads.
    pub fn bus_reports(&self) -> Vec<BusReport> {
        use connector_hal::bus::BusState;
        let report = |bus: &dyn AnyBus| {
            let status = bus.status();
            let state = match status.state {
                BusState::Active => "active",
                BusState::Passive => "passive",
                BusState::Off => "off",
            };
            BusReport { bus_name: bus.name().to_owned(), state, load: status.load.0 }
        };
        self.buses.iter().map(|bus| report(bus.as_ref())).collect()
    }

    /// Whether a bus changed its state since this was last asked.
    pub fn take_state_change(&mut self) -> bool {
        self.buses.iter_mut().filter_map(|bus| bus.take_state_change().then_some(())).count() > 0
    }

    /// The buses that were asked for the VIN are gone.
    fn forget_told_vins(&mut self) {
        if let Some(reading) = &mut self.vin_reading {
            reading.told.clear();
            reading.buses = usize::MAX;
        }
    }

    /// Asks the buses for the VIN that took the place of those which had been asked before.
    fn go_on_reading_vin(&mut self, now: Instant) {
        if let Some(VinReading { since, budget, .. }) = self.vin_reading.take()
            && !self.start_reading_vin(now, budget)
        {
            self.vin_reading = Some(VinReading { since, budget, buses: 0, told: Vec::new() });
        }
    }

    /// The websocket is lost: the connection is held for a while, with all that runs beside the vehicle.
    pub fn interrupt(&mut self, now: Instant) {
        self.link.interrupt();
        self.texts.clear();
        self.hold_until.get_or_insert(now + self.settings.hold);
    }

    /// The websocket is back. An operator who has not used the connection yet does not know of an interruption, and
    /// resumes nothing; one who has will.
    pub fn handle_link_back(&mut self) {
        if self.link.is_unused() && self.link.resume(0).is_ok() {
            self.hold_until = None;
        }
    }

    /// Ends the connection: buses are left, and what waits for them is discarded.
    pub fn close(&mut self, reason: CloseReason) {
        self.closed.get_or_insert(reason);
        self.hold_until = None;
        self.configuring = None;
        self.waiting.clear();
        self.channels.clear();
        self.scans.clear();
        self.buses.clear();
    }

    /// Moves the buses along; ready when something changed that the caller should look at.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut changed = false;
        let mut index = 0;
        while let Some(bus) = self.buses.get_mut(index) {
            let limit = self.settings.limits.max_kept_bytes;
            bus.channels_mut().set_room(limit.saturating_sub(self.link.kept_bytes()), limit);
            if let Poll::Ready(progress) = bus.poll(cx) {
                changed = true;
                let now = tokio::time::Instant::now().into_std();
                if let Some(told) = bus.channels_mut().take_vins()
                    && let Some(reading) = &mut self.vin_reading
                {
                    reading.told.push(told);
                }
                match progress {
                    Progress::Changed => {}
                    Progress::Started => {
                        self.answer_if_configured(now);
                        self.handle_waiting(now);
                    }
                    Progress::StartFailed(failure) => {
                        let name = bus.name().to_owned();
                        self.handle_start_failed(now, &name, &failure);
                        self.handle_waiting(now);
                    }
                }
                while let Some(bus) = self.buses.get_mut(index)
                    && let Some((number, outcome)) = bus.channels_mut().poll_opened()
                {
                    self.handle_opened(number, outcome);
                }
                self.collect_outputs(now);
            }
            index += 1;
        }
        if !changed {
            return Poll::Pending;
        }
        self.collect_scans();
        Poll::Ready(())
    }

    /// The next text for the websocket.
    pub fn poll_text(&mut self) -> Option<Envelope> {
        self.texts.pop_front()
    }

    /// Whether [`RelayConnection::poll_message`] has something to give.
    pub fn wants_to_send(&self, now: Instant) -> bool {
        self.link.wants_to_send(now)
    }

    /// The next binary message; to be called only when the websocket can take one.
    pub fn poll_message(&mut self, now: Instant) -> Option<Bytes> {
        self.link.poll_message(now)
    }

    /// When [`RelayConnection::handle_timeout`] is due, or [`RelayConnection::wants_to_send`] becomes true by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stop_keep_alive = self.stop_keep_alive_at.filter(|_| !self.has_stopped_keep_alive);
        [self.hold_until, self.link.poll_timeout(), stop_keep_alive].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.hold_until.is_some_and(|until| until <= now) {
            tracing::info!("the link was away for too long; closing the connection");
            self.close(CloseReason::LinkLost);
        }
        if self.stop_keep_alive_at.is_some_and(|at| at <= now) {
            self.set_keep_alive(now, false);
            self.collect_outputs(now);
        }
    }

    /// Reads the VIN again on the buses that are set up, beside the channels; false if none is.
    pub fn start_reading_vin(&mut self, now: Instant, budget: Duration) -> bool {
        let settings = vin::ReaderSettings { until: now + budget, alive: true, confirms_transmission: true };
        let (mut buses, mut told) = (0, Vec::new());
        for bus in self.buses.iter_mut().filter(|bus| bus.has_started()) {
            buses += usize::from(bus.channels_mut().start_vin_reader(settings));
            told.extend(bus.channels_mut().take_vins());
        }
        self.vin_reading = (buses > 0).then_some(VinReading { since: now, budget, buses, told });
        buses > 0
    }

    /// What reading the VIN gave, once all buses are done.
    pub fn poll_vin(&mut self, now: Instant) -> Option<vin::VinReport> {
        let reading = self.vin_reading.take_if(|reading| reading.told.len() >= reading.buses)?;
        Some(vin::VinReport::from_buses(&reading.told, now.saturating_duration_since(reading.since)))
    }

    /// The ignition was switched, or cannot be told any more.
    pub fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        self.ignition = ignition;
        for bus in &mut self.buses {
            bus.channels_mut().handle_ignition(now, ignition);
        }
        self.collect_scans();
        if ignition == Some(false) {
            self.stop_keep_alive_at.get_or_insert(now + self.settings.limits.keep_alive_after_ignition_off);
        } else {
            self.stop_keep_alive_at = None;
            self.set_keep_alive(now, true);
        }
        self.collect_outputs(now);
    }

    fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        if std::mem::replace(&mut self.has_stopped_keep_alive, !enabled) == enabled {
            tracing::info!(enabled, "TesterPresent, by the ignition");
            self.buses.iter_mut().for_each(|bus| bus.channels_mut().set_keep_alive(now, enabled));
        }
    }

    /// Asks every ECU that was brought out of its default session to go back there; drive the session until
    /// [`RelayConnection::is_quiet`], or not for long.
    pub fn return_to_default_sessions(&mut self, now: Instant) {
        for bus in &mut self.buses {
            bus.channels_mut().return_to_default_sessions(now);
        }
    }

    /// Whether nothing is on its way to a bus.
    pub fn is_quiet(&self) -> bool {
        self.buses.iter().all(|bus| bus.channels().is_quiet())
    }
}
