//! The messages between the agent's loop and the VIN watch.

use tokio::sync::oneshot;

use super::super::vehicle::Doubt;
use crate::protocol::vin::Vin;
use crate::vehicle::vin::VinReport;

/// A message to the watch.
pub(super) enum WatchCommand {
    /// Closes all devices, then answers.
    Release(oneshot::Sender<()>),
    /// Allows to use the devices again, without reading the VIN. Carries the VIN that a session has read.
    Resume(Option<Vin>),
    /// Reads the VIN again.
    Read {
        /// A request waits for the VIN, so that the reading does not listen first.
        is_awaited: bool,
    },
    /// Sends nothing any more, and only reports activity.
    Listen,
    /// The ignition changed.
    Ignition(Option<bool>),
}

/// A message from the watch.
pub(crate) enum Found {
    /// The VIN was read.
    Vin {
        report: VinReport,
        /// What happened on the vehicle's buses and networks since the last reading makes the vehicle doubtful.
        doubt: Option<Doubt>,
    },
    /// While the watch only listened, a silent bus came to life or an adapter came back.
    Activity,
}
