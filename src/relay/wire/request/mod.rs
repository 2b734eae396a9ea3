//! The requests to a connector, as text messages (relay protocol, section 3).

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Envelope;
use super::number::{number, optional_number};
use crate::policy::Class;
use crate::protocol::problem::Problem;
use crate::relay::wire::ProblemKind;
use crate::vehicle::scan::IdRange;

mod bus;
mod channel;

pub use bus::{BusConfig, CanBusConfig, DoipBusConfig, KlineBusConfig, KlineProtocol, Terminal15BusConfig};
pub use channel::{
    DoipChannelConfig, FrameFormat, IsotpChannelConfig, KeywordConfig, KlineChannelConfig, OpenChannel,
    PaddingConfig, PduOptions, RawChannelConfig, ResponderConfig, ResponderPair, Switch,
    Terminal15ChannelConfig, Tp20ChannelConfig,
};

/// A request to the connector.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Opens a connection for an operator.
    OpenConnection(OpenConnection),
    /// Replaces all buses of the connection.
    ConfigureBuses(ConfigureBuses),
    /// Opens a channel on a bus of the connection.
    OpenChannel(Box<OpenChannel>),
    /// Closes a channel.
    CloseChannel(CloseChannel),
    /// Resumes the connection after its link was lost.
    ResumeConnection(ResumeConnection),
    /// Ends the connection.
    CloseConnection(CloseConnection),
    /// Reads the VIN again.
    IdentifyVehicle,
    /// Scans a bus for ECUs.
    ScanEcus(ScanEcus),
    /// Sends nothing to a bus any more on the connector's own account.
    MuteLocals(Named),
    /// Ends [`Request::MuteLocals`].
    UnmuteLocals(Named),
    /// Asks for the configuration of buses and channels.
    GetConfiguration(Named),
    /// Asks for the quality of the connection.
    ConnectionQuality(Named),
    /// A notice: an operator has joined the connection.
    OperatorJoined(OperatorNotice),
    /// A notice: the operator has left the connection.
    OperatorLeft(OperatorNotice),
    /// Asks the person at the vehicle for consent.
    RequestConsent(RequestConsent),
    /// Ends the call for attention.
    DismissCallForAttention,
    /// Changes the time between two reports of the state, for this link.
    SetReporting(SetReporting),
}

/// The content of `openConnection`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenConnection {
    /// The UUID of the new connection.
    pub connection_uuid: Uuid,
    /// The ticket that the connection belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<Value>,
    /// The VIN of the vehicle that the connection is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<String>,
    /// How long the connection is held while its link is down, in seconds: 30 by default, at most 300.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u64>,
    /// Whether the ticket confirms unattended service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unattended: bool,
}

/// The content of `requestConsent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestConsent {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// The class of requests to consent to.
    pub class: Class,
    /// What the operator wants to do, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// The content of `configureBuses`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigureBuses {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// All buses of the connection.
    pub buses: Vec<BusConfig>,
}

/// The content of `closeChannel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseChannel {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// The number of the channel.
    #[serde(deserialize_with = "number")]
    pub channel: u16,
}

/// The content of `resumeConnection`, and of the reply `connectionResumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeConnection {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// The highest number that the sender has received in order.
    #[serde(deserialize_with = "number")]
    pub received: u32,
}

/// The content of `closeConnection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseConnection {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
}

/// The content of a request that only names its connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
}

/// The content of `operatorJoined` and `operatorLeft`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorNotice {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
}

/// The content of `scanEcus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanEcus {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// The name of the bus.
    pub bus_name: String,
    /// A person made sure that the vehicle stands.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub vehicle_stands: bool,
    /// Further 11-bit identifiers to ask, besides 0x700 to 0x7FF.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<IdRange>,
}

/// The content of `setReporting`, and of the reply `reportingSet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReporting {
    /// The time between two reports, in seconds: 1 to 3600.
    #[serde(deserialize_with = "reporting_interval")]
    pub interval_seconds: u16,
}

impl SetReporting {
    /// The time between two reports.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds.into())
    }
}

/// The intervals that the cloud may ask for, in seconds.
const REPORTING_INTERVALS: RangeInclusive<u16> = 1..=3600;

