//! The words of the policy: classes of intents, conditions, and how the policy acts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an intent can do to a vehicle, as SAE J3138 distinguishes intrusive services from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Reads, and changes nothing.
    Read,
    /// Changes the diagnostic session or its timing.
    Session,
    /// Changes what an ECU stores or does.
    Intrusive,
    /// Replaces the software of an ECU, or prepares that.
    Programming,
    /// A raw frame that is no diagnostic message.
    Bus,
    /// A search for all ECUs of a bus.
    Scan,
}

impl Class {
    /// All classes, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Session, Self::Intrusive, Self::Programming, Self::Bus, Self::Scan];

    /// The word of the configuration and the relay protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Session => "session",
            Self::Intrusive => "intrusive",
            Self::Programming => "programming",
            Self::Bus => "bus",
            Self::Scan => "scan",
        }
    }

    /// The act in words, as the object of a sentence.
    pub const fn act(self) -> &'static str {
        match self {
            Self::Read => "reading",
            Self::Session => "changing the session",
            Self::Intrusive => "changing what an ECU stores or does",
            Self::Programming => "programming an ECU",
            Self::Bus => "raw frames that are no diagnostics",
            Self::Scan => "a search for all ECUs",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What must hold before an intent is carried out.
///
/// The order is the order in which conditions are checked: consent comes last, because the person at the vehicle should
/// not be asked for an intent that another condition refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Never met.
    Never,
    /// Nothing shows that the vehicle moves.
    NotMoving,
    /// A fresh speed shows that the vehicle stands.
    Stationary,
    /// The engine is known to be off.
    EngineOff,
    /// The ignition is known to be on.
    IgnitionOn,
    /// The voltage is not known to be low.
    Voltage,
    /// The connection belongs to a ticket.
    Ticket,
    /// The vehicle's VIN is that of the ticket.
    VinConfirmed,
    /// The person at the vehicle, or the ticket, has agreed.
    Consent,
}

impl Condition {
    /// The word of the configuration and the relay protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::NotMoving => "not-moving",
            Self::Stationary => "stationary",
            Self::EngineOff => "engine-off",
            Self::IgnitionOn => "ignition-on",
            Self::Voltage => "voltage",
            Self::Ticket => "ticket",
            Self::VinConfirmed => "vin-confirmed",
            Self::Consent => "consent",
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the policy refuses what it judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing is judged.
    Off,
    /// Everything is judged and logged, and nothing is refused.
    Observe,
    /// Refused intents are not carried out.
    #[default]
    Enforce,
}

impl Mode {
    /// The word of the configuration and the relay protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Observe => "observe",
            Self::Enforce => "enforce",
        }
    }
}

/// What an unknown fact means for the conditions that need the fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unknown {
    /// The condition is met.
    #[default]
    Allow,
    /// The condition is not met.
    Refuse,
    /// Consent is needed instead.
    Consent,
}
