//! The progress of a connection: changes of its buses, its deadlines, and its orderly end.

use std::time::Instant;

use super::RelayConnection;
use super::operator_watch::Interruption;
use crate::relay::buses::bus::BusProgress;
use crate::relay::wire::CloseReason;

impl RelayConnection {
    /// Handles what polling one bus has changed, apart from the outputs of its channels.
    pub(super) fn handle_progress(&mut self, now: Instant, index: usize, progress: BusProgress) {
        let Some(bus) = self.buses.get_mut(index) else { return };
        if let Some(candidates) = bus.channels_mut().take_vins()
            && let Some(reading) = &mut self.vin_reading
        {
            reading.handle_finished(candidates, bus.channels().vin_outcome());
        }
        match progress {
            BusProgress::Changed => {}
            BusProgress::Started => {
                self.answer_if_configured(now);
                self.handle_waiting(now);
            }
            BusProgress::StartFailed(failure) => {
                let name = bus.name().to_owned();
                self.handle_start_failed(now, &name, &failure);
                self.handle_waiting(now);
            }
        }
        while let Some(bus) = self.buses.get_mut(index)
            && let Some((number, outcome)) = bus.channels_mut().poll_opened()
        {
            self.handle_opened(number, outcome);
        }
    }

    /// When [`RelayConnection::handle_timeout`] is due, or [`RelayConnection::wants_to_send`] becomes true by
    /// itself. While it is true, only the socket decides when the message is sent.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let keep_alive = self.keep_alive.poll_timeout(self.transfers.until());
        let operator = self.operator_gone_at();
        let vin = self.vin_waiting.as_ref().map(|waiting| waiting.look_at);
        let held = self.held_frames.due(self.link.has_received_clock());
        let gate = self.vin_gate.due();
        let link = self.link.poll_timeout().filter(|_| !self.link.wants_to_send(now));
        let policy = self.policy_due(now);
        [self.hold_until, operator, link, keep_alive, vin, held, gate, policy].into_iter().flatten().min()
    }

    /// Handles all deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.hold_until.is_some_and(|until| until <= now) {
            let why = self.interruption.unwrap_or(Interruption::LinkLost).describe();
            tracing::info!("{why} for longer than the connection is held; closing the connection");
            self.close(CloseReason::LinkLost);
        }
        self.check_operator(now);
        self.release_frames(now);
        self.refuse_overdue(now);
        self.read_waiting_vin(now);
        self.update_keep_alive(now);
        self.serve_policy(now);
        self.collect_outputs(now);
    }

    /// Asks each ECU that left its default diagnostic session to return to it.
    ///
    /// Afterwards, drive the connection until [`RelayConnection::is_quiet`], but only for a limited time.
    pub fn return_to_default_sessions(&mut self, now: Instant) {
        for bus in &mut self.buses {
            bus.channels_mut().return_to_default_sessions(now);
        }
    }

    /// Leaves the ECUs as they are when the connection ends: one of them may be in the middle of a download.
    pub fn leave_silently(&mut self) {
        self.buses.iter_mut().for_each(|bus| bus.channels_mut().leave_silently());
    }

    /// Whether nothing is on its way to a bus.
    pub fn is_quiet(&self) -> bool {
        self.buses.iter().all(|bus| bus.channels().is_quiet())
    }
}
