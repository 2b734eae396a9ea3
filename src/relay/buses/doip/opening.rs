//! Opening channels: at once where routing is active, or else when it is, or not in time.

use std::time::Instant;

use super::channel::{DoipChannel, unknown_gateway};
use super::transport::DoipTransport;
use super::{DoipSessionBus, State};
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::discovery::Question;
use crate::protocol::problem::Problem;
use crate::relay::buses::bus::{Opening, SessionBus};
use crate::relay::buses::setup::{invalid, pdu_settings};
use crate::relay::channel::PduChannel;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::request::DoipChannelConfig;
use crate::vehicle::doip_network::client::Client;

impl DoipSessionBus {
    pub(crate) fn handle_due(&mut self, now: Instant) -> bool {
        let mut changed = false;
        let mut failed = Vec::new();
        for (number, channel) in &mut self.channels {
            if channel.pdus.poll_timeout().is_some_and(|at| at <= now) {
                channel.pdus.handle_timeout(now);
                changed = true;
            }
            if channel.opening.is_some_and(|until| until <= now) {
                failed.push((*number, channel.gateway));
            }
        }
        for (number, gateway) in failed {
            changed = true;
            let problem = match &self.state {
                State::Running(explorer) => {
                    unknown_gateway(&self.setup.name, gateway, explorer.discovery().gateways())
                }
                _ => unknown_gateway(&self.setup.name, gateway, &[]),
            };
            self.opened.push_back((number, Err(problem)));
            self.close_channel(number);
        }
        changed
    }

    pub(crate) fn open_doip(
        &mut self,
        now: Instant,
        number: u16,
        config: &DoipChannelConfig,
        limits: &SessionLimits,
    ) -> Result<Opening, Problem> {
        let tester = LogicalAddress::new(config.tester_id);
        if !self.setup.network.allows_tester(tester) {
            let [first, last] = self.setup.network.tester_addresses.map(LogicalAddress::new);
            return Err(invalid(format!(
                "tester_id {tester} is not one of network configuration {}, which has {first} to {last}.",
                self.setup.number
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
        if self.keep_alive_stopped {
            channel.pdus.set_keep_alive(now, false);
        }
        let is_active = self.clients.get(&channel.key()).is_some_and(Client::is_active);
        let opening = if is_active { Opening::Done } else { Opening::UnderWay };
        let until = (!is_active).then(|| now + self.hardware.doip.discovery_time);
        self.channels.insert(number, DoipChannel { opening: until, ..channel });
        if let State::Running(explorer) = &mut self.state
            && !is_active
            && explorer.discovery().gateway(LogicalAddress::new(config.gateway_id)).is_none()
            && explorer.discovery().is_done_asking()
        {
            explorer.ask_all(now, Question::Anybody);
        }
        Ok(opening)
    }
}
