//! The end of the VIN reader and of the scan, which run beside the channels.

use std::time::Instant;

use connector_hal::can::CanFrame;

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

    /// Notes a frame of another tester, or of an ECU that answers one. Returns whether the frame may be an answer to one
    /// of the channels, or a late one to an earlier question.
    pub(super) fn note_tester(&mut self, now: Instant, frame: &CanFrame) -> bool {
        let may_be_channels = self.channels.values().any(|channel| channel.may_be_answered_by(frame));
        self.testers.handle_frame(now, frame, may_be_channels)
    }

    /// Ends a VIN reader that has not asked anything, if another tester is on the bus.
    pub(super) fn stop_reader_beside_tester(&mut self, now: Instant) {
        if let Some(reader) = self.vin_reader.as_mut().filter(|_| self.testers.are_present(now)) {
            reader.handle_tester_before();
            self.end_vin_reader();
        }
    }

    /// Ends the VIN reader when it has finished.
    pub(super) fn end_vin_reader(&mut self) {
        let Some(reader) = &mut self.vin_reader else { return };
        while let Some(event) = reader.poll_event() {
            if let vin::ReaderEvent::Finished(outcome) = event {
                self.vin_outcome = Some(outcome);
                self.vins = Some(reader.candidates().to_vec());
                self.vin_reader = None;
                self.testers.handle_change();
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
            self.testers.handle_change();
            self.disown(Owner::Scanner);
        }
    }
}
