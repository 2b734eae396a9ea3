//! Routing activation (ISO 13400-2, 7.2.5): which tester is registered, and which other testers are checked
//! for that.

use std::time::Instant;

use connector_agent::protocol::doip::{
    ActivationCode, ActivationRequest, ActivationResponse, LogicalAddress, Payload,
};

use super::config::{Answer, Confirmation};
use super::connection::{ConnectionId, RoutingState, TesterConnection};
use super::entity::{Entity, Event};

impl Entity {
    pub(super) fn handle_activation(&mut self, now: Instant, id: ConnectionId, request: ActivationRequest) {
        let Some(connection) = self.connections.get(&id) else { return };
        let policy = &self.config.activation;
        match policy.answer {
            Answer::Never => return,
            Answer::Always(ActivationCode::Activated) => return self.activate(now, id, request.source),
            Answer::Always(ActivationCode::ConfirmationRequired) => {
                return self.answer(now, id, request.source, ActivationCode::ConfirmationRequired);
            }
            Answer::Always(code) => return self.deny(now, id, request.source, code),
            Answer::ByTheBook => {}
        }
        let served = match &policy.testers {
            Some(testers) => testers.contains(&request.source),
            None => request.source.is_tester(),
        };
        let denied = if !served {
            Some(ActivationCode::UnknownSourceAddress)
        } else if !policy.types.contains(&request.activation_type) {
            Some(ActivationCode::UnsupportedActivationType)
        } else if policy.tls_required && !connection.tls {
            Some(ActivationCode::TlsRequired)
        } else if connection.tester().is_some_and(|tester| tester != request.source) {
            Some(ActivationCode::OtherAddressActivated)
        } else if policy.oem.is_some() && policy.oem != request.oem {
            Some(ActivationCode::MissingAuthentication)
        } else {
            None
        };
        match (denied, connection.state) {
            (Some(code), _) => self.deny(now, id, request.source, code),
            (None, RoutingState::Active { tester }) => {
                self.answer(now, id, tester, ActivationCode::Activated)
            }
            (None, RoutingState::Unconfirmed { tester, .. }) => {
                self.answer(now, id, tester, ActivationCode::ConfirmationRequired);
            }
            (None, RoutingState::Checking { .. }) => {}
            (None, RoutingState::Initialized) => self.register(now, id, request),
        }
    }

    /// Registers a tester in the socket table, or first sends alive checks to the testers that prevent it.
    fn register(&mut self, now: Instant, id: ConnectionId, request: ActivationRequest) {
        let blocking = self.blocking(id, request.source);
        if blocking.is_empty() {
            return self.admit(now, id, request);
        }
        for other in blocking {
            if let Some(connection) = self.connections.get_mut(&other)
                && !std::mem::replace(&mut connection.asked_alive, true)
            {
                self.send(now, other, Payload::AliveCheckRequest);
            }
        }
        let until = now + self.alive_check();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = RoutingState::Checking { request, until };
        }
    }

    /// The connections that prevent the registration of a tester: one with the same address, or all if the
    /// table is full.
    fn blocking(&self, id: ConnectionId, tester: LogicalAddress) -> Vec<ConnectionId> {
        let registered = || self.connections.iter().filter(|(_, connection)| connection.tester().is_some());
        let same =
            registered().find(|(other, connection)| **other != id && connection.tester() == Some(tester));
        if let Some((other, _)) = same {
            return vec![*other];
        }
        let is_full = registered().count() >= usize::from(self.config.max_sockets);
        if is_full { registered().map(|(other, _)| *other).collect() } else { Vec::new() }
    }

    /// A tester answered an alive check.
    pub(super) fn handle_alive(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.tester() == Some(tester)
        {
            connection.asked_alive = false;
            self.recheck(now);
        }
    }

    /// Checks again whether waiting testers can be registered or must be denied.
    pub(super) fn recheck(&mut self, now: Instant) {
        let waiting = |(id, connection): (&ConnectionId, &TesterConnection)| match connection.state {
            RoutingState::Checking { request, .. } => Some((*id, request)),
            _ => None,
        };
        let waiting: Vec<_> = self.connections.iter().filter_map(waiting).collect();
        for (id, request) in waiting {
            let blocking = self.blocking(id, request.source);
            let all_alive = blocking
                .iter()
                .all(|other| self.connections.get(other).is_some_and(|connection| !connection.asked_alive));
            if blocking.is_empty() {
                self.admit(now, id, request);
            } else if all_alive {
                self.deny_for_others(now, id, request.source);
            }
        }
    }

    /// T_TCP_Alive_Check has expired: closes the connections of testers that have not answered.
    pub(super) fn end_alive_check(&mut self, now: Instant, id: ConnectionId) {
        let Some(RoutingState::Checking { request, .. }) =
            self.connections.get(&id).map(|connection| connection.state)
        else {
            return;
        };
        for other in self.blocking(id, request.source) {
            if self.connections.get(&other).is_some_and(|connection| connection.asked_alive) {
                tracing::debug!(?other, "a tester does not answer the alive check");
                self.close(now, other);
            }
        }
        if self.blocking(id, request.source).is_empty() {
            self.admit(now, id, request);
        } else {
            self.deny_for_others(now, id, request.source);
        }
        self.recheck(now);
    }

    fn deny_for_others(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress) {
        let same = self.connections.values().any(|connection| connection.tester() == Some(tester));
        let code = if same { ActivationCode::AddressInUse } else { ActivationCode::NoSocketFree };
        self.deny(now, id, tester, code);
    }

    /// Registers a tester, after the confirmation if one is required.
    fn admit(&mut self, now: Instant, id: ConnectionId, request: ActivationRequest) {
        let tester = request.source;
        let Some(Confirmation { after, .. }) = self.config.activation.confirmation else {
            return self.activate(now, id, tester);
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.state = RoutingState::Unconfirmed { tester, until: now + after };
        }
        self.answer(now, id, tester, ActivationCode::ConfirmationRequired);
    }

    /// The vehicle confirmed or rejected the request.
    pub(super) fn confirm(&mut self, now: Instant, id: ConnectionId) {
        let state = self.connections.get(&id).map(|connection| connection.state);
        let Some(RoutingState::Unconfirmed { tester, .. }) = state else { return };
        if self.config.activation.confirmation.is_none_or(|confirmation| confirmation.granted) {
            self.activate(now, id, tester);
        } else {
            self.deny(now, id, tester, ActivationCode::RejectedConfirmation);
        }
    }

    fn activate(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress) {
        let general_inactivity = self.config.timeouts.general_inactivity;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.state != (RoutingState::Active { tester }) {
            connection.state = RoutingState::Active { tester };
            self.events.push_back(Event::Activated { tester });
        }
        connection.idle_at = now + general_inactivity;
        self.answer(now, id, tester, ActivationCode::Activated);
    }

    fn deny(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress, code: ActivationCode) {
        self.answer(now, id, tester, code);
        // a tester without authentication may try again on the same connection
        if code != ActivationCode::MissingAuthentication {
            self.close(now, id);
        }
    }

    fn answer(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress, code: ActivationCode) {
        let entity = self.config.announcement.address;
        let oem = self.config.activation.oem_answer;
        self.send(now, id, ActivationResponse { tester, entity, code, oem });
    }
}
