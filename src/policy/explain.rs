//! The policy in words, for people who check a configuration.

use super::class::{Class, Condition, Mode, Unknown};
use super::settings::{PolicySettings, Rule, SpeedFact};

/// Returns the effective policy as sentences, one a line.
pub fn explain(settings: &PolicySettings, can_ask: bool) -> Vec<String> {
    let mut lines = vec![match settings.mode {
        Mode::Off => "The policy is off: everything is sent to the vehicle.".to_owned(),
        Mode::Observe => {
            "The policy observes: refusals are logged, and everything is sent to the vehicle.".to_owned()
        }
        Mode::Enforce => "The policy is enforced.".to_owned(),
    }];
    if settings.mode == Mode::Off {
        return lines;
    }
    for (index, rule) in settings.rules.iter().enumerate() {
        let selectors = selectors(rule);
        lines.push(format!("Rule {}: {selectors} {}.", index + 1, needs(&rule.require)));
    }
    for class in Class::ALL {
        lines.push(format!("{} {}.", subject(class), needs(&settings.conditions(class, can_ask))));
    }
    lines.push(speed(settings));
    let meaning = |unknown: Unknown| match unknown {
        Unknown::Allow => "allows what needs",
        Unknown::Refuse => "refuses what needs",
        Unknown::Consent => "needs consent for what needs",
    };
    let facts = &settings.facts;
    lines.push(format!(
        "An unknown speed {} a vehicle that does not move; an unknown voltage {} a voltage.",
        meaning(facts.unknown_speed),
        meaning(facts.unknown_voltage),
    ));
    lines
}

fn subject(class: Class) -> &'static str {
    match class {
        Class::Read => "Reading (read)",
        Class::Session => "Changing the session (session)",
        Class::Intrusive => "Changing what an ECU stores or does (intrusive)",
        Class::Programming => "Programming an ECU (programming)",
        Class::Bus => "A raw frame that is no diagnostics (bus)",
        Class::Scan => "A search for all ECUs (scan)",
    }
}

/// Returns the conditions in words, as the end of a sentence.
fn needs(conditions: &[Condition]) -> String {
    if conditions.is_empty() {
        return "is always allowed".to_owned();
    }
    if conditions.contains(&Condition::Never) {
        return "is never allowed".to_owned();
    }
    let words: Vec<_> = conditions
        .iter()
        .map(|condition| match condition {
            Condition::Never => "",
            Condition::NotMoving => "a vehicle that does not move",
            Condition::Stationary => "a speed of 0 for two seconds",
            Condition::EngineOff => "an engine that is off",
            Condition::IgnitionOn => "an ignition that is on",
            Condition::Voltage => "a sufficient voltage",
            Condition::Ticket => "a ticket",
            Condition::VinConfirmed => "the VIN of the ticket",
            Condition::Consent => "consent",
        })
        .collect();
    match words.split_last() {
        Some((last, [])) => format!("needs {last}"),
        Some((last, others)) => format!("needs {} and {last}", others.join(", ")),
        None => String::new(),
    }
}

fn speed(settings: &PolicySettings) -> String {
    let facts = &settings.facts;
    let sources: Vec<_> = facts
        .speed
        .iter()
        .filter_map(|source| match source {
            SpeedFact::Signal(signal) => Some(format!("frames {:03X} of the bus {}", signal.id, signal.bus)),
            SpeedFact::Obd { obd: true } => Some("OBD, when asked".to_owned()),
            SpeedFact::Obd { obd: false } => None,
            SpeedFact::Doip { doip_did } => Some(format!("DoIP's identifier {doip_did:04X}, when asked")),
        })
        .collect();
    let sources = if sources.is_empty() { "nowhere".to_owned() } else { sources.join("; ") };
    format!(
        "The vehicle moves above {} km/h; its speed comes from: {sources}. A voltage below {} V is low.",
        facts.moving_above_kmh, facts.min_volts
    )
}

fn selectors(rule: &Rule) -> String {
    let hex = |numbers: &mut dyn Iterator<Item = u32>, width: usize| {
        numbers.map(|number| format!("{number:0width$X}")).collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    if !rule.services.is_empty() {
        parts.push(format!("service {}", hex(&mut rule.services.iter().map(|n| u32::from(*n)), 2)));
    }
    if !rule.subfunctions.is_empty() {
        parts.push(format!("sub-function {}", hex(&mut rule.subfunctions.iter().map(|n| u32::from(*n)), 2)));
    }
    if !rule.dids.is_empty() {
        parts.push(format!("data identifier {}", hex(&mut rule.dids.iter().map(|n| u32::from(*n)), 4)));
    }
    if !rule.routines.is_empty() {
        parts.push(format!("routine {}", hex(&mut rule.routines.iter().map(|n| u32::from(*n)), 4)));
    }
    if let Some(prefix) = &rule.data_prefix {
        parts.push(format!("data that begins with {}", hex(&mut prefix.0.iter().map(|n| u32::from(*n)), 2)));
    }
    if !rule.ids.is_empty() {
        parts.push(format!("identifier {}", hex(&mut rule.ids.iter().copied(), 3)));
    }
    if !rule.targets.is_empty() {
        parts.push(format!("target {}", hex(&mut rule.targets.iter().map(|n| u32::from(*n)), 2)));
    }
    if let Some(bus) = &rule.bus {
        parts.push(format!("bus {bus}"));
    }
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}
