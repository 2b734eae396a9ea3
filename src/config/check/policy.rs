//! The contradictions in `[policy]`.

use std::ops::RangeInclusive;

use crate::config::configuration::Config;
use crate::config::problem::ConfigProblem;
use crate::policy::{Class, Condition, ConsentGiver, MAX_RULES, PolicySettings, SpeedFact, SpeedSignal};

/// The longest data field of a frame, in bits.
const FRAME_BITS: u32 = 64 * 8;
/// The greatest CAN identifier.
const MAX_ID: u32 = 0x1FFF_FFFF;

/// Everything that is wrong with the policy.
pub(super) fn check(config: &Config) -> Vec<ConfigProblem> {
    let policy = &config.policy;
    let mut problems = bounds(policy);
    for (index, source) in policy.facts.speed.iter().enumerate() {
        if let SpeedFact::Signal(signal) = source {
            problems.extend(
                check_signal(config, signal).map(|p| p.at_key(format!("policy.facts.speed[{index}]"))),
            );
        }
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        let wrong = rule.bus.as_deref().filter(|name| !has_bus(config, name));
        problems.extend(wrong.map(|name| unknown_bus(name).at_key(format!("policy.rule[{index}].bus"))));
        problems.extend(wrong_id(&rule.ids).map(|p| p.at_key(format!("policy.rule[{index}].ids"))));
        let has_target = rule.bus.is_some() || !rule.ids.is_empty() || !rule.targets.is_empty();
        if rule.is_about_channels() && !has_target && index + 1 < policy.rules.len() {
            let what = "the rule matches everything, so that no later rule is reached";
            let warning = ConfigProblem::warning(what, "add selectors, or make it the last one");
            problems.push(warning.at_key(format!("policy.rule[{index}]")));
        }
    }
    problems.extend(wrong_id(&policy.facts.diagnostic_ids).map(|p| p.at_key("policy.facts.diagnostic_ids")));
    problems.extend(unmet(config));
    problems
}

fn has_bus(config: &Config, name: &str) -> bool {
    config.buses.iter().any(|bus| bus.name.as_deref() == Some(name))
}

fn unknown_bus(name: &str) -> ConfigProblem {
    ConfigProblem::error(format!("no bus is named {name}"), "give a [[bus]] this name, or correct it here")
}

fn check_signal(config: &Config, signal: &SpeedSignal) -> Option<ConfigProblem> {
    let (start, bits) = (u32::from(signal.start), u32::from(signal.bits));
    if !has_bus(config, &signal.bus) {
        return Some(unknown_bus(&signal.bus));
    }
    let (what, fix) = if !(1..=32).contains(&bits) {
        (format!("{bits} bits are out of range"), "set bits to 1 to 32")
    } else if start + bits > FRAME_BITS {
        (format!("the signal ends behind bit {FRAME_BITS}, the last of a frame"), "correct start and bits")
    } else if signal.id > MAX_ID {
        return wrong_id(&[signal.id]);
    } else if !signal.scale.is_finite() || signal.scale == 0.0 || !signal.offset.is_finite() {
        ("the signal's scale or offset is not a usable number".to_owned(), "set the km/h of one step")
    } else {
        return None;
    };
    Some(ConfigProblem::error(what, fix))
}

/// The first of these that is not a CAN identifier.
fn wrong_id(ids: &[u32]) -> Option<ConfigProblem> {
    let id = ids.iter().find(|id| **id > MAX_ID)?;
    Some(ConfigProblem::error(format!("{id:X} is not a CAN identifier"), "set id to at most 0x1FFFFFFF"))
}

fn bounds(policy: &PolicySettings) -> Vec<ConfigProblem> {
    let (facts, consent) = (&policy.facts, &policy.consent);
    let numbers: [(&str, f64, RangeInclusive<f64>); 6] = [
        ("policy.rule", as_f64(policy.rules.len()), 0.0..=as_f64(MAX_RULES)),
        ("policy.facts.speed_stale_ms", facts.speed_stale_ms.into(), 200.0..=60_000.0),
        ("policy.facts.moving_above_kmh", facts.moving_above_kmh.into(), 0.0..=20.0),
        ("policy.facts.min_volts", facts.min_volts.into(), 0.0..=60.0),
        ("policy.consent.ttl_minutes", consent.ttl_minutes.into(), 1.0..=1440.0),
        ("policy.consent.ask_seconds", consent.ask_seconds.into(), 10.0..=600.0),
    ];
    let wrong = numbers.into_iter().filter(|(_, value, range)| !range.contains(value));
    wrong
        .map(|(key, value, range)| {
            let fix = format!("set {} to {}", range.start(), range.end());
            ConfigProblem::error(format!("{value} is out of range"), fix).at_key(key)
        })
        .collect()
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}

/// Conditions that this device can never meet.
fn unmet(config: &Config) -> Vec<ConfigProblem> {
    let policy = &config.policy;
    let mut conditions: Vec<(String, Vec<Condition>)> = Class::ALL
        .into_iter()
        .map(|class| (format!("policy.require.{class}"), policy.conditions(class, false)))
        .collect();
    conditions.extend(
        policy
            .rules
            .iter()
            .enumerate()
            .map(|(index, rule)| (format!("policy.rule[{index}].require"), rule.require.clone())),
    );
    let gives_consent = policy.consent.by.contains(&ConsentGiver::Ticket)
        || config.board.button.is_some() && policy.consent.by.contains(&ConsentGiver::Button);
    let has_speed = policy.facts.speed.iter().any(|source| !matches!(source, SpeedFact::Obd { obd: false }));
    let mut problems = Vec::new();
    for (key, conditions) in conditions {
        if conditions.contains(&Condition::Stationary) && !has_speed {
            let fix = "add a source to policy.facts.speed, or remove the condition";
            problems.push(
                ConfigProblem::warning("this device has no source of the speed", fix).at_key(key.clone()),
            );
        }
        if conditions.contains(&Condition::Consent) && !gives_consent {
            let fix = "configure board.button, let a ticket give consent, or remove the condition";
            problems.push(
                ConfigProblem::warning("no one can give consent on this device", fix).at_key(key.clone()),
            );
        }
        if conditions.contains(&Condition::IgnitionOn) && config.board.ignition.is_none() {
            let fix = "configure board.ignition, or remove the condition";
            problems.push(ConfigProblem::warning("this device cannot read the ignition", fix).at_key(key));
        }
    }
    problems
}
