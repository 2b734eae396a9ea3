//! The state of a channel, and the owner of each frame without an outcome.

use crate::protocol::tp20::Connection;
use crate::protocol::tp20::setup_exchange::SetupExchange;

#[derive(Debug)]
pub(super) enum ChannelState {
    Idle,
    SettingUp(SetupExchange),
    Connected(Box<Connection>),
}

/// The set-up or connection to which a frame belongs. The channel ignores the outcome of a frame that belongs to an
/// earlier set-up or connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelFrame {
    pub(super) generation: u32,
    pub(super) is_setup: bool,
}
