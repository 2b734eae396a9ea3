//! Routing activation (ISO 13400-2, 7.2.5): admits testers, and closes connections that are in the way.

use std::time::Instant;

use connector_agent::protocol::doip::{
    ActivationCode, ActivationRequest, ActivationResponse, LogicalAddress, Payload,
};

use super::config::{Answer, Confirmation};
use super::connection::{Connection, ConnectionId, Routing};
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
        match (denied, connection.routing) {
            (Some(code), _) => self.deny(now, id, request.source, code),
            (None, Routing::Active { tester }) => self.answer(now, id, tester, ActivationCode::Activated),
            (None, Routing::Unconfirmed { tester, .. }) => {
                self.answer(now, id, tester, ActivationCode::ConfirmationRequired);
            }
            (None, Routing::Checking { .. }) => {}
            (None, Routing::Initialized) => self.register(now, id, request),
        }
    }

    /// Registers the connection, or sends alive checks on the connections that are in the way.
    fn register(&mut self, now: Instant, id: ConnectionId, request: ActivationRequest) {
        let in_the_way = self.in_the_way(id, request.source);
        if in_the_way.is_empty() {
            return self.admit(now, id, request);
        }
        for other in in_the_way {
            if let Some(connection) = self.connections.get_mut(&other)
                && !std::mem::replace(&mut connection.asked_alive, true)
            {
                self.send(now, other, Payload::AliveCheckRequest);
            }
        }
        let until = now + self.alive_check();
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.routing = Routing::Checking { request, until };
        }
    }

    /// The connections that prevent a registration: the one with the tester's address, or all if the table
    /// is full.
    fn in_the_way(&self, id: ConnectionId, tester: LogicalAddress) -> Vec<ConnectionId> {
        let registered = || self.connections.iter().filter(|(_, connection)| connection.tester().is_some());
        let same =
            registered().find(|(other, connection)| **other != id && connection.tester() == Some(tester));
        if let Some((other, _)) = same {
            return vec![*other];
        }
        let is_full = registered().count() >= usize::from(self.config.max_sockets);
        if is_full { registered().map(|(other, _)| *other).collect() } else { Vec::new() }
    }

    /// Handles a tester's answer to an alive check.
    pub(super) fn handle_alive(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress) {
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.tester() == Some(tester)
        {
            connection.asked_alive = false;
            self.recheck(now);
        }
    }

    /// Decides again about the connections that wait for alive checks.
    pub(super) fn recheck(&mut self, now: Instant) {
        let waiting = |(id, connection): (&ConnectionId, &Connection)| match connection.routing {
            Routing::Checking { request, .. } => Some((*id, request)),
            _ => None,
        };
        let waiting: Vec<_> = self.connections.iter().filter_map(waiting).collect();
        for (id, request) in waiting {
            let in_the_way = self.in_the_way(id, request.source);
            let all_alive = in_the_way
                .iter()
                .all(|other| self.connections.get(other).is_some_and(|connection| !connection.asked_alive));
            if in_the_way.is_empty() {
                self.admit(now, id, request);
            } else if all_alive {
                self.deny_for_conflict(now, id, request.source);
            }
        }
    }

    /// Handles the end of T_TCP_Alive_Check: closes the connections without an answer.
    pub(super) fn end_alive_check(&mut self, now: Instant, id: ConnectionId) {
        let Some(Routing::Checking { request, .. }) =
            self.connections.get(&id).map(|connection| connection.routing)
        else {
            return;
        };
        for other in self.in_the_way(id, request.source) {
            if self.connections.get(&other).is_some_and(|connection| connection.asked_alive) {
                tracing::debug!(?other, "a tester did not answer the alive check");
                self.close(now, other);
            }
        }
        if self.in_the_way(id, request.source).is_empty() {
            self.admit(now, id, request);
        } else {
            self.deny_for_conflict(now, id, request.source);
        }
        self.recheck(now);
    }

    fn deny_for_conflict(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress) {
        let same = self.connections.values().any(|connection| connection.tester() == Some(tester));
        let code = if same { ActivationCode::AddressInUse } else { ActivationCode::NoSocketFree };
        self.deny(now, id, tester, code);
    }

    /// Activates routing, or waits for the confirmation in the vehicle.
    fn admit(&mut self, now: Instant, id: ConnectionId, request: ActivationRequest) {
        let tester = request.source;
        let Some(Confirmation { after, .. }) = self.config.activation.confirmation else {
            return self.activate(now, id, tester);
        };
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.routing = Routing::Unconfirmed { tester, until: now + after };
        }
        self.answer(now, id, tester, ActivationCode::ConfirmationRequired);
    }

    /// Handles the decision in the vehicle.
    pub(super) fn confirm(&mut self, now: Instant, id: ConnectionId) {
        let state = self.connections.get(&id).map(|connection| connection.routing);
        let Some(Routing::Unconfirmed { tester, .. }) = state else { return };
        if self.config.activation.confirmation.is_none_or(|confirmation| confirmation.granted) {
            self.activate(now, id, tester);
        } else {
            self.deny(now, id, tester, ActivationCode::RejectedConfirmation);
        }
    }

    fn activate(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress) {
        let general_inactivity = self.config.timeouts.general_inactivity;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.routing != (Routing::Active { tester }) {
            connection.routing = Routing::Active { tester };
            self.events.push_back(Event::Activated { tester });
        }
        connection.idle_at = now + general_inactivity;
        self.answer(now, id, tester, ActivationCode::Activated);
    }

    fn deny(&mut self, now: Instant, id: ConnectionId, tester: LogicalAddress, code: ActivationCode) {
        self.answer(now, id, tester, code);
        // a tester without authentication may send it in another request
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
