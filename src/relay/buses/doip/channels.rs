//! The channels of a DoIP bus, and the connections that they need.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::CanFrame;

use super::channel::{ConnectionKey, DoipChannel, refused, unknown_gateway};
use super::searches::{DoipScan, DoipVinReading};
use super::setup::DoipBusSetup;
use super::transport::DoipTransport;
use crate::config::doip::{DoipConfig, NetworkConfig};
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{ConnectionSettings, Event, SendError, SendId};
use crate::protocol::doip::discovery::Gateway;
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::{ChannelKind, invalid, pdu_settings, wrong_kind};
use crate::relay::buses::channels::{Channels, Opening};
use crate::relay::channel::{ChannelOutput, Output, PduChannel};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::codec::PduFlags;
use crate::relay::wire::request::DoipChannelConfig;
use crate::vehicle::doip_network::client::ClientError;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanRequest};
use crate::vehicle::vin;

/// The longest response to a request of the connector itself, in bytes.
const MAX_OWN_RESPONSE: usize = 4096;
/// The size of the records that one read from a gateway may produce, beside a PDU that it completes, in
/// bytes.
const ONE_READ: usize = 64 * 1024;
/// The size of a PDU's record without its data, in bytes.
const RECORD: usize = 64;

/// The channels of a DoIP bus, as a pure state machine.
///
/// The driver reports gateways and connections by `handle_*`. It makes the connections that
/// [`DoipChannels::wanted_connections`] names, and sends on each of them by [`DoipChannels::transmit`].
pub(crate) struct DoipChannels {
    name: String,
    /// The number of the network configuration.
    number: u8,
    network: NetworkConfig,
    /// How long to search for a gateway when a channel is opened.
    discovery_time: Duration,
    /// How long a person in the vehicle has to confirm a routing activation.
    confirmation_time: Duration,
    is_network_up: bool,
    gateways: Vec<Gateway>,
    /// Connections that exist or are being established, and whether routing is active on them.
    connections: BTreeMap<ConnectionKey, bool>,
    channels: BTreeMap<u16, DoipChannel>,
    opened: VecDeque<(u16, Result<(), Problem>)>,
    outputs: VecDeque<ChannelOutput>,
    /// Whether a channel waits for a gateway that is not known.
    wants_discovery: bool,
    is_keep_alive_stopped: bool,
    is_ignition_off: bool,
    vin_reading: DoipVinReading,
    scanning: DoipScan,
    /// The bytes that the link has left for PDUs. Below `least_room`, gateways are not read.
    room: usize,
    least_room: usize,
}

impl DoipChannels {
    /// A bus without channels, whose network is not up yet.
    pub(crate) fn new(setup: &DoipBusSetup, config: &DoipConfig) -> Self {
        Self {
            name: setup.name.clone(),
            number: setup.number,
            network: setup.network.clone(),
            discovery_time: config.discovery_time,
            confirmation_time: config.confirmation_time,
            is_network_up: false,
            gateways: Vec::new(),
            connections: BTreeMap::new(),
            channels: BTreeMap::new(),
            opened: VecDeque::new(),
            outputs: VecDeque::new(),
            wants_discovery: false,
            is_keep_alive_stopped: false,
            is_ignition_off: false,
            vin_reading: DoipVinReading::default(),
            scanning: DoipScan::default(),
            room: usize::MAX,
            least_room: 0,
        }
    }

    /// The network is up. No gateway is known yet.
    pub(super) fn handle_network_up(&mut self) {
        self.is_network_up = true;
        self.gateways.clear();
    }

