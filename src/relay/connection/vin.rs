//! Reading the VIN on the buses of a connection, beside its channels.

use std::time::{Duration, Instant};

use super::RelayConnection;
use super::pending::{BusesVinReading, VinTrigger, WaitingVinReading};
use super::vin_gate::VinObstacle;
use crate::policy::{IntentTarget, Stage, What};
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
        if self.is_muted {
            self.has_left_out_vin = true;
            self.refuse_unconfirmed(now, VinObstacle::Muted);
            return true;
        }
        if self.buses.iter().any(|bus| !bus.has_started()) {
            self.vin_reading = Some(BusesVinReading::waiting(now, budget));
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
        // a lost device has ended its transfers; those of another bus continue
        let may_disturb = !is_request && self.transfers.open_until(now).is_some();
        if !may_disturb && self.is_quiet_for(now, quiet) {
            self.begin_reading_vin(now, waiting.budget);
        } else if is_request && now >= waiting.since + waiting.budget {
            let in_use = VinObstacle::ChannelsInUse;
            self.vin_reading = Some(BusesVinReading::ended(waiting.since, waiting.budget, in_use));
        } else {
            self.vin_waiting = Some(WaitingVinReading { look_at: now + LOOK_EVERY, ..waiting });
        }
    }

    /// The connection is meant for a certain vehicle: no programming service is sent before
    /// [`RelayConnection::confirm_vin`], nor after a device has returned, until the VIN is confirmed again.
    pub fn require_vin(&mut self) {
        self.vin_gate.require();
    }

    /// The vehicle has the VIN that was required: what waited for that is sent.
    pub fn confirm_vin(&mut self, now: Instant) {
        self.vin_gate.open();
        let waited = self.vin_gate.take_all();
        self.release_waiting(now, waited, VinObstacle::NotReadYet);
    }

    /// Whether the vehicle has confirmed the VIN that was required.
    pub(crate) fn is_vin_confirmed(&self) -> bool {
        self.vin_gate.is_confirmed()
    }

    /// The VIN was read outside of the connection, without success: what waited for the VIN is refused.
    pub fn handle_no_vin(&mut self, now: Instant) {
        self.refuse_unconfirmed(now, VinObstacle::NotReported);
    }

    /// The vehicle has another VIN than the one that was required: what waited for the VIN is refused.
    pub fn handle_other_vin(&mut self, now: Instant) {
        self.refuse_unconfirmed(now, VinObstacle::AnotherVin);
    }

    /// Refuses the programming services that wait for the VIN.
    pub(super) fn refuse_unconfirmed(&mut self, now: Instant, obstacle: VinObstacle) {
        let obstacle = match obstacle {
            VinObstacle::NotReported | VinObstacle::NotAcknowledged if self.ignition == Some(false) => {
                VinObstacle::IgnitionOff
            }
            other => other,
        };
        if !self.vin_gate.is_open() {
            let waited = self.vin_gate.take_all();
            self.release_waiting(now, waited, obstacle);
        }
    }

    /// Whether the VIN has to be read, to be confirmed or because the connector was muted, since the last call of this method.
    pub fn take_vin_wanted(&mut self) -> bool {
        let is_made_up_for = !self.is_muted && std::mem::take(&mut self.has_left_out_vin);
        self.vin_gate.take_wanted() || is_made_up_for
    }

    /// The VIN has to be read if it was required and is not confirmed. A reading that is under way is enough.
    pub(super) fn want_vin(&mut self) {
        if !self.vin_gate.is_open() && self.vin_reading.is_none() && self.vin_waiting.is_none() {
            self.vin_gate.want();
        }
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
        self.vin_gate.handle_returned();
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
        let mut reading = BusesVinReading::ended(now, budget, VinObstacle::NotReadYet);
        for (bus, policy) in self.buses.iter_mut().zip(&self.policies).filter(|(bus, _)| bus.has_started()) {
            if policy.refuses(now, Stage::Turn, IntentTarget::None, What::ReadVin).is_some() {
                continue;
            }
            reading.buses += usize::from(bus.channels_mut().start_vin_reader(now, settings));
            if let Some(candidates) = bus.channels_mut().take_vins() {
                reading.handle_finished(candidates, bus.channels().vin_outcome());
            }
        }
        if reading.buses == 0 {
            reading.obstacle = VinObstacle::NoBus;
        }
        self.vin_reading = Some(reading);
    }

    /// The result of reading the VIN, once all buses have finished. Without a VIN, what waited for its confirmation is
    /// refused.
    pub fn poll_vin(&mut self, now: Instant) -> Option<vin::VinReport> {
        let reading = self.vin_reading.take_if(|reading| reading.finished.len() >= reading.buses)?;
        let elapsed = now.saturating_duration_since(reading.since);
        let report = vin::VinReport::from_buses(&reading.finished, elapsed);
        if report.vin.is_none() {
            self.refuse_unconfirmed(now, reading.obstacle);
        }
        Some(report)
    }

    /// Suspends the reading of the VIN: the buses that were reading it are gone.
    pub(super) fn suspend_vin_reading(&mut self) {
        if let Some(reading) = &mut self.vin_reading {
            *reading = BusesVinReading::waiting(reading.since, reading.budget);
        }
    }

    /// Starts the suspended reading of the VIN again, on the buses that replaced the earlier ones.
    pub(super) fn resume_vin_reading(&mut self, now: Instant) {
        if let Some(BusesVinReading { since, budget, .. }) = self.vin_reading.take()
            && !self.start_reading_vin(now, budget, VinTrigger::Request)
        {
            self.vin_reading = Some(BusesVinReading::ended(since, budget, VinObstacle::NoBus));
        }
    }
}
