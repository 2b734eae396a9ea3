//! The settings of the websocket.

use std::time::Duration;

use crate::config::{CloudConfig, WebsocketUrl};

/// The longest text message accepted, in bytes. The longest requests configure buses and channels, and have a
/// few kilobytes; the limit bounds the memory.
const MAX_TEXT: usize = 1 << 20;
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
    /// The time between two Pings.
    pub ping_interval: Duration,
    /// The websocket is dead after this long without any message.
    pub dead_after: Duration,
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
            dead_after: cloud.dead_after,
            max_text: MAX_TEXT,
            max_binary: max_pdu.max(USUAL_BINARY).saturating_add(BINARY_OVERHEAD),
        }
    }
}
