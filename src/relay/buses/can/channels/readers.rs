//! The VIN reader and the scan of a bus, beside its channels.

use connector_hal::bus::BusState;

use super::BusCore;
use super::turns::Owner;
use crate::vehicle::scan::{EcuFound, ScanOutcome, Scanner};
use crate::vehicle::vin;

impl BusCore {
    /// Reads the VIN on this bus, beside the channels; nobody can tell one while it is off.
    pub fn start_vin_reader(&mut self, reader: vin::VinReader) {
        let is_off = self.state == BusState::Off;
        self.vin_told = is_off.then(Vec::new);
        self.vin_reader = (!is_off).then(|| Box::new(reader));
    }

    /// Which VINs were told, once reading is done.
    pub fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.vin_told.take()
    }

    /// Ends the VIN reader when it is finished.
    pub(super) fn end_vin_reader(&mut self) {
        let Some(reader) = &mut self.vin_reader else { return };
        while let Some(event) = reader.poll_event() {
            if let vin::ReaderEvent::Finished(_) = event {
                self.vin_told = Some(reader.candidates().to_vec());
                self.vin_reader = None;
                self.disown(Owner::VinReader);
                return;
            }
        }
    }

    /// Looks for ECUs on this bus, beside the channels.
    pub fn start_scan(&mut self, scanner: Scanner) {
        self.scanner = Some(Box::new(scanner));
        self.end_scan();
    }

    /// The scan that runs.
    pub fn scanner_mut(&mut self) -> Option<&mut Scanner> {
        self.scanner.as_deref_mut()
    }

    /// How the scan ended and what it found, once it has.
    pub fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<EcuFound>)> {
        self.end_scan();
        self.scanned.take()
    }

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
