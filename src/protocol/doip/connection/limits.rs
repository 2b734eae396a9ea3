//! Times and bounds of a connection.

use std::time::Duration;

/// A_DoIP_Ctrl: the time that a gateway has to answer a routing activation (ISO 13400-2).
pub(super) const CONTROL_TIME: Duration = Duration::from_secs(2);
/// A_DoIP_Diagnostic_Message: the time that a gateway has to acknowledge a diagnostic message (ISO 13400-2).
pub(super) const ACKNOWLEDGE_TIME: Duration = Duration::from_secs(2);
/// T_TCP_General_Inactivity: a gateway closes a connection without traffic after this time (ISO 13400-2).
pub(super) const GENERAL_INACTIVITY: Duration = Duration::from_secs(300);
/// The number of messages that may wait for the stream or for their acknowledgement: two for each of the 64
/// channels that a relay connection may have. A channel has one such message, and an ECU scan has eight.
pub(super) const MAX_UNACKNOWLEDGED: usize = 128;
/// The number of a message's first bytes that are kept to recognise its acknowledgement.
pub(super) const HEAD: usize = 16;
/// The number of messages whose late acknowledgements are recognised. Later ones replace the oldest.
pub(super) const MAX_LATE: usize = 16;
/// The number of unread events from which no message is accepted: twice the outcomes of all waiting messages. Only a
/// caller that does not poll reaches this number.
pub(super) const MAX_EVENTS: usize = 2 * MAX_UNACKNOWLEDGED;
