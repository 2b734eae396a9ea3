//! When to read the VIN again after a reading without a VIN: the ECUs may have been starting up, or busy. A
//! pure state machine.

use std::time::{Duration, Instant};

/// How long to wait after each reading without a VIN. After the last pause there is no further attempt until
/// there is another reason to read.
///
/// The first pause is for ECUs that were starting up. Each pause is twice the one before: a compromise
/// between an ECU that needs long and a vehicle without a VIN, which gets six more readings within 315 s.
const PAUSES: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
    Duration::from_secs(80),
    Duration::from_secs(160),
];
/// If the state of the ignition is unknown, a bus that has been silent for this long is left asleep. ECUs
/// that are awake send their periodic messages several times a second.
const AWAKE: Duration = Duration::from_secs(1);

/// Decides when to read the VIN again after a reading without a VIN.
#[derive(Debug)]
pub(super) struct VinRetry {
    ignition: Option<bool>,
    last_frame: Option<Instant>,
    /// How many readings were repeated since the last other reason to read.
    retried: usize,
    due: Option<Instant>,
}

impl VinRetry {
    /// Nothing is due before the first reading without a VIN.
    pub(super) fn new(ignition: Option<bool>) -> Self {
        Self { ignition, last_frame: None, retried: 0, due: None }
    }

    /// The ignition has changed; `None` if its state is unknown.
    pub(super) fn handle_ignition(&mut self, ignition: Option<bool>) {
        self.ignition = ignition;
    }

    /// A frame from the vehicle was received.
    pub(super) fn handle_frame(&mut self, at: Instant) {
        self.last_frame = self.last_frame.max(Some(at));
    }

    /// The VIN is being read for another reason: the pauses start again with the first one.
    pub(super) fn handle_reason(&mut self) {
        self.retried = 0;
        self.due = None;
    }

    /// A reading has ended, or a connection has returned the devices. `is_known` is whether the VIN is known.
    pub(super) fn handle_known(&mut self, now: Instant, is_known: bool) {
        self.due = PAUSES.get(self.retried).filter(|_| !is_known).map(|pause| now + *pause);
    }

    /// Whether to read the VIN now.
    pub(super) fn poll_retry(&mut self, now: Instant) -> bool {
        let is_due = self.is_awake(now) && self.due.take_if(|due| *due <= now).is_some();
        self.retried += usize::from(is_due);
        is_due
    }

    /// When to call [`VinRetry::poll_retry`] again if no frame is received until then.
    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        // an overdue reading waits for a frame or for the ignition, not for a time
        self.due.filter(|due| *due > now)
    }

    /// With the ignition on, ECUs are awake even if the bus is silent. With the ignition off, no ECU may be
    /// woken.
    fn is_awake(&self, now: Instant) -> bool {
        let was_heard = || self.last_frame.is_some_and(|at| now.saturating_duration_since(at) <= AWAKE);
        self.ignition.unwrap_or_else(was_heard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn retry(ignition: Option<bool>) -> (VinRetry, Instant) {
        let start = Instant::now();
        let mut retry = VinRetry::new(ignition);
        retry.handle_known(start, false);
        (retry, start)
    }

    #[test]
    fn pauses_between_attempts_grow_and_the_attempts_end() {
        let (mut retry, mut now) = retry(Some(true));
        for pause in [5, 10, 20, 40, 80, 160] {
            let due = now + pause * SECOND;
            assert_eq!(retry.poll_timeout(now), Some(due));
            assert!(!retry.poll_retry(due - SECOND));
            assert!(retry.poll_retry(due));
            now = due + SECOND;
            retry.handle_known(now, false);
        }
        assert_eq!(retry.poll_timeout(now), None);
        assert!(!retry.poll_retry(now + 100_000 * SECOND));
        retry.handle_reason();
        retry.handle_known(now, false);
        assert_eq!(retry.poll_timeout(now), Some(now + 5 * SECOND));
    }

    #[test]
    fn a_known_vin_is_not_read_again() {
        let (mut retry, start) = retry(Some(true));
        retry.handle_known(start, true);
        assert_eq!(retry.poll_timeout(start), None);
        assert!(!retry.poll_retry(start + 100_000 * SECOND));
    }

    #[test]
    fn with_the_ignition_off_the_retry_waits_even_if_the_bus_is_busy() {
        let (mut retry, start) = retry(Some(false));
        let later = start + 60 * SECOND;
        retry.handle_frame(later);
        assert!(!retry.poll_retry(later));
        assert_eq!(retry.poll_timeout(later), None, "only the ignition can change that");
        retry.handle_ignition(Some(true));
        assert!(retry.poll_retry(later));
    }

    #[test]
    fn if_the_ignition_is_unknown_a_bus_with_recent_frames_is_awake() {
        let (mut retry, start) = retry(None);
        retry.handle_frame(start);
        let due = start + 5 * SECOND;
        assert!(!retry.poll_retry(due), "the bus has become silent");
        retry.handle_frame(due + SECOND);
        retry.handle_frame(start);
        assert!(retry.poll_retry(due + SECOND));
    }
}
