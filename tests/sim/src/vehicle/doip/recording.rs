//! A recorded DoIP gateway: its messages, and a gateway that says the same.

use std::collections::BTreeMap;
use std::time::Duration;

use connector_agent::protocol::doip::codec::{DecodeError, decode_datagram};
use connector_agent::protocol::doip::{Announcement, LogicalAddress, Message, Payload};

use super::ecus::Step;
use crate::doip::EntityConfig;
use crate::vehicle::hex::{self, HexError};

/// UDP or TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The vehicle, to the tester.
    Vehicle,
    /// The vehicle, to everybody.
    Announcement,
    /// The tester.
    Tester,
}

/// A line of the recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoipRecord {
    /// Since the beginning.
    pub at: Duration,
    /// By what.
    pub carrier: Carrier,
    /// Who.
    pub speaker: Speaker,
    /// The tester's port, which tells its connections apart.
    pub tester_port: u16,
    /// The message, as it was on the wire.
    pub bytes: Vec<u8>,
}

/// Why a recording can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A line is not as it should be.
    #[error("line {line}: {what}")]
    Line {
        /// Which.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The message is not in hexadecimal.
    #[error("line {line}: {source}")]
    Hex {
        /// Which.
        line: usize,
        /// What is wrong.
        source: HexError,
    },
    /// The vehicle said what is no message.
    #[error("line {line}: {source}")]
    Message {
        /// Which.
        line: usize,
        /// What is wrong.
        source: DecodeError,
    },
    /// The gateway does not say who it is.
    #[error("there is no announcement")]
    NoAnnouncement,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct DoipRecording {
    records: Vec<DoipRecord>,
    messages: Vec<Option<Message>>,
    announcement: Announcement,
}

impl DoipRecording {
    /// Reads the text of a recording: a line each, seconds, `udp` or `tcp`, who>whom, source>destination port, hex.
    pub fn parse(text: &str) -> Result<Self, RecordingError> {
        let (mut records, mut messages, mut announcement) = (Vec::new(), Vec::new(), None);
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let record = parse_line(line, text)?;
            let message = match decode_datagram(&record.bytes) {
                Ok(message) => Some(message),
                // a tester may have said anything
                Err(_) if record.speaker == Speaker::Tester => None,
                Err(source) => return Err(RecordingError::Message { line, source }),
            };
            if let Some(Message { payload: Payload::Announcement(said), .. }) = &message {
                announcement.get_or_insert(*said);
            }
            records.push(record);
            messages.push(message);
        }
        let announcement = announcement.ok_or(RecordingError::NoAnnouncement)?;
        Ok(Self { records, messages, announcement })
    }

    /// All that was said.
    pub fn records(&self) -> &[DoipRecord] {
        &self.records
    }

    /// The gateway, as what it said tells.
    pub fn entity(&self) -> EntityConfig {
        let mut entity = EntityConfig::new(self.announcement.address, None, self.announcement.eid);
        entity.announcement = self.announcement;
        entity.functional.clear();
        for (record, message) in self.records.iter().zip(&self.messages) {
            let Some(message) = message.as_ref().filter(|_| record.speaker != Speaker::Tester) else {
                continue;
            };
            entity.version = message.version;
            match &message.payload {
                Payload::EntityStatusResponse(status) => {
                    entity.node_type = status.node_type;
                    entity.max_sockets = status.max_sockets;
                    entity.max_data_size = status.max_data_size;
                }
                Payload::PowerModeResponse(mode) => entity.power_mode = Some(*mode),
                Payload::ActivationResponse(response) => entity.activation.oem_answer = response.oem,
                _ => {}
            }
        }
        entity.targets = self.ecus().into_iter().map(|(address, _)| address).collect();
        entity
    }

    /// What each ECU was asked, and what it answered after how long; requests that the gateway did not acknowledge
    /// never reached one.
    pub(super) fn ecus(&self) -> Vec<(LogicalAddress, Vec<Step>)> {
        let mut ecus: BTreeMap<LogicalAddress, Vec<Step>> = BTreeMap::new();
        ecus.insert(self.announcement.address, Vec::new());
        // the last request by tester and ECU, which counts once it is acknowledged
        let mut asked: BTreeMap<(LogicalAddress, LogicalAddress), (Duration, Vec<u8>)> = BTreeMap::new();
        for (record, message) in self.records.iter().zip(&self.messages) {
            match message.as_ref().map(|message| &message.payload) {
                Some(Payload::Diagnostic(request)) if record.speaker == Speaker::Tester => {
                    asked.insert((request.source, request.target), (record.at, request.data.clone()));
                }
                Some(Payload::DiagnosticAck(ack)) => {
                    if let Some((_, request)) = asked.get(&(ack.target, ack.source)) {
                        let steps = ecus.entry(ack.source).or_default();
                        steps.push(Step { request: request.clone(), answers: Vec::new() });
                    }
                }
                Some(Payload::Diagnostic(answer)) => {
                    if let Some((at, _)) = asked.get(&(answer.target, answer.source))
                        && let Some(step) = ecus.get_mut(&answer.source).and_then(|steps| steps.last_mut())
                    {
                        step.answers.push((record.at.saturating_sub(*at), answer.data.clone()));
                    }
                }
                _ => {}
            }
        }
        ecus.into_iter().collect()
    }
}

fn parse_line(line: usize, text: &str) -> Result<DoipRecord, RecordingError> {
    let wrong = |what| RecordingError::Line { line, what };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [at, carrier, who, ports, digits] = *fields.as_slice() else {
        return Err(wrong("five fields: seconds, udp or tcp, who>whom, ports, message"));
    };
    let at: f64 = at.parse().map_err(|_| wrong("the time is a number of seconds"))?;
    let at = Duration::try_from_secs_f64(at).map_err(|_| wrong("the time is not below zero"))?;
    let carrier = match carrier {
        "udp" => Carrier::Udp,
        "tcp" => Carrier::Tcp,
        _ => return Err(wrong("udp or tcp")),
    };
    let speaker = match who {
        "vehicle>tester" => Speaker::Vehicle,
        "vehicle>broadcast" => Speaker::Announcement,
        "tester>vehicle" => Speaker::Tester,
        _ => return Err(wrong("vehicle>tester, vehicle>broadcast or tester>vehicle")),
    };
    let ports = ports.split_once('>').ok_or_else(|| wrong("source>destination port"))?;
    let port = if speaker == Speaker::Tester { ports.0 } else { ports.1 };
    let tester_port = port.parse().map_err(|_| wrong("a port is a number up to 65535"))?;
    let bytes = hex::parse(digits).map_err(|source| RecordingError::Hex { line, source })?;
    Ok(DoipRecord { at, carrier, speaker, tester_port, bytes })
}
