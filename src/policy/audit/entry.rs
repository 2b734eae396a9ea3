//! The entries of the audit.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::subject::AuditSubject;
use crate::policy::consent::ConsentEvent;
use crate::policy::facts::Engine;
use crate::policy::settings::ConsentGiver;
use crate::policy::verdict::PolicyRefusal;

/// The vehicle at the moment of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditFacts {
    /// `moving`, `stationary` or `unknown`.
    pub(in crate::policy) motion: &'static str,
    /// The highest fresh speed, in whole km/h.
    pub(in crate::policy) speed_kmh: Option<u16>,
    /// The voltage in tenths of a volt.
    pub(in crate::policy) decivolts: Option<u16>,
    pub(in crate::policy) engine: Engine,
    pub(in crate::policy) ignition: Option<bool>,
}

/// The connection that an entry belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct AuditConnection {
    pub(in crate::policy) uuid: Uuid,
    pub(in crate::policy) ticket: Option<Arc<str>>,
}

/// A refusal, and what was refused.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::policy) struct AuditedRefusal {
    pub(in crate::policy) subject: AuditSubject,
    pub(in crate::policy) refusal: PolicyRefusal,
    /// `false` in the mode `observe`.
    pub(in crate::policy) is_enforced: bool,
}

impl AuditedRefusal {
    /// Whether both are of one kind: only the data, the facts and the time differ.
    pub(super) fn is_alike(&self, other: &Self) -> bool {
        let key = |refused: &Self| {
            let AuditedRefusal { subject, refusal, .. } = refused;
            let of = (subject.bus, subject.target, subject.name, subject.parts);
            (of, refusal.rule, refusal.class, discriminant(&refusal.why))
        };
        key(self) == key(other)
    }
}

/// One entry of the audit.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    pub(super) at: Instant,
    pub(super) connection: Option<AuditConnection>,
    pub(super) facts: Option<AuditFacts>,
    pub(super) what: AuditWhat,
}

/// The thing that an entry is about.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::policy) enum AuditWhat {
    /// An intent was refused.
    Refused(AuditedRefusal),
    /// The same was refused again, so often since that time.
    RefusedAgain { refused: AuditedRefusal, count: u64, since: Instant },
    /// Other intents were refused, too many to have a line each.
    RefusedOthers { count: u64, since: Instant },
    /// A change of consent, and what gave the consent.
    Consent { event: ConsentEvent, by: Option<ConsentGiver> },
    /// The first request of programming goes to an ECU.
    ProgrammingBegun(AuditSubject),
    /// Programming of an ECU has ended.
    ProgrammingEnded { subject: AuditSubject, since: Instant, requests: u64, why: &'static str },
    /// Entries that could not be recorded.
    Lost { count: u64 },
}

impl AuditEntry {
    /// An entry that says how many entries could not be recorded.
    pub fn lost(now: Instant, count: u64) -> Self {
        Self { at: now, connection: None, facts: None, what: AuditWhat::Lost { count } }
    }

    /// Whether the entry must have reached the disk before anything else is done for it. Sums may follow later.
    pub fn is_urgent(&self) -> bool {
        !matches!(
            self.what,
            AuditWhat::RefusedAgain { .. } | AuditWhat::RefusedOthers { .. } | AuditWhat::Lost { .. }
        )
    }
}
