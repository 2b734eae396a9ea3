//! The customer's side of the cloud: watching a connector, and creating tickets.

use std::path::Path;

use connector_agent::relay::wire::Envelope;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::error::{DialError, OperatorError};
use super::live::{Live, LiveEvent};
use super::rest::Operator;
use super::socket::{Dial as _, SocketError};
use super::ticket::Ticket;
use super::tokens::Credentials;

/// A logged-in customer.
#[derive(Debug, Clone)]
pub struct Customer {
    client: Operator,
}

/// The state of a connector, as the cloud reports it to customers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ConnectorUpdate {
    /// Whether the connector is connected to the cloud.
    #[serde(default)]
    pub is_online: bool,
    /// The vehicle's supply voltage.
    #[serde(default)]
    pub voltage: Option<f64>,
    /// The VIN that the connector has read.
    #[serde(default)]
    pub vin_number: Option<String>,
    /// Whether the ignition is on.
    #[serde(default)]
    pub ignition: Option<bool>,
    /// The round trip between connector and cloud, in milliseconds.
    #[serde(default)]
    pub round_trip_time: Option<f64>,
    /// The open connection.
    #[serde(default)]
    pub connection_uuid: Option<Uuid>,
}

/// Receives the updates about a connector.
pub struct ConnectorWatch {
    live: Live,
    last: Option<ConnectorUpdate>,
}

impl Customer {
    /// Logs in. The certificates in `ca_file` replace the web's root certificates.
    pub async fn login(
        api_url: &str,
        websocket_url: &str,
        ca_file: Option<&Path>,
        credentials: Credentials,
    ) -> Result<Self, OperatorError> {
        Ok(Self { client: Operator::login(api_url, websocket_url, ca_file, credentials).await? })
    }

    /// Looks up make, model and variant of the vehicle with this VIN.
    pub async fn find_vehicle(&self, vin: &str) -> Result<Value, OperatorError> {
        self.client.get("looking up the vehicle", &format!("/v1/vehicles/search?vin={vin}")).await
    }

    /// Creates a ticket for the vehicle at a connector.
    pub async fn create_ticket(&self, wanted: &Value) -> Result<Ticket, OperatorError> {
        // the documented operation needs a VIN and the vehicle's model
        let is_known = ["vin", "vehicle_model_id", "vehicle_model_variant_id"]
            .iter()
            .all(|field| wanted.get(field).is_some_and(|value| !value.is_null()));
        let path = if is_known { "/v1/tickets" } else { "/sandbox/v1/tickets" };
        self.client.post("creating the ticket", path, wanted).await
    }

    /// Watches a connector.
    pub async fn watch_connector(&self, connector_id: i64) -> Result<ConnectorWatch, OperatorError> {
        let mut live = Live::new(self.client.websocket().dial().await?);
        let subscribe = Envelope::new("subscribeToConnector", &json!({"connector_id": connector_id}));
        live.write(Message::text(subscribe.to_text())).await.map_err(lost)?;
        Ok(ConnectorWatch { live, last: None })
    }
}

fn lost(error: SocketError) -> OperatorError {
    OperatorError::Dial(DialError::Upgrade(Box::new(std::io::Error::other(error).into())))
}

impl ConnectorWatch {
    /// The next update; cancel-safe.
    pub async fn next(&mut self) -> Result<ConnectorUpdate, OperatorError> {
        loop {
            let LiveEvent::Message(Message::Text(text)) = self.live.next().await.map_err(lost)? else {
                continue;
            };
            let Ok(envelope) = serde_json::from_str::<Envelope>(text.as_str()) else { continue };
            match envelope.action.as_str() {
                "subscribeToConnector" => {
                    let update = ConnectorUpdate::deserialize(envelope.message).map_err(|error| {
                        OperatorError::Answer { what: "subscribeToConnector", detail: error.to_string() }
                    })?;
                    self.last = Some(update.clone());
                    return Ok(update);
                }
                "error" => {
                    let problem = super::joining::problem_of(envelope);
                    return Err(OperatorError::Refused {
                        what: "watching the connector".to_owned(),
                        problem,
                    });
                }
                _ => {}
            }
        }
    }

    /// Waits until an update fulfils `wanted`: the last one received, or a later one.
    pub async fn until(
        &mut self,
        wanted: impl Fn(&ConnectorUpdate) -> bool,
    ) -> Result<ConnectorUpdate, OperatorError> {
        if let Some(last) = self.last.as_ref().filter(|last| wanted(last)) {
            return Ok(last.clone());
        }
        loop {
            let update = self.next().await?;
            if wanted(&update) {
                return Ok(update);
            }
        }
    }
}
