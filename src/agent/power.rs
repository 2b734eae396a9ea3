//! Terminal 15 and the supply voltage: debounces the ignition, and decides when to sleep so that the battery
//! is not drained, and when to wake. Pure state machines.

use std::time::{Duration, Instant};

use crate::config::PowerConfig;

/// How often the voltage is measured while the agent is awake: as often as the board reads it.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the voltage is measured while the agent sleeps. The value is a compromise: each measurement
/// wakes the processor, and a charger should wake the agent within seconds.
pub(super) const SLEEPING_SAMPLE_INTERVAL: Duration = Duration::from_secs(5);

/// An event of [`PowerEvents`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PowerEvent {
    /// The ignition has changed and is stable; `None` if its state is no longer known.
    Ignition(Option<bool>),
    /// It is time to sleep.
    Sleep,
}

/// Why a sleeping agent wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WakeCause {
    Ignition,
    Voltage,
    Bus,
    Button,
}

/// Yields a [`PowerEvent`] when the ignition has changed, and when it is time to sleep. Used while the agent
/// is awake.
#[derive(Debug)]
pub(super) struct PowerEvents {
    config: PowerConfig,
    ignition: Option<bool>,
    /// The apparent state of the ignition, and when it counts as stable.
    bouncing: Option<(Option<bool>, Instant)>,
    sample_at: Option<Instant>,
    /// An operator's connection is open: the policy needs the voltage, and TesterPresent while the ignition is unknown.
    is_connected: bool,
    /// Since when the voltage has been too low, with the ignition off and no PDU relayed.
    idle_since: Option<Instant>,
    sleep_reported: bool,
}

impl PowerEvents {
    pub(super) fn new(config: PowerConfig, ignition: Option<bool>, now: Instant) -> Self {
        Self {
            config,
            ignition,
            bouncing: None,
            sample_at: config.sleep_below.map(|_| now),
            is_connected: false,
            idle_since: None,
            sleep_reported: false,
        }
    }

    /// The debounced state of the ignition.
    pub(super) fn ignition(&self) -> Option<bool> {
        self.ignition
    }

    /// The board reports this state of the ignition.
    pub(super) fn handle_ignition(&mut self, now: Instant, ignition: Option<bool>) {
        self.bouncing = (ignition != self.ignition).then(|| (ignition, now + self.config.ignition_debounce));
        if ignition == Some(true) {
            self.idle_since = None;
        }
    }

    /// An operator's connection was opened or closed, or is still as it was.
    pub(super) fn handle_connection(&mut self, now: Instant, is_open: bool) {
        self.is_connected = is_open;
        if !self.is_sampling() {
            self.sample_at = None;
        } else if self.sample_at.is_none() {
            self.sample_at = Some(now);
        }
    }

    /// Whether the voltage decides about anything.
    fn is_sampling(&self) -> bool {
        self.config.sleep_below.is_some() || self.is_connected
    }

    /// Whether [`PowerEvents::handle_voltage`] is due.
    pub(super) fn wants_voltage(&self, now: Instant) -> bool {
        self.sample_at.is_some_and(|at| at <= now)
    }

    /// The supply voltage, in volts.
    pub(super) fn handle_voltage(&mut self, now: Instant, volts: Option<f32>) {
        self.sample_at = self.is_sampling().then(|| now + SAMPLE_INTERVAL);
        let Some(limit) = self.config.sleep_below else { return };
        let is_low = volts.is_some_and(|volts| f64::from(volts) < limit.get());
        // with the ignition on, an ECU may be in the middle of being flashed: an end could do more harm than
        // a flat battery
        if is_low && self.ignition != Some(true) {
            self.idle_since.get_or_insert(now);
        } else {
            self.idle_since = None;
        }
    }

    /// A PDU was relayed: an operator is at work.
    pub(super) fn handle_activity(&mut self, now: Instant) {
        if let Some(since) = &mut self.idle_since {
            *since = now;
        }
    }

    pub(super) fn poll_event(&mut self, now: Instant) -> Option<PowerEvent> {
        if let Some((ignition, _)) = self.bouncing.take_if(|(_, at)| *at <= now) {
            self.ignition = ignition;
            return Some(PowerEvent::Ignition(ignition));
        }
        if !self.sleep_reported && self.sleep_at().is_some_and(|at| at <= now) {
            self.sleep_reported = true;
            return Some(PowerEvent::Sleep);
        }
        None
    }

    fn sleep_at(&self) -> Option<Instant> {
        self.idle_since.map(|since| since + self.config.sleep_after)
    }

    /// When to call [`PowerEvents::wants_voltage`] and [`PowerEvents::poll_event`] again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let sleep_at = self.sleep_at().filter(|_| !self.sleep_reported);
        [self.bouncing.map(|(_, at)| at), self.sample_at, sleep_at].into_iter().flatten().min()
    }
}

/// Yields a [`WakeCause`] from ignition and voltage while the agent sleeps.
#[derive(Debug)]
pub(super) struct WakeCauses {
    wake_above: Option<f64>,
}

impl WakeCauses {
    pub(super) fn new(config: &PowerConfig) -> Self {
        Self { wake_above: config.wake_above() }
    }

    /// The board reports this state of the ignition.
    pub(super) fn handle_ignition(&self, ignition: Option<bool>) -> Option<WakeCause> {
        (ignition == Some(true)).then_some(WakeCause::Ignition)
    }

