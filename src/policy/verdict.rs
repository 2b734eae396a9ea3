//! The policy's answer to an intent.

use std::fmt;

use super::class::Class;

/// The number of the rule that decided: 0 means the conditions of the class, others count the configured rules from 1.
pub type RuleNumber = u32;

/// The policy's answer to an intent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// The intent may be carried out.
    Allow {
        /// The rule that decided.
        rule: RuleNumber,
    },
    /// The intent must not be carried out.
    Refuse(PolicyRefusal),
}

impl Verdict {
    /// Whether the intent may be carried out.
    pub const fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// Returns the refusal, if the verdict is one.
    pub const fn refusal(&self) -> Option<&PolicyRefusal> {
        match self {
            Self::Refuse(refusal) => Some(refusal),
            Self::Allow { .. } => None,
        }
    }
}

/// Why an intent must not be carried out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyRefusal {
    /// The rule that decided.
    pub rule: RuleNumber,
    /// The class of the intent.
    pub class: Class,
    /// The condition that is not met.
    pub why: Why,
    /// The name of the service or action.
    pub name: &'static str,
}

impl fmt::Display for PolicyRefusal {
    /// Writes one sentence: the fact, the thing that is refused, and the remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy: {}: {} is refused; {}", self.why, self.name, self.why.remedy())
    }
}

/// The condition that is not met, with the fact at that moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Why {
    /// The vehicle moves.
    Moving {
        /// Its speed.
        kmh: f32,
    },
    /// The vehicle moved when its speed was last seen.
    SpeedLost {
        /// The last speed.
        kmh: f32,
    },
    /// No fresh speed is known.
    SpeedUnknown,
    /// The vehicle has not stood long enough, or creeps.
    NotStationary,
    /// The engine runs.
    EngineOn,
    /// Whether the engine runs is unknown.
    EngineUnknown,
    /// The ignition is off.
    IgnitionOff,
    /// Whether the ignition is on is unknown.
    IgnitionUnknown,
    /// The voltage is, or was a moment ago, too low.
    VoltageLow {
        /// The voltage.
        volts: f32,
    },
    /// The voltage is unknown.
    VoltageUnknown,
    /// The connection belongs to no ticket.
    NoTicket,
    /// The vehicle's VIN is not confirmed.
    VinNotConfirmed,
    /// Consent is needed.
    ConsentNeeded,
    /// The person at the vehicle is being asked for consent.
    ConsentAsked,
    /// The configuration never allows the intent.
    Never,
    /// A consecutive frame continues no first frame that was allowed.
    NoFirstFrame,
}

impl Why {
    /// What the operator can do about the refusal.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Moving { .. } | Self::SpeedLost { .. } | Self::NotStationary => {
                "stop the vehicle and send again"
            }
            Self::SpeedUnknown => "the vehicle has to report a speed of 0 first",
            Self::EngineOn | Self::EngineUnknown => "switch the engine off and send again",
            Self::IgnitionOff | Self::IgnitionUnknown => "switch the ignition on and send again",
            Self::VoltageLow { .. } | Self::VoltageUnknown => "connect a charger and send again",
            Self::NoTicket => "open the connection from a ticket",
            Self::VinNotConfirmed => "send again when the VIN is confirmed",
            Self::ConsentNeeded => "ask for consent with requestConsent",
            Self::ConsentAsked => "send again when the person at the vehicle has agreed",
            Self::Never => "the connector's configuration has to allow it",
            Self::NoFirstFrame => "send the PDU from its first frame",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moving { kmh } => write!(f, "moving ({kmh:.0} km/h)"),
            Self::SpeedLost { kmh } => write!(f, "speed unknown since moving ({kmh:.0} km/h)"),
            Self::SpeedUnknown => f.write_str("speed unknown"),
            Self::NotStationary => f.write_str("not stationary"),
            Self::EngineOn => f.write_str("engine on"),
            Self::EngineUnknown => f.write_str("engine unknown"),
            Self::IgnitionOff => f.write_str("ignition off"),
            Self::IgnitionUnknown => f.write_str("ignition unknown"),
            Self::VoltageLow { volts } => write!(f, "{volts:.1} V"),
            Self::VoltageUnknown => f.write_str("voltage unknown"),
            Self::NoTicket => f.write_str("no ticket"),
            Self::VinNotConfirmed => f.write_str("VIN not confirmed"),
            Self::ConsentNeeded => f.write_str("consent needed"),
            Self::ConsentAsked => f.write_str("consent asked"),
            Self::Never => f.write_str("never allowed"),
            Self::NoFirstFrame => f.write_str("consecutive frame without an allowed first frame"),
        }
    }
}
