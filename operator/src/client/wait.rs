//! Waiting for items on a channel.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::error::ExchangeError;
use super::inbox::{Inbox, Received};
use super::shared::LinkState;

/// Waits for items on a channel, with a clock that stops while a link is lost.
pub(crate) struct Wait<'a> {
    inbox: &'a Inbox,
    state: watch::Receiver<LinkState>,
    limit: Duration,
    deadline: Instant,
}

impl<'a> Wait<'a> {
    pub(super) fn new(inbox: &'a Inbox, state: watch::Receiver<LinkState>, limit: Duration) -> Self {
        Self { inbox, state, limit, deadline: Instant::now() + limit }
    }

    /// The present limit.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Restarts the wait with this limit.
    pub(crate) fn restart(&mut self, limit: Duration) {
        self.limit = limit;
        self.deadline = Instant::now() + limit;
    }

    /// Waits until this time.
    pub(super) fn restart_until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// The next item, or `None` when the time is over.
    pub(crate) async fn recv(&mut self) -> Result<Option<Received>, ExchangeError> {
        loop {
            let is_up = *self.state.borrow_and_update() == LinkState::Up;
            tokio::select! {
                biased;
                received = self.inbox.recv() => return received.map(Some).map_err(ExchangeError::Closed),
                // the inbox reports a closed connection
                Ok(()) = self.state.changed() => {
                    if !is_up {
                        self.deadline = self.deadline.max(Instant::now() + self.limit);
                    }
                }
                () = tokio::time::sleep_until(self.deadline), if is_up => return Ok(None),
            }
        }
    }
}
