//! Requests to the cloud that run beside the loop, and their answers.

use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::kept_vin::{KeptVin, VinStore, keep};
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
    /// The VIN that was kept across the restart.
    KeptVin(KeptVin),
}

/// Sends requests to the cloud in tasks beside the loop.
pub(super) struct Background {
    cloud: Cloud,
    sender: mpsc::Sender<BackgroundAnswer>,
    answers: mpsc::Receiver<BackgroundAnswer>,
    /// The cloud's record of the connector has been compared with the configuration.
    has_compared_record: bool,
    /// The question for the ticket in progress, which may be repeated for as long as the resource fails.
    ticket: Option<AbortHandle>,
    /// The VIN to keep across restarts.
    vin: watch::Sender<Option<KeptVin>>,
}

impl Background {
    /// Passes on the status of `authenticator` from now on, and the VIN that is kept in this store.
    pub(super) fn new(cloud: Cloud, authenticator: &Authenticator, vins: Option<VinStore>) -> Self {
        let (sender, answers) = mpsc::channel(MAX_ANSWERS);
        forward_status(authenticator, sender.clone());
        let (vin, kept) = watch::channel(None);
        if let Some(store) = vins {
            tokio::spawn(load_vin(store.clone(), sender.clone()));
            tokio::spawn(keep(store, kept));
        }
        Self { cloud, sender, answers, has_compared_record: false, ticket: None, vin }
    }

    /// The next answer.
    pub(super) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<BackgroundAnswer> {
        match self.answers.poll_recv(cx) {
            Poll::Ready(Some(answer)) => Poll::Ready(answer),
            // `sender` keeps the channel open
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Asks the cloud for the ticket in progress, and no longer for an earlier link. The first time, also compares the
    /// cloud's record of the connector with the configuration, and logs the differences.
    pub(super) fn ask_for_ticket(&mut self, held: Option<Uuid>, config: &Config) {
        let (cloud, sender) = (self.cloud.clone(), self.sender.clone());
        let question = tokio::spawn(async move {
            match cloud.active_ticket().await {
                Ok(ticket) => {
                    let _agent_ended = sender.send(BackgroundAnswer::ActiveTicket { held, ticket }).await;
                }
                Err(error) => tracing::warn!("cannot fetch the active ticket: {}", ErrorChain(&error)),
            }
        });
        if let Some(earlier) = self.ticket.replace(question.abort_handle()) {
            earlier.abort();
        }
        if !std::mem::replace(&mut self.has_compared_record, true) {
            let (cloud, config) = (self.cloud.clone(), config.clone());
            tokio::spawn(async move { compare_record(&cloud, &config).await });
        }
    }

    /// Keeps this VIN across restarts, or none.
    pub(super) fn keep_vin(&self, vin: Option<KeptVin>) {
        self.vin.send_replace(vin);
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

async fn load_vin(store: VinStore, sender: mpsc::Sender<BackgroundAnswer>) {
    match tokio::task::spawn_blocking(move || store.load()).await {
        Ok(Ok(Some(vin))) => {
            let _agent_ended = sender.send(BackgroundAnswer::KeptVin(vin)).await;
        }
        Ok(Err(error)) => tracing::warn!("cannot use the VIN from before the restart: {error}"),
        Ok(Ok(None)) | Err(_) => {}
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
