//! A recorded DoIP gateway: its messages, and the behaviour that follows from them.

use std::collections::BTreeMap;
use std::time::Duration;

use connector_agent::protocol::doip::codec::{DecodeError, decode_datagram};
use connector_agent::protocol::doip::{Announcement, LogicalAddress, Message, Payload};

use super::ecus::RecordedRequest;
use connector_operator::doip_entity::EntityConfig;
use connector_operator::hex::{self, HexError};

/// The transport of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// The sender of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// The vehicle, in a message to the tester.
    Vehicle,
    /// The vehicle, in a broadcast.
    Announcement,
    /// The tester.
    Tester,
}

/// A line of the recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoipRecord {
    /// Time since the start of the recording.
    pub at: Duration,
    /// The transport.
    pub carrier: Carrier,
    /// The sender.
    pub speaker: Speaker,
    /// The tester's port, which distinguishes its connections.
    pub tester_port: u16,
    /// The message, as on the wire.
    pub bytes: Vec<u8>,
}

/// The reasons why a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DoipRecordingError {
    /// A line does not have the right form.
    #[error("line {line}: {what}")]
    Line {
        /// The line, counted from 1.
        line: usize,
        /// The expected form.
        what: &'static str,
    },
    /// The message is not hex.
    #[error("line {line}: {source}")]
    Hex {
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        source: HexError,
    },
    /// The vehicle sent bytes that are not a DoIP message.
    #[error("line {line}: {source}")]
    Message {
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        source: DecodeError,
    },
    /// The gateway never announces itself.
    #[error("the recording has no announcement")]
    NoAnnouncement,
}

/// The messages of a recorded DoIP gateway.
#[derive(Debug, Clone)]
pub struct DoipRecording {
    records: Vec<DoipRecord>,
    messages: Vec<Option<Message>>,
    announcement: Announcement,
}

impl DoipRecording {
    /// Parses the text of a recording. Each line has five fields: seconds, `udp` or `tcp`, sender>receiver,
    /// source>destination port, message in hex.
    pub fn parse(text: &str) -> Result<Self, DoipRecordingError> {
        let (mut records, mut messages, mut announcement) = (Vec::new(), Vec::new(), None);
        for (index, text) in text.lines().enumerate() {
            let line = index + 1;
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let record = parse_line(line, text)?;
            let message = match decode_datagram(&record.bytes) {
                Ok(message) => Some(message),
                // a tester may have sent anything
                Err(_) if record.speaker == Speaker::Tester => None,
                Err(source) => return Err(DoipRecordingError::Message { line, source }),
            };
            if let Some(Message { payload: Payload::Announcement(first), .. }) = &message {
                announcement.get_or_insert(*first);
            }
            records.push(record);
            messages.push(message);
        }
        let announcement = announcement.ok_or(DoipRecordingError::NoAnnouncement)?;
        Ok(Self { records, messages, announcement })
    }

    /// All messages, of both sides.
    pub fn records(&self) -> &[DoipRecord] {
        &self.records
    }

    /// The gateway's configuration, as its messages show it.
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

    /// The recorded requests to each ECU, and the answers with their delays. Requests that the gateway did
    /// not acknowledge did not reach an ECU.
    pub(super) fn ecus(&self) -> Vec<(LogicalAddress, Vec<RecordedRequest>)> {
        let mut ecus: BTreeMap<LogicalAddress, Vec<RecordedRequest>> = BTreeMap::new();
        ecus.insert(self.announcement.address, Vec::new());
        // the last request for each tester and ECU, which counts once it is acknowledged
        let mut asked: BTreeMap<(LogicalAddress, LogicalAddress), (Duration, Vec<u8>)> = BTreeMap::new();
        for (record, message) in self.records.iter().zip(&self.messages) {
            match message.as_ref().map(|message| &message.payload) {
                Some(Payload::Diagnostic(request)) if record.speaker == Speaker::Tester => {
                    asked.insert((request.source, request.target), (record.at, request.data.clone()));
                }
                Some(Payload::DiagnosticAck(ack)) => {
                    if let Some((_, request)) = asked.get(&(ack.target, ack.source)) {
                        let steps = ecus.entry(ack.source).or_default();
                        steps.push(RecordedRequest { request: request.clone(), answers: Vec::new() });
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

fn parse_line(line: usize, text: &str) -> Result<DoipRecord, DoipRecordingError> {
    let wrong = |what| DoipRecordingError::Line { line, what };
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [at, carrier, parties, ports, digits] = *fields.as_slice() else {
        return Err(wrong("expected five fields: seconds, udp or tcp, sender>receiver, ports, message"));
    };
    let at: f64 = at.parse().map_err(|_| wrong("the time is not a number of seconds"))?;
    let at = Duration::try_from_secs_f64(at).map_err(|_| wrong("the time is negative or too large"))?;
    let carrier = match carrier {
        "udp" => Carrier::Udp,
        "tcp" => Carrier::Tcp,
        _ => return Err(wrong("expected udp or tcp")),
    };
    let speaker = match parties {
        "vehicle>tester" => Speaker::Vehicle,
        "vehicle>broadcast" => Speaker::Announcement,
        "tester>vehicle" => Speaker::Tester,
        _ => return Err(wrong("expected vehicle>tester, vehicle>broadcast or tester>vehicle")),
    };
    let ports = ports.split_once('>').ok_or_else(|| wrong("expected source>destination port"))?;
    let port = if speaker == Speaker::Tester { ports.0 } else { ports.1 };
    let tester_port = port.parse().map_err(|_| wrong("a port is a number up to 65535"))?;
    let bytes = hex::parse(digits).map_err(|source| DoipRecordingError::Hex { line, source })?;
    Ok(DoipRecord { at, carrier, speaker, tester_port, bytes })
}
