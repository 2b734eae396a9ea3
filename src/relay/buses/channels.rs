//! The interface between a connection and the channels of a bus of any kind.

use std::time::Instant;

use connector_hal::bus::{BusLoad, BusState};
use connector_hal::can::CanFrame;

use super::channel_setup::ChannelKind;
use crate::policy::{BusPolicy, IntentTarget};
use crate::protocol::problem::Problem;
use crate::relay::channel::{ChannelOutput, KeepAliveStop, PduToSend};
use crate::relay::limits::RelayLimits;
use crate::relay::wire::codec::PduFlags;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanRequest};
use crate::vehicle::vin;

/// The state of a channel after [`Channels::open_channel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// The channel is open.
    Done,
    /// The opening needs the vehicle; [`Channels::poll_opened`] reports the outcome.
    UnderWay,
}

/// The channels of one bus: a pure state machine with time as an argument.
///
/// The shell around it ([`Bus`](super::bus::Bus)) has the device. It moves frames or bytes between the device
/// and the channels with methods of each kind of bus, and calls [`Channels::handle_timeout`] at
/// [`Channels::poll_timeout`].
pub trait Channels: Send {
    /// The state of the bus as last reported.
    fn state(&self) -> BusState;

    /// The share of time in which the bus was busy.
    fn load(&self, _now: Instant) -> BusLoad {
        BusLoad::default()
    }

    /// Has everything that the operator sends judged by this policy, on channels that are opened later.
    fn set_policy(&mut self, _policy: BusPolicy) {}

    /// Sends a request of the connector itself to an ECU of an open channel; false if the ECU is busy or no channel is
    /// open to it. The operator does not see the answer.
    fn ask(&mut self, _now: Instant, _target: IntentTarget, _request: &[u8]) -> bool {
        false
    }

    /// Whether the bus has one of these ways to ask for the speed, though it may be busy.
    fn can_ask_speed(&self, _obd: bool, _doip_did: Option<u16>) -> bool {
        false
    }

    /// Asks the vehicle for its speed; false if the bus is busy or has none of these ways to ask: OBD, a data identifier
    /// by DoIP.
    fn ask_speed(&mut self, _now: Instant, _obd: bool, _doip_did: Option<u16>) -> bool {
        false
    }

    /// Sends the requests that have waited for the speed.
    fn release_requests(&mut self, _now: Instant) {}

    /// Opens a channel with a number that is free.
    ///
    /// # Errors
    ///
    /// The bus has no channels of this kind, or cannot have this channel.
    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem>;

    /// The outcome of a channel whose opening was under way. A channel that failed has been closed.
    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        None
    }

    /// Closes a channel and discards all PDUs and frames that it has not sent.
    fn close_channel(&mut self, number: u16);

    /// Sends a PDU of the operator.
    fn handle_pdu(&mut self, now: Instant, number: u16, pdu: PduToSend<'_>);

    /// Breaks the chain behind a PDU of the operator that was refused before it reached the bus.
    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags);

    /// Sends a frame of the operator before `expires`.
    fn handle_frame_to_send(&mut self, now: Instant, number: u16, frame: CanFrame, expires: Instant);

    /// The ignition was switched, or can no longer be read.
    fn handle_ignition(&mut self, _now: Instant, _ignition: Option<bool>) {}

    /// Stops or allows TesterPresent, on open channels and on those opened later.
    fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>);

    /// Sets how many bytes the link has left for data from the vehicle, and how many it has in total. A bus
    /// that can pause its vehicle does so when few are left.
    fn set_room(&mut self, _left: usize, _total: usize) {}

    /// Asks the ECUs that left their default session to return to it.
    fn return_to_default_sessions(&mut self, now: Instant);

    /// When the bus is left, the ECUs are left as they are: no last message ends their sessions.
    fn leave_silently(&mut self) {}

    /// Whether a channel sends, receives, awaits a response, or has data that waits for the vehicle. The connector then
    /// sends nothing on its own account.
    fn is_busy(&self, now: Instant) -> bool;

    /// Whether nothing is on its way to the vehicle.
    fn is_quiet(&self) -> bool;

    /// Scans the bus for ECUs beside the channels; false if a bus of this kind cannot be scanned.
    fn start_scan(&mut self, _now: Instant, _request: &ScanRequest) -> bool {
        false
    }

    /// The outcome of the scan and the ECUs that it found, once it has ended.
    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        None
    }

    /// Whether a bus of this kind can read the VIN beside the channels.
    fn can_read_vin(&self) -> bool {
        false
    }

    /// Reads the VIN on this bus beside the channels; false if a bus of this kind cannot do so now.
    fn start_vin_reader(&mut self, _now: Instant, _settings: vin::ReaderSettings) -> bool {
        false
    }

    /// Ends a reading of the VIN, without another request to an ECU.
    fn stop_vin_reader(&mut self) {}

    /// While this is true, the bus sends nothing that no channel or request of the operator needs.
    fn set_muted(&mut self, _is_muted: bool) {}

    /// The VINs that ECUs reported, once reading has ended.
    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        None
    }

    /// How the last reading of the VIN ended, if a bus of this kind knows.
    fn vin_outcome(&self) -> Option<vin::ReaderOutcome> {
        None
    }

    /// Whether a gateway of the vehicle was lost and has returned since the last call of this method.
    fn take_returned(&mut self) -> bool {
        false
    }

    /// Handles all deadlines that have passed.
    fn handle_timeout(&mut self, now: Instant);

    /// The next output for the operator.
    fn poll_output(&mut self) -> Option<ChannelOutput>;

    /// When [`Channels::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;
}
