//! A joined connection: requests to the connector, and the channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::ProblemKind;
use connector_agent::relay::wire::codec::Tag;
use connector_agent::relay::wire::request::{
    BusConfig, CloseChannel, CloseConnection, ConfigureBuses, IsotpChannelConfig, OpenChannel,
    RawChannelConfig,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::channel::Channel;
use super::driver::Driver;
use super::error::OperatorError;
use super::joining::{JoinRequest, first_join};
use super::policy_view::{PolicySummary, PolicyView};
use super::requester::Requester;
use super::shared::{ChannelCommand, ConnectionSettings, Counters, LinkState, Shared};
use super::socket::Dial;

/// How many requests, and how many PDUs, may wait for the connection's task. A sender of more waits, so that
/// the number only decides how often tasks switch.
const QUEUE: usize = 16;
/// How long [`Connection::close`] waits for the connector: for a few round trips of a slow network. The
/// connector closes the connection by itself later.
const CLOSING: Duration = Duration::from_secs(5);

/// The content of `connectionJoined`.
#[derive(Debug, Clone, Deserialize)]
pub struct Joined {
    /// The VIN of the vehicle at the connector.
    #[serde(default)]
    pub vin_number: Option<String>,
    /// The connector and its buses.
    #[serde(default)]
    pub connector: Value,
    /// The policy of the connector, if connector and cloud report one.
    #[serde(default)]
    pub policy: Option<PolicySummary>,
}

/// The content of `vehicleIdentified`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Vehicle {
    /// The VIN, if one could be read.
    #[serde(default)]
    pub vin_number: Option<String>,
    /// The service that read the VIN.
    #[serde(default)]
    pub source: Option<String>,
    /// The ECU that sent the VIN.
    #[serde(default)]
    pub address: Option<Value>,
    /// How long the reading took, in milliseconds.
    #[serde(default)]
    pub elapsed_ms: Option<u64>,
}

/// A connection to a vehicle. Dropping it leaves the connection, which the connector holds for a while.
#[derive(Debug)]
pub struct Connection {
    uuid: Uuid,
    joined: Joined,
    requester: Requester,
    commands: mpsc::Sender<ChannelCommand>,
    shared: Arc<Shared>,
    next_channel: AtomicU16,
    _dropped: DropGuard,
}

impl Connection {
    /// Joins a connection over the websockets that `dial` opens.
    pub async fn join(
        dial: Arc<dyn Dial>,
        uuid: Uuid,
        settings: ConnectionSettings,
    ) -> Result<Self, OperatorError> {
        let (live, joined, backlog) = first_join(dial.as_ref(), uuid, settings).await?;
        let opening = joined.get("opening").filter(|opening| !opening.is_null()).cloned();
        let rejoin = JoinRequest { uuid, received: None, opening, take_over: false };
        let joined = Joined::deserialize(joined)
            .map_err(|error| OperatorError::Answer { what: "joinConnection", detail: error.to_string() })?;
        let (request_sender, requests) = mpsc::channel(QUEUE);
        let (command_sender, commands) = mpsc::channel(QUEUE);
        let dropped = CancellationToken::new();
        let shared = Arc::new(Shared::new(dropped.clone()));
        let link = Link::new(Role::Operator, Tag::from(uuid), Instant::now().into_std());
        let driver = Driver::new(dial, rejoin, settings, Arc::clone(&shared), requests, commands, link);
        tokio::spawn(driver.drive(live, backlog));
        Ok(Self {
            uuid,
            joined,
            requester: Requester::new(request_sender, Arc::clone(&shared), settings.request),
            commands: command_sender,
            shared,
            next_channel: AtomicU16::new(1),
            _dropped: dropped.drop_guard(),
        })
    }

    /// The UUID of the connection.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The content of the cloud's `connectionJoined`.
    pub fn joined(&self) -> &Joined {
        &self.joined
    }

