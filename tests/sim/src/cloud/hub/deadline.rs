//! The time that a connection outlives a lost link.

use std::time::Duration;

use uuid::Uuid;

use super::relay::RelayStage;
use super::state::{Hub, HubState};

/// The connector may detect a lost link this much later than the cloud, and holds the connection from then
/// on.
const NOTICE: Duration = Duration::from_secs(15);

impl HubState {
    /// Starts the connection's deadline if the connection is held for an absent peer. Earlier deadlines
    /// become void.
    pub(super) fn arm_deadline(&mut self, uuid: Uuid) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.generation += 1;
        let generation = relay.generation;
        let after = match relay.stage {
            RelayStage::Interrupted => self.hold + NOTICE,
            RelayStage::Open if relay.used && relay.operator.is_none() => self.hold,
            _ => return,
        };
        let hub = self.hub.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            if let Some(hub) = hub.upgrade() {
                hub.handle_deadline(uuid, generation);
            }
        });
    }
}

impl Hub {
    fn handle_deadline(&self, uuid: Uuid, generation: u64) {
        let mut state = self.state();
        let Some(relay) = state.relays.get(&uuid).filter(|relay| relay.generation == generation) else {
            return;
        };
        let connector_id = relay.plan.connector_id;
        match relay.stage {
            RelayStage::Interrupted => {
                tracing::info!(connection = %uuid, "the connector did not come back: connection closed");
                state.lose(uuid, "link-lost");
            }
            RelayStage::Open => {
                tracing::info!(connection = %uuid, "the operator did not come back: closing the connection");
                state.close_for(connector_id, uuid);
            }
            RelayStage::Idle | RelayStage::Opening | RelayStage::Closing => {}
        }
    }
}
