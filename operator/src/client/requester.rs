//! Requests to the connector, through the connection's task.

use std::sync::Arc;
use std::time::Duration;

use connector_agent::relay::wire::Envelope;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::error::OperatorError;
use super::shared::{ConnectorRequest, Shared};

/// Sends requests to the connection's task, and waits for the answers.
#[derive(Debug, Clone)]
pub(super) struct Requester {
    requests: mpsc::Sender<ConnectorRequest>,
    shared: Arc<Shared>,
    patience: Duration,
}

impl Requester {
    pub(super) fn new(
        requests: mpsc::Sender<ConnectorRequest>,
        shared: Arc<Shared>,
        patience: Duration,
    ) -> Self {
        Self { requests, shared, patience }
    }

    /// The content of the answer to this request.
    pub(super) async fn ask(&self, action: &'static str, message: Value) -> Result<Value, OperatorError> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.requests.send(ConnectorRequest { action, message, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(self.patience, asking).await {
            Ok(Some(Ok(Envelope { message, .. }))) => Ok(message),
            Ok(Some(Err(problem))) => Err(OperatorError::Refused { what: action.to_owned(), problem }),
            Ok(None) => Err(OperatorError::Closed(self.shared.close_reason())),
            Err(_) => Err(OperatorError::Timeout { what: action.to_owned(), after: self.patience }),
        }
    }
}
