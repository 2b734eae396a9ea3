//! The channels of a DoIP bus, and the connections that they need.

mod bus;
mod gateways;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;

use self::gateways::{KnownGateways, Route};
use super::channel::{ConnectionKey, DoipChannel, refused};
use super::searches::{DoipScan, DoipVinReading};
use super::setup::DoipBusSetup;
use super::transport::DoipTransport;
use crate::config::doip::{DoipConfig, NetworkConfig};
use crate::policy::{BusPolicy, IntentTarget};
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{ConnectionSettings, Event, SendError, SendId};
use crate::protocol::doip::discovery::{ANNOUNCE_WAIT, Gateway};
use crate::protocol::problem::Problem;
use crate::relay::buses::channel_setup::{invalid, pdu_settings};
use crate::relay::buses::channels::{Channels as _, Opening};
use crate::relay::channel::{ChannelOutput, KeepAliveStop, Output, PduChannel};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::request::DoipChannelConfig;
use crate::vehicle::doip_network::client::ClientError;
use crate::vehicle::scan::ScanOutcome;

/// The longest response to the connector's own requests, in bytes: those for VIN and TesterPresent have 20.
const MAX_OWN_RESPONSE: usize = 4096;
/// The size of the records that one read from a gateway may produce, beside a PDU that it completes, in
/// bytes. A read takes 16 KiB; a short message grows by [`RECORD`].
const ONE_READ: usize = 64 * 1024;
/// The size of a PDU's record without its data, in bytes: 16, the 24 of a message's header, and a margin.
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
    gateways: KnownGateways,
    /// Connections that exist or are being established, and whether routing is active on them.
    connections: BTreeMap<ConnectionKey, bool>,
    channels: BTreeMap<u16, DoipChannel>,
    opened: VecDeque<(u16, Result<(), Problem>)>,
    outputs: VecDeque<ChannelOutput>,
    keep_alive_stop: Option<KeepAliveStop>,
    policy: Option<BusPolicy>,
    /// Routing is active again on a connection that was lost.
    has_returned: bool,
    is_ignition_off: bool,
    vin_reading: DoipVinReading,
    /// No gateway is asked for, except for a channel that is being opened.
    is_muted: bool,
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
            gateways: KnownGateways::default(),
            connections: BTreeMap::new(),
            channels: BTreeMap::new(),
            opened: VecDeque::new(),
            outputs: VecDeque::new(),
            keep_alive_stop: None,
            policy: None,
            has_returned: false,
            is_ignition_off: false,
            vin_reading: DoipVinReading::default(),
            is_muted: false,
            scanning: DoipScan::default(),
            room: usize::MAX,
            least_room: 0,
        }
    }

    /// The network is up. No gateway is known yet; `named_host` is the only host, if the configuration names
    /// one.
    pub(super) fn handle_network_up(&mut self, named_host: Option<SocketAddr>) {
        self.is_network_up = true;
        self.gateways.handle_network_up(named_host);
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
        self.gateways.handle_network_lost();
        self.vin_reading.abort();
        if self.scanning.is_running() {
            self.scanning.end(ScanOutcome::BusOff, found);
        }
        let text = format!("the network is lost: {why}");
        for (number, channel) in &mut self.channels {
            channel.pdus.handle_bus_off(now);
            if channel.opening.is_none() && !std::mem::replace(&mut channel.is_down, true) {
                let output = Output::bus_state(BusState::Off, text.clone());
                self.outputs.push_back(ChannelOutput { channel: *number, at: now, output });
            }
            collect(*number, channel, now, &mut self.outputs);
        }
    }

    /// The gateways that discovery knows.
    pub(super) fn handle_gateways(&mut self, gateways: &[Gateway]) {
        self.gateways.handle_gateways(gateways);
    }

    /// A host answered a question with something else than an announcement.
    pub(super) fn handle_refusal(&mut self, refusal: String) {
        self.gateways.handle_refusal(refusal);
    }

    /// Whether to ask for gateways now: again and again while one is missing for a channel that is being
    /// opened, and now and then for a channel that was open before.
    pub(super) fn take_question(&mut self, now: Instant) -> bool {
        let missing = || self.channels.values().filter(|channel| self.is_missing(channel));
        let is_opening = missing().any(|channel| channel.opening.is_some());
        missing().next().is_some()
            && (is_opening || !self.is_muted)
            && self.gateways.take_question(now, is_opening)
    }

    /// When the next question is due for a channel that was open before.
    fn next_question(&self) -> Option<Instant> {
        let is_lost = |channel: &DoipChannel| channel.opening.is_none() && self.is_missing(channel);
        let is_any_lost = self.is_network_up && self.channels.values().any(is_lost);
        self.gateways.next_question().filter(|_| is_any_lost && !self.is_muted)
    }

    /// Whether the channel's gateway has not identified itself.
    fn is_missing(&self, channel: &DoipChannel) -> bool {
        self.gateways.route(channel.gateway, false).is_none()
    }

    /// The connections that channels need to gateways that can be reached, with their settings.
    pub(super) fn wanted_connections(&self) -> Vec<(ConnectionKey, SocketAddr, ConnectionSettings)> {
        let wanted = |channel: &DoipChannel| {
            let route = self.gateways.route(channel.gateway, channel.is_overdue())?;
            let mut settings =
                self.network.connection(channel.tester, channel.max_pdu, self.confirmation_time);
            match &route {
                // use the protocol version of the gateway
                Route::Identified(gateway) => settings.version = gateway.spoken(settings.version),
                Route::Unidentified(_) => settings.entity = Some(channel.gateway),
            }
            Some((channel.key(), route.address(), settings))
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
        self.gateways.pin(key.0);
    }

    /// Routing is active on a connection, for the first time or again.
    pub(super) fn handle_active(&mut self, now: Instant, key: ConnectionKey) {
        self.connections.insert(key, true);
        for (number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.key() == key) {
            if channel.opening.take().is_some() {
                self.opened.push_back((*number, Ok(())));
            } else if std::mem::take(&mut channel.is_down) {
                self.has_returned = true;
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
        let silent_host = self.gateways.silent_host();
        let mut failed = Vec::new();
        for (number, channel) in self.channels.iter_mut().filter(|(_, channel)| channel.key() == key) {
            if channel.opening.is_some() {
                failed.push(*number);
                self.opened.push_back((*number, Err(refused(&self.name, key, error, silent_host))));
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
            identified_until: None,
            is_down: false,
            max_pdu: limits.max_pdu,
        };
        channel.pdus.set_keep_alive(now, self.keep_alive_stop);
        if let Some(policy) = &self.policy {
            channel.pdus.set_policy(policy.channel(IntentTarget::Logical(config.ecu_id)));
        }
        let is_active = self.connections.get(&channel.key()) == Some(&true);
        if !is_active {
            // the time to make a connection is the same for a host that does not identify itself
            let until = now + self.discovery_time;
            let is_silent = self.gateways.silent_host().is_some();
            channel.opening = Some(if is_silent { until + ANNOUNCE_WAIT } else { until });
            channel.identified_until = Some(now + ANNOUNCE_WAIT);
        }
        self.channels.insert(number, channel);
        Ok(if is_active { Opening::Done } else { Opening::UnderWay })
    }
}

fn collect(number: u16, channel: &mut DoipChannel, at: Instant, outputs: &mut VecDeque<ChannelOutput>) {
    while let Some(output) = channel.pdus.poll_output() {
        outputs.push_back(ChannelOutput { channel: number, at, output });
    }
}
