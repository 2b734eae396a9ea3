//! A recorded diagnostic session, separated into the tool's requests and the ECUs' answers with their times,
//! so that either side can be replayed.

mod player;
mod reassembly;
mod roles;
mod steps;

use connector_agent::protocol::isotp::Padding;
use connector_hal::can::CanId;

pub use player::RecordedEcu;
pub use reassembly::RecordedPdu;
pub use roles::Roles;
pub use steps::{RecordedAnswer, ToolStep};

use super::candump::Record;
use super::transport::TransportConfig;
use reassembly::Reassembly;
use steps::is_response;

/// A recorded session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    records: Vec<Record>,
    roles: Roles,
    steps: Vec<ToolStep>,
    /// The ISO-TP parameters of each ECU in `roles`.
    transports: Vec<TransportConfig>,
    unexplained: Vec<RecordedPdu>,
    broken: usize,
}

/// The reasons why a log cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// No identifier carries responses to another's requests.
    #[error("the log has no diagnostic session: no ECU answers any request in it")]
    NoEcu,
}

impl Recording {
    /// Analyses a log. Infers the tool and the ECUs from their messages.
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

    /// The recorded frames of both sides.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The identifiers of the tool and the ECUs.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The tool's side: its requests, with the answers to them.
    pub fn tool_steps(&self) -> &[ToolStep] {
        &self.steps
    }

    /// Answers without a request.
    pub fn unexplained(&self) -> &[RecordedPdu] {
        &self.unexplained
    }

    /// The number of incomplete PDUs in the log.
    pub fn broken(&self) -> usize {
        self.broken
    }

    /// The ECUs' side: request and response identifiers and ISO-TP parameters of each ECU.
    pub fn ecus(&self) -> impl Iterator<Item = (CanId, CanId, &TransportConfig, RecordedEcu)> {
        self.roles.ecus.iter().zip(&self.transports).map(|(&(request, response), transport)| {
            (request, response, transport, RecordedEcu::new(&self.steps, request, response))
        })
    }
}

/// The padding of a sender's single frames.
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

/// Assigns each answer to the last request of its service that its sender received.
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
            roles.receives(id, step.request_id)
                && step.pdu.first().is_some_and(|asked| is_response(&pdu, *asked))
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
