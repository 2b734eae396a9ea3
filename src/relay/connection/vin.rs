//! Reading the VIN on the buses of a connection, beside its channels.

use std::time::{Duration, Instant};

use super::RelayConnection;
use super::pending::{BusesVinReading, VinGate, VinTrigger, WaitingVinReading};
use crate::vehicle::vin;

/// The time without activity on any channel after which a VIN is read that no request waits for. A mechanic who
/// switches the ignition as part of a procedure is in the middle of it.
const QUIET: Duration = Duration::from_secs(2);
/// The interval at which busy channels are looked at again: short beside [`QUIET`], long beside the work of a look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl RelayConnection {
    /// Reads the VIN again on the buses of the connection, beside the channels; false if none of the buses can
    /// read it.
    ///
    /// The reading begins when all buses are set up and no channel is in the middle of an exchange. A reading that no
    /// request waits for begins when the channels have been quiet for two seconds, or after a device has returned, as
    /// soon as they are quiet; and never in the middle of a download or upload.
    pub fn start_reading_vin(&mut self, now: Instant, budget: Duration, trigger: VinTrigger) -> bool {
        if self.buses.iter().any(|bus| !bus.has_started()) {
            let since = now;
            self.vin_reading =
                Some(BusesVinReading { since, budget, buses: usize::MAX, finished: Vec::new() });
            return true;
        }
        if !self.buses.iter().any(|bus| bus.channels().can_read_vin()) {
            return false;
        }
        if self.vin_waiting.as_ref().is_none_or(|waiting| waiting.trigger <= trigger) {
            self.vin_waiting = Some(WaitingVinReading { since: now, budget, trigger, look_at: now });
            self.read_waiting_vin(now);
        }
        true
    }

    /// Starts the reading that waits, if the channels are quiet.
    pub(super) fn read_waiting_vin(&mut self, now: Instant) {
        let Some(waiting) = self.vin_waiting.take_if(|waiting| waiting.look_at <= now) else { return };
        let is_request = waiting.trigger == VinTrigger::Request;
        let quiet = if waiting.trigger == VinTrigger::Vehicle { QUIET } else { Duration::ZERO };
        // a lost device has ended its transfers; those of another bus go on
        let may_disturb = !is_request && self.transfers.open_until(now).is_some();
        if !may_disturb && self.is_quiet_for(now, quiet) {
            self.begin_reading_vin(now, waiting.budget);
        } else if is_request && now >= waiting.since + waiting.budget {
            self.vin_reading = Some(BusesVinReading {
                since: waiting.since,
                budget: waiting.budget,
                buses: 0,
                finished: Vec::new(),
            });
        } else {
            self.vin_waiting = Some(WaitingVinReading { look_at: now + LOOK_EVERY, ..waiting });
        }
    }

    /// The connection is meant for a certain vehicle: no programming service is sent before
    /// [`RelayConnection::confirm_vin`], nor after a device has returned, until the VIN is confirmed again.
    pub fn require_vin(&mut self) {
        self.is_vin_required = true;
        self.vin_gate = VinGate::Closed;
    }

    /// The vehicle has the VIN that was required.
    pub fn confirm_vin(&mut self) {
        self.vin_gate = VinGate::Open;
    }

    /// Whether the VIN has to be read to be confirmed, since the last call of this method.
    pub fn take_vin_wanted(&mut self) -> bool {
        self.vin_gate == VinGate::Wanted && {
            self.vin_gate = VinGate::Closed;
            true
        }
    }

    /// The VIN has to be read if it was required and is not confirmed. Returns whether that is so. A reading that is under
    /// way is enough.
    pub(super) fn want_vin(&mut self) -> bool {
        let is_open = self.vin_gate == VinGate::Open;
        if !is_open && self.vin_reading.is_none() && self.vin_waiting.is_none() {
            self.vin_gate = VinGate::Wanted;
        }
        !is_open
    }

    /// Whether a device or a gateway has been lost and has returned since the last call of this method.
    pub fn take_returned(&mut self) -> bool {
        std::mem::take(&mut self.has_returned)
    }

    /// Notes whether the device of this bus has returned.
    pub(super) fn check_returned(&mut self, index: usize) {
        if !self.buses.get_mut(index).is_some_and(|bus| bus.take_returned()) {
            return;
        }
        tracing::info!("a device or a gateway of the connection is back; reading the VIN");
        self.has_returned = true;
        if self.is_vin_required {
            self.vin_gate = VinGate::Closed;
        }
        for (number, opened) in &self.channels {
            if opened.bus == index {
                self.transfers.handle_closed(*number);
            }
        }
    }

    fn is_quiet_for(&self, now: Instant, quiet: Duration) -> bool {
        let are_set_up = self.buses.iter().all(|bus| bus.has_started());
        let is_busy = self.buses.iter().any(|bus| bus.channels().is_busy(now));
        let is_recent = self.last_exchange.is_some_and(|at| now < at + quiet);
        are_set_up && !is_busy && !is_recent
    }

    fn begin_reading_vin(&mut self, now: Instant, budget: Duration) {
        let settings = vin::ReaderSettings {
            until: now + budget,
            alive: true,
            confirms_transmission: true,
            shares_bus: true,
        };
        let (mut buses, mut finished) = (0, Vec::new());
        for bus in self.buses.iter_mut().filter(|bus| bus.has_started()) {
            buses += usize::from(bus.channels_mut().start_vin_reader(settings));
            finished.extend(bus.channels_mut().take_vins());
        }
        self.vin_reading = Some(BusesVinReading { since: now, budget, buses, finished });
    }

    /// The result of reading the VIN, once all buses have finished.
    pub fn poll_vin(&mut self, now: Instant) -> Option<vin::VinReport> {
        let reading = self.vin_reading.take_if(|reading| reading.finished.len() >= reading.buses)?;
        Some(vin::VinReport::from_buses(&reading.finished, now.saturating_duration_since(reading.since)))
    }

    /// Suspends the reading of the VIN: the buses that were reading it are gone.
    pub(super) fn suspend_vin_reading(&mut self) {
        if let Some(reading) = &mut self.vin_reading {
            reading.finished.clear();
            reading.buses = usize::MAX;
        }
    }

    /// Starts the suspended reading of the VIN again, on the buses that replaced the earlier ones.
    pub(super) fn resume_vin_reading(&mut self, now: Instant) {
        if let Some(BusesVinReading { since, budget, .. }) = self.vin_reading.take()
            && !self.start_reading_vin(now, budget, VinTrigger::Request)
        {
            self.vin_reading = Some(BusesVinReading { since, budget, buses: 0, finished: Vec::new() });
        }
    }
}
