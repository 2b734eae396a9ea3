//! The reports of a connection about itself: its configuration and its quality (relay protocol, section 3).

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::RelayConnection;
use crate::protocol::problem::Problem;

/// A round trip above this is slow, in µs.
const SLOW: u64 = 500_000;

impl RelayConnection {
    /// Replies to `getConfiguration`: the buses and open channels as the operator configured them.
    pub(super) fn report_configuration(&mut self, request_id: &Option<String>) -> Result<(), Problem> {
        let open = self.channels.values().filter(|opened| opened.opening.is_none());
        let channels = open.filter_map(|opened| {
            let mut channel = serde_json::to_value(&opened.request).ok()?;
            channel.as_object_mut()?.remove("connection_uuid");
            Some(channel)
        });
        let channels: Vec<Value> = channels.collect();
        let message = json!({
            "connection_uuid": self.connection_uuid(),
            "buses": self.configured,
            "channels": channels,
        });
        self.reply("configuration", &message, request_id.clone());
        Ok(())
    }

    /// Replies to `connectionQuality`. A connection is healthy while fewer than a quarter of the last samples are slow.
    pub(super) fn report_quality(&mut self, request_id: &Option<String>) -> Result<(), Problem> {
        let samples = self.link.recent_round_trips();
        let slow = samples.iter().filter(|sample| **sample > SLOW).count();
        let since = self.opened_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let message = json!({
            "connection_uuid": self.connection_uuid(),
            "round_trip_time": samples.back().map(|sample| sample.saturating_add(500) / 1000),
            "connected_since": since.as_millis() as u64,
            "healthy": slow == 0 || slow * 4 < samples.len(),
        });
        self.reply("connectionQuality", &message, request_id.clone());
        Ok(())
    }
}
