//! A connection on the connector: its buses, its channels, and its link to the operator.
//!
//! The session decides nothing about protocols: requests and binary messages go in by `handle_*`, the buses are moved
//! along by [`Session::poll_drive`], replies come out by [`Session::poll_text`] and binary messages by
//! [`Session::poll_message`], which is to be called only when the websocket can take one.

mod bus_io;
mod setup;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::bus::BusOutput;
use super::channel::{Channel, Output};
use super::codec::{Payload, PduFlags, Record, SendFailedDetail, Tag};
use super::link::{Incoming, KEPT_LIMIT, Link, LinkError, PushError, Role};
use super::request::{CloseChannel, ConfigureBuses, OpenChannel, Request, ResumeConnection};
use super::{Envelope, Problem};
use crate::hardware::Hardware;
use crate::vin;
use bus_io::{Progress, SessionBus};
use setup::{BusSetup, ChannelSetup};

/// Buses that a connection may have.
const MAX_BUSES: usize = 16;
/// Requests that may wait while buses are being set up; more are refused.
const MAX_WAITING_REQUESTS: usize = 64;
/// Replies and errors that may wait for the websocket; further errors are left out, and further requests not served.
const MAX_TEXTS: usize = 256;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// It was asked for.
    Closed,
    /// The link was away for longer than the connection is held.
    LinkLost,
    /// Another vehicle is at the connector.
    VehicleLost,
    /// The ticket is no longer in progress.
    Policy,
    /// PDUs filled what may be kept.
    Overflow,
    /// The agent ends.
    Shutdown,
}

/// What a session needs to know from outside.
#[derive(Debug, Clone)]
pub struct SessionSettings {
    /// The connection.
    pub connection_uuid: Uuid,
    /// How long a lost link is waited for.
    pub hold: Duration,
    /// Its bounds.
    pub limits: SessionLimits,
    /// The buses of this connector.
    pub hardware: Hardware,
}

/// The bounds of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// The longest PDU, in bytes.
    pub max_pdu: usize,
    /// How many channels may be open at a time.
    pub max_channels: usize,
    /// How much is kept until it is acknowledged, in bytes.
    pub max_kept_bytes: usize,
    /// How old a record may be that goes to the vehicle by a raw channel, unless the operator says otherwise.
    pub raw_max_age: Duration,
    /// The same for all other channels.
    pub pdu_max_age: Duration,
}

/// The protocol's own bounds.
impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max_pdu: 1 << 20,
            max_channels: 64,
            max_kept_bytes: KEPT_LIMIT,
            raw_max_age: Duration::from_millis(500),
            pdu_max_age: Duration::from_secs(30),
        }
    }
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
}

/// Reading the VIN beside the channels.
struct VinReading {
    since: Instant,
    budget: Duration,
    buses: usize,
    told: Vec<Vec<vin::Candidate>>,
}

/// See the module.
pub struct Session {
    settings: SessionSettings,
    link: Link,
    buses: Vec<SessionBus>,
    channels: BTreeMap<u16, OpenedChannel>,
    /// The `configureBuses` that is not answered yet.
    configuring: Option<Option<String>>,
    waiting: VecDeque<(Request, Option<String>)>,
    texts: VecDeque<Envelope>,
    hold_until: Option<Instant>,
    closed: Option<CloseReason>,
    vin_reading: Option<VinReading>,
    pdus_relayed: u64,
}

impl Session {
    /// A connection that was just opened.
    pub fn new(settings: SessionSettings, now: Instant) -> Self {
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
            pdus_relayed: 0,
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
        use connector_hal::can::BusState;
        let report = |bus: &SessionBus| {
            let status = bus.status();
            let state = match status.state {
                BusState::Active => "active",
                BusState::Passive => "passive",
                BusState::Off => "off",
            };
            BusReport { bus_name: bus.setup.name.clone(), state, load: status.load.0 }
        };
        self.buses.iter().map(report).collect()
    }

    /// Whether a bus changed its state since this was last asked.
    pub fn take_state_change(&mut self) -> bool {
        self.buses.iter_mut().filter_map(|bus| bus.take_state_change().then_some(())).count() > 0
    }

    fn reply(&mut self, action: &str, message: &impl Serialize, request_id: Option<String>) {
        self.texts.push_back(Envelope::new(action, message).in_reply_to(request_id));
    }

    fn refuse(&mut self, problem: &Problem, request_id: Option<String>) {
        if self.texts.len() < MAX_TEXTS {
            self.texts.push_back(Envelope::error(problem, request_id));
        }
    }