    /// The counters of the connection.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The state of the path to the connector; the receiver reports each change.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.shared.state()
    }

    /// The state of the connector's policy, once the connector has reported it; the receiver reports each change.
    pub fn policy(&self) -> watch::Receiver<Option<PolicyView>> {
        self.shared.policy()
    }

    /// Asks the person at the vehicle for consent to requests of this class. Returns for how long the person is asked;
    /// [`Connection::policy`] reports the outcome.
    pub async fn request_consent(&self, class: &str, text: &str) -> Result<Duration, OperatorError> {
        let message = json!({"connection_uuid": self.uuid, "class": class, "text": text});
        let answer = self.requester.ask("requestConsent", message).await?;
        let seconds = answer.get("seconds").and_then(Value::as_u64).ok_or_else(|| OperatorError::Answer {
            what: "requestConsent",
            detail: "it has no number of seconds".to_owned(),
        })?;
        Ok(Duration::from_secs(seconds))
    }

    /// Replaces all buses, which closes all open channels.
    pub async fn configure_buses(&self, buses: Vec<BusConfig>) -> Result<(), OperatorError> {
        let message = ConfigureBuses { connection_uuid: self.uuid, buses };
        self.requester.ask("configureBuses", value(&message)).await.map(drop)
    }

    /// Opens an ISO-TP channel.
    pub async fn open_isotp(&self, config: IsotpChannelConfig) -> Result<Channel, OperatorError> {
        self.open_channel(|open| open.isotp_channel = Some(config)).await
    }

    /// Opens a raw channel.
    pub async fn open_raw(&self, config: RawChannelConfig) -> Result<Channel, OperatorError> {
        self.open_channel(|open| open.raw_channel = Some(config)).await
    }

    /// Opens a channel of the kind that `describe` fills in.
    pub async fn open_channel(
        &self,
        describe: impl FnOnce(&mut OpenChannel),
    ) -> Result<Channel, OperatorError> {
        // 0 is not a channel; after 65,535 channels the numbers start again
        let number = self.next_channel.fetch_add(1, Ordering::Relaxed).max(1);
        let mut open = OpenChannel { connection_uuid: self.uuid, channel: number, ..OpenChannel::default() };
        describe(&mut open);
        open.channel = number;
        // register before the answer, because the first items may follow it immediately
        let inbox = self.shared.register(number);
        let channel = Channel::new(number, inbox, self.commands.clone(), Arc::clone(&self.shared));
        // dropping a refused channel closes its inbox
        self.requester.ask("openChannel", value(&open)).await.map(|_| channel)
    }

    /// Closes a channel and discards what the channel has not sent yet.
    pub async fn close_channel(&self, channel: Channel) -> Result<(), OperatorError> {
        let message = CloseChannel { connection_uuid: self.uuid, channel: channel.number() };
        match self.requester.ask("closeChannel", value(&message)).await {
            // a request repeated after a lost link may find the channel already closed
            Err(OperatorError::Refused { problem, .. })
                if ProblemKind::of(&problem) == Some(ProblemKind::UnknownChannel) =>
            {
                Ok(())
            }
            answer => answer.map(drop),
        }
    }

    /// Requests that the connector reads the VIN again.
    pub async fn identify_vehicle(&self) -> Result<Vehicle, OperatorError> {
        let answer = self.requester.ask("identifyVehicle", json!({"connection_uuid": self.uuid})).await?;
        Vehicle::deserialize(answer)
            .map_err(|error| OperatorError::Answer { what: "identifyVehicle", detail: error.to_string() })
    }

    /// Sends any other request, and returns the message of the answer.
    pub async fn ask(&self, action: &'static str, message: Value) -> Result<Value, OperatorError> {
        self.requester.ask(action, message).await
    }

    /// Ends the connection on the connector; the ticket stays in progress.
    pub async fn close(self) -> Result<(), OperatorError> {
        let message = value(&CloseConnection { connection_uuid: self.uuid });
        match tokio::time::timeout(CLOSING, self.requester.ask("closeConnection", message)).await {
            Ok(Err(OperatorError::Closed(_))) => Ok(()),
            Ok(answer) => answer.map(drop),
            Err(_) => Err(OperatorError::Timeout { what: "closeConnection".to_owned(), after: CLOSING }),
        }
    }
}

fn value(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap_or_default()
}
