//! One gateway that is asked for the VIN, with its connection.

use std::net::IpAddr;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::question::GatewayQuestion;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{ConnectionError, Event, SendFailure};
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::client::{Client, ClientError, ClientEvent};
use crate::vehicle::doip_network::network::Network;

/// The VIN and the address of the gateway that answered, or the reason why the gateway will answer no VIN.
pub(super) type GatewayResult = Result<(Vin, LogicalAddress), String>;

/// A gateway that is asked for the VIN.
pub(super) struct AskedGateway {
    /// Not known before routing is active, if the gateway has not identified itself.
    address: Option<LogicalAddress>,
    client: Client,
    question: GatewayQuestion,
    must_be_confirmed: bool,
    /// The reason for the present attempt to connect again.
    last_error: Option<String>,
}

impl AskedGateway {
    pub(super) fn new(address: Option<LogicalAddress>, client: Client) -> Self {
        let question = GatewayQuestion::default();
        Self { address, client, question, must_be_confirmed: false, last_error: None }
    }

    /// Whether this is the gateway with this logical address at this host.
    pub(super) fn is(&self, host: IpAddr, address: LogicalAddress) -> bool {
        self.client.gateway().ip() == host && self.address == Some(address)
    }

    pub(super) fn name(&self) -> String {
        match self.address {
            Some(address) => format!("gateway {address} at {}", self.client.gateway()),
            None => self.client.gateway().to_string(),
        }
    }

    /// The reason why the gateway has not answered a VIN so far.
    pub(super) fn reason(&self) -> String {
        let reason = match &self.last_error {
            Some(error) => error.clone(),
            None if self.question.was_busy() => "every answer to 22 F190 was busy (0x21)".to_owned(),
            None if self.question.is_asked() => "it has not answered 22 F190 in time".to_owned(),
            None if self.must_be_confirmed => {
                "the routing activation was not confirmed in the vehicle in time".to_owned()
            }
            None if self.client.is_connected() => {
                "it has not answered the routing activation in time".to_owned()
            }
            None => "the connection could not be made in time".to_owned(),
        };
        format!("{}: {reason}", self.name())
    }

    /// The time of the next call of [`AskedGateway::poll`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.question.poll_timeout()
    }

    /// Advances the connection, and asks when a question is due.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        network: &dyn Network,
        now: Instant,
    ) -> Poll<GatewayResult> {
        loop {
            if let Some(request) = self.question.poll_transmit(now)
                && let Some(address) = self.address
                && let Err(error) = self.client.send(address, request)
            {
                return Poll::Ready(Err(error.to_string()));
            }
            let event = ready!(self.client.poll(cx, network));
            if let Some(result) = self.handle_event(now, event) {
                return Poll::Ready(result);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, event: ClientEvent) -> Option<GatewayResult> {
        match event {
            ClientEvent::Active { entity } => {
                self.last_error = None;
                self.address.get_or_insert(entity);
                self.question.handle_active(now);
            }
            ClientEvent::Message(Event::Received { source, .. }) if self.address != Some(source) => {
                tracing::debug!(%source, gateway = self.name(), "ignored a message of another address");
            }
            ClientEvent::Message(Event::Received { source, data }) => {
                let answer = self.question.handle_response(now, &data)?;
                let address = self.address.unwrap_or(source);
                return Some(answer.map(|vin| (vin, address)).map_err(|reason| reason.to_string()));
            }
            // the end of the connection follows, with the reason
            ClientEvent::Message(Event::SendFailed { failure: SendFailure::ConnectionLost, .. }) => {}
            ClientEvent::Message(Event::SendFailed { failure, .. }) => return Some(Err(failure.to_string())),
            ClientEvent::Down(error) if error.may_pass() => self.handle_down(&error),
            ClientEvent::Down(error) => return Some(Err(error.to_string())),
            ClientEvent::Message(Event::Sent { .. }) => self.question.handle_sent(),
            ClientEvent::ConfirmationRequired => self.must_be_confirmed = true,
            ClientEvent::Message(_) => {}
        }
        None
    }

    /// The client connects again while there is time.
    fn handle_down(&mut self, error: &ClientError) {
        let is_lost = matches!(
            error,
            ClientError::Connection(ConnectionError::ClosedByGateway | ConnectionError::Stream(_))
        );
        let before = match () {
            () if !is_lost => "",
            () if self.question.is_asked() => "22 F190 was not answered: ",
            () if self.must_be_confirmed => "the routing activation was not confirmed in the vehicle: ",
            () => "the routing activation was not answered: ",
        };
        self.last_error = Some(format!("{before}{error}"));
        self.question.handle_lost();
        self.must_be_confirmed = false;
    }
}
