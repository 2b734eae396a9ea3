//! The questions of a reader: those that wait, those that are open, and those that were asked before.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::CanId;

use super::event::ReaderTimer;
use super::probes::{STAGES, VinProbe};
use crate::vehicle::vin::answer::Service;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QuestionProgress {
    /// The question is on its way onto the bus.
    Sending,
    /// P2 is running.
    Until(Instant),
    Over,
}

/// A question of the current stage.
#[derive(Debug)]
struct OpenQuestion {
    probe: VinProbe,
    /// The index of the peer that the question went to.
    peer: usize,
    progress: QuestionProgress,
}

/// All questions of a reader, stage by stage.
#[derive(Debug)]
pub(super) struct Questions {
    stage: usize,
    /// Questions that are not sent yet.
    queue: VecDeque<VinProbe>,
    /// The questions of the current stage that were sent.
    open: Vec<OpenQuestion>,
    /// Every question that was sent.
    history: Vec<VinProbe>,
    /// Questions to send again at a later time.
    repeats: Vec<(Instant, VinProbe)>,
}

impl Questions {
    /// The questions of the first stage.
    pub(super) fn new() -> Self {
        Self {
            stage: 0,
            queue: STAGES.first().copied().unwrap_or_default().iter().copied().collect(),
            open: Vec::new(),
            history: Vec::new(),
            repeats: Vec::new(),
        }
    }

    /// Whether a question waits to be sent.
    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn pop_queued(&mut self) -> Option<VinProbe> {
        self.queue.pop_front()
    }

    pub(super) fn clear_queue(&mut self) {
        self.queue.clear();
    }

    /// Whether no question was sent yet.
    pub(super) fn is_first(&self) -> bool {
        self.history.is_empty()
    }

    /// A question was handed to this peer.
    pub(super) fn handle_sent(&mut self, probe: VinProbe, peer: usize) {
        self.open.push(OpenQuestion { probe, peer, progress: QuestionProgress::Sending });
        self.history.push(probe);
    }

    /// Queues the questions of the next stage; false if there is none.
    pub(super) fn begin_next_stage(&mut self) -> bool {
        self.stage += 1;
        self.open.clear();
        let probes = STAGES.get(self.stage);
        self.queue.extend(probes.copied().into_iter().flatten());
        probes.is_some()
    }

    /// The number of stages after the current one.
    pub(super) fn stages_left(&self) -> u32 {
        u32::try_from(STAGES.len().saturating_sub(self.stage + 1)).unwrap_or(u32::MAX)
    }

    /// Ends the questions whose P2 is over, and queues the repetitions that are due.
    pub(super) fn expire(&mut self, now: Instant) {
        for question in &mut self.open {
            if matches!(question.progress, QuestionProgress::Until(at) if now >= at) {
                question.progress = QuestionProgress::Over;
            }
        }
        let due = self.repeats.extract_if(.., |(at, _)| now >= *at);
        self.queue.extend(due.map(|(_, probe)| probe));
    }

    /// Whether an answer to a question may still begin.
    pub(super) fn any_open(&self) -> bool {
        self.open.iter().any(|question| question.progress != QuestionProgress::Over)
    }

    pub(super) fn has_repeats(&self) -> bool {
        !self.repeats.is_empty()
    }

    /// Sends this question again at this time.
    pub(super) fn repeat(&mut self, at: Instant, probe: VinProbe) {
        self.repeats.push((at, probe));
    }

    /// The service that the ECU of this response identifier was asked for last.
    pub(super) fn service_asked_of(&self, address: CanId) -> Option<Service> {
        let reaches = |probe: &&VinProbe| probe.target.response().is_none_or(|response| response == address);
        self.history.iter().rev().find(reaches).map(|probe| probe.service)
    }

    /// Whether the ECU of this response identifier was asked for this service.
    pub(super) fn was_asked(&self, service: Service, address: CanId) -> bool {
        self.history.iter().any(|probe| {
            probe.service == service && probe.target.response().is_none_or(|response| response == address)
        })
    }

    /// The question that is being sent to this peer got this far.
    pub(super) fn set_progress(&mut self, peer: usize, progress: QuestionProgress) {
        let is_sending = |question: &&mut OpenQuestion| {
            question.peer == peer && question.progress == QuestionProgress::Sending
        };
        if let Some(question) = self.open.iter_mut().find(is_sending) {
            question.progress = progress;
        }
    }

    /// An answer begins. P2 counts to its first frame; a functional request may have more answers.
    pub(super) fn end_p2_of(&mut self, address: CanId) {
        for question in &mut self.open {
            if question.probe.target.response() == Some(address) {
                question.progress = QuestionProgress::Over;
            }
        }
    }

    /// The deadlines of the open questions and of the repetitions.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (Instant, ReaderTimer)> {
        let answers = self.open.iter().filter_map(|question| match question.progress {
            QuestionProgress::Until(at) => Some((at, ReaderTimer::P2)),
            QuestionProgress::Sending | QuestionProgress::Over => None,
        });
        answers.chain(self.repeats.iter().map(|(at, _)| (*at, ReaderTimer::Repeat)))
    }
}
