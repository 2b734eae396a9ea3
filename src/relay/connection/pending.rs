//! The work of a connection that is not finished yet, and its open channels.

use std::time::{Duration, Instant};

use super::vin_gate::VinObstacle;
use crate::policy::{Framing, IntentTarget};
use crate::relay::wire::request::OpenChannel;
use crate::vehicle::vin;

/// A request that is not answered yet.
pub(super) struct PendingReply {
    /// The `request_id` to echo, if the request has one.
    pub(super) request_id: Option<String>,
}

/// A channel that is open or being opened.
pub(super) struct OpenedChannel {
    /// The index of its bus.
    pub(super) bus: usize,
    /// Its ECU, as the policy names it.
    pub(super) target: IntentTarget,
    /// How the channel makes its frames, if the bus has no CAN FD, and if the bus has it.
    pub(super) framings: [Framing; 2],
    /// The greatest age of a record that may still be sent to the vehicle.
    pub(super) max_age: Duration,
    /// The request that opened the channel. If the operator repeats it, the reply is repeated too.
    pub(super) request: OpenChannel,
    /// The reply to `openChannel` that is due when the vehicle has answered.
    pub(super) opening: Option<PendingReply>,
}

/// A reading of the VIN that waits until the channels are quiet.
pub(super) struct WaitingVinReading {
    pub(super) since: Instant,
    pub(super) budget: Duration,
    pub(super) trigger: VinTrigger,
    /// When to look again whether the channels are quiet.
    pub(super) look_at: Instant,
}

/// The reason for reading the VIN; a later one in this list is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum VinTrigger {
    /// The vehicle may be another one.
    Vehicle,
    /// A device or a gateway was gone and is back: the connector may be in another vehicle, to which the operator
    /// talks without knowing it.
    Returned,
    /// A request waits for the VIN.
    Request,
}

/// A reading of the VIN beside the channels.
pub(super) struct BusesVinReading {
    pub(super) since: Instant,
    pub(super) budget: Duration,
    /// The number of buses that read the VIN.
    pub(super) buses: usize,
    /// The candidates of each bus that has finished.
    pub(super) finished: Vec<Vec<vin::Candidate>>,
    /// Why there is no VIN, if there is none.
    pub(super) obstacle: VinObstacle,
}

impl BusesVinReading {
    /// A reading that waits for buses.
    pub(super) fn waiting(since: Instant, budget: Duration) -> Self {
        Self { since, budget, buses: usize::MAX, finished: Vec::new(), obstacle: VinObstacle::NotReadYet }
    }

    /// A reading in which no bus was asked.
    pub(super) fn ended(since: Instant, budget: Duration, obstacle: VinObstacle) -> Self {
        Self { since, budget, buses: 0, finished: Vec::new(), obstacle }
    }

    /// A bus has finished.
    pub(super) fn handle_finished(
        &mut self,
        candidates: Vec<vin::Candidate>,
        outcome: Option<vin::ReaderOutcome>,
    ) {
        self.finished.push(candidates);
        self.obstacle = match (outcome, self.obstacle) {
            (Some(vin::ReaderOutcome::OtherTester), _) | (_, VinObstacle::OtherTester) => {
                VinObstacle::OtherTester
            }
            (Some(vin::ReaderOutcome::Held), _) | (_, VinObstacle::ChannelsInUse) => {
                VinObstacle::ChannelsInUse
            }
            (Some(vin::ReaderOutcome::NotAcknowledged), VinObstacle::NotReadYet) => {
                VinObstacle::NotAcknowledged
            }
            (Some(vin::ReaderOutcome::NotAcknowledged), before) => before,
            _ => VinObstacle::NotReported,
        };
    }
}

/// A scan of a bus that is running.
pub(super) struct RunningScan {
    /// The index of the bus.
    pub(super) bus: usize,
    pub(super) bus_name: String,
    /// The requests that the result answers.
    pub(super) requests: Vec<PendingReply>,
}
