//! The settings of the websocket.

use std::time::Duration;

use crate::config::{CloudConfig, WebsocketUrl};

/// The longest text message accepted, in bytes: every request and notice of the relay protocol is far shorter.
/// A parsed message may take a hundred times the memory of its text.
const MAX_TEXT: usize = 64 << 10;
/// While this many bytes of texts and Pongs wait for the cloud to take them, the agent reads and answers no
/// further: a second of a slow uplink.
pub(super) const MAX_UNSENT: usize = 64 << 10;
/// Binary messages have up to 64 KiB, unless a single record is longer: a record cannot be split.
const USUAL_BINARY: usize = 64 << 10;
/// Room for the headers of a binary message and its records. They have 40 bytes beside a long PDU; the rest
/// is for fields that a later version of the protocol may add.
const BINARY_OVERHEAD: usize = 4 << 10;

/// The address, timeouts and limits of a [`CloudSocket`](super::CloudSocket).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSettings {
    /// The websocket's URL.
    pub url: WebsocketUrl,
    /// The limit for name resolution, TCP, TLS and the websocket's upgrade together.
    pub connect_timeout: Duration,
    /// The time between two Pings while an operator's connection is open. The websocket is dead after three
    /// intervals without any message.
    pub ping_interval: Duration,
    /// The time between two Pings while no connection is open.
    pub idle_ping_interval: Duration,
    /// The longest text message accepted, in bytes.
    pub max_text: usize,
    /// The longest binary message accepted, in bytes.
    pub max_binary: usize,
}

impl SocketSettings {
    /// The settings from the configuration, for records of up to `max_pdu` bytes.
    pub fn new(cloud: &CloudConfig, max_pdu: usize) -> Self {
        Self {
            url: cloud.websocket_url.clone(),
            connect_timeout: cloud.connect_timeout,
            ping_interval: cloud.ping_interval,
            idle_ping_interval: cloud.idle_ping_interval,
            max_text: MAX_TEXT,
            max_binary: max_pdu.max(USUAL_BINARY).saturating_add(BINARY_OVERHEAD),
        }
    }
    /// The time between two Pings, while a connection is open or not.
    pub(super) fn ping_interval(&self, is_busy: bool) -> Duration {
        if is_busy { self.ping_interval } else { self.idle_ping_interval }
    }

    /// The most bytes that may wait in the websocket library: one binary message, and beside it the unsent
    /// texts and Pongs with the last one of them, which may be as long as the longest request it answers.
    pub(super) fn max_write_buffer(&self) -> usize {
        self.max_binary.saturating_add(2 * MAX_UNSENT + 2 * self.max_text)
    }
}
