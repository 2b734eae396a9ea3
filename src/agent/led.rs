//! The patterns of LED and buzzer.

use std::time::{Duration, Instant};

use connector_hal::board::Led;

use crate::cloud::CloudState;

/// The agent's state, as LED and service manager show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Indication {
    /// The mechanic calls for attention.
    pub(super) calls_for_attention: bool,
    /// The person at the vehicle is asked for consent.
    pub(super) asks_for_consent: bool,
    /// An operator is connected.
    pub(super) has_operator: bool,
    /// The state of the connection to the cloud.
    pub(super) cloud: CloudState,
}

const fn blink(on_ms: u64, off_ms: u64) -> Led {
    Led::Blink { on: Duration::from_millis(on_ms), off: Duration::from_millis(off_ms) }
}

/// Short flashes, and a pause.
const fn flashes(count: u8) -> Led {
    let (on, off) = (Duration::from_millis(100), Duration::from_millis(150));
    Led::Flashes { count, on, off, pause: Duration::from_millis(1000) }
}

impl Indication {
    /// The LED's pattern, as in the README's table. The first match counts.
    pub(super) fn led(self) -> Led {
        match self {
            // a press answers the question, so that the question is shown first
            Self { asks_for_consent: true, calls_for_attention: false, .. } => flashes(3),
            Self { asks_for_consent: true, calls_for_attention: true, .. } => flashes(6),
            Self { calls_for_attention: true, .. } => blink(250, 250),
            Self { cloud: CloudState::LoginRejected, .. } => blink(100, 100),
            Self { cloud: CloudState::Online, has_operator: true, .. } => blink(900, 100),
            Self { cloud: CloudState::Online, .. } => Led::On,
            Self { cloud: CloudState::Connecting, .. } => blink(500, 500),
            Self { cloud: CloudState::Unreachable, .. } => blink(100, 1900),
        }
    }
}

/// While the person at the vehicle is asked for consent, two beeps sound this often …
const BEEPS_EVERY: Duration = Duration::from_secs(5);
/// … each as long as this, and as the silence between them.
const BEEP: Duration = Duration::from_millis(200);

/// The buzzer.
#[derive(Debug, Default)]
pub(super) struct Buzzer {
    sounds: bool,
    /// When the beeps of a question for consent began.
    beeps_since: Option<Instant>,
    change_at: Option<Instant>,
}

impl Buzzer {
    /// Returns whether the buzzer sounds from now on, if that changes.
    pub(super) fn poll(&mut self, now: Instant, indication: Indication) -> Option<bool> {
        let sounds = if indication.asks_for_consent {
            let since = *self.beeps_since.get_or_insert(now);
            let (sounds, rest) = beeps(now.saturating_duration_since(since));
            self.change_at = Some(now + rest);
            sounds
        } else {
            self.beeps_since = None;
            self.change_at = None;
            indication.calls_for_attention
        };
        (std::mem::replace(&mut self.sounds, sounds) != sounds).then_some(sounds)
    }

    /// When to call [`Buzzer::poll`] again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.change_at
    }
}

/// Whether a beep sounds this long after the first one began, and how long that stays so.
fn beeps(passed: Duration) -> (bool, Duration) {
    let period = BEEPS_EVERY.as_millis().max(1);
    let place = Duration::from_millis(u64::try_from(passed.as_millis() % period).unwrap_or_default());
    let changes = [(BEEP, true), (2 * BEEP, false), (3 * BEEP, true), (BEEPS_EVERY, false)];
    let next = changes.into_iter().find(|(until, _)| place < *until);
    next.map_or((false, BEEPS_EVERY), |(until, sounds)| (sounds, until - place))
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Indication = Indication {
        calls_for_attention: false,
        asks_for_consent: false,
        has_operator: true,
        cloud: CloudState::Online,
    };

    #[test]
    fn while_consent_is_asked_for_two_beeps_sound_every_five_seconds() {
        let start = Instant::now();
        for calls_for_attention in [false, true] {
            let asking = Indication { asks_for_consent: true, calls_for_attention, ..QUIET };
            let mut buzzer = Buzzer::default();
            let (mut now, mut changes) = (start, Vec::new());
            while now < start + Duration::from_secs(6) {
                if let Some(on) = buzzer.poll(now, asking) {
                    changes.push(((now - start).as_millis(), on));
                }
                assert!(buzzer.poll_timeout().unwrap() > now, "no progress");
                now = buzzer.poll_timeout().unwrap();
            }
            let two = |at| [(at, true), (at + 200, false), (at + 400, true), (at + 600, false)];
            assert_eq!(changes, [two(0), two(5000)].concat());
            let ended = Indication { asks_for_consent: false, ..asking };
            assert_eq!(buzzer.poll(now, ended), calls_for_attention.then_some(true));
            assert_eq!(buzzer.poll_timeout(), None);
        }
    }

    #[test]
    fn asking_for_consent_looks_like_nothing_else() {
        let mut shown = Vec::new();
        for cloud in [CloudState::Online, CloudState::Connecting, CloudState::Unreachable] {
            for calls_for_attention in [false, true] {
                let other = Indication { calls_for_attention, cloud, ..QUIET };
                shown.extend([other.led(), Indication { has_operator: false, ..other }.led()]);
                let asking = Indication { asks_for_consent: true, ..other }.led();
                assert!(!shown.contains(&asking), "{asking:?}");
            }
        }
    }

    #[test]
    fn a_rejected_login_is_not_mistaken_for_a_missing_network() {
        let shown = |cloud| Indication { has_operator: false, cloud, ..QUIET }.led();
        assert_ne!(shown(CloudState::LoginRejected), shown(CloudState::Unreachable));
        assert_ne!(shown(CloudState::LoginRejected), shown(CloudState::Connecting));
        assert_eq!(shown(CloudState::Online), Led::On);
    }

    #[test]
    fn a_call_for_attention_is_visible_in_every_state() {
        for cloud in [CloudState::Online, CloudState::Unreachable, CloudState::LoginRejected] {
            for asks_for_consent in [false, true] {
                let idle = Indication { cloud, asks_for_consent, ..QUIET };
                assert_ne!(Indication { calls_for_attention: true, ..idle }.led(), idle.led());
            }
        }
    }
}
