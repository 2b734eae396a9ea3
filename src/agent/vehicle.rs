//! The agent's knowledge about the vehicle.

use std::time::{Duration, Instant};

use super::kept_vin::KeptVin;
use crate::protocol::vin::Vin;

/// The agent's knowledge about the vehicle.
#[derive(Debug)]
pub(super) struct Vehicle {
    /// The VIN that the last reading gave.
    pub(super) vin: Option<Vin>,
    /// The VIN has been read at least once, with or without success.
    pub(super) is_known: bool,
    /// The VIN watch is reading the VIN.
    pub(super) is_being_read: bool,
    read_at: Option<Instant>,
    /// The VIN from before a restart or sleep, until the VIN is read.
    kept: Option<KeptVin>,
}

impl Vehicle {
    /// A vehicle that may be the one before the restart.
    pub(super) fn new(is_being_read: bool, kept: Option<KeptVin>) -> Self {
        Self { vin: None, is_known: false, is_being_read, read_at: None, kept }
    }

    /// The VIN was kept across a restart.
    pub(super) fn handle_kept(&mut self, kept: KeptVin) {
        self.kept.get_or_insert(kept);
    }

    /// The VIN has been read, with or without success.
    pub(super) fn handle_reading(&mut self, now: Instant, vin: Option<Vin>) {
        self.is_known = true;
        self.vin = vin;
        self.read_at = Some(now);
        self.kept = vin.map(KeptVin::read_now);
    }

    /// The VIN to report, and the time since it was read, if that is known.
    pub(super) fn report(&self, now: Instant) -> (Option<Vin>, Option<Duration>) {
        if !self.is_known {
            return (self.kept.map(|kept| kept.vin), self.kept.and_then(|kept| kept.age()));
        }
        let age = self.read_at.map(|at| now.saturating_duration_since(at));
        (self.vin, age.filter(|_| self.vin.is_some()))
    }

    /// The VIN to keep during sleep.
    pub(super) fn to_keep(&self) -> Option<KeptVin> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_vin_is_reported_until_the_vin_was_read_and_with_its_age() {
        let now = Instant::now();
        let vin: Vin = "WVWZZZAUZEW000001".parse().unwrap();
        let mut vehicle = Vehicle::new(false, None);
        assert_eq!(vehicle.report(now), (None, None));
        vehicle.handle_kept(KeptVin::read_now(vin));
        assert_eq!(vehicle.report(now).0, Some(vin));
        assert!(vehicle.report(now).1.is_some());
        assert_eq!(vehicle.vin, None, "it does not count as read");
        vehicle.handle_reading(now, Some(vin));
        let later = now + Duration::from_secs(90);
        assert_eq!(vehicle.report(later), (Some(vin), Some(Duration::from_secs(90))));
        vehicle.handle_reading(later, None);
        assert_eq!((vehicle.report(later), vehicle.to_keep()), ((None, None), None));
    }
}
