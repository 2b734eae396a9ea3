//! A recorded diagnostic session, taken apart into what the tool asked and what which ECU answered when, so that
//! either side can be played again.

mod player;
mod reassembly;
mod roles;

use std::time::Duration;

use connector_agent::protocol::isotp::Padding;
use connector_hal::can::CanId;

pub use player::RecordedEcu;
pub use reassembly::RecordedPdu;
pub use roles::Roles;

use super::candump::Record;
use super::ecu::Target;
use super::transport::TransportConfig;
use reassembly::Reassembly;

/// What one ECU answered to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedAnswer {
    /// The ECU's response identifier.
    pub response_id: CanId,
    /// From the request's last frame to the answer's first.
    pub delay: Duration,
    /// The answer.
    pub pdu: Vec<u8>,
}

/// What the tool asked, and all the answers to it, response pending included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolStep {
    /// Who was asked.
    pub target: Target,
    /// Under which identifier.
    pub request_id: CanId,
    /// Since the recording's start: when the request's first frame was on the bus.
    pub start: Duration,
    /// When its last frame was.
    pub end: Duration,
    /// The request.
    pub pdu: Vec<u8>,
    /// The answers in the order they came.
    pub answers: Vec<RecordedAnswer>,
}

/// A recorded session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    records: Vec<Record>,
    roles: Roles,
    steps: Vec<ToolStep>,
    /// For each ECU of the roles, how it speaks ISO-TP.
    transports: Vec<TransportConfig>,
    unexplained: Vec<RecordedPdu>,
    broken: usize,
}

/// A log in which nobody asks and answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// No identifier carries responses to another's requests.
    #[error("the log has no diagnostic session: no ECU answers any request in it")]
    NoEcu,
}

impl Recording {
    /// Takes a log apart; who is tool and who is ECU is found out from what they say.
    pub fn new(records: Vec<Record>) -> Result<Self, RecordingError> {
        let mut listener = Reassembly::default();
        let origin = records.first().map(|record| record.time).unwrap_or_default();
        for record in &records {
            listener.handle_frame(record.time.saturating_sub(origin), &record.frame);
        }
        listener.finish();
        let roles = Roles::infer(&listener.pdus, &listener.flow_controls);
        if roles.ecus.is_empty() {
            return Err(RecordingError::NoEcu);
        }
        let transports = roles.ecus.iter().map(|(_, response)| {
            let asked = listener.flow_controls.iter().find(|control| control.from == *response);
            let defaults = TransportConfig::default();
            TransportConfig {
                padding: padding(&records, *response),
                block_size: asked.map_or(defaults.block_size, |control| control.block_size),
                st_min: asked.map_or(defaults.st_min, |control| control.st_min),
                ..defaults
            }
        });
        let transports = transports.collect();
        let (steps, unexplained) = attribute(listener.pdus, &roles);
        Ok(Self { records, roles, steps, transports, unexplained, broken: listener.broken })
    }

    /// The frames, both sides', as they were recorded.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Who is who.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The tool's side: what it asked, with the answers it got.
    pub fn tool_steps(&self) -> &[ToolStep] {
        &self.steps
    }

    /// Answers to nothing that was asked.
    pub fn unexplained(&self) -> &[RecordedPdu] {
        &self.unexplained
    }

    /// How many PDUs of the log have no end.
    pub fn broken(&self) -> usize {
        self.broken
    }

    /// The ECUs' side: each with its request and response identifiers, and how it speaks ISO-TP.
    pub fn ecus(&self) -> impl Iterator<Item = (CanId, CanId, &TransportConfig, RecordedEcu)> {
        self.roles.ecus.iter().zip(&self.transports).map(|(&(request, response), transport)| {
            (request, response, transport, RecordedEcu::new(&self.steps, request, response))
        })
    }
}

/// How a sender fills up its single frames.
fn padding(records: &[Record], id: CanId) -> Padding {
    let mut short = records.iter().filter(|record| record.frame.id() == id).filter_map(|record| match record
        .frame
        .data()
    {
        [length @ 1..=6, rest @ ..] => Some(rest.get(usize::from(*length)..)?.first().copied()),
        _ => None,
    });
    match short.next() {
        Some(Some(byte)) => Padding::Enabled(byte),
        Some(None) => Padding::Disabled,
        None => TransportConfig::default().padding,
    }
}

/// Gives each answer to the last request of its service that its sender heard.
fn attribute(pdus: Vec<RecordedPdu>, roles: &Roles) -> (Vec<ToolStep>, Vec<RecordedPdu>) {
    let mut steps: Vec<ToolStep> = Vec::new();
    let mut unexplained = Vec::new();
    for recorded in pdus {
        let RecordedPdu { id, start, end, pdu } = recorded;
        if let Some(target) = roles.target(id) {
            steps.push(ToolStep { target, request_id: id, start, end, pdu, answers: Vec::new() });
            continue;
        }
        let step = steps.iter_mut().rev().find(|step| {
            roles.hears(id, step.request_id) && step.pdu.first().is_some_and(|asked| answers(&pdu, *asked))
        });
        match step {
            Some(step) => {
                let delay = start.saturating_sub(step.end);
                step.answers.push(RecordedAnswer { response_id: id, delay, pdu });
            }
            None => unexplained.push(RecordedPdu { id, start, end, pdu }),
        }
    }
    (steps, unexplained)
}

/// Whether a PDU is a response, positive or negative, of the service.
fn answers(pdu: &[u8], service: u8) -> bool {
    match *pdu {
        [0x7F, refused, ..] => refused == service,
        [first, ..] => Some(first) == service.checked_add(0x40),
        [] => false,
    }
}
