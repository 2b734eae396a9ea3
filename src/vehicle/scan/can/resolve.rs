//! Assigning answers to requests.
//!
//! A sweep sends many requests before the first answer can come, and the answer's identifier does not name
//! the request: most ECUs answer 8 above their request, but not all. So every request shortly before an
//! answer is a candidate. The likeliest candidate is asked again alone. If that is not answered, the others
//! are halved until one is left, which is asked alone too. So an ECU counts as found only after it answered a
//! request that was sent alone.

use std::collections::BTreeMap;

use connector_hal::can::CanId;

/// The offsets from a request's identifier to the answer's, the likeliest first. Those of single makers come
/// from known vehicles (Volkswagen, Nissan, General Motors, BMW's gateway, and a few more).
const OFFSETS: [i32; 9] = [8, 0x6A, -0x280, 0x40, 0x400, 0x20, 0x10, 0x80, 3];

/// The answers of a sweep, and the requests that they may belong to.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// By answer: the requests shortly before it.
    seen: BTreeMap<CanId, Vec<CanId>>,
    /// By answer that is not assigned yet: its candidates.
    open: BTreeMap<CanId, Vec<CanId>>,
    /// By answer: its request.
    resolved: BTreeMap<CanId, CanId>,
    /// Requests that several ECUs answer.
    functional: Vec<CanId>,
    /// An answer belongs to no request.
    has_stray: bool,
    current: Option<ResolverQuestion>,
}

/// The candidates that are asked now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolverQuestion {
    pub(super) answer: CanId,
    pub(super) requests: Vec<CanId>,
    others: Vec<CanId>,
    was_answered: bool,
}

impl Resolver {
    /// Whether an answer with this identifier came.
    pub(super) fn knows(&self, answer: CanId) -> bool {
        self.seen.contains_key(&answer)
    }

    /// An answer came, after these requests.
    pub(super) fn handle_answer(&mut self, answer: CanId, requests: impl Iterator<Item = CanId>) {
        let candidates = self.seen.entry(answer).or_default();
        for request in requests {
            if request != answer && !candidates.contains(&request) {
                candidates.push(request);
            }
        }
        self.open.insert(answer, candidates.clone());
    }

    /// An answer came while candidates are asked.
    pub(super) fn handle_answer_again(&mut self, answer: CanId) -> bool {
        match &mut self.current {
            Some(question) if question.answer == answer => {
                question.was_answered = true;
                true
            }
            _ => false,
        }
    }

    /// The number of answers that are not assigned yet.
    pub(super) fn open(&self) -> usize {
        self.open.len() + usize::from(self.current.is_some())
    }

    /// The next question; `None` when all answers are assigned.
    pub(super) fn next_question(&mut self) -> Option<ResolverQuestion> {
        if let Some(question) = self.current.take() {
            self.close(question);
        }
        while let Some((answer, mut candidates)) = self.take_open() {
            candidates.retain(|request| !self.functional.contains(request));
            if candidates.is_empty() {
                self.has_stray = true;
                continue;
            }
            let likely = likely(answer, &candidates);
            let requests = match likely {
                Some((_, request)) => vec![request],
                None => candidates.iter().copied().take(candidates.len().div_ceil(2)).collect(),
            };
            let others = candidates.into_iter().filter(|request| !requests.contains(request)).collect();
            let question = ResolverQuestion { answer, requests, others, was_answered: false };
            self.current = Some(question.clone());
            return Some(question);
        }
        None
    }

    /// An answer that is not assigned yet: the one with the likeliest request, because the time may not suffice
    /// for all.
    fn take_open(&mut self) -> Option<(CanId, Vec<CanId>)> {
        let open = self.open.iter();
        let ranked = open.filter_map(|(answer, candidates)| Some((likely(*answer, candidates)?.0, *answer)));
        match ranked.min() {
            Some((_, answer)) => self.open.remove_entry(&answer),
            None => self.open.pop_first(),
        }
    }

    /// Whether an answer belongs to no request: some node answers at random, so that an answer may fit a
    /// request by accident.
    pub(super) fn has_stray(&self) -> bool {
        self.has_stray
    }

    /// The question of [`Resolver::next_question`] is not asked now, but later.
    pub(super) fn postpone(&mut self) {
        if let Some(ResolverQuestion { answer, mut requests, others, .. }) = self.current.take() {
            requests.extend(others);
            self.open.insert(answer, requests);
        }
    }

    /// The ECU with this answer did not answer again.
    pub(super) fn retract(&mut self, answer: CanId) {
        self.resolved.remove(&answer);
    }