    /// The network and all connections are lost. `found` are the ECUs that a running scan has found.
    pub(super) fn handle_network_lost(
        &mut self,
        now: Instant,
        why: &dyn std::fmt::Display,
        found: Vec<(LogicalAddress, LogicalAddress)>,
    ) {
        if !std::mem::replace(&mut self.is_network_up, false) {
            return;
        }
        self.connections.clear();
        self.vin_reading.abort();
        if self.scanning.is_running() {
            self.scanning.end(ScanOutcome::BusOff, found);
        }
        let text = format!("the network is lost: {why}");
        for (number, channel) in &mut self.channels {
            channel.pdus.handle_bus_off(now);
            if channel.opening.is_none() {
                let output = Output::bus_state(BusState::Off, text.clone());
                self.outputs.push_back(ChannelOutput { channel: *number, at: now, output });
            }
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    /// The gateways that discovery knows.
    pub(super) fn handle_gateways(&mut self, gateways: &[Gateway]) {
        self.gateways = gateways.to_vec();
    }

    /// Whether discovery should start, because a channel waits for an unknown gateway; true once.
    pub(super) fn take_wants_discovery(&mut self) -> bool {
        std::mem::take(&mut self.wants_discovery)
    }

    /// The connections that channels need to known gateways, with their settings.
    pub(super) fn wanted_connections(&self) -> Vec<(ConnectionKey, Gateway, ConnectionSettings)> {
        let wanted = |channel: &DoipChannel| {
            let gateway = self.gateway(channel.gateway)?;
            let mut settings =
                self.network.connection(channel.tester, channel.max_pdu, self.confirmation_time);
            // use the protocol version of the gateway
            settings.version = gateway.spoken(settings.version);
            Some((channel.key(), *gateway, settings))
        };
        self.channels.values().filter_map(wanted).collect()
    }

    /// Whether the connection is still needed.
    pub(super) fn needs(&self, key: ConnectionKey) -> bool {
        self.connections.contains_key(&key)
    }

    /// The driver begins to establish a connection.
    pub(super) fn handle_connecting(&mut self, key: ConnectionKey) {
        self.connections.insert(key, false);
    }

    /// Routing is active on a connection, for the first time or again.
    pub(super) fn handle_active(&mut self, now: Instant, key: ConnectionKey) {
        self.connections.insert(key, true);
        for (number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.key() == key) {
            if channel.opening.take().is_some() {
                self.opened.push_back((*number, Ok(())));
            } else if std::mem::take(&mut channel.is_down) {
                let output = Output::bus_state(BusState::Active, "routing is active again");
                self.outputs.push_back(ChannelOutput { channel: *number, at: now, output });
            }
        }
    }

    /// A person in the vehicle has to confirm the routing activation: opening may take longer.
    pub(super) fn handle_confirmation_required(&mut self, key: ConnectionKey) {
        let more = self.confirmation_time;
        for channel in self.channels.values_mut().filter(|channel| channel.key() == key) {
            channel.opening = channel.opening.map(|until| until + more);
        }
    }

    /// A connection could not be established, or is lost. Channels that are being opened on it fail.
    pub(super) fn handle_down(&mut self, now: Instant, key: ConnectionKey, error: &ClientError) {
        self.connections.insert(key, false);
        let mut failed = Vec::new();
        for (number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.key() == key) {
            if channel.opening.is_some() {
                failed.push(*number);
                self.opened.push_back((*number, Err(refused(key, error))));
            } else if !std::mem::replace(&mut channel.is_down, true) {
                let output = Output::bus_state(BusState::Off, error.to_string());
                self.outputs.push_back(ChannelOutput { channel: *number, at: now, output });
            }
        }
        failed.into_iter().for_each(|number| self.close_channel(number));
    }

    /// Handles an event of a connection: a message from an ECU, or the outcome of a message to an ECU.
    pub(super) fn handle_event(&mut self, now: Instant, key: ConnectionKey, event: &Event) {
        let taken = match event {
            Event::Received { data, .. } => data.len() + RECORD,
            _ => RECORD,
        };
        for (number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.key() == key) {
            if channel.pdus.transport_mut().handle_event(event) {
                channel.pdus.handle_events(now);
                collect(*number, channel, now, &mut self.outputs);
                self.room = self.room.saturating_sub(taken);
            }
        }
    }

    /// Sends the PDUs that wait for this connection by `send`. Returns whether any was taken or refused.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        key: ConnectionKey,
        mut send: impl FnMut(LogicalAddress, &[u8]) -> Result<SendId, SendError>,
    ) -> bool {
        if self.connections.get(&key) != Some(&true) {
            return false;
        }
        let mut changed = false;
        for (number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.key() == key) {
            changed |= channel.pdus.transport_mut().transmit(&mut send);
            channel.pdus.handle_events(now);
            collect(*number, channel, now, &mut self.outputs);
        }
        changed
    }

    /// Whether gateways must not be read, because the link has few bytes left.
    pub(super) fn pauses_vehicle(&self) -> bool {
        self.room < self.least_room
    }

    /// The reading of the VIN on this bus.
    pub(super) fn vin_reading_mut(&mut self) -> &mut DoipVinReading {
        &mut self.vin_reading
    }

    /// The scan of this bus.
    pub(super) fn scanning_mut(&mut self) -> &mut DoipScan {
        &mut self.scanning
    }

    /// The settings of the connector's own connection to read the VIN.
    pub(super) fn vin_connection(&self) -> ConnectionSettings {
        let tester = LogicalAddress::new(self.network.tester_address);
        self.network.connection(tester, MAX_OWN_RESPONSE, self.confirmation_time)
    }

    /// The settings of the connector's own connection to scan. It has a tester address that no channel uses,
    /// because a gateway has one connection for each tester.
    pub(super) fn scan_connection(&self) -> ConnectionSettings {
        let [first, last] = self.network.tester_addresses;
        let is_free = |tester: &u16| !self.channels.values().any(|channel| channel.tester.get() == *tester);
        let free = (self.network.tester_address..=last).chain(first..=last).find(is_free);
        let tester = LogicalAddress::new(free.unwrap_or(self.network.tester_address));
        self.network.connection(tester, MAX_OWN_RESPONSE, self.confirmation_time)
    }

    fn gateway(&self, address: LogicalAddress) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.announcement.address == address)
    }

    fn open_doip(
        &mut self,
        now: Instant,
        number: u16,
        config: &DoipChannelConfig,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        let tester = LogicalAddress::new(config.tester_id);
        if !self.network.allows_tester(tester) {
            let [first, last] = self.network.tester_addresses.map(LogicalAddress::new);
            return Err(invalid(format!(
                "tester_id {tester} is not one of network configuration {}, which has {first} to {last}.",
                self.number
            )));
        }
        let transport = DoipTransport::new(LogicalAddress::new(config.ecu_id), limits.max_pdu);
        let mut channel = DoipChannel {
            gateway: LogicalAddress::new(config.gateway_id),
            tester,
            pdus: PduChannel::new(Box::new(transport), pdu_settings(&config.options), now),
            opening: None,
            is_down: false,
            max_pdu: limits.max_pdu,
        };
        if self.is_keep_alive_stopped {
            channel.pdus.set_keep_alive(now, false);
        }
        let is_active = self.connections.get(&channel.key()) == Some(&true);
        if !is_active {
            channel.opening = Some(now + self.discovery_time);
            self.wants_discovery |= self.gateway(channel.gateway).is_none();
        }
        self.channels.insert(number, channel);
        Ok(if is_active { Opening::Done } else { Opening::UnderWay })
    }
}

