//! The state of the connector's policy, as `policyState` reports it.

use std::collections::BTreeMap;
use std::fmt;

use connector_agent::cli::clean;
use serde::Deserialize;

/// The most classes, and conditions of one, in a line: more than a connector has.
const MAX_SHOWN: usize = 12;

/// The state of the connector's policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct PolicyView {
    /// `off`, `observe` or `enforce`.
    pub mode: String,
    /// `moving`, `stationary` or `unknown`.
    pub motion: String,
    /// The speed in km/h.
    #[serde(default)]
    pub speed_kmh: Option<f64>,
    /// The voltage in volts.
    #[serde(default)]
    pub voltage: Option<f64>,
    /// `on`, `off` or `unknown`.
    #[serde(default)]
    pub engine: Option<String>,
    /// The consents of the person at the vehicle.
    #[serde(default)]
    pub consent: Vec<ConsentView>,
    /// The class for which the person at the vehicle is being asked.
    #[serde(default)]
    pub asking: Option<String>,
    /// The number of refusals in this connection.
    #[serde(default)]
    pub refused: u64,
}

/// The policy of a connector, as `connectionOpened` reports it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PolicySummary {
    /// `off`, `observe` or `enforce`.
    pub mode: String,
    /// The conditions of each class.
    #[serde(default)]
    pub require: BTreeMap<String, Vec<String>>,
}

impl fmt::Display for PolicySummary {
    /// Writes one line: the mode, and the conditions of each class that has some.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mode.as_str() {
            "off" => return f.write_str("the connector's policy is off"),
            "observe" => f.write_str("the connector's policy only observes")?,
            _ => f.write_str("the connector's policy is enforced")?,
        }
        let with_conditions = self.require.iter().filter(|(_, conditions)| !conditions.is_empty());
        for (index, (class, conditions)) in with_conditions.take(MAX_SHOWN).enumerate() {
            let conditions: Vec<String> =
                conditions.iter().take(MAX_SHOWN).map(|condition| clean(condition)).collect();
            let separator = if index == 0 { ':' } else { ';' };
            write!(f, "{separator} {} needs {}", clean(class), conditions.join(" and "))?;
        }
        Ok(())
    }
}

/// One consent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ConsentView {
    /// The class of requests.
    pub class: String,
    /// The end of the consent, in the format of RFC 3339.
    pub until: String,
}

impl PolicyView {
    /// Whether the person at the vehicle has agreed to this class.
    pub fn is_agreed(&self, class: &str) -> bool {
        self.consent.iter().any(|consent| consent.class == class)
    }

    /// Whether everything but the numbers is the same, so that a person need not read the state again.
    pub fn is_alike(&self, other: &Self) -> bool {
        let words =
            |view: &Self| (view.mode.clone(), view.motion.clone(), view.engine.clone(), view.asking.clone());
        words(self) == words(other) && self.consent == other.consent
    }
}

impl fmt::Display for PolicyView {
    /// Writes one line: what the vehicle does, and what the policy allows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.motion.as_str(), self.speed_kmh) {
            ("moving", Some(kmh)) => write!(f, "the vehicle moves at {kmh:.0} km/h")?,
            ("moving", None) => f.write_str("the vehicle moves")?,
            ("stationary", _) => f.write_str("the vehicle stands")?,
            _ => f.write_str("the vehicle's speed is unknown")?,
        }
        match self.engine.as_deref() {
            Some("on") => f.write_str(", its engine runs")?,
            Some("off") => f.write_str(", its engine is off")?,
            _ => {}
        }
        if let Some(volts) = self.voltage {
            write!(f, ", {volts:.1} V")?;
        }
        if let Some(class) = &self.asking {
            write!(f, "; the person at the vehicle is asked for consent to {}", clean(class))?;
        }
        for consent in &self.consent {
            write!(f, "; consent to {} until {}", clean(&consent.class), clean(&consent.until))?;
        }
        match self.mode.as_str() {
            "observe" => f.write_str("; the policy only observes"),
            "off" => f.write_str("; the policy is off"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(message: Value) -> PolicyView {
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn a_state_is_one_line_in_words() {
        let moving = view(json!({"mode": "enforce", "motion": "moving", "speed_kmh": 12, "voltage": 12.44,
            "engine": "on", "consent": [], "refused": 2}));
        assert_eq!(moving.to_string(), "the vehicle moves at 12 km/h, its engine runs, 12.4 V");
        let asking = view(json!({"mode": "observe", "motion": "stationary", "asking": "programming",
            "consent": [{"class": "bus", "until": "2026-11-30T10:03:29Z"}]}));
        assert_eq!(
            asking.to_string(),
            "the vehicle stands; the person at the vehicle is asked for consent to programming; consent to bus until \
             2026-11-30T10:03:29Z; the policy only observes"
        );
        let hostile = "a\u{1b}[2J\n".repeat(10);
        let hostile = view(json!({"mode": "enforce", "motion": hostile, "asking": hostile}));
        assert!(!hostile.to_string().contains(['\u{1b}', '\n']), "{hostile}");
    }

    #[test]
    fn a_policy_is_one_line_in_words() {
        let summary = |message: Value| serde_json::from_value::<PolicySummary>(message).unwrap().to_string();
        let require = json!({"read": [], "programming": ["not-moving", "consent"], "bus": ["never"]});
        assert_eq!(
            summary(json!({"mode": "enforce", "require": require})),
            "the connector's policy is enforced: bus needs never; programming needs not-moving and consent"
        );
        let require = json!({"intrusive": ["stationary"]});
        assert_eq!(
            summary(json!({"mode": "observe", "require": require})),
            "the connector's policy only observes: intrusive needs stationary"
        );
        assert_eq!(summary(json!({"mode": "off", "require": require})), "the connector's policy is off");
        let hostile = "a\u{1b}[2J\n".repeat(10);
        let many: BTreeMap<_, _> =
            (0..1000).map(|index| (format!("{index}{hostile}"), vec![&hostile])).collect();
        let line = summary(json!({"mode": hostile, "require": many}));
        assert!(!line.contains(['\u{1b}', '\n']) && line.len() < 5000, "{line}");
    }

    #[test]
    fn numbers_alone_do_not_make_a_state_different() {
        let at = |kmh: u8, motion: &str| view(json!({"mode": "enforce", "motion": motion, "speed_kmh": kmh}));
        assert!(at(12, "moving").is_alike(&at(13, "moving")));
        assert!(!at(1, "moving").is_alike(&at(0, "stationary")));
    }
}
