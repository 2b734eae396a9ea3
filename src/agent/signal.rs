//! What the LED and the buzzer tell the mechanic.

use std::time::Duration;

use connector_hal::board::Led;

use crate::cloud::CloudState;

/// What there is to show, in order of importance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The button was pressed, and nobody has answered yet.
    pub calls_for_attention: bool,
    /// An operator is connected.
    pub has_session: bool,
    /// How it stands with the cloud.
    pub cloud: CloudState,
}

const fn blink(on_ms: u64, off_ms: u64) -> Led {
    Led::Blink { on: Duration::from_millis(on_ms), off: Duration::from_millis(off_ms) }
}

impl Shown {
    /// The LED's pattern; the README has the same table.
    pub fn led(self) -> Led {
        match self {
            Self { calls_for_attention: true, .. } => blink(250, 250),
            Self { cloud: CloudState::LoginRejected, .. } => blink(100, 100),
            Self { cloud: CloudState::Online, has_session: true, .. } => blink(900, 100),
            Self { cloud: CloudState::Online, .. } => Led::On,
            Self { cloud: CloudState::Connecting, .. } => blink(500, 500),
            Self { cloud: CloudState::Unreachable, .. } => blink(100, 1900),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_login_is_not_mistaken_for_a_missing_network() {
        let shown = |cloud| Shown { calls_for_attention: false, has_session: false, cloud }.led();
        assert_ne!(shown(CloudState::LoginRejected), shown(CloudState::Unreachable));
        assert_ne!(shown(CloudState::LoginRejected), shown(CloudState::Connecting));
        assert_eq!(shown(CloudState::Online), Led::On);
    }

    #[test]
    fn a_call_for_attention_shows_through_everything() {
        for cloud in [CloudState::Online, CloudState::Unreachable, CloudState::LoginRejected] {
            let calling = Shown { calls_for_attention: true, has_session: true, cloud }.led();
            let idle = Shown { calls_for_attention: false, has_session: true, cloud }.led();
            assert_ne!(calling, idle);
        }
    }
}
