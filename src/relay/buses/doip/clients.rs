//! The connections with a bus's gateways, and the channels' traffic on them.

use std::task::{Context, Poll};
use std::time::Instant;

use super::channel::refused;
use super::{BATCH, ClientKey, DoipSessionBus, RECORD, State};
use crate::protocol::doip::connection::Event;
use crate::relay::buses::bus::SessionBus;
use crate::relay::buses::can::channels::BusOutput;
use crate::relay::channel::Output;
use crate::vehicle::doip_network::client::{Client, ClientError, ClientEvent};

impl DoipSessionBus {
    /// Makes the connections that channels want with gateways that are known by now.
    pub(crate) fn connect_waiting(&mut self) -> bool {
        let State::Running(explorer) = &self.state else { return false };
        let mut changed = false;
        for channel in self.channels.values() {
            let key = (channel.gateway, channel.tester);
            let Some(gateway) = explorer.discovery().gateway(channel.gateway) else { continue };
            match self.clients.get_mut(&key) {
                Some(client) => client.set_gateway(gateway.address),
                None => {
                    let network = &self.setup.network;
                    let confirmation = self.hardware.doip.confirmation_time;
                    let mut settings = network.connection(channel.tester, channel.max_pdu, confirmation);
                    // a vehicle is spoken to as it speaks
                    settings.version = gateway.spoken(settings.version);
                    self.clients.insert(key, Client::new(gateway.address, settings, network.tls));
                    changed = true;
                }
            }
        }
        changed
    }

    pub(crate) fn poll_clients(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut changed = false;
        let keys: Vec<ClientKey> = self.clients.keys().copied().collect();
        for key in keys {
            for turn in 0..=BATCH {
                if turn == BATCH {
                    cx.waker().wake_by_ref();
                    break;
                }
                changed |= self.give_pdus(key);
                let State::Running(explorer) = &self.state else { return true };
                let Some(client) = self.clients.get_mut(&key) else { break };
                client.set_paused(self.room < self.least_room);
                let Poll::Ready(event) = client.poll(cx, explorer.network()) else { break };
                changed = true;
                self.handle_client(now, key, event);
            }
        }
        changed
    }

    /// Gives the connection what its channels have to send.
    pub(crate) fn give_pdus(&mut self, key: ClientKey) -> bool {
        let Some(client) = self.clients.get_mut(&key).filter(|client| client.is_active()) else {
            return false;
        };
        let mut changed = false;
        for channel in self.channels.values_mut().filter(|channel| channel.key() == key) {
            changed |= channel.pdus.transport_mut().give(|target, data| client.send(target, data));
        }
        changed
    }

    fn handle_client(&mut self, now: Instant, key: ClientKey, event: ClientEvent) {
        let (gateway, tester) = key;
        match event {
            ClientEvent::Active { .. } => {
                tracing::info!(bus = self.setup.name, %gateway, %tester, "routing is active");
                for (number, channel) in &mut self.channels {
                    if channel.key() != key {
                        continue;
                    }
                    if channel.opening.take().is_some() {
                        self.opened.push_back((*number, Ok(())));
                    } else if std::mem::take(&mut channel.is_down) {
                        self.events.push_back(state_event(now, *number, None));
                    }
                }
            }
            ClientEvent::ConfirmationRequired => {
                tracing::info!(bus = self.setup.name, %gateway, "routing has to be confirmed in the vehicle");
                let more = self.hardware.doip.confirmation_time;
                for channel in self.channels.values_mut().filter(|channel| channel.key() == key) {
                    channel.opening = channel.opening.map(|until| until + more);
                }
            }
            ClientEvent::Down(error) => self.handle_down(now, key, &error),
            ClientEvent::Message(event) => self.handle_message(now, key, event),
        }
    }

    fn handle_down(&mut self, now: Instant, key: ClientKey, error: &ClientError) {
        tracing::info!(bus = self.setup.name, gateway = %key.0, tester = %key.1, %error, "no routing");
        let mut failed = Vec::new();
        for (number, channel) in &mut self.channels {
            if channel.key() != key {
                continue;
            }
            if channel.opening.is_some() {
                failed.push(*number);
                self.opened.push_back((*number, Err(refused(key, error))));
            } else if !std::mem::replace(&mut channel.is_down, true) {
                self.events.push_back(state_event(now, *number, Some(error)));
            }
        }
        for number in failed {
            self.close_channel(number);
        }
    }

    fn handle_message(&mut self, now: Instant, key: ClientKey, event: Event) {
        let taken = match &event {
            Event::Received { data, .. } => data.len() + RECORD,
            _ => RECORD,
        };
        for channel in self.channels.values_mut().filter(|channel| channel.key() == key) {
            if channel.pdus.transport_mut().handle_event(&event) {
                channel.pdus.handle_events(now);
                self.room = self.room.saturating_sub(taken);
            }
        }
    }
}

/// Routing is active again, or not any more, and why.
pub(crate) fn state_event(at: Instant, channel: u16, lost: Option<&dyn std::fmt::Display>) -> BusOutput {
    let (detail, text) = match lost {
        None => (0, "routing is active again".to_owned()),
        Some(why) => (2, why.to_string()),
    };
    BusOutput { channel, at, output: Output::BusState { detail, text } }
}
