//! The transports below the channels that carry PDUs.

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use super::output::KeepAliveStop;
use crate::protocol::isotp::{Addressing, SendFailure};
use crate::protocol::uds;
use crate::relay::wire::codec::SendFailedDetail;

/// The transport of complete PDUs below a channel. Its contract is that of [`crate::protocol::isotp`].
pub trait PduTransport: Send + std::fmt::Debug {
    /// Begins to send a PDU. No other PDU is being sent.
    ///
    /// # Errors
    ///
    /// The transport cannot send this PDU, or cannot send a PDU now.
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail>;

    /// Discards the rest of the PDU that is being sent.
    fn abort_send(&mut self);

    /// The next event, in order.
    fn poll_event(&mut self) -> Option<TransportEvent>;

    /// Handles the deadline of [`PduTransport::poll_timeout`].
    fn handle_timeout(&mut self, now: Instant);

    /// When [`PduTransport::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The bus is gone: the PDU that is being sent fails with an event.
    fn handle_bus_off(&mut self, now: Instant);

    /// Stops or allows keep-alive messages of the transport itself.
    fn set_keep_alive(&mut self, _now: Instant, _stop: Option<KeepAliveStop>) {}

    /// A description of the last failure to send, if it is more precise than the detail.
    fn failure_text(&self) -> Option<String> {
        None
    }

    /// The time in which the ECU begins its response, if tester and ECU have agreed upon it.
    fn agreed_p2(&self) -> Option<Duration> {
        None
    }

    /// Whether a PDU is being received, which a TesterPresent might disturb.
    fn is_receiving(&self) -> bool {
        false
    }

    /// Whether anything of the PDU that is being sent may have left. A PDU that has not begun may still become too old.
    fn has_begun(&self) -> bool {
        true
    }

    /// The request that keeps the diagnostic session of the ECU alive (ISO 14229-1, 10.7).
    fn tester_present(&self) -> &'static [u8] {
        &uds::TESTER_PRESENT_SUPPRESSED
    }

    /// The request that returns the ECU to its default session (ISO 14229-1, 10.2).
    fn default_session(&self) -> &'static [u8] {
        &[uds::SESSION_CONTROL, uds::DEFAULT_SESSION]
    }
}

/// An event of a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransportEvent {
    /// The reception of a PDU began, which ends P2.
    ReceptionStarted,
    /// What began was no PDU: P2 counts again.
    ReceptionDropped,
    /// A PDU was received.
    Received {
        /// The address of the sender, as the relay protocol writes it.
        address: u32,
        /// The bytes of the PDU.
        pdu: Vec<u8>,
    },
    /// The reception of a PDU failed.
    ReceiveFailed {
        /// The detail of the event `receive-failed`.
        detail: u16,
        /// A description in words.
        text: &'static str,
    },
    /// The PDU was sent on the bus.
    Sent {
        /// The time from the start of the PDU to its end.
        elapsed: Duration,
    },
    /// The PDU was not sent, or not completely.
    SendFailed {
        /// Why the PDU was not sent.
        detail: SendFailedDetail,
    },
    /// The transport's own connection to the ECU was lost. The next PDU sets it up again.
    ConnectionLost {
        /// Why the connection was lost.
        detail: SendFailedDetail,
        /// A description in words.
        text: &'static str,
    },
}

/// A transport of PDUs over CAN frames.
pub trait FrameTransport: PduTransport {
    /// Handles a frame of another node, or an error frame. Returns whether this transport uses the frame.
    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool;

    /// The oldest frame without an outcome was acknowledged on the bus.
    fn handle_transmitted(&mut self, now: Instant);

    /// The oldest frame without an outcome will not be sent.
    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure);

    /// The next frame for the bus.
    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame>;

    /// Whether a PDU is being received from the one ECU of this transport, which is the sender of this frame.
    fn is_receiving_from(&self, _frame: &CanFrame) -> bool {
        false
    }

    /// Whether this frame may be of an ECU that answers a request of this transport.
    fn may_be_answered_by(&self, _frame: &CanFrame) -> bool {
        true
    }

    /// Another channel receives the PDU of this frame too, and sends flow control.
    fn skip_flow_control(&mut self, _now: Instant, _frame: &CanFrame) {}

    /// The ECU that receives the requests, if it is a single one that identifier and address name.
    fn target(&self) -> Option<EcuTarget> {
        None
    }

    /// Whether requests reach many ECUs.
    fn is_functional(&self) -> bool {
        false
    }

    /// The outcome of setting up the transport's connection to the ECU, if it has one; returned once.
    fn poll_opened(&mut self) -> Option<Result<(), OpenFailure>> {
        None
    }

    /// The frame that ends the connection to the ECU, to be sent when the transport is closed.
    fn farewell(&self) -> Option<CanFrame> {
        None
    }
}

/// What distinguishes an ECU from the others on its bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EcuTarget {
    /// The identifier of the requests.
    pub id: CanId,
    /// The address byte of the requests, with extended or mixed addressing.
    pub address: Option<u8>,
}

impl EcuTarget {
    /// The ECU at this address.
    pub(super) fn of(addressing: &Addressing) -> Self {
        let address = addressing.addresses().map(|(transmit, _)| transmit);
        Self { id: addressing.transmit_id(), address }
    }
}

/// Why a transport could not set up its connection to the ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFailure {
    /// Whether the ECU refused the connection.
    pub is_refusal: bool,
    /// A description in words.
    pub text: &'static str,
}
