//! Reasons to read the VIN again: the vehicle may have changed.

use std::time::{Duration, Instant};

/// A bus that was silent for this long is asleep or unplugged. The value is a compromise: the ECUs of a
/// vehicle that is awake send several times a second, and a connector that was moved to another vehicle
/// should notice that.
pub(crate) const DEFAULT_SILENCE: Duration = Duration::from_secs(10);

/// The reason to read the VIN again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WakeReason {
    /// A gateway announced another VIN by DoIP.
    Announcement,
    /// A DoIP network that was not ready for the last reading has its address.
    Network,
    /// Terminal 15 was off and is on again.
    Ignition,
    /// Frames came after a long silence.
    Bus,
    /// The adapter was gone and is back.
    Device,
}

/// Detects from ignition, bus and adapter when to read the VIN again.
///
/// The first reading is up to the caller: the state at the start is not a reason.
#[derive(Debug, Clone)]
pub(crate) struct WakeWatch {
    silence: Duration,
    last_frame: Instant,
    ignition: Option<bool>,
    device_present: bool,
}

impl WakeWatch {
    /// A watch for which a bus is asleep after `silence`.
    pub(crate) fn new(silence: Duration, now: Instant) -> Self {
        Self { silence, last_frame: now, ignition: None, device_present: true }
    }

    /// A frame of another node was received. Error frames do not count.
    pub(crate) fn handle_frame(&mut self, now: Instant) -> Option<WakeReason> {
        let silent_for = now.saturating_duration_since(self.last_frame);
        self.last_frame = self.last_frame.max(now);
        (silent_for >= self.silence).then_some(WakeReason::Bus)
    }

    /// The state of terminal 15; `None` while it is unknown.
    pub(crate) fn handle_ignition(&mut self, ignition: Option<bool>) -> Option<WakeReason> {
        // a time without a known state is no change
        let now = ignition?;
        let before = self.ignition.replace(now);
        (before == Some(false) && now).then_some(WakeReason::Ignition)
    }

    /// The adapter is present or gone.
    pub(crate) fn handle_device(&mut self, present: bool) -> Option<WakeReason> {
        let before = std::mem::replace(&mut self.device_present, present);
        (!before && present).then_some(WakeReason::Device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> (WakeWatch, Instant) {
        let now = Instant::now();
        (WakeWatch::new(DEFAULT_SILENCE, now), now)
    }

    #[test]
    fn frames_wake_only_after_a_long_silence() {
        let (mut watch, start) = watch();
        assert_eq!(watch.handle_frame(start + Duration::from_millis(9_999)), None);
        assert_eq!(watch.handle_frame(start + Duration::from_secs(19)), None);
        assert_eq!(watch.handle_frame(start + Duration::from_secs(29)), Some(WakeReason::Bus));
        assert_eq!(watch.handle_frame(start + Duration::from_secs(30)), None);
    }

    #[test]
    fn a_frame_received_out_of_order_does_not_count_as_silence() {
        let (mut watch, start) = watch();
        assert_eq!(watch.handle_frame(start + Duration::from_secs(9)), None);
        assert_eq!(watch.handle_frame(start), None);
        assert_eq!(watch.handle_frame(start + Duration::from_secs(12)), None);
    }

    #[test]
    fn ignition_wakes_when_it_comes_back_and_not_when_it_is_first_seen() {
        let (mut watch, _) = watch();
        assert_eq!(watch.handle_ignition(Some(true)), None);
        assert_eq!(watch.handle_ignition(Some(false)), None);
        assert_eq!(watch.handle_ignition(None), None);
        assert_eq!(watch.handle_ignition(Some(true)), Some(WakeReason::Ignition));
        assert_eq!(watch.handle_ignition(Some(true)), None);
    }

    #[test]
    fn a_device_that_comes_back_wakes() {
        let (mut watch, _) = watch();
        assert_eq!(watch.handle_device(true), None);
        assert_eq!(watch.handle_device(false), None);
        assert_eq!(watch.handle_device(true), Some(WakeReason::Device));
    }
}
