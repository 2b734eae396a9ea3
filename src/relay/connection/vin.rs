//! Reading the VIN on the buses of a connection, beside its channels.

use std::time::{Duration, Instant};

use super::RelayConnection;
use super::pending::BusesVinReading;
use crate::vehicle::vin;

impl RelayConnection {
    /// Reads the VIN again on the buses that are set up, beside the channels; false if no bus can read it.
    pub fn start_reading_vin(&mut self, now: Instant, budget: Duration) -> bool {
        let settings = vin::ReaderSettings { until: now + budget, alive: true, confirms_transmission: true };
        let (mut buses, mut finished) = (0, Vec::new());
        for bus in self.buses.iter_mut().filter(|bus| bus.has_started()) {
            buses += usize::from(bus.channels_mut().start_vin_reader(settings));
            finished.extend(bus.channels_mut().take_vins());
        }
        self.vin_reading = (buses > 0).then_some(BusesVinReading { since: now, budget, buses, finished });
        buses > 0
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
            && !self.start_reading_vin(now, budget)
        {
            self.vin_reading = Some(BusesVinReading { since, budget, buses: 0, finished: Vec::new() });
        }
    }
}