fn reporting_interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let seconds: u64 = number(deserializer)?;
    u16::try_from(seconds).ok().filter(|seconds| REPORTING_INTERVALS.contains(seconds)).ok_or_else(|| {
        let (first, last) = (REPORTING_INTERVALS.start(), REPORTING_INTERVALS.end());
        de::Error::custom(format!("interval_seconds is {seconds}; allowed are {first} to {last}"))
    })
}

impl Request {
    /// Reads a request. The error is the problem to reply with.
    pub fn parse(envelope: &Envelope) -> Result<Self, Problem> {
        let action = envelope.action.as_str();
        let request = match action {
            "openConnection" => message(envelope).map(Self::OpenConnection),
            "configureBuses" => message(envelope).map(Self::ConfigureBuses),
            "openChannel" => message(envelope).map(Box::new).map(Self::OpenChannel),
            "closeChannel" => message(envelope).map(Self::CloseChannel),
            "resumeConnection" => message(envelope).map(Self::ResumeConnection),
            "closeConnection" => message(envelope).map(Self::CloseConnection),
            "identifyVehicle" => Ok(Self::IdentifyVehicle),
            "scanEcus" => message(envelope).map(Self::ScanEcus),
            "muteLocals" => message(envelope).map(Self::MuteLocals),
            "unmuteLocals" => message(envelope).map(Self::UnmuteLocals),
            "getConfiguration" => message(envelope).map(Self::GetConfiguration),
            "connectionQuality" => message(envelope).map(Self::ConnectionQuality),
            "operatorJoined" => message(envelope).map(Self::OperatorJoined),
            "operatorLeft" => message(envelope).map(Self::OperatorLeft),
            "requestConsent" => message(envelope).map(Self::RequestConsent),
            "dismissCallForAttention" => Ok(Self::DismissCallForAttention),
            "setReporting" => message(envelope).map(Self::SetReporting),
            _ => {
                let detail = format!("This connector does not know the action {action:?}.");
                Err(ProblemKind::UnknownAction.problem(detail))
            }
        };
        request.map_err(|problem| problem.answering(action))
    }
}

fn message<T: for<'de> Deserialize<'de>>(envelope: &Envelope) -> Result<T, Problem> {
    let invalid = |why: &dyn std::fmt::Display| {
        ProblemKind::InvalidMessage.problem(format!("{}: {why}", envelope.action))
    };
    if !envelope.message.is_object() {
        return Err(invalid(&"the message is not an object"));
    }
    T::deserialize(&envelope.message).map_err(|error| invalid(&error))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_reporting_interval_is_a_number_of_seconds_from_1_to_3600() {
        let parse = |message: Value| Request::parse(&Envelope::new("setReporting", &message));
        for (value, expected) in [(json!(1), 1), (json!(3600), 3600), (json!("0x10"), 16)] {
            let request = parse(json!({"interval_seconds": value})).unwrap();
            assert_eq!(request, Request::SetReporting(SetReporting { interval_seconds: expected }));
        }
        for (value, expected) in [
            (json!(0), "interval_seconds is 0; allowed are 1 to 3600"),
            (json!(3601), "interval_seconds is 3601; allowed are 1 to 3600"),
            (json!(-1), "setReporting: "),
            (json!(1.5), "setReporting: "),
            (json!(null), "setReporting: "),
        ] {
            let problem = parse(json!({"interval_seconds": value})).unwrap_err();
            assert!(problem.detail.contains(expected), "{value}: {problem}");
        }
        assert!(parse(json!({})).unwrap_err().detail.contains("interval_seconds"));
    }

    #[test]
    fn a_list_is_refused_as_a_message() {
        let uuid = "5f3d760d-ade2-4a19-aea4-36e097678ae3";
        let parse = |message| {
            Request::parse(&Envelope { action: "closeConnection".to_owned(), message, request_id: None })
        };
        assert!(parse(json!({"connection_uuid": uuid})).is_ok());
        let problem = parse(json!([uuid])).unwrap_err();
        assert_eq!((problem.status, problem.in_reply_to.as_deref()), (400, Some("closeConnection")));
    }
}
