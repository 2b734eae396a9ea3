//! A DoIP bus of a connection: its network, the gateways found on it, and the connections with them.

mod channel;
mod clients;
mod opening;
mod setup;
mod transport;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::bus::{BusState, BusStatus};
use connector_hal::can::CanFrame;
use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};

use super::bus::{Opening, Progress, SessionBus, StartFailure};
use super::setup::{ChannelKind, wrong_kind};
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::discovery::{DiscoveryEvent, Question};
use crate::protocol::problem::Problem;
use crate::relay::buses::can::channels::BusOutput;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::codec::PduFlags;
use crate::vehicle::doip_network::client::Client;
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::doip_network::network::{Network, NetworkError};
use crate::vehicle::hardware::Hardware;
use crate::vehicle::scan::{EcuSearch, FoundEcu, ScanOutcome};
use crate::vehicle::vin;
use crate::vehicle::vin::doip::VinSearch;
use channel::DoipChannel;
use clients::state_event;
pub(crate) use setup::DoipBusSetup;

/// How long to wait before a lost network is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest answer to what the connector asks by itself, in bytes.
const MAX_OWN_ANSWER: usize = 4096;
/// What one read from a gateway may come to in records, besides a PDU that it ends, in bytes.
const ONE_READ: usize = 64 * 1024;
/// What a PDU takes besides its bytes, in bytes.
const RECORD: usize = 64;
/// Events taken from one client before others have their turn.
const BATCH: usize = 64;

type Starting = BoxFuture<'static, Result<Box<dyn Network>, NetworkError>>;

enum State {
    /// Being opened.
    Starting(Starting),
    Running(Box<Explorer>),
    /// Gone; it will be opened again at this time.
    Lost(Instant),
}

/// Whom a connection is with, and for which tester.
type ClientKey = (LogicalAddress, LogicalAddress);

/// See the module.
pub(crate) struct DoipSessionBus {
    setup: DoipBusSetup,
    hardware: Hardware,
    state: State,
    has_started: bool,
    clients: BTreeMap<ClientKey, Client>,
    channels: BTreeMap<u16, DoipChannel>,
    opened: VecDeque<(u16, Result<(), Problem>)>,
    events: VecDeque<BusOutput>,
    deadline: Deadline,
    /// The state that was last told to whoever asks for changes.
    told_state: Option<BusState>,
    vin_search: Option<VinSearch>,
    told_vins: Option<Vec<vin::Candidate>>,
    keep_alive_stopped: bool,
    is_ignition_off: bool,
    ecu_search: Option<EcuSearch>,
    scanned: Option<(ScanOutcome, Vec<FoundEcu>)>,
    /// What the link has left for PDUs, and below how much of that gateways are no longer read.
    room: usize,
    least_room: usize,
}

impl DoipSessionBus {
    pub(crate) fn new(setup: DoipBusSetup, hardware: &Hardware) -> Self {
        let state = State::Starting(open(&setup, hardware));
        Self {
            setup,
            hardware: hardware.clone(),
            state,
            has_started: false,
            clients: BTreeMap::new(),
            channels: BTreeMap::new(),
            opened: VecDeque::new(),
            events: VecDeque::new(),
            deadline: Deadline::new(TimerKind::Runtime),
            told_state: None,
            vin_search: None,
            told_vins: None,
            keep_alive_stopped: false,
            is_ignition_off: false,
            ecu_search: None,
            scanned: None,
            room: usize::MAX,
            least_room: 0,
        }
    }

    fn bus_state(&self) -> BusState {
        let up = self.clients.values().filter(|client| client.is_active()).count();
        match self.state {
            State::Running(_) if up == self.clients.len() => BusState::Active,
            State::Running(_) if up > 0 => BusState::Passive,
            // a channel that is being opened is no trouble
            State::Running(_) if self.channels.values().all(|channel| channel.opening.is_some()) => {
                BusState::Active
            }
            _ => BusState::Off,
        }
    }