    /// The supply voltage, in volts. The agent also wakes if the voltage can no longer be measured.
    pub(super) fn handle_voltage(&self, volts: Option<f32>) -> Option<WakeCause> {
        let is_enough = match (volts, self.wake_above) {
            (Some(volts), Some(limit)) => f64::from(volts) >= limit,
            _ => true,
        };
        is_enough.then_some(WakeCause::Voltage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn config() -> PowerConfig {
        PowerConfig {
            sleep_below: Some(11.8.try_into().unwrap()),
            sleep_after: 10 * SECOND,
            ..PowerConfig::default()
        }
    }

    fn power(ignition: Option<bool>) -> (PowerEvents, Instant) {
        let now = Instant::now();
        (PowerEvents::new(config(), ignition, now), now)
    }

    #[test]
    fn an_ignition_that_bounces_counts_once_it_has_settled() {
        let (mut watch, start) = power(Some(true));
        let ms = Duration::from_millis(1);
        for (at, on) in [(0, false), (5, true), (9, false), (20, true), (30, false)] {
            watch.handle_ignition(start + at * ms, Some(on));
            assert_eq!(watch.poll_event(start + at * ms), None);
        }
        let settled = start + 30 * ms + PowerConfig::default().ignition_debounce;
        assert_eq!(watch.poll_event(settled - ms), None);
        assert_eq!(watch.ignition(), Some(true));
        assert_eq!(watch.poll_event(settled), Some(PowerEvent::Ignition(Some(false))));
        assert_eq!((watch.ignition(), watch.poll_event(settled)), (Some(false), None));
    }

    #[test]
    fn a_short_dip_of_the_ignition_is_not_reported() {
        let (mut watch, start) = power(Some(true));
        watch.handle_ignition(start, Some(false));
        watch.handle_ignition(start + Duration::from_millis(10), Some(true));
        assert_eq!(watch.poll_event(start + SECOND), None);
    }

    #[test]
    fn a_low_voltage_that_lasts_causes_one_sleep_event() {
        let (mut watch, start) = power(Some(false));
        watch.handle_voltage(start, Some(11.7));
        watch.handle_voltage(start + 9 * SECOND, Some(11.7));
        assert_eq!(watch.poll_event(start + 9 * SECOND), None);
        assert_eq!(watch.poll_event(start + 10 * SECOND), Some(PowerEvent::Sleep));
        assert_eq!(watch.poll_event(start + 11 * SECOND), None);
        let next = watch.poll_timeout().unwrap();
        assert!(next >= start + 10 * SECOND, "a deadline in the past would make the loop spin");
    }

    #[test]
    fn a_dip_while_the_engine_is_cranked_does_not_cause_sleep() {
        let (mut watch, start) = power(Some(false));
        watch.handle_voltage(start, Some(9.0));
        watch.handle_voltage(start + 5 * SECOND, Some(12.4));
        watch.handle_voltage(start + 6 * SECOND, Some(11.7));
        assert_eq!(watch.poll_event(start + 15 * SECOND), None);
        assert_eq!(watch.poll_event(start + 16 * SECOND), Some(PowerEvent::Sleep));
    }

    #[test]
    fn the_agent_never_sleeps_with_the_ignition_on_or_an_operator_at_work() {
        let (mut on, start) = power(Some(true));
        let (mut busy, _) = power(None);
        for second in 0..100 {
            on.handle_voltage(start + second * SECOND, Some(9.0));
            busy.handle_voltage(start + second * SECOND, Some(9.0));
            busy.handle_activity(start + second * SECOND);
            assert_eq!(on.poll_event(start + second * SECOND), None);
            assert_eq!(busy.poll_event(start + second * SECOND), None);
        }
        assert_eq!(busy.poll_event(start + 109 * SECOND), Some(PowerEvent::Sleep));
    }

    #[test]
    fn the_voltage_is_measured_every_second_during_a_connection() {
        for ignition in [None, Some(false), Some(true)] {
            let now = Instant::now();
            let mut watch = PowerEvents::new(PowerConfig::default(), ignition, now);
            watch.handle_connection(now, true);
            assert!(watch.wants_voltage(now));
            watch.handle_voltage(now, Some(12.0));
            watch.handle_connection(now + SECOND / 2, true);
            assert_eq!(watch.poll_timeout(), Some(now + SECOND));
            watch.handle_connection(now, false);
            assert_eq!(watch.poll_timeout(), None);
        }
    }

    #[test]
    fn without_a_limit_the_voltage_is_never_measured() {
        let now = Instant::now();
        let watch = PowerEvents::new(PowerConfig::default(), Some(false), now);
        assert!(!watch.wants_voltage(now + 100 * SECOND));
        assert_eq!(watch.poll_timeout(), None);
    }

    #[test]
    fn the_ignition_or_a_clearly_recovered_battery_wakes_the_agent() {
        let asleep = WakeCauses::new(&config());
        assert_eq!(asleep.handle_ignition(Some(true)), Some(WakeCause::Ignition));
        assert_eq!(asleep.handle_ignition(Some(false)), None);
        assert_eq!(
            asleep.handle_voltage(Some(11.9)),
            None,
            "just above the limit it would fall asleep again"
        );
        assert_eq!(asleep.handle_voltage(Some(12.3)), Some(WakeCause::Voltage));
    }
}
