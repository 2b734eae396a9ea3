//! The policy on the wire (relay protocol, section 6).

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::Serialize;

use super::timestamp::rfc3339;
use crate::policy::{Class, Condition, Mode, Policy, PolicyState};

/// `policy` in `connectionOpened`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PolicyReport {
    mode: Mode,
    require: BTreeMap<&'static str, Vec<Condition>>,
}

impl PolicyReport {
    /// The mode, and the conditions of every class.
    pub(crate) fn of(policy: &Policy) -> Self {
        let require = Class::ALL.map(|class| (class.name(), policy.conditions(class).to_vec()));
        Self { mode: policy.mode(), require: require.into() }
    }
}

/// The state of the policy, in `policyState` and `connectorStatusUpdate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct PolicyStateReport {
    mode: Mode,
    motion: &'static str,
    speed_kmh: Option<u16>,
    voltage: Option<f64>,
    engine: &'static str,
    consent: Vec<ConsentReport>,
    /// The class for which the person at the vehicle is being asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    asking: Option<Class>,
    refused: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct ConsentReport {
    class: Class,
    until: String,
}

impl PolicyStateReport {
    /// The state, with ends of consent by this clock.
    pub(crate) fn new(state: &PolicyState, now: Instant, clock: SystemTime) -> Self {
        let consent = state.consent.iter().map(|(class, until)| ConsentReport {
            class: *class,
            until: rfc3339(clock + until.saturating_duration_since(now)),
        });
        Self {
            mode: state.mode,
            motion: state.motion,
            speed_kmh: state.speed_kmh,
            voltage: state.decivolts.map(|decivolts| f64::from(decivolts) / 10.0),
            engine: state.engine.name(),
            consent: consent.collect(),
            asking: state.asking,
            refused: state.refused,
        }
    }
}
