//! The lines of the audit: JSON objects with their fields in a fixed order.

use std::fmt::Write as _;
use std::time::Instant;

use super::chain::AuditHash;
use super::entry::{AuditEntry, AuditFacts, AuditWhat, AuditedRefusal};
use super::subject::{AuditSubject, AuditedData, RequestParts};
use crate::policy::consent::ConsentEvent;
use crate::policy::intent::IntentTarget;
use crate::policy::settings::ConsentGiver;

/// The clocks of the device at one moment.
#[derive(Debug, Clone)]
pub struct AuditStamp<'a> {
    /// The identifier of this start of the system.
    pub boot: &'a str,
    /// The moment.
    pub now: Instant,
    /// The time since the start of the system, in milliseconds.
    pub up_ms: u64,
    /// The device's time of day, in milliseconds since 1970.
    pub unix_ms: u64,
}

impl AuditStamp<'_> {
    fn ms_before(&self, at: Instant) -> u64 {
        u64::try_from(self.now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX)
    }

    fn unix_ms_at(&self, at: Instant) -> u64 {
        self.unix_ms.saturating_sub(self.ms_before(at))
    }
}

/// A JSON object that is being written.
struct Object(String);

impl Object {
    /// The fields that begin every line.
    fn begin(previous: AuditHash, entry: &str, stamp: &AuditStamp<'_>, at: Instant) -> Self {
        let mut object = Self("{".to_owned());
        object.text("previous", &previous.to_string());
        object.text("entry", entry);
        object.number("time_ms", stamp.unix_ms_at(at));
        object.text("boot", stamp.boot);
        object.number("up_ms", stamp.up_ms.saturating_sub(stamp.ms_before(at)));
        object
    }

    fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn key(&mut self, key: &str) {
        let comma = if self.0.ends_with('{') { "" } else { "," };
        let _never_fails = write!(self.0, "{comma}\"{key}\":");
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        self.0.push_str(&serde_json::Value::from(value).to_string());
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key);
        let _never_fails = write!(self.0, "{value}");
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key);
        self.0.push_str(if value { "true" } else { "false" });
    }

    fn hex(&mut self, key: &str, value: Option<u32>, digits: usize) {
        if let Some(value) = value {
            self.text(key, &format!("{value:0digits$X}"));
        }
    }

    fn facts(&mut self, facts: &AuditFacts) {
        self.text("motion", facts.motion);
        if let Some(kmh) = facts.speed_kmh {
            self.number("speed_kmh", kmh.into());
        }
        if let Some(decivolts) = facts.decivolts {
            self.key("voltage");
            let _never_fails = write!(self.0, "{}.{}", decivolts / 10, decivolts % 10);
        }
        self.text("engine", facts.engine.name());
        if let Some(on) = facts.ignition {
            self.flag("ignition", on);
        }
    }

    fn subject(&mut self, subject: &AuditSubject) {
        if subject.bus_name.is_empty() {
            self.number("bus_number", subject.bus as u64);
        } else {
            self.text("bus", &subject.bus_name);
        }
        match subject.target {
            IntentTarget::None => {}
            IntentTarget::Can { id, extended } => {
                self.text("target", &id.to_string());
                self.hex("extended_address", extended.map(u32::from), 2);
            }
            IntentTarget::Address(address) => self.hex("target", Some(address.into()), 2),
            IntentTarget::Logical(address) => self.hex("target", Some(address.into()), 4),
        }
        self.text("name", subject.name);
        let RequestParts { service, sub_function, parameter, identifier, routine, .. } = subject.parts;
        self.hex("service", service.map(u32::from), 2);
        self.hex("sub_function", sub_function.map(u32::from), 2);
        self.hex("parameter", parameter.map(u32::from), 2);
        self.hex("identifier", identifier.map(u32::from), 4);
        self.hex("routine", routine.map(u32::from), 4);
        if let Some(AuditedData { length, hash }) = subject.data {
            self.number("length", length as u64);
            if let Some(hash) = hash {
                self.text("sha256", &hash.to_string());
            }
        }
    }

    fn refused(&mut self, refused: &AuditedRefusal) {
        self.subject(&refused.subject);
        self.text("class", refused.refusal.class.name());
        self.number("rule", refused.refusal.rule.into());
        self.text("why", &refused.refusal.why.to_string());
        if !refused.is_enforced {
            self.flag("sent", true);
        }
    }

    fn what(&mut self, what: &AuditWhat, stamp: &AuditStamp<'_>) {
        match what {
            AuditWhat::Refused(refused) => self.refused(refused),
            AuditWhat::RefusedAgain { refused, count, since } => {
                self.refused(refused);
                self.number("count", *count);
                self.number("since_ms", stamp.unix_ms_at(*since));
            }
            AuditWhat::RefusedOthers { count, since } => {
                self.number("count", *count);
                self.number("since_ms", stamp.unix_ms_at(*since));
            }
            AuditWhat::Consent { event, by } => {
                if let Some(class) = event.class() {
                    self.text("class", class.name());
                }
                match by {
                    Some(ConsentGiver::Button) => self.text("by", "button"),
                    Some(ConsentGiver::Ticket) => self.text("by", "ticket"),
                    None => {}
                }
            }
            AuditWhat::ProgrammingBegun(subject) => self.subject(subject),
            AuditWhat::ProgrammingEnded { subject, since, requests, why } => {
                self.subject(subject);
                self.text("why", why);
                self.number("requests", *requests);
                self.number("since_ms", stamp.unix_ms_at(*since));
            }
            AuditWhat::Lost { count } => self.number("count", *count),
        }
    }
}

impl AuditWhat {
    fn name(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::RefusedAgain { .. } => "refused-again",
            Self::RefusedOthers { .. } => "refused-others",
            Self::Consent { event, .. } => match event {
                ConsentEvent::Asked(_) => "consent-asked",
                ConsentEvent::Given(_) => "consent-given",
                ConsentEvent::Unanswered(_) => "consent-unanswered",
                ConsentEvent::Revoked => "consent-revoked",
                ConsentEvent::Ended(_) => "consent-ended",
            },
            Self::ProgrammingBegun(_) => "programming-begun",
            Self::ProgrammingEnded { .. } => "programming-ended",
            Self::Lost { .. } => "lost",
        }
    }
}

impl AuditEntry {
    /// The line of the entry, with its line feed. `previous` is the hash of the line before, without the line feed.
    pub fn line(&self, previous: AuditHash, stamp: &AuditStamp<'_>) -> String {
        let mut object = Object::begin(previous, self.what.name(), stamp, self.at);
        if let Some(connection) = &self.connection {
            object.text("connection", &connection.uuid.to_string());
            if let Some(ticket) = &connection.ticket {
                object.text("ticket", ticket);
            }
        }
        object.what(&self.what, stamp);
        if let Some(facts) = &self.facts {
            object.facts(facts);
        }
        object.end()
    }
}

/// The line that marks the line before as torn: the agent ended while it wrote that line. `previous` is the hash of the
/// line before the torn one.
pub fn torn_line(previous: AuditHash, torn: &[u8], stamp: &AuditStamp<'_>) -> String {
    let mut object = Object::begin(previous, "torn", stamp, stamp.now);
    object.number("length", torn.len() as u64);
    object.text("sha256", &AuditHash::of(torn).to_string());
    object.end()
}
