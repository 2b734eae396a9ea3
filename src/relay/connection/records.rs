//! The way of records through a connection: from the operator's messages to the buses, and back.

use std::task::{Context, Poll};
use std::time::Instant;

use super::RelayConnection;
use super::held_frames::HeldFrame;
use super::programming::{is_programming_frame, may_be_programming};
use super::vin_gate::{VinObstacle, WaitingRecord};
use crate::policy::What;
use crate::relay::channel::{ChannelOutput, Output, PduToSend};
use crate::relay::link::{Incoming, LinkError, PushError};
use crate::relay::wire::codec::{EventCode, Payload, PduFlags, Record, SendFailedDetail};
use crate::relay::wire::{CloseReason, ProblemKind};

impl RelayConnection {
    /// Handles a binary message of the operator.
    pub fn handle_message(&mut self, now: Instant, message: &[u8]) {
        self.handle_heard(now);
        let handled = self.link.handle_message(now, message);
        if self.link.is_all_acknowledged() {
            self.operator.handle_all_acknowledged();
        }
        if self.link.take_other_clock() {
            tracing::info!("the operator continues with another clock");
            self.held_frames.handle_other_clock();
        }
        // the message may have shown how old the frames are that came before it
        self.release_frames(now);
        let incoming = match handled {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "refusing a binary message of the operator");
                let kind = match error {
                    LinkError::Gap { .. } => ProblemKind::SequenceGap,
                    _ => ProblemKind::InvalidBinaryMessage,
                };
                return self.refuse(&kind.problem(format!("{error}.")), None);
            }
        };
        self.update_askable();
        self.handle_records(now, &incoming);
        self.update_keep_alive(now);
        self.serve_policy(now);
        self.collect_outputs(now);
    }

    fn handle_records(&mut self, now: Instant, incoming: &Incoming<'_>) {
        for record in incoming.records() {
            let Some(opened) = self.channels.get(&record.channel) else {
                self.refuse_record(now, &record, SendFailedDetail::ChannelClosed);
                continue;
            };
            let Some(left) = opened.max_age.checked_sub(incoming.age_of(&record)) else {
                self.refuse_record(now, &record, SendFailedDetail::TooOld);
                continue;
            };
            if let Payload::Frame(frame) = record.payload
                && !self.link.has_measured_clock()
                && self.held_frames.is_holding()
            {
                let held = HeldFrame { channel: record.channel, frame, time: incoming.time_of(&record) };
                if !self.held_frames.push(now, held, left) {
                    self.refuse_record(now, &record, SendFailedDetail::QueueFull);
                }
                continue;
            }
            self.handle_record(now, &record, now + left);
        }
    }

    /// Handles the frames that were held, once their age can be measured or the time is over.
    pub(super) fn release_frames(&mut self, now: Instant) {
        let (has_clock, is_measured) = (self.link.has_received_clock(), self.link.has_measured_clock());
        for HeldFrame { channel, frame, time } in self.held_frames.release(now, has_clock, is_measured) {
            let Some(opened) = self.channels.get(&channel) else { continue };
            let record = Record { channel, offset: 0, payload: Payload::Frame(frame) };
            match opened.max_age.checked_sub(self.link.age(now, time)) {
                Some(left) => self.handle_record(now, &record, now + left),
                None => self.refuse_record(now, &record, SendFailedDetail::TooOld),
            }
        }
        self.collect_outputs(now);
    }

    /// Passes a record to its bus, unless it asks for a programming service and the VIN is not confirmed, or follows such a
    /// record.
    fn handle_record(&mut self, now: Instant, record: &Record<'_>, expires: Instant) {
        let is_programming = !self.vin_gate.is_open() && self.is_programming(record);
        let is_request = matches!(record.payload, Payload::Frame(_) | Payload::Pdu { .. });
        if !(is_programming || is_request && self.vin_gate.has_waiting(record.channel)) {
            return self.pass_record(now, record, expires);
        }
        if is_programming {
            self.want_vin();
        }
        if !self.vin_gate.push(now, record, expires, is_programming) {
            self.refuse_record(now, record, SendFailedDetail::QueueFull);
        }
    }

    /// Whether an ECU may read a programming service in this record.
    fn is_programming(&self, record: &Record<'_>) -> bool {
        let Some(opened) = self.channels.get(&record.channel) else { return false };
        let is_in = |what| {
            let (bus, target) = (opened.bus, opened.target);
            self.settings.policy.with(|policy| policy.has_request(bus, target, what, may_be_programming))
        };
        match &record.payload {
            Payload::Frame(frame) => is_programming_frame(frame) || is_in(What::Frame(frame)),
            Payload::Pdu { data, .. } => opened.framings.iter().any(|how| is_in(What::Pdu(data, *how))),
            _ => false,
        }
    }

    /// Refuses the programming services that have waited too long for the VIN.
    pub(super) fn refuse_overdue(&mut self, now: Instant) {
        let waited = self.vin_gate.take_due(now);
        self.release_waiting(now, waited, VinObstacle::NotReadYet);
    }

    /// Passes the records on that waited for the VIN. If the VIN is not confirmed, programming services are refused, and
    /// this obstacle is reported.
    pub(super) fn release_waiting(
        &mut self,
        now: Instant,
        waited: impl IntoIterator<Item = WaitingRecord>,
        obstacle: VinObstacle,
    ) {
        for waiting in waited {
            let record = waiting.record();
            if waiting.is_programming && !self.vin_gate.is_open() {
                let code = SendFailedDetail::RefusedByPolicy as u16;
                let refused = Output::event(EventCode::SendFailed, code, 0, obstacle.text());
                self.refuse_record_by(now, &record, refused);
            } else if waiting.is_too_old(now) {
                self.refuse_record(now, &record, SendFailedDetail::TooOld);
            } else {
                self.pass_record(now, &record, waiting.expires);
            }
        }
        // otherwise the PDUs chained to those that found no room would be sent behind other ones
        for (channel, flags) in self.vin_gate.take_overflowed() {
            self.break_chain(now, channel, flags);
        }
        self.collect_outputs(now);
    }

    /// Passes a record to its bus, which may send it until `expires`.
    fn pass_record(&mut self, now: Instant, record: &Record<'_>, expires: Instant) {
        let Some(index) = self.channels.get(&record.channel).map(|opened| opened.bus) else { return };
        let Some(bus) = self.buses.get_mut(index) else { return };
        if matches!(record.payload, Payload::Frame(_) | Payload::Pdu { .. }) {
            self.records_taken += 1;
            self.last_exchange = Some(now);
            self.keep_alive.handle_request(now);
        }
        match record.payload {
            Payload::Frame(frame) => {
                self.transfers.handle_request_frame(now, record.channel, frame.data());
                bus.channels_mut().handle_frame_to_send(now, record.channel, frame, expires);
            }
            Payload::Pdu { flags, data, .. } => {
                self.pdus_relayed += 1;
                self.transfers.handle_request(now, record.channel, data);
                let pdu = PduToSend { flags, expires, data };
                bus.channels_mut().handle_pdu(now, record.channel, pdu);
            }
            _ => {
                tracing::debug!(
                    channel = record.channel,
                    "ignoring a record that is neither a frame nor a PDU"
                );
            }
        }
    }

    /// Drives the buses; ready when something changed, so that the caller should poll for texts and messages.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut changed = false;
        let mut index = 0;
        while let Some(bus) = self.buses.get_mut(index) {
            let limit = self.settings.limits.max_kept_bytes;
            bus.channels_mut().set_room(limit.saturating_sub(self.link.kept_bytes()), limit);
            if let Poll::Ready(progress) = bus.poll(cx) {
                changed = true;
                let now = tokio::time::Instant::now().into_std();
                self.handle_progress(now, index, progress);
                self.check_returned(index);
                self.collect_outputs(now);
            }
            index += 1;
        }
        if !changed {
            return Poll::Pending;
        }
        self.collect_scans();
        self.serve_policy(tokio::time::Instant::now().into_std());
        Poll::Ready(())
    }

    /// Reports that a PDU or frame was not sent. A PDU that was refused breaks the chain behind it.
    fn refuse_record(&mut self, now: Instant, record: &Record<'_>, detail: SendFailedDetail) {
        self.refuse_record_by(now, record, Output::send_failed(detail));
    }

    fn refuse_record_by(&mut self, now: Instant, record: &Record<'_>, output: Output) {
        let flags = match record.payload {
            Payload::Frame(_) => None,
            Payload::Pdu { flags, .. } => Some(flags),
            _ => return,
        };
        if let Some(flags) = flags {
            self.break_chain(now, record.channel, flags);
        }
        self.emit(now, ChannelOutput { channel: record.channel, at: now, output });
    }

    /// A PDU with these flags was refused: the PDUs that are chained to it will be discarded.
    fn break_chain(&mut self, now: Instant, channel: u16, flags: PduFlags) {
        if let Some(opened) = self.channels.get(&channel)
            && let Some(bus) = self.buses.get_mut(opened.bus)
        {
            bus.channels_mut().handle_refused_pdu(now, channel, flags);
        }
    }

    /// Moves all outputs of the buses to the link.
    pub(super) fn collect_outputs(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(bus) = self.buses.get_mut(index) {
            match bus.channels_mut().poll_output() {
                Some(output) => self.emit(now, output),
                None => index += 1,
            }
        }
    }

    fn emit(&mut self, now: Instant, output: ChannelOutput) {
        if self.closed.is_some() {
            return;
        }
        let ChannelOutput { channel, at, output } = output;
        if matches!(output, Output::Pdu { .. } | Output::Event { .. }) {
            self.last_exchange = Some(now);
        }
        let payload = match &output {
            Output::Frame(frame) => {
                self.transfers.handle_response_frame(channel, frame.data());
                Payload::Frame(*frame)
            }
            Output::Pdu { address, data } => {
                self.pdus_relayed += 1;
                self.transfers.handle_response(now, channel, data);
                Payload::Pdu { address: *address, flags: PduFlags::default(), data }
            }
            Output::Terminal15(on) => Payload::Terminal15 { on: *on },
            Output::Event { code, detail, value, text } => {
                Payload::Event { code: *code, detail: *detail, value: *value, text }
            }
        };
        self.operator.handle_queued(now);
        if let Err(PushError::Overflow) = self.link.push(now, at, channel, payload) {
            tracing::warn!(
                "too many messages wait for the operator's acknowledgement; closing the connection"
            );
            self.close(CloseReason::Overflow);
        }
    }
}