impl Channels for DoipChannels {
    fn state(&self) -> BusState {
        let active = self.connections.values().filter(|is_active| **is_active).count();
        // channels that are being opened do not count as a failure
        let are_all_opening = || self.channels.values().all(|channel| channel.opening.is_some());
        match self.is_network_up {
            true if active == self.connections.len() => BusState::Active,
            true if active > 0 => BusState::Passive,
            true if are_all_opening() => BusState::Active,
            _ => BusState::Off,
        }
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        match kind {
            ChannelKind::Doip(config) => self.open_doip(now, number, config, limits),
            other => Err(wrong_kind(&self.name, "doip_bus", other)),
        }
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        self.opened.pop_front()
    }

    fn close_channel(&mut self, number: u16) {
        let Some(closed) = self.channels.remove(&number) else { return };
        self.outputs.retain(|output| output.channel != number);
        let key = closed.key();
        if !self.channels.values().any(|channel| channel.key() == key) {
            self.connections.remove(&key);
        }
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, flags: PduFlags, data: &[u8]) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.handle_pdu(now, flags, data);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.handle_refused_pdu(flags);
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.pdus.refuse();
            collect(number, channel, now, &mut self.outputs);
        }
    }

    fn handle_ignition(&mut self, _now: Instant, ignition: Option<bool>) {
        self.is_ignition_off = ignition == Some(false);
        if self.is_ignition_off {
            self.scanning.stop(ScanOutcome::IgnitionOff);
        }
    }

    fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        self.is_keep_alive_stopped = !enabled;
        for (number, channel) in &mut self.channels {
            channel.pdus.set_keep_alive(now, enabled);
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    fn set_room(&mut self, left: usize, total: usize) {
        let longest = self.channels.values().map(|channel| channel.max_pdu).max().unwrap_or_default();
        self.room = left;
        self.least_room = (longest + ONE_READ).min(total / 2);
    }

    fn return_to_default_sessions(&mut self, now: Instant) {
        for (number, channel) in &mut self.channels {
            channel.pdus.return_to_default_session(now);
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    fn is_quiet(&self) -> bool {
        !self.channels.values().any(|channel| channel.pdus.is_sending())
    }

    fn start_scan(&mut self, _now: Instant, request: &ScanRequest) -> bool {
        if self.is_ignition_off {
            self.scanning.end(ScanOutcome::IgnitionOff, Vec::new());
        } else if self.is_network_up {
            self.scanning.request(request.clone());
        } else {
            self.scanning.end(ScanOutcome::BusOff, Vec::new());
        }
        true
    }

    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        self.scanning.take_ended()
    }

    fn start_vin_reader(&mut self, settings: vin::ReaderSettings) -> bool {
        if self.is_network_up {
            self.vin_reading.request(settings.until);
        }
        self.is_network_up
    }

    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.vin_reading.take_ended()
    }

    fn handle_timeout(&mut self, now: Instant) {
        let mut failed = Vec::new();
        for (number, channel) in &mut self.channels {
            if channel.pdus.poll_timeout().is_some_and(|at| at <= now) {
                channel.pdus.handle_timeout(now);
                collect(*number, channel, now, &mut self.outputs);
            }
            if channel.opening.is_some_and(|until| until <= now) {
                failed.push((*number, channel.gateway));
            }
        }
        for (number, gateway) in failed {
            let known: &[Gateway] = if self.is_network_up { &self.gateways } else { &[] };
            self.opened.push_back((number, Err(unknown_gateway(&self.name, gateway, known))));
            self.close_channel(number);
        }
    }

    fn poll_output(&mut self) -> Option<ChannelOutput> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let channels = self.channels.values();
        channels.flat_map(|channel| [channel.pdus.poll_timeout(), channel.opening]).flatten().min()
    }
}

fn collect(number: u16, channel: &mut DoipChannel, at: Instant, outputs: &mut VecDeque<ChannelOutput>) {
    while let Some(output) = channel.pdus.poll_output() {
        outputs.push_back(ChannelOutput { channel: number, at, output });
    }
}
