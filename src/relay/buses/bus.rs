//! What a session asks of a bus of any kind.

use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::bus::BusStatus;
use connector_hal::can::CanFrame;

use super::setup::ChannelKind;
use crate::protocol::problem::Problem;
use crate::relay::buses::can::channels::BusOutput;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::codec::PduFlags;
use crate::vehicle::scan::{FoundEcu, ScanOutcome};
use crate::vehicle::vin;

/// What came of polling a bus.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Something changed: there may be outputs.
    Changed,
    /// The device is ready for the first time.
    Started,
    /// The device could not be opened and set up for the first time.
    StartFailed(StartFailure),
}

/// Why a device could not be opened and set up.
#[derive(Debug)]
pub(crate) struct StartFailure {
    /// In words.
    pub(crate) detail: String,
    /// It is there, but has not what the operator asked for.
    pub(crate) is_unsupported: bool,
}

/// What became of a channel that is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It is open.
    Done,
    /// The vehicle is being asked; [`SessionBus::poll_opened`] tells.
    UnderWay,
}

/// A bus of a connection with its device.
///
/// `poll` moves it along; everything else only looks, or leaves work for the next `poll`.
pub(crate) trait SessionBus: Send {
    /// What the operator calls it.
    fn name(&self) -> &str;

    /// Moves the device, the channels and time along; pending when there is nothing to do.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress>;

    /// How many bytes the link has left for what comes from the vehicle, and how many it has in all. A bus whose vehicle can be
    /// held back does that where they get scarce.
    fn set_room(&mut self, _left: usize, _in_all: usize) {}

    /// Whether the device has been ready once.
    fn has_started(&self) -> bool;

    /// State and load, as last known.
    fn status(&self) -> BusStatus;

    /// Whether the state is another than when this was last asked.
    fn take_state_change(&mut self) -> bool;

    /// Opens a channel; the number is free.
    ///
    /// # Errors
    ///
    /// The bus has no such channels, or cannot have this one.
    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &SessionLimits,
    ) -> Result<Opening, Problem>;

    /// What came of a channel whose opening was under way; one that failed is closed already.
    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        None
    }

    /// Closes a channel, and discards what it has not sent.
    fn close_channel(&mut self, number: u16);

    /// A PDU of the operator.
    fn handle_pdu(&mut self, now: Instant, number: u16, flags: PduFlags, data: &[u8]);

    /// A PDU of the operator that was refused before it came here.
    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags);

    /// A frame of the operator, to be sent before `expires`.
    fn handle_frame_to_send(&mut self, now: Instant, number: u16, frame: CanFrame, expires: Instant);

    /// The ignition was switched, or cannot be told any more.
    fn handle_ignition(&mut self, _now: Instant, _ignition: Option<bool>) {}

    /// Whether the channels that send TesterPresent by themselves may do so; those opened later do.
    fn set_keep_alive(&mut self, now: Instant, enabled: bool);

    /// The next thing for the operator.
    fn poll_output(&mut self) -> Option<BusOutput>;

    /// Asks the ECUs that were brought out of their default session to go back there.
    fn return_to_default_sessions(&mut self, now: Instant);

    /// Whether nothing is on its way to the vehicle.
    fn is_quiet(&self) -> bool;

    /// Looks for ECUs on this bus, beside the channels; false where that cannot be done.
    fn start_scan(&mut self, _now: Instant) -> bool {
        false
    }

    /// How the scan ended and which ECUs it found, once it has.
    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        None
    }

    /// Reads the VIN on this bus, beside the channels; false where that cannot be done.
    fn start_vin_reader(&mut self, _settings: vin::ReaderSettings) -> bool {
        false
    }

    /// Which VINs were told, once reading is done.
    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        None
    }
}
