//! The lines of the agent's log that trials wait for. They have to match the agent's own texts.

/// The login could not be stored.
pub(super) const NOT_STORED: &str = "cannot save the login";
/// The cloud's certificate has expired, according to the device's clock.
pub(super) const CERTIFICATE_EXPIRED: &str = "has expired by this device's clock";
/// The cloud could not be reached.
pub(super) const RETRYING: &str = "trying again";
/// The link to the cloud was lost.
pub(super) const OFFLINE: &str = "offline";
/// The CAN interface disappeared.
pub(super) const LOST_CAN: &str = "lost the CAN device";
