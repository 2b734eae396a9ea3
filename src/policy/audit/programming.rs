//! The ECUs that are being programmed.

use std::time::{Duration, Instant};

use super::entry::AuditWhat;
use super::subject::AuditSubject;
use crate::policy::intent::IntentTarget;

/// Programming of an ECU that gets no request for this long has ended. Erasing a memory can take minutes.
const IDLE: Duration = Duration::from_secs(300);
/// The most ECUs that are watched at a time; a further one ends the line of the oldest.
const MAX_ECUS: usize = 16;

/// Whether this request ends the programming of its ECU, and how: the default session, a reset, or the end of the link.
pub(in crate::policy) fn ends_programming(request: &[u8]) -> Option<&'static str> {
    match request {
        [0x10, 0x01 | 0x81, ..] | [0x20, ..] => Some("the ECU was sent back to its default session"),
        [0x11, ..] => Some("the ECU was reset"),
        [0x82] => Some("the link to the ECU was ended"),
        _ => None,
    }
}

/// Whether the requests of a channel with the first target can reach the second one. A channel of raw frames has no address
/// byte, and its frames have any.
fn reaches(channel: IntentTarget, ecu: IntentTarget) -> bool {
    match (channel, ecu) {
        (IntentTarget::Can { id, extended: None }, IntentTarget::Can { id: of, .. }) => id == of,
        _ => channel == ecu,
    }
}

#[derive(Debug)]
struct Programmed {
    subject: AuditSubject,
    since: Instant,
    last: Instant,
    requests: u64,
}

impl Programmed {
    fn ended(self, why: &'static str) -> AuditWhat {
        let Self { subject, since, requests, .. } = self;
        AuditWhat::ProgrammingEnded { subject, since, requests, why }
    }
}

#[derive(Debug, Default)]
pub(super) struct ProgrammingWatch(Vec<Programmed>);

impl ProgrammingWatch {
    /// Handles a request to an ECU. Returns whether the ECU is being programmed.
    pub(super) fn handle_request(&mut self, now: Instant, bus: usize, target: IntentTarget) -> bool {
        let is_of = |one: &&mut Programmed| (one.subject.bus, one.subject.target) == (bus, target);
        let Some(programmed) = self.0.iter_mut().find(is_of) else { return false };
        programmed.requests += 1;
        programmed.last = now;
        true
    }

    /// Begins to watch an ECU. Returns the end of another one, which makes room.
    pub(super) fn begin(&mut self, now: Instant, subject: &AuditSubject) -> Option<AuditWhat> {
        let ended =
            (self.0.len() >= MAX_ECUS).then(|| self.0.remove(0).ended("too many ECUs are programmed"));
        self.0.push(Programmed { subject: subject.without_data(), since: now, last: now, requests: 1 });
        ended
    }

    /// Ends the programming of an ECU.
    pub(super) fn end(&mut self, bus: usize, target: IntentTarget, why: &'static str) -> Option<AuditWhat> {
        self.end_if(why, |subject| (subject.bus, subject.target) == (bus, target))
    }

    /// Ends the programming of an ECU whose channel closed. A channel of raw frames may have several ECUs.
    pub(super) fn end_of_channel(&mut self, bus: usize, target: IntentTarget) -> Option<AuditWhat> {
        self.end_if("its channel was closed", |subject| subject.bus == bus && reaches(target, subject.target))
    }

    fn end_if(&mut self, why: &'static str, is_of: impl Fn(&AuditSubject) -> bool) -> Option<AuditWhat> {
        let index = self.0.iter().position(|one| is_of(&one.subject))?;
        Some(self.0.remove(index).ended(why))
    }

    /// Returns the next end that is due, because of time or because the connection closes.
    pub(super) fn poll_end(&mut self, now: Instant, is_closing: bool) -> Option<AuditWhat> {
        let index = self.0.iter().position(|one| is_closing || one.last + IDLE <= now)?;
        let why = if is_closing { "the connection ended" } else { "the ECU got no request for five minutes" };
        Some(self.0.remove(index).ended(why))
    }

    /// When [`Self::poll_end`] may have something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0.iter().map(|one| one.last + IDLE).min()
    }
}