    /// A request about this connection; the reply comes by [`Session::poll_text`].
    pub fn handle_request(&mut self, now: Instant, request: Request, request_id: Option<String>) {
        // what ends or repairs the connection does not wait for slow hardware
        let is_urgent = matches!(request, Request::CloseConnection(_) | Request::ResumeConnection(_));
        if self.closed.is_some() || self.texts.len() >= MAX_TEXTS && !is_urgent {
            return tracing::warn!("a request is not served: the connection is over, or no reply is fetched");
        }
        if self.configuring.is_some() && !is_urgent {
            if self.waiting.len() >= MAX_WAITING_REQUESTS {
                let detail = format!("{MAX_WAITING_REQUESTS} requests wait for the buses already.");
                return self.refuse(&Problem::new(429, "busy", "Busy", detail), request_id);
            }
            return self.waiting.push_back((request, request_id));
        }
        let outcome = match request {
            Request::ConfigureBuses(request) => self.configure_buses(now, &request, &request_id),
            Request::OpenChannel(request) => self.open_channel(now, &request, &request_id),
            Request::CloseChannel(request) => self.close_channel(&request, &request_id),
            Request::ResumeConnection(request) => self.resume(&request, &request_id),
            Request::CloseConnection(_) => {
                self.close(CloseReason::Closed);
                let message = self.closed_message(CloseReason::Closed);
                self.reply("connectionClosed", &message, request_id.clone());
                Ok(())
            }
            Request::ScanEcus(_) => {
                let detail = "This agent does not scan for ECUs.";
                Err(Problem::new(501, "unsupported", "Not supported", detail).answering("scanEcus"))
            }
            Request::OpenConnection(_) | Request::IdentifyVehicle | Request::DismissCallForAttention => {
                Err(Problem::new(400, "invalid-message", "Invalid message", "Not about a connection."))
            }
        };
        if let Err(problem) = outcome {
            self.refuse(&problem, request_id);
        }
    }

    /// The content of `connectionClosed`.
    pub fn closed_message(&self, reason: CloseReason) -> serde_json::Value {
        json!({"connection_uuid": self.settings.connection_uuid, "reason": reason})
    }

