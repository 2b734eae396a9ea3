//! The entries that the policy makes for its audit.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::Policy;
use super::audit::{
    AuditConnection, AuditEntry, AuditFacts, AuditSubject, AuditWhat, AuditedRefusal, RequestParts,
    ends_programming,
};
use super::class::{Class, Mode};
use super::intent::{Intent, IntentTarget, Stage, What};
use super::services::classify;
use super::state::to_number;
use super::verdict::PolicyRefusal;

/// The longest identifier of a ticket in the audit, in bytes. The vendor's have eight.
const MAX_TICKET: usize = 64;

impl Policy {
    /// Names the connection that is opened next, for the audit.
    pub fn announce_connection(&mut self, uuid: Uuid, ticket: Option<&str>) {
        let ticket = ticket.map(|ticket| {
            Arc::from(ticket.get(..ticket.floor_char_boundary(MAX_TICKET)).unwrap_or_default())
        });
        self.audit.next = Some(AuditConnection { uuid, ticket });
    }

    /// Returns the next entry for the audit.
    pub fn poll_audit(&mut self, now: Instant) -> Option<AuditEntry> {
        self.update_audit(now);
        self.audit.poll(now)
    }

    /// Adds the entries that are due because of time, consent, or the end of the connection.
    pub(super) fn update_audit(&mut self, now: Instant) {
        if !self.consent.has_unaudited() && !self.audit.is_due(now) {
            return;
        }
        let facts = self.audit_facts(now);
        while let Some((event, by)) = self.consent.poll_unaudited() {
            self.audit.push(now, facts, AuditWhat::Consent { event, by });
        }
        self.audit.handle_timeout(now, facts);
    }

    /// Handles a refusal.
    pub(super) fn audit_refusal(
        &mut self,
        now: Instant,
        stage: Stage,
        intent: &Intent<'_>,
        refusal: &PolicyRefusal,
    ) {
        let is_enforced = self.settings.mode == Mode::Enforce;
        let is_judged_again =
            matches!(intent.what, What::Pdu(..) | What::Frame(_)) && stage == Stage::Arrival;
        if !is_enforced && is_judged_again {
            return;
        }
        let (target, parts, request) = match intent.what {
            What::Pdu(request, _) => (intent.target, RequestParts::of(intent.target, request), Some(request)),
            What::Frame(frame) => {
                let id = IntentTarget::Can { id: frame.id(), extended: None };
                let (target, parts) = self.audit.in_frame.take().unwrap_or((id, RequestParts::default()));
                (target, parts, None)
            }
            _ => (intent.target, RequestParts::default(), None),
        };
        let subject = AuditSubject::new(intent.bus, target, refusal.name, parts);
        let refused = AuditedRefusal { subject, refusal: *refusal, is_enforced };
        let facts = self.audit_facts(now);
        self.audit.handle_refusal(now, facts, refused, |subject| match request {
            Some(request) => subject.with_data(request),
            None => subject,
        });
    }

    /// Handles a request that goes out.
    pub(super) fn audit_sent(&mut self, now: Instant, intent: &Intent<'_>, request: &[u8]) {
        let (bus, target) = (intent.bus.index, intent.target);
        if let Some(why) = ends_programming(request) {
            return self.audit_programming_end(now, bus, target, why);
        }
        if self.audit.handle_request(now, bus, target) {
            return;
        }
        let classified = classify(request);
        if classified.class != Class::Programming {
            return;
        }
        let parts = RequestParts::of(target, request);
        let subject = AuditSubject::new(intent.bus, target, classified.name(), parts);
        // a frame has only the beginning of a request
        let is_whole = matches!(intent.what, What::Pdu(..));
        let subject = if is_whole { subject.with_data(request) } else { subject };
        let facts = self.audit_facts(now);
        self.audit.handle_begin(now, facts, subject);
    }

    /// Handles the end of an ECU's programming.
    pub(super) fn audit_programming_end(
        &mut self,
        now: Instant,
        bus: usize,
        target: IntentTarget,
        why: &'static str,
    ) {
        if let Some(ended) = self.audit.take_end(bus, target, why) {
            let facts = self.audit_facts(now);
            self.audit.push(now, facts, ended);
        }
    }

    fn audit_facts(&self, now: Instant) -> AuditFacts {
        AuditFacts {
            motion: self.facts.motion(now).name(),
            speed_kmh: self.facts.kmh(now).map(to_number),
            decivolts: self.facts.volts().map(|volts| to_number(volts * 10.0)),
            engine: self.facts.engine(now),
            ignition: self.facts.ignition(),
        }
    }
}
