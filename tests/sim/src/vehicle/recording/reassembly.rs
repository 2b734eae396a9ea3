//! Reassembles PDUs from the frames of both sides.

use std::collections::BTreeMap;
use std::time::Duration;

use connector_agent::protocol::isotp::{NPdu, SeparationTime};
use connector_hal::can::{CanFrame, CanId};

/// A PDU of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedPdu {
    /// The identifier of the PDU.
    pub id: CanId,
    /// When the PDU's first frame was on the bus, since the recording's start.
    pub start: Duration,
    /// When the PDU's last frame was on the bus.
    pub end: Duration,
    /// The PDU.
    pub pdu: Vec<u8>,
}

/// A flow control of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordedFlowControl {
    /// The sender of the flow control.
    pub from: CanId,
    /// The sender of the first frame that the flow control answers.
    pub to: CanId,
    pub block_size: u8,
    pub st_min: SeparationTime,
}

#[derive(Debug)]
struct Partial {
    start: Duration,
    length: usize,
    data: Vec<u8>,
    next: u8,
}

/// Reassembles the PDUs of every identifier (normal addressing).
#[derive(Debug, Default)]
pub(super) struct Reassembly {
    partial: BTreeMap<CanId, Partial>,
    /// The identifier of the first frame that waits for a flow control.
    waiting: Option<CanId>,
    pub pdus: Vec<RecordedPdu>,
    pub flow_controls: Vec<RecordedFlowControl>,
    /// The number of incomplete PDUs.
    pub broken: usize,
}

impl Reassembly {
    pub(crate) fn handle_frame(&mut self, time: Duration, frame: &CanFrame) {
        let id = frame.id();
        let n_pdu = match NPdu::decode(frame.data(), 0) {
            Ok(n_pdu) if frame.is_data() => n_pdu,
            _ => return,
        };
        match n_pdu {
            NPdu::SingleFrame { data } => {
                self.interrupt(id);
                self.pdus.push(RecordedPdu { id, start: time, end: time, pdu: data.to_vec() });
            }
            NPdu::FirstFrame { length, data } => {
                self.interrupt(id);
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                self.partial.insert(id, Partial { start: time, length, data: data.to_vec(), next: 1 });
                self.waiting = Some(id);
            }
            NPdu::ConsecutiveFrame { sequence_number, data } => {
                self.handle_consecutive_frame(time, id, sequence_number, data)
            }
            NPdu::FlowControl { block_size, st_min, .. } => {
                if let Some(to) = self.waiting.filter(|to| *to != id) {
                    self.flow_controls.push(RecordedFlowControl { from: id, to, block_size, st_min });
                }
            }
        }
    }

    fn handle_consecutive_frame(&mut self, time: Duration, id: CanId, sequence_number: u8, data: &[u8]) {
        let Some(partial) = self.partial.get_mut(&id) else { return };
        if sequence_number != partial.next {
            return self.interrupt(id);
        }
        partial.next = (sequence_number + 1) & 0x0F;
        let left = partial.length.saturating_sub(partial.data.len());
        partial.data.extend(data.iter().take(left));
        if partial.data.len() == partial.length
            && let Some(Partial { start, data: pdu, .. }) = self.partial.remove(&id)
        {
            self.pdus.push(RecordedPdu { id, start, end: time, pdu });
        }
    }

    fn interrupt(&mut self, id: CanId) {
        self.broken += usize::from(self.partial.remove(&id).is_some());
    }

    /// Ends the log. PDUs that are still incomplete count as broken.
    pub(crate) fn finish(&mut self) {
        self.broken += self.partial.len();
        self.partial.clear();
    }
}
