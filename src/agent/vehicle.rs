//! The agent's knowledge about the vehicle.

use std::time::{Duration, Instant};

use super::kept_vin::KeptVin;
use crate::protocol::vin::Vin;
use crate::vehicle::wake_watch::WakeReason;

/// Why the vehicle may be another one than before; a later one in this list is a stronger reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Doubt {
    /// The ignition was off, or the bus silent: most likely it is the same vehicle, but the connector may have been
    /// moved, if its supply is not that of the vehicle.
    Possible,
    /// The adapter was gone, or a gateway announced another VIN.
    Likely,
}

impl Doubt {
    /// The doubt that this reason for a reading raises, if any.
    pub(super) fn of(reason: WakeReason) -> Option<Self> {
        match reason {
            WakeReason::Ignition | WakeReason::Bus => Some(Self::Possible),
            WakeReason::Device | WakeReason::Announcement => Some(Self::Likely),
            // the vehicle's network needed more time
            WakeReason::Network => None,
        }
    }
}

/// The agent's knowledge about the vehicle.
#[derive(Debug)]
pub(super) struct Vehicle {
    /// The VIN of the vehicle in which the connector is.
    pub(super) vin: Option<Vin>,
    /// The VIN has been read at least once, with or without success.
    pub(super) is_known: bool,
    /// The VIN watch is reading the VIN.
    pub(super) is_being_read: bool,
    /// The vehicle may have changed since the VIN was read.
    doubt: Option<Doubt>,
    /// The time of the last reading that gave a VIN.
    read_at: Option<Instant>,
    /// The last VIN that was read, perhaps before a restart or sleep.
    kept: Option<KeptVin>,
}

impl Vehicle {
    /// A vehicle that may be the one before the restart.
    pub(super) fn new(is_being_read: bool, kept: Option<KeptVin>) -> Self {
        Self { vin: None, is_known: false, is_being_read, doubt: None, read_at: None, kept }
    }

    /// The VIN was kept across a restart.
    pub(super) fn handle_kept(&mut self, kept: KeptVin) {
        // not after a reason to forget it
        if self.doubt < Some(Doubt::Likely) {
            self.kept.get_or_insert(kept);
        }
    }

    /// The vehicle may have changed: a reading that fails says more than that the ECUs are asleep.
    pub(super) fn handle_doubt(&mut self, doubt: Doubt) {
        self.doubt = self.doubt.max(Some(doubt));
    }

    /// The VIN has been read, with or without success. A reading without a VIN leaves the known one unless the vehicle
    /// may have changed.
    pub(super) fn handle_reading(&mut self, now: Instant, vin: Option<Vin>) {
        self.is_known = true;
        if let Some(vin) = vin {
            *self = Self {
                vin: Some(vin),
                doubt: None,
                read_at: Some(now),
                kept: Some(KeptVin::read_now(vin)),
                ..*self
            };
            return;
        }
        if self.doubt.is_some() {
            self.vin = None;
        }
        if self.doubt == Some(Doubt::Likely) {
            self.kept = None;
        }
    }

    /// The VIN to report, and the time since it was read, if that is known.
    pub(super) fn report(&self, now: Instant) -> (Option<Vin>, Option<Duration>) {
        let Some(kept) = self.kept else { return (None, None) };
        let age = self.read_at.map(|at| now.saturating_duration_since(at)).or_else(|| kept.age());
        (Some(kept.vin), age)
    }

    /// The VIN to keep during sleep and across restarts.
    pub(super) fn to_keep(&self) -> Option<KeptVin> {
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIN: &str = "WVWZZZAUZEW000001";
    const MINUTE: Duration = Duration::from_secs(60);

    fn vin() -> Option<Vin> {
        Some(VIN.parse().unwrap())
    }

    /// A vehicle whose VIN was read, and a time a minute later.
    fn read_vehicle() -> (Vehicle, Instant) {
        let now = Instant::now();
        let mut vehicle = Vehicle::new(false, None);
        vehicle.handle_reading(now, vin());
        (vehicle, now + MINUTE)
    }

    #[test]
    fn a_kept_vin_is_reported_until_the_vin_was_read_and_with_its_age() {
        let now = Instant::now();
        let mut vehicle = Vehicle::new(false, None);
        assert_eq!(vehicle.report(now), (None, None));
        vehicle.handle_kept(KeptVin::read_now(vin().unwrap()));
        assert_eq!(vehicle.report(now).0, vin());
        assert!(vehicle.report(now).1.is_some());
        assert_eq!(vehicle.vin, None, "it does not count as read");
        vehicle.handle_reading(now, vin());
        assert_eq!(vehicle.report(now + MINUTE), (vin(), Some(MINUTE)));
    }

    #[test]
    fn a_reading_that_failed_leaves_the_vin_unless_the_vehicle_may_have_changed() {
        let (mut vehicle, later) = read_vehicle();
        vehicle.handle_reading(later, None);
        assert_eq!((vehicle.vin, vehicle.report(later)), (vin(), (vin(), Some(MINUTE))));
        vehicle.handle_doubt(Doubt::Possible);
        assert_eq!(vehicle.vin, vin(), "until the reading");
        vehicle.handle_reading(later, None);
        assert_eq!((vehicle.vin, vehicle.report(later)), (None, (vin(), Some(MINUTE))));
        vehicle.handle_reading(later, vin());
        vehicle.handle_reading(later, None);
        assert_eq!(vehicle.vin, vin(), "read since the doubt");
    }

    #[test]
    fn after_a_device_has_returned_a_reading_that_failed_erases_the_vin() {
        for reason in [WakeReason::Device, WakeReason::Announcement] {
            let (mut vehicle, later) = read_vehicle();
            vehicle.handle_doubt(Doubt::of(reason).unwrap());
            vehicle.handle_doubt(Doubt::Possible);
            vehicle.handle_reading(later, None);
            assert_eq!((vehicle.vin, vehicle.report(later), vehicle.to_keep()), (None, (None, None), None));
            vehicle.handle_kept(KeptVin::read_now(vin().unwrap()));
            assert_eq!(vehicle.to_keep(), None, "a file that was read late");
        }
    }

    #[test]
    fn the_vin_from_before_a_restart_is_reported_after_a_reading_that_failed() {
        let now = Instant::now();
        let mut vehicle = Vehicle::new(true, Some(KeptVin::read_now(vin().unwrap())));
        vehicle.handle_reading(now, None);
        assert_eq!((vehicle.vin, vehicle.report(now).0), (None, vin()));
        assert_eq!(vehicle.to_keep().map(|kept| Some(kept.vin)), Some(vin()));
    }
}
