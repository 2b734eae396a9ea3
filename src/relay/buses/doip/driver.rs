//! Moves messages between the network and the channels of a DoIP bus. Runs discovery, the reading of the VIN
//! and scans.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::future::BoxFuture;
use connector_hal::timer::has_read_all;

use super::channel::ConnectionKey;
use super::channels::DoipChannels;
use super::setup::DoipBusSetup;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::discovery::{ANNOUNCE_WAIT, DiscoveryEvent, Question};
use crate::relay::buses::bus::{BusDriver, Driven};
use crate::relay::buses::channels::Channels;
use crate::vehicle::doip_network::client::{Client, ClientEvent};
use crate::vehicle::doip_network::explorer::Explorer;
use crate::vehicle::doip_network::linux::Purpose;
use crate::vehicle::doip_network::network::NetworkError;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::scan::EcuSearch;
use crate::vehicle::vin::doip::VinSearch;

/// The number of events that are read from one connection before the next one is polled, so that a gateway
/// that floods does not keep the other connections waiting.
const BATCH: usize = 64;

/// The reason why there is no network.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DoipBusError {
    /// The network could not be entered.
    #[error(transparent)]
    Entry(#[from] NetworkError),
    /// The network was lost.
    #[error(transparent)]
    Lost(#[from] std::io::Error),
}

/// Drives the network of a DoIP bus.
pub(crate) struct DoipDriver {
    setup: DoipBusSetup,
    hardware: Hardware,
    clients: BTreeMap<ConnectionKey, Client>,
    vin_search: Option<VinSearch>,
    ecu_search: Option<EcuSearch>,
    /// No connection had messages left when it was last polled.
    has_read_all: bool,
}

impl DoipDriver {
    pub(crate) fn new(setup: DoipBusSetup, hardware: &Hardware) -> Self {
        let (clients, hardware) = (BTreeMap::new(), hardware.clone());
        Self { setup, hardware, clients, vin_search: None, ecu_search: None, has_read_all: false }
    }

    /// Handles the events of discovery. Returns whether there were any.
    fn process_discovery(
        &self,
        cx: &mut Context<'_>,
        now: Instant,
        explorer: &mut Explorer,
        channels: &mut DoipChannels,
    ) -> std::io::Result<bool> {
        let mut changed = false;
        loop {
            while let Poll::Ready(event) = explorer.poll(cx) {
                let event = event?;
                tracing::debug!(bus = self.setup.name, ?event, "an event of DoIP discovery");
                if let DiscoveryEvent::Found(gateway) = event {
                    // for the log only: whether the vehicle is ready, and the limits of the gateway
                    explorer.ask(now, Question::EntityStatus, gateway.address);
                    explorer.ask(now, Question::PowerMode, gateway.address);
                }
                event.refusal().into_iter().for_each(|refusal| channels.handle_refusal(refusal));
                changed = true;
            }
            if changed {
                channels.handle_gateways(explorer.discovery().gateways());
            }
            let is_asking = !explorer.discovery().is_done_asking();
            if is_asking || !explorer.can_ask() || !channels.take_question(now) {
                return Ok(changed);
            }
            explorer.ask_all(now, Question::Anybody);
        }
    }

    /// Reads the VIN as requested. Returns whether the reading has ended.
    fn drive_vin_search(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        explorer: &mut Explorer,
        channels: &mut DoipChannels,
    ) -> bool {
        if let Some(until) = channels.vin_reading_mut().take_request() {
            explorer.ask_all(now, Question::Anybody);
            self.vin_search = Some(VinSearch::new(channels.vin_connection(), self.setup.network.tls, until));
        }
        if !channels.vin_reading_mut().is_running() {
            self.vin_search = None;
        }
        let ended = self
            .vin_search
            .take_if(|search| search.poll(cx, explorer.network(), explorer.discovery()).is_ready());
        ended.map(|search| channels.vin_reading_mut().end(search.into_candidates())).is_some()
    }

    /// Scans as requested. Returns whether the scan has ended.
    fn drive_ecu_search(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        explorer: &mut Explorer,
        channels: &mut DoipChannels,
    ) -> bool {
        if let Some(request) = channels.scanning_mut().take_request() {
            let (settings, tls) = (channels.scan_connection(), self.setup.network.tls);
            explorer.ask_all(now, Question::Anybody);
            explorer.connect_if_silent(settings, tls, now + ANNOUNCE_WAIT);
            self.ecu_search = Some(EcuSearch::new(settings, tls, &request, now));
        }
        let Some(search) = &mut self.ecu_search else { return false };
        let outcome = match channels.scanning_mut().stopped() {
            Some(stopped) => stopped,
            None => match search.poll(cx, explorer.network(), explorer.discovery()) {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => return false,
            },
        };
        let found = self.ecu_search.take().map(EcuSearch::into_found).unwrap_or_default();
        channels.scanning_mut().end(outcome, found);
        true
    }

    /// Establishes the connections that channels need, and drops those that they no longer need. Returns
    /// whether there are new ones.
    fn connect(&mut self, channels: &mut DoipChannels) -> bool {
        self.clients.retain(|key, _| channels.needs(*key));
        let mut changed = false;
        for (key, address, settings) in channels.wanted_connections() {
            match self.clients.get_mut(&key) {
                Some(client) => client.set_gateway(address),
                None => {
                    self.clients.insert(key, Client::new(address, settings, self.setup.network.tls));
                    channels.handle_connecting(key);
                    changed = true;
                }
            }
        }
        changed
    }

    /// Moves messages on all connections. Returns whether any moved.
    fn drive_clients(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        explorer: &mut Explorer,
        channels: &mut DoipChannels,
    ) -> bool {
        let mut changed = false;
        self.has_read_all = true;
        for (key, client) in &mut self.clients {
            for turn in 0..=BATCH {
                if turn == BATCH {
                    self.has_read_all = false;
                    cx.waker().wake_by_ref();
                    break;
                }
                changed |= channels.transmit(now, *key, |target, data| client.send(target, data));
                client.set_paused(channels.pauses_vehicle());
                let Poll::Ready(event) = client.poll(cx, explorer.network()) else { break };
                changed = true;
                if let ClientEvent::Active { entity } = event {
                    explorer.handle_activation(client.gateway(), client.version(), entity);
                }
                forward(&self.setup.name, now, *key, event, channels);
            }
        }
        changed
    }
}

/// Passes an event of a connection to the channels.
fn forward(bus: &str, now: Instant, key: ConnectionKey, event: ClientEvent, channels: &mut DoipChannels) {
    let (gateway, tester): (LogicalAddress, LogicalAddress) = key;
    match event {
        ClientEvent::Active { .. } => {
            tracing::info!(bus, %gateway, %tester, "routing is active");
            channels.handle_active(now, key);
        }
        ClientEvent::ConfirmationRequired => {
            tracing::info!(bus, %gateway, "a person in the vehicle has to confirm the routing activation");
            channels.handle_confirmation_required(key);
        }
        ClientEvent::Down(error) => {
            tracing::info!(bus, %gateway, %tester, %error, "routing is not active");
            channels.handle_down(now, key, &error);
        }
        ClientEvent::Message(event) => channels.handle_event(now, key, &event),
    }
}

impl BusDriver for DoipDriver {
    type Channels = DoipChannels;
    type Device = Explorer;
    type Error = DoipBusError;

    const DEVICE: &str = "network";

    fn open(&self) -> BoxFuture<'static, Result<Explorer, DoipBusError>> {
        let opening = (self.hardware.open_doip)(&self.setup.port, &self.setup.network, Purpose::Talk);
        Box::pin(async move { Ok(Explorer::new(opening.await?)) })
    }

    fn handle_opened(&mut self, now: Instant, explorer: &mut Explorer, channels: &mut DoipChannels) {
        explorer.ask_all(now, Question::Anybody);
        channels.handle_network_up(explorer.named_host());
    }

    fn handle_lost(&mut self, now: Instant, error: &DoipBusError, channels: &mut DoipChannels) {
        self.clients.clear();
        self.vin_search = None;
        let found = self.ecu_search.take().map(EcuSearch::into_found).unwrap_or_default();
        channels.handle_network_lost(now, error, found);
    }

    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        explorer: &mut Explorer,
        channels: &mut DoipChannels,
    ) -> Driven<Explorer, DoipBusError> {
        let mut changed = match self.process_discovery(cx, now, explorer, channels) {
            Ok(changed) => changed,
            Err(error) => return Driven::Lost(error.into()),
        };
        changed |= self.drive_vin_search(cx, now, explorer, channels);
        changed |= self.drive_ecu_search(cx, now, explorer, channels);
        changed |= self.connect(channels);
        changed |= self.drive_clients(cx, now, explorer, channels);
        let may_be_missed = self.has_read_all && has_read_all(cx);
        if may_be_missed && channels.poll_timeout().is_some_and(|at| at <= now) {
            changed = true;
            channels.handle_timeout(now);
        }
        if changed { Driven::Changed } else { Driven::Idle }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let vin = self.vin_search.as_ref().map(VinSearch::poll_timeout);
        let scan = self.ecu_search.as_ref().map(EcuSearch::poll_timeout);
        vin.into_iter().chain(scan).min()
    }
}
