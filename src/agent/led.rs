//! The patterns of the LED.

use std::time::Duration;

use connector_hal::board::Led;

use crate::cloud::CloudState;

/// The agent's state, as LED and service manager show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Indication {
    /// The mechanic calls for attention.
    pub(super) calls_for_attention: bool,
    /// An operator is connected.
    pub(super) has_operator: bool,
    /// The state of the connection to the cloud.
    pub(super) cloud: CloudState,
}

const fn blink(on_ms: u64, off_ms: u64) -> Led {
    Led::Blink { on: Duration::from_millis(on_ms), off: Duration::from_millis(off_ms) }
}

impl Indication {
    /// The LED's pattern, as in the README's table. The first match counts.
    pub(super) fn led(self) -> Led {
        match self {
            Self { calls_for_attention: true, .. } => blink(250, 250),
            Self { cloud: CloudState::LoginRejected, .. } => blink(100, 100),
            Self { cloud: CloudState::Online, has_operator: true, .. } => blink(900, 100),
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
        let shown = |cloud| Indication { calls_for_attention: false, has_operator: false, cloud }.led();
        assert_ne!(shown(CloudState::LoginRejected), shown(CloudState::Unreachable));
        assert_ne!(shown(CloudState::LoginRejected), shown(CloudState::Connecting));
        assert_eq!(shown(CloudState::Online), Led::On);
    }

    #[test]
    fn a_call_for_attention_is_visible_in_every_state() {
        for cloud in [CloudState::Online, CloudState::Unreachable, CloudState::LoginRejected] {
            let calling = Indication { calls_for_attention: true, has_operator: true, cloud }.led();
            let idle = Indication { calls_for_attention: false, has_operator: true, cloud }.led();
            assert_ne!(calling, idle);
        }
    }
}