    fn handle_network(&mut self, now: Instant, opened: Result<Box<dyn Network>, NetworkError>) -> Progress {
        match opened {
            Ok(network) => {
                let mut explorer = Explorer::new(network);
                explorer.ask_all(now, Question::Anybody);
                self.state = State::Running(Box::new(explorer));
                if std::mem::replace(&mut self.has_started, true) {
                    Progress::Changed
                } else {
                    Progress::Started
                }
            }
            Err(error) => {
                self.state = State::Lost(now + RETRY_AFTER);
                if !self.has_started {
                    return Progress::StartFailed(StartFailure {
                        detail: error.to_string(),
                        is_unsupported: false,
                    });
                }
                tracing::debug!(bus = self.setup.name, %error, "the network is still not usable");
                Progress::Changed
            }
        }
    }

    fn lose_network(&mut self, now: Instant, error: &std::io::Error) {
        tracing::warn!(bus = self.setup.name, %error, "lost the network; trying it again every second");
        self.state = State::Lost(now + RETRY_AFTER);
        self.clients.clear();
        if self.vin_search.take().is_some() {
            self.told_vins = Some(Vec::new());
        }
        self.end_scan(ScanOutcome::BusOff);
        for (number, channel) in &mut self.channels {
            channel.pdus.handle_bus_off(now);
            if channel.opening.is_none() {
                let why = format!("the network is lost: {error}");
                self.events.push_back(state_event(now, *number, Some(&why)));
            }
        }
    }

    /// Moves the network, and all connections with gateways; true when something changed.
    fn poll_running(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let State::Running(explorer) = &mut self.state else { return false };
        let mut changed = false;
        loop {
            match explorer.poll(cx) {
                Poll::Ready(Ok(event)) => {
                    tracing::debug!(bus = self.setup.name, ?event, "DoIP");
                    if let DiscoveryEvent::Found(gateway) = event {
                        // for the log: whether the vehicle is ready, and how much the gateway can take
                        explorer.ask(now, Question::EntityStatus, gateway.address);
                        explorer.ask(now, Question::PowerMode, gateway.address);
                    }
                    changed = true;
                }
                Poll::Ready(Err(error)) => {
                    self.lose_network(now, &error);
                    return true;
                }
                Poll::Pending => break,
            }
        }
        if let Some(search) = &mut self.vin_search
            && search.poll(cx, explorer.network(), explorer.discovery()).is_ready()
        {
            self.told_vins = self.vin_search.take().map(VinSearch::into_told);
            changed = true;
        }
        if let Some(search) = &mut self.ecu_search
            && search.poll(cx, explorer.network(), explorer.discovery()).is_ready()
        {
            self.end_scan(ScanOutcome::Done);
            changed = true;
        }
        changed |= self.connect_waiting();
        changed | self.poll_clients(cx, now)
    }

    fn end_scan(&mut self, outcome: ScanOutcome) {
        if let Some(search) = self.ecu_search.take() {
            let found = search.into_found().into_iter();
            let ecus = found.map(|(gateway, ecu)| FoundEcu::Doip { gateway, ecu }).collect();
            self.scanned = Some((outcome, ecus));
        }
    }

    /// A tester's address that no channel uses: a gateway has one connection with each.
    fn free_tester(&self) -> LogicalAddress {
        let network = &self.setup.network;
        let [first, last] = network.tester_addresses;
        let is_free = |tester: &u16| !self.channels.values().any(|channel| channel.tester.get() == *tester);
        let free = (network.tester_address..=last).chain(first..=last).find(is_free);
        LogicalAddress::new(free.unwrap_or(network.tester_address))
    }
}

fn open(setup: &DoipBusSetup, hardware: &Hardware) -> Starting {
    (hardware.open_doip)(&setup.port, &setup.network, Purpose::Talk)
}

impl SessionBus for DoipSessionBus {
    fn name(&self) -> &str {
        &self.setup.name
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let now = tokio::time::Instant::now().into_std();
        let mut retry_at = None;
        let mut changed = match &mut self.state {
            State::Running(_) => self.poll_running(cx, now),
            State::Starting(starting) => match starting.as_mut().poll(cx) {
                Poll::Ready(opened) => return Poll::Ready(self.handle_network(now, opened)),
                Poll::Pending => false,
            },
            State::Lost(at) if *at <= now => {
                self.state = State::Starting(open(&self.setup, &self.hardware));
                true
            }
            State::Lost(at) => {
                retry_at = Some(*at);
                false
            }
        };
        changed |= self.handle_due(now);
        if changed {
            return Poll::Ready(Progress::Changed);
        }
        let channels = self.channels.values();
        let due = channels.flat_map(|channel| [channel.pdus.poll_timeout(), channel.opening]).flatten();
        let search = self.vin_search.as_ref().map(VinSearch::poll_timeout);
        let scan = self.ecu_search.as_ref().map(EcuSearch::poll_timeout);
        self.deadline.set(due.chain(retry_at).chain(search).chain(scan).min());
        self.deadline.poll_expired(cx).map(|()| Progress::Changed)
    }