    fn configure_buses(
        &mut self,
        now: Instant,
        request: &ConfigureBuses,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        let refuse = |problem: Problem| problem.answering("configureBuses");
        if request.buses.len() > MAX_BUSES {
            let detail = format!("A connection has at most {MAX_BUSES} buses, not {}.", request.buses.len());
            return Err(refuse(Problem::new(400, "invalid-message", "Invalid message", detail)));
        }
        let mut setups: Vec<BusSetup> = Vec::new();
        for bus in &request.buses {
            let setup = BusSetup::new(bus, &self.settings.hardware).map_err(refuse)?;
            if let Some(other) = setups.iter().find(|other| other.name == setup.name) {
                let detail = format!("Two buses are named {:?}.", other.name);
                return Err(refuse(Problem::new(400, "invalid-message", "Invalid message", detail)));
            }
            if let Some(other) = setups.iter().find(|other| other.port.device == setup.port.device) {
                let detail = format!("Buses {:?} and {:?} are at the same pins.", other.name, setup.name);
                return Err(refuse(Problem::new(409, "pins-in-use", "Pins in use", detail)));
            }
            setups.push(setup);
        }
        self.channels.clear();
        self.buses.clear();
        self.forget_told_vins();
        self.buses.extend(setups.into_iter().map(|setup| SessionBus::new(setup, &self.settings.hardware)));
        self.configuring = Some(request_id.clone());
        self.answer_if_configured(now);
        Ok(())
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

    fn answer_if_configured(&mut self, now: Instant) {
        if self.buses.iter().all(SessionBus::has_started)
            && let Some(request_id) = self.configuring.take()
        {
            let names: Vec<_> = self.buses.iter().map(|bus| bus.setup.name.clone()).collect();
            let message = json!({"connection_uuid": self.connection_uuid(), "buses": names});
            self.reply("busesConfigured", &message, request_id);
            self.go_on_reading_vin(now);
        }
    }

    fn handle_start_failed(&mut self, now: Instant, name: &str, error: &connector_hal::can::CanError) {
        tracing::warn!(bus = name, %error, "could not set up the bus");
        self.buses.clear();
        self.go_on_reading_vin(now);
        let detail = format!("Bus {name:?}: {error}.");
        let problem =
            Problem::new(503, "bus-unavailable", "Bus unavailable", detail).answering("configureBuses");
        let request_id = self.configuring.take().flatten();
        self.refuse(&problem, request_id);
    }

    /// Answers what waited for the buses.
    fn handle_waiting(&mut self, now: Instant) {
        while self.configuring.is_none() {
            let Some((request, request_id)) = self.waiting.pop_front() else { return };
            self.handle_request(now, request, request_id);
        }
    }

    fn open_channel(
        &mut self,
        now: Instant,
        request: &OpenChannel,
        request_id: &Option<String>,
    ) -> Result<(), Problem> {
        let refuse = |problem: Problem| problem.answering("openChannel");
        let setup = ChannelSetup::new(request).map_err(refuse)?;
        let number = request.channel;
        let message = json!({"connection_uuid": self.connection_uuid(), "channel": number});
        match self.channels.get(&number) {
            // an operator that lost our answer with the link asks again
            Some(opened) if opened.request == *request => {
                self.reply("channelOpened", &message, request_id.clone());
                return Ok(());
            }
            Some(_) => {
                let detail = format!("Channel {number} is open already.");
                return Err(refuse(Problem::new(409, "channel-in-use", "Channel in use", detail)));
            }
            None => {}
        }
        if self.channels.len() >= self.settings.limits.max_channels {
            let detail = format!("{} channels are open already.", self.channels.len());
            return Err(refuse(Problem::new(409, "too-many-channels", "Too many channels", detail)));
        }
        let Some(index) = self.buses.iter().position(|bus| bus.setup.name == setup.bus_name) else {
            let detail = format!("No bus named {:?} is configured.", setup.bus_name);
            return Err(refuse(Problem::new(404, "unknown-bus", "Unknown bus", detail)));
        };
        if let Some(bus) = self.buses.get_mut(index) {
            let channel =
                setup.build(&bus.setup.settings, self.settings.limits.max_pdu, now).map_err(refuse)?;
            let default_max_age = match channel {
                Channel::Raw(_) => self.settings.limits.raw_max_age,
                Channel::Isotp(_) => self.settings.limits.pdu_max_age,
            };
            let max_age = setup.max_age.unwrap_or(default_max_age);
            bus.core.open_channel(number, channel);
            self.channels.insert(number, OpenedChannel { bus: index, max_age, request: request.clone() });
        }
        self.reply("channelOpened", &message, request_id.clone());
        Ok(())
    }

    fn close_channel(&mut self, request: &CloseChannel, request_id: &Option<String>) -> Result<(), Problem> {
        let number = request.channel;
        let Some(opened) = self.channels.remove(&number) else {
            let detail = format!("Channel {number} is not open.");
            let problem = Problem::new(404, "unknown-channel", "Unknown channel", detail);
            return Err(problem.answering("closeChannel"));
        };
        if let Some(bus) = self.buses.get_mut(opened.bus) {
            bus.core.close_channel(number);
        }
        let message = json!({"connection_uuid": self.connection_uuid(), "channel": number});
        self.reply("channelClosed", &message, request_id.clone());
        Ok(())
    }

    fn resume(&mut self, request: &ResumeConnection, request_id: &Option<String>) -> Result<(), Problem> {
        self.link.resume(request.received).map_err(|error| {
            Problem::new(409, "cannot-resume", "Cannot resume", format!("{error}."))
                .answering("resumeConnection")
        })?;
        self.hold_until = None;
        let message =
            ResumeConnection { connection_uuid: self.connection_uuid(), received: self.link.received() };
        self.reply("connectionResumed", &message, request_id.clone());
        Ok(())
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
        self.buses.clear();
    }

    /// A binary message of the operator.
    pub fn handle_message(&mut self, now: Instant, message: &[u8]) {
        // the link is borrowed by what it returns, while records go to the buses
        let incoming = match self.link.handle_message(now, message) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "the operator sent a message that cannot be taken");
                let (status, slug) = match error {
                    LinkError::Gap { .. } => (409, "sequence-gap"),
                    _ => (400, "invalid-binary-message"),
                };
                let problem = Problem::new(status, slug, "Invalid binary message", format!("{error}."));
                return self.refuse(&problem, None);
            }
        };
        self.handle_records(now, &incoming);
        self.collect_outputs(now);
    }

    fn handle_records(&mut self, now: Instant, incoming: &Incoming<'_>) {
        for record in incoming.records() {
            let Some(opened) = self.channels.get(&record.channel) else {
                self.refuse_record(now, &record, SendFailedDetail::ChannelClosed);
                continue;
            };
            let age = incoming.age_of(&record);
            let Some(left) = opened.max_age.checked_sub(age) else {
                self.refuse_record(now, &record, SendFailedDetail::TooOld);
                continue;
            };
            let Some(bus) = self.buses.get_mut(opened.bus) else { continue };
            match record.payload {
                Payload::Frame(frame) => {
                    bus.core.handle_frame_to_send(now, record.channel, frame, now + left);
                }
                Payload::Pdu { flags, data, .. } => {
                    self.pdus_relayed += 1;
                    bus.core.handle_pdu(now, record.channel, flags, data);
                }
                _ => tracing::debug!(
                    channel = record.channel,
                    "the operator sent a record that nothing is sent for"
                ),
            }
        }
    }

    /// Tells that a PDU or frame was not sent; a PDU that was refused breaks the chain behind it.
    fn refuse_record(&mut self, now: Instant, record: &Record<'_>, detail: SendFailedDetail) {
        let flags = match record.payload {
            Payload::Frame(_) => None,
            Payload::Pdu { flags, .. } => Some(flags),
            _ => return,
        };
        if let Some(flags) = flags
            && let Some(opened) = self.channels.get(&record.channel)
            && let Some(bus) = self.buses.get_mut(opened.bus)
        {
            bus.core.handle_refused_pdu(now, record.channel, flags);
        }
        self.tell(now, BusOutput { channel: record.channel, at: now, output: Output::send_failed(detail) });
    }

    /// Moves everything that the buses have for the operator to the link.
    fn collect_outputs(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(bus) = self.buses.get_mut(index) {
            match bus.core.poll_output() {
                Some(output) => self.tell(now, output),
                None => index += 1,
            }
        }
    }

    fn tell(&mut self, now: Instant, output: BusOutput) {
        if self.closed.is_some() {
            return;
        }
        let BusOutput { channel, at, output } = output;
        let payload = match &output {
            Output::Frame(frame) => Payload::Frame(*frame),
            Output::Pdu { address, data } => {
                self.pdus_relayed += 1;
                Payload::Pdu { address: address.to_socketcan(), flags: PduFlags::default(), data }
            }
            Output::Event { code, detail, value, text } => {
                Payload::Event { code: *code, detail: *detail, value: *value, text }
            }
        };
        if let Err(PushError::Overflow) = self.link.push(now, at, channel, payload) {
            tracing::warn!("the operator does not take what the vehicle sends; closing the connection");
            self.close(CloseReason::Overflow);
        }
    }

    /// Moves the buses along; ready when something changed that the caller should look at.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut changed = false;
        let mut index = 0;
        while let Some(bus) = self.buses.get_mut(index) {
            if let Poll::Ready(progress) = bus.poll(cx) {
                changed = true;
                let now = tokio::time::Instant::now().into_std();
                if let Some(told) = bus.core.take_vins()
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
                    Progress::StartFailed(error) => {
                        let name = bus.setup.name.clone();
                        self.handle_start_failed(now, &name, &error);
                        self.handle_waiting(now);
                    }
                }
                self.collect_outputs(now);
            }
            index += 1;
        }
        if changed { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The next text for the websocket.
    pub fn poll_text(&mut self) -> Option<Envelope> {
        self.texts.pop_front()
    }

    /// Whether [`Session::poll_message`] has something to give.
    pub fn wants_to_send(&self, now: Instant) -> bool {
        self.link.wants_to_send(now)
    }

    /// The next binary message; to be called only when the websocket can take one.
    pub fn poll_message(&mut self, now: Instant) -> Option<Bytes> {
        self.link.poll_message(now)
    }

    /// When [`Session::handle_timeout`] is due, or [`Session::wants_to_send`] becomes true by itself.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.hold_until, self.link.poll_timeout()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.hold_until.is_some_and(|until| until <= now) {
            tracing::info!("the link was away for too long; closing the connection");
            self.close(CloseReason::LinkLost);
        }
    }

    /// Reads the VIN again on the buses that are set up, beside the channels; false if none is.
    pub fn start_reading_vin(&mut self, now: Instant, budget: Duration) -> bool {
        let settings = vin::ReaderSettings { until: now + budget, alive: true, confirms_transmission: true };
        let mut buses = 0;
        for bus in self.buses.iter_mut().filter(|bus| bus.has_started()) {
            bus.core.start_vin_reader(vin::Reader::new(settings));
            buses += 1;
        }
        self.vin_reading = (buses > 0).then(|| VinReading { since: now, budget, buses, told: Vec::new() });
        buses > 0
    }

    /// What reading the VIN gave, once all buses are done.
    pub fn poll_vin(&mut self, now: Instant) -> Option<vin::VinReport> {
        let reading = self.vin_reading.take_if(|reading| reading.told.len() >= reading.buses)?;
        Some(vin::VinReport::from_buses(&reading.told, now.saturating_duration_since(reading.since)))
    }

    /// Asks every ECU that was brought out of its default session to go back there; drive the session until
    /// [`Session::is_quiet`], or not for long.
    pub fn return_to_default_sessions(&mut self, now: Instant) {
        for bus in &mut self.buses {
            bus.core.return_to_default_sessions(now);
        }
    }

    /// Whether nothing is on its way to a bus.
    pub fn is_quiet(&self) -> bool {
        self.buses.iter().all(|bus| bus.core.is_quiet())
    }
}
