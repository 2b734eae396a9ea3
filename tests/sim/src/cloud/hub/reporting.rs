//! How often connectors report their state: more often while a subscriber watches them.

use std::sync::Arc;

use serde_json::json;

use super::pending::Asker;
use super::state::{Hub, HubState};

/// The interval while a subscriber watches a connector, in seconds.
const WATCHED: u64 = 5;
/// The interval of the relay protocol, in seconds.
const UNWATCHED: u64 = 60;

/// A client that watches a connector, until this value is dropped.
pub(crate) struct Watcher {
    hub: Arc<Hub>,
    connector_id: i64,
}

impl Hub {
    /// Asks the connector for frequent reports while the returned value lives.
    pub(crate) fn watch(self: &Arc<Self>, connector_id: i64) -> Watcher {
        let mut state = self.state();
        let watchers = state.watchers.entry(connector_id).or_default();
        *watchers += 1;
        if *watchers == 1 {
            state.ask_for_reports(connector_id);
        }
        Watcher { hub: Arc::clone(self), connector_id }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        let Some(watchers) = state.watchers.get_mut(&self.connector_id) else { return };
        *watchers = watchers.saturating_sub(1);
        if *watchers == 0 {
            state.watchers.remove(&self.connector_id);
            state.ask_for_reports(self.connector_id);
        }
    }
}

impl HubState {
    /// Asks the connector for the interval that is right now. A connector that is offline is asked when it comes.
    fn ask_for_reports(&mut self, connector_id: i64) {
        let is_watched = self.watchers.contains_key(&connector_id);
        let message = json!({"interval_seconds": if is_watched { WATCHED } else { UNWATCHED }});
        let _offline = self.ask(connector_id, "setReporting", message, Asker::Ignored);
    }

    /// A connector has come online. It begins with the interval of the relay protocol.
    pub(super) fn handle_new_link(&mut self, connector_id: i64) {
        if self.watchers.contains_key(&connector_id) {
            self.ask_for_reports(connector_id);
        }
    }
}
