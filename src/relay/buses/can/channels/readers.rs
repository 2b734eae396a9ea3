//! The end of the VIN reader and of the scan, which run beside the channels.

use std::time::Instant;

use super::CanChannels;
use super::held::Owner;
use crate::relay::buses::channels::Channels as _;
use crate::vehicle::vin;

impl CanChannels {
    /// Holds the VIN reader while a channel is busy. Returns whether one is.
    pub(super) fn hold_reader(&mut self, now: Instant) -> bool {
        let is_busy = self.is_busy(now);
        if let Some(reader) = &mut self.vin_reader {
            reader.set_held(now, is_busy);
        }
        is_busy
    }

    /// Ends the VIN reader when it has finished.
    pub(super) fn end_vin_reader(&mut self) {
        let Some(reader) = &mut self.vin_reader else { return };
        while let Some(event) = reader.poll_event() {
            if let vin::ReaderEvent::Finished(outcome) = event {
                self.vin_outcome = Some(outcome);
                self.vins = Some(reader.candidates().to_vec());
                self.vin_reader = None;
                self.disown(Owner::VinReader);
                return;
            }
        }
    }

    /// Ends the scan when it has an outcome.
    pub(super) fn end_scan(&mut self) {
        if let Some(scanner) = &self.scanner
            && let Some(outcome) = scanner.outcome()
        {
            self.scanned = Some((outcome, scanner.ecus()));
            self.scanner = None;
            self.disown(Owner::Scanner);
        }
    }
}