    /// The question was answered, or the time for an answer is over.
    fn close(&mut self, question: ResolverQuestion) {
        let ResolverQuestion { answer, requests, others, was_answered } = question;
        match (&*requests, was_answered) {
            ([request], true) => self.resolve(answer, *request),
            (_, true) => drop(self.open.insert(answer, requests)),
            (_, false) => drop(self.open.insert(answer, others)),
        }
    }

    fn resolve(&mut self, answer: CanId, request: CanId) {
        let same = self.resolved.iter().find(|(_, of)| **of == request).map(|(answer, _)| *answer);
        let Some(same) = same else {
            self.resolved.insert(answer, request);
            return;
        };
        // all that answer to one identifier have one of their own besides
        self.functional.push(request);
        self.resolved.remove(&same);
        for answer in [same, answer] {
            let candidates = self.seen.get(&answer).cloned().unwrap_or_default();
            self.open.insert(answer, candidates);
        }
    }

    /// Request and answer of each ECU.
    pub(super) fn resolved(&self) -> impl Iterator<Item = (CanId, CanId)> {
        self.resolved.iter().map(|(answer, request)| (*request, *answer))
    }
}

/// The candidate with the likeliest known offset to the answer, after the rank of the offset.
fn likely(answer: CanId, candidates: &[CanId]) -> Option<(usize, CanId)> {
    OFFSETS.iter().enumerate().find_map(|(rank, offset)| {
        let request = i64::from(answer.raw()) - i64::from(*offset);
        let is_it = |id: &&CanId| i64::from(id.raw()) == request && id.is_extended() == answer.is_extended();
        candidates.iter().find(is_it).map(|request| (rank, *request))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u32) -> CanId {
        CanId::standard_truncated(id)
    }

    /// Simulates a vehicle: `sweep` has the possible requests of each answer, `truth` the real one. Returns
    /// the resolved pairs and the number of requests.
    fn resolve(sweep: &[(u32, &[u32])], truth: &[(u32, u32)]) -> (Vec<(u32, u32)>, usize) {
        let mut resolver = Resolver::default();
        for (answer, candidates) in sweep {
            resolver.handle_answer(id(*answer), candidates.iter().map(|request| id(*request)));
        }
        let mut questions = 0;
        while let Some(question) = resolver.next_question() {
            questions += 1;
            assert!(questions < 200);
            for request in &question.requests {
                for (_, answer) in truth.iter().filter(|(of, _)| id(*of) == *request) {
                    resolver.handle_answer_again(id(*answer));
                }
            }
        }
        (resolver.resolved().map(|(request, answer)| (request.raw(), answer.raw())).collect(), questions)
    }

    #[test]
    fn the_usual_offsets_take_one_question() {
        let candidates: Vec<u32> = (0x700..0x750).collect();
        assert_eq!(resolve(&[(0x748, &candidates)], &[(0x740, 0x748)]), (vec![(0x740, 0x748)], 1));
        assert_eq!(resolve(&[(0x77C, &candidates)], &[(0x712, 0x77C)]), (vec![(0x712, 0x77C)], 1));
        assert_eq!(resolve(&[(0x4C2, &candidates)], &[(0x742, 0x4C2)]).0, [(0x742, 0x4C2)]);
    }

    #[test]
    fn any_other_offset_is_found_by_halving() {
        let candidates: Vec<u32> = (0x600..0x650).collect();
        for request in [0x600, 0x61F, 0x64F] {
            let (found, questions) = resolve(&[(0x5A1, &candidates)], &[(request, 0x5A1)]);
            assert_eq!(found, [(request, 0x5A1)]);
            assert!(questions <= 10, "{questions}");
        }
    }

    #[test]
    fn an_identifier_without_answers_is_not_an_ecu() {
        let candidates: Vec<u32> = (0x600..0x650).collect();
        assert_eq!(resolve(&[(0x648, &candidates), (0x5A1, &candidates)], &[]).0, []);
    }

    #[test]
    fn a_functional_identifier_belongs_to_no_ecu() {
        let sweep: [(u32, &[u32]); 2] = [(0x71A, &[0x700, 0x710]), (0x71D, &[0x700, 0x713])];
        let truth = [(0x700, 0x71A), (0x700, 0x71D), (0x710, 0x71A), (0x713, 0x71D)];
        assert_eq!(resolve(&sweep, &truth).0, [(0x710, 0x71A), (0x713, 0x71D)]);
    }
}
