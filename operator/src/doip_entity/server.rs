//! The server around an entity: joins the protocol, the sockets and the connections of testers.

use std::io;
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::{DiagnosticMessage, DiagnosticNackCode, LogicalAddress};
use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};

use super::entity::{Entity, Event, Output};
use super::sockets::{Arrival, ListenConfig, ServerAddresses, Sockets};
use super::testers::{ConnectionEvent, Testers};

/// The sockets around an [`Entity`]. Dropping the server closes all connections.
pub struct Server {
    entity: Entity,
    sockets: Sockets,
    testers: Testers,
    deadline: Deadline,
}

impl Server {
    /// Binds the sockets, then creates the entity, which announces itself immediately.
    ///
    /// # Errors
    ///
    /// The address is in use, or does not belong to this machine.
    pub async fn bind(listen: &ListenConfig, entity: impl FnOnce(Instant) -> Entity) -> io::Result<Self> {
        let sockets = Sockets::bind(listen).await?;
        let deadline = Deadline::new(TimerKind::Runtime);
        Ok(Self { entity: entity(now()), sockets, testers: Testers::new(), deadline })
    }

    /// The addresses that the entity listens on.
    pub fn addresses(&self) -> ServerAddresses {
        self.sockets.addresses()
    }

    /// The entity.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// The entity, for changes at run time.
    pub fn entity_mut(&mut self) -> &mut Entity {
        &mut self.entity
    }

    /// Sends an ECU's response to a tester. Returns `false` if the tester has disconnected.
    pub fn respond(&mut self, message: DiagnosticMessage) -> bool {
        self.entity.respond(now(), message)
    }

    /// Refuses a message that was acknowledged before.
    pub fn refuse(&mut self, tester: LogicalAddress, target: LogicalAddress, code: DiagnosticNackCode) {
        self.entity.refuse(now(), tester, target, code);
    }

    /// Serves testers until there is an event for the owner of the ECUs; cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            self.transmit();
            if let Some(event) = self.entity.poll_event() {
                return event;
            }
            self.process_next().await;
        }
    }

    /// Carries out what the entity wants to send and close.
    fn transmit(&mut self) {
        while let Some(output) = self.entity.poll_output(now()) {
            match output {
                Output::Datagram { to, bytes } => self.sockets.send(to, &bytes),
                Output::Broadcast(bytes) => self.sockets.announce(&bytes),
                Output::Send { connection, bytes } => {
                    if !self.testers.send(connection, bytes) {
                        self.entity.handle_closed(now(), connection);
                    }
                }
                Output::Close(connection) => self.testers.close(connection),
            }
        }
    }

    /// Waits for the next deadline, event of a connection, or arrival at the sockets, and handles it.
    async fn process_next(&mut self) {
        self.deadline.set(self.entity.poll_timeout().map(|(at, _)| at));
        tokio::select! {
            biased;
            () = self.deadline.expired() => self.entity.handle_timeout(now()),
            event = self.testers.next() => self.handle_connection(event),
            arrival = self.sockets.next() => match arrival {
                Ok(Arrival::Datagram(from, bytes)) => self.entity.handle_datagram(now(), from, bytes),
                Ok(Arrival::Tester(stream, tls)) => {
                    let is_tls = tls.is_some();
                    let id = self.testers.open(stream, tls);
                    self.entity.handle_connected(now(), id, is_tls);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    // without free file descriptors, other connections have to end first
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
        }
    }

    fn handle_connection(&mut self, event: ConnectionEvent) {
        match event {
            ConnectionEvent::Bytes(id, bytes) => self.entity.handle_bytes(now(), id, &bytes),
            ConnectionEvent::Closed(id) => {
                self.testers.close(id);
                self.entity.handle_closed(now(), id);
            }
        }
    }
}
