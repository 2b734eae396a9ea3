//! Requests to the cloud that run beside the loop, and their answers.

use std::task::{Context, Poll};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cloud::login::Authenticator;
use crate::cloud::rest::{ActiveTicket, ErrorChain, differences};
use crate::cloud::{Cloud, CloudStatus};
use crate::config::Config;

/// How many answers may wait for the loop. Further ones wait in their tasks, so that the number only bounds
/// the memory.
const MAX_ANSWERS: usize = 8;

/// An answer for the loop.
pub(super) enum BackgroundAnswer {
    /// The state of login and websocket has changed.
    Status(CloudStatus),
    /// The ticket in progress. `held` is the connection that was open when the request was sent.
    ActiveTicket { held: Option<Uuid>, ticket: Option<ActiveTicket> },
}

/// Sends requests to the cloud in tasks beside the loop.
pub(super) struct Background {
    cloud: Cloud,
    sender: mpsc::Sender<BackgroundAnswer>,
    answers: mpsc::Receiver<BackgroundAnswer>,
    /// The cloud's record of the connector has been compared with the configuration.
    has_compared_record: bool,
}

impl Background {
    /// Passes on the status of `authenticator` from now on.
    pub(super) fn new(cloud: Cloud, authenticator: &Authenticator) -> Self {
        let (sender, answers) = mpsc::channel(MAX_ANSWERS);
        forward_status(authenticator, sender.clone());
        Self { cloud, sender, answers, has_compared_record: false }
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<BackgroundAnswer> {
        match self.answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            // `sender` keeps the channel open
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Asks the cloud for the ticket in progress. The first time, also compares the cloud's record of the
    /// connector with the configuration, and logs the differences.
    pub(super) fn ask_for_ticket(&mut self, held: Option<Uuid>, config: &Config) {
        let (cloud, sender) = (self.cloud.clone(), self.sender.clone());
        let compare = (!std::mem::replace(&mut self.has_compared_record, true)).then(|| config.clone());
        tokio::spawn(async move {
            match cloud.active_ticket().await {
                Ok(ticket) => {
                    let _agent_ended = sender.send(BackgroundAnswer::ActiveTicket { held, ticket }).await;
                }
                Err(error) => tracing::warn!("cannot fetch the active ticket: {}", ErrorChain(&error)),
            }
            if let Some(config) = compare {
                compare_record(&cloud, &config).await;
            }
        });
    }

    /// Dismisses the call for attention in the cloud.
    pub(super) fn dismiss_call_for_attention(&self) {
        let cloud = self.cloud.clone();
        tokio::spawn(async move {
            if let Err(error) = cloud.dismiss_call_for_attention().await {
                tracing::warn!("cannot dismiss the call for attention: {}", ErrorChain(&error));
            }
        });
    }
}

async fn compare_record(cloud: &Cloud, config: &Config) {
    match cloud.connector().await {
        Ok(record) => {
            for difference in differences(config, &record) {
                tracing::warn!("the cloud's record differs: {difference}");
            }
        }
        Err(error) => tracing::warn!("cannot fetch the connector's record: {}", ErrorChain(&error)),
    }
}

/// Passes on each change of the status, so that the LED shows it immediately.
fn forward_status(authenticator: &Authenticator, sender: mpsc::Sender<BackgroundAnswer>) {
    let mut status = authenticator.status();
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let current = *status.borrow_and_update();
            if sender.send(BackgroundAnswer::Status(current)).await.is_err() {
                return;
            }
        }
    });
}
