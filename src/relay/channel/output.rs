//! What a channel reports to the operator.

use std::borrow::Cow;
use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::CanFrame;

use super::last_request::NO_RESPONSE;
use crate::policy::PolicyRefusal;
use crate::protocol::isotp::{ReceiveFailure, SendFailure};
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};

/// Why the connector no longer sends TesterPresent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepAliveStop {
    /// The ignition has been off for long.
    IgnitionOff,
    /// The supply voltage has been low for long, and the ignition cannot be read.
    LowVoltage,
    /// The operator has sent no PDU for long.
    OperatorIdle,
}

impl KeepAliveStop {
    /// The reason in words.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::IgnitionOff => "the ignition is off: TesterPresent is stopped to save the battery",
            Self::LowVoltage => "the supply voltage is low: TesterPresent is stopped to save the battery",
            Self::OperatorIdle => "the operator has sent no PDU for long: TesterPresent is stopped",
        }
    }
}

/// A PDU of the operator.
#[derive(Debug, Clone, Copy)]
pub struct PduToSend<'a> {
    /// Its flags.
    pub flags: PduFlags,
    /// The time until which it may begin to be sent. A chained PDU has no such time: it waits for the response to the
    /// PDU before it.
    pub expires: Instant,
    /// Its bytes.
    pub data: &'a [u8],
}

/// An output of one channel, and when it was on the bus.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelOutput {
    /// The channel's number.
    pub channel: u16,
    /// When the frame or PDU was on the bus, or the event happened.
    pub at: Instant,
    /// The output itself.
    pub output: Output,
}

/// What a channel reports to the operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A frame that was on the bus.
    Frame(CanFrame),
    /// A PDU that an ECU sent.
    Pdu {
        /// The sender's address, as the relay protocol writes it: a CAN identifier, a DoIP or K-line address.
        address: u32,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// The ignition: on, off, or unknown.
    Terminal15(Option<bool>),
    /// An event of the relay protocol.
    Event {
        /// Its kind.
        code: EventCode,
        /// Its detail, whose meaning depends on the kind.
        detail: u16,
        /// Its number, whose meaning depends on the kind.
        value: u32,
        /// A description in words.
        text: Cow<'static, str>,
    },
}

impl Output {
    /// An event of this kind, described in words.
    pub(crate) fn event(
        code: EventCode,
        detail: u16,
        value: u32,
        text: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::Event { code, detail, value, text: text.into() }
    }

    /// The event that reports why something was not sent.
    pub(crate) fn send_failed(detail: SendFailedDetail) -> Self {
        Self::event(EventCode::SendFailed, detail as u16, 0, describe(detail))
    }

    /// The event that reports what the policy refused, and why.
    pub(crate) fn refused(refusal: &PolicyRefusal) -> Self {
        let detail = SendFailedDetail::RefusedByPolicy as u16;
        Self::event(EventCode::SendFailed, detail, refusal.rule, refusal.to_string())
    }

    /// The event that reports how many PDUs were discarded because the PDU before them failed. The code is that
    /// of the negative response, or [`NO_RESPONSE`].
    pub(super) fn chain_broken(code: u8, discarded: u32) -> Self {
        let text = match code {
            NO_RESPONSE => "the PDU before got no positive response",
            _ => "the PDU before got a negative response",
        };
        Self::event(EventCode::ChainBroken, u16::from(code), discarded, text)
    }

    /// The event that reports the new state of a bus, or of the connection that a channel needs on it.
    pub(crate) fn bus_state(state: BusState, text: impl Into<Cow<'static, str>>) -> Self {
        let detail = match state {
            BusState::Active => 0,
            BusState::Passive => 1,
            BusState::Off => 2,
        };
        Self::event(EventCode::BusState, detail, 0, text)
    }
}

pub(super) fn describe(detail: SendFailedDetail) -> &'static str {
    match detail {
        SendFailedDetail::FlowControlTimeout => "the ECU sent no flow control in time",
        SendFailedDetail::FlowControlOverflow => "the ECU cannot take a PDU of this length",
        SendFailedDetail::BusOff => "the bus is off",
        SendFailedDetail::NotAcknowledged => "no node acknowledged the frame",
        SendFailedDetail::QueueFull => "the channel's queue is full",
        SendFailedDetail::RefusedByPolicy => "this channel may not send such a record",
        SendFailedDetail::ChannelClosed => "the channel is not open",
        SendFailedDetail::TooOld => "the record arrived too late to be sent",
    }
}

pub(super) fn detail_of(failure: SendFailure) -> SendFailedDetail {
    match failure {
        SendFailure::FlowControlTimeout | SendFailure::WaitLimit | SendFailure::InvalidFlowStatus => {
            SendFailedDetail::FlowControlTimeout
        }
        SendFailure::Overflow => SendFailedDetail::FlowControlOverflow,
        SendFailure::BusOff => SendFailedDetail::BusOff,
        SendFailure::NotAcknowledged => SendFailedDetail::NotAcknowledged,
    }
}

/// The detail of the event `receive-failed`, and its description in words.
pub(super) fn receive_failed(failure: ReceiveFailure) -> (u16, &'static str) {
    match failure {
        ReceiveFailure::ConsecutiveFrameTimeout => (1, "the next consecutive frame did not come (N_Cr)"),
        ReceiveFailure::WrongSequenceNumber => (2, "a consecutive frame was missing"),
        ReceiveFailure::TooLong => (3, "the PDU is longer than allowed"),
        ReceiveFailure::NotAcknowledged => (1, "the flow control was not acknowledged on the bus (N_Ar)"),
        ReceiveFailure::Interrupted => (2, "the ECU began another PDU before this one was complete"),
        ReceiveFailure::NoFlowControlAddress => {
            (1, "no flow control was sent: write the ECU in response_ids as an object with its request_id")
        }
    }
}