    fn set_room(&mut self, left: usize, in_all: usize) {
        let longest = self.channels.values().map(|channel| channel.max_pdu).max().unwrap_or_default();
        self.room = left;
        self.least_room = (longest + ONE_READ).min(in_all / 2);
    }

    fn has_started(&self) -> bool {
        self.has_started
    }

    fn status(&self) -> BusStatus {
        BusStatus { state: self.bus_state(), ..BusStatus::default() }
    }

    fn take_state_change(&mut self) -> bool {
        let state = self.has_started.then(|| self.bus_state());
        std::mem::replace(&mut self.told_state, state) != state
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &SessionLimits,
    ) -> Result<Opening, Problem> {
        match kind {
            ChannelKind::Doip(config) => self.open_doip(now, number, config, limits),
            other => Err(wrong_kind(&self.setup.name, "doip_bus", other)),
        }
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        self.opened.pop_front()
    }

    fn close_channel(&mut self, number: u16) {
        let Some(closed) = self.channels.remove(&number) else { return };
        self.events.retain(|event| event.channel != number);
        let key = closed.key();
        if !self.channels.values().any(|channel| channel.key() == key) {
            self.clients.remove(&key);
        }
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, flags: PduFlags, data: &[u8]) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.handle_pdu(now, flags, data);
            let key = channel.key();
            self.give_pdus(key);
        }
    }

    fn handle_refused_pdu(&mut self, _now: Instant, number: u16, flags: PduFlags) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.handle_refused_pdu(flags);
        }
    }

    fn handle_ignition(&mut self, _now: Instant, ignition: Option<bool>) {
        self.is_ignition_off = ignition == Some(false);
        if self.is_ignition_off {
            self.end_scan(ScanOutcome::IgnitionOff);
        }
    }

    fn start_scan(&mut self, now: Instant) -> bool {
        let network = &self.setup.network;
        let confirmation = self.hardware.doip.confirmation_time;
        let settings = network.connection(self.free_tester(), MAX_OWN_ANSWER, confirmation);
        self.ecu_search = Some(EcuSearch::new(settings, network.tls, now));
        match &mut self.state {
            _ if self.is_ignition_off => self.end_scan(ScanOutcome::IgnitionOff),
            State::Running(explorer) => explorer.ask_all(now, Question::Anybody),
            State::Starting(_) | State::Lost(_) => self.end_scan(ScanOutcome::BusOff),
        }
        true
    }

    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        self.scanned.take()
    }

    fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        self.keep_alive_stopped = !enabled;
        self.channels.values_mut().for_each(|channel| channel.pdus.set_keep_alive(now, enabled));
    }

    fn handle_frame_to_send(&mut self, _now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.refuse();
        }
    }

    fn poll_output(&mut self) -> Option<BusOutput> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let at = tokio::time::Instant::now().into_std();
        self.channels.iter_mut().find_map(|(number, channel)| {
            channel.pdus.poll_output().map(|output| BusOutput { channel: *number, at, output })
        })
    }

    fn return_to_default_sessions(&mut self, now: Instant) {
        for channel in self.channels.values_mut() {
            channel.pdus.return_to_default_session(now);
        }
    }

    fn is_quiet(&self) -> bool {
        !self.channels.values().any(|channel| channel.pdus.is_sending())
    }

    fn start_vin_reader(&mut self, settings: vin::ReaderSettings) -> bool {
        let State::Running(explorer) = &mut self.state else { return false };
        let now = tokio::time::Instant::now().into_std();
        explorer.ask_all(now, Question::Anybody);
        let network = &self.setup.network;
        let tester = LogicalAddress::new(network.tester_address);
        let connection = network.connection(tester, MAX_OWN_ANSWER, self.hardware.doip.confirmation_time);
        self.vin_search = Some(VinSearch::new(connection, network.tls, settings.until));
        self.told_vins = None;
        true
    }

    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.told_vins.take()
    }
}
