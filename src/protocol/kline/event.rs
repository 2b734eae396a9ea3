//! Events, timers and errors of an endpoint.

use std::time::Duration;

use super::heard::Heard;
use super::key_bytes::{KeyByteError, KeyBytes};
use super::message::{MessageError, TooLong};

/// An event of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The communication with the ECU is initialised.
    Up(KeyBytes),
    /// The initialisation failed, or the communication is lost; the next PDU starts another initialisation.
    Down(Failure),
    /// The PDU passed to `send` was sent completely.
    Sent {
        /// Time from the first byte to the end of the last, without the initialisation.
        elapsed: Duration,
    },
    /// The PDU passed to `send` was not sent completely.
    SendFailed(Failure),
    /// The first byte of an answer arrived. [`Event::Received`], [`Event::ReceiveFailed`] or
    /// [`Event::ReceptionDropped`] follows.
    ReceptionStarted,
    /// The bytes that arrived were noise, or a message to another tester.
    ReceptionDropped,
    /// An ECU's message arrived.
    Received {
        /// Address of the ECU.
        source: u8,
        /// Data of the message.
        pdu: Vec<u8>,
    },
    /// An answer was not received completely.
    ReceiveFailed(ReceiveFailure),
    /// No answer to the PDU arrived within P2.
    NoAnswer,
    /// The time for answers to the PDU is over.
    AnswersOver,
    /// A message from or to another tester was on the line.
    OtherTester,
    /// The communication has ended after [`Endpoint::stop`](super::Endpoint::stop).
    Stopped,
}

/// The reason why an initialisation failed, the communication was lost, or a PDU was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No echo of our own bytes arrives: the line has no supply voltage, or no transceiver.
    #[error("our own bytes have no echo on the line")]
    NoEcho,
    /// The echo differs from our own byte: another node sends, or the line is disturbed.
    #[error("our own byte 0x{sent:02X} has the echo 0x{received:02X}")]
    Collision {
        /// The byte that was sent.
        sent: u8,
        /// The byte that was received instead.
        received: u8,
    },
    /// The ECU did not answer the initialisation or TesterPresent.
    #[error("the ECU does not answer")]
    NoAnswer,
    /// The answer to the initialisation or TesterPresent was not received correctly.
    #[error("the ECU's answer is disturbed: {0}")]
    Disturbed(Heard),
    /// The ECU began to answer its 5-baud address and stopped: the key bytes or the complement of the address
    /// are missing.
    #[error("the ECU answered its address with {0} and then stopped")]
    Incomplete(Heard),
    /// The synchronisation byte is not 0x55; most likely the bit rate is wrong.
    #[error("the synchronisation byte is 0x{0:02X} instead of 0x55")]
    Synchronisation(u8),
    /// The key bytes are not those of an ISO 14230 ECU.
    #[error(transparent)]
    KeyBytes(#[from] KeyByteError),
    /// The key bytes are not the configured ones.
    #[error("the ECU's key bytes are {0}, not the expected ones")]
    OtherKeyBytes(KeyBytes),
    /// The ECU confirmed another address than its own.
    #[error("the ECU confirmed another address with 0x{0:02X}")]
    Address(u8),
    /// The ECU refused StartCommunication.
    #[error("the ECU refused StartCommunication with code 0x{0:02X}")]
    Refused(u8),
    /// The key bytes do not allow messages of this length.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The line was in use for longer than P3max, so the ECU has ended the communication.
    #[error("the line was not free for TesterPresent within P3max")]
    NotKeptAlive,
    /// Bytes of other nodes are on the line all the time.
    #[error("the line is in use by another tester")]
    LineInUse,
    /// The PDU was withdrawn before it was sent.
    #[error("the PDU was withdrawn before it was sent")]
    Aborted,
}

impl Failure {
    /// Returns whether another attempt at the initialisation can succeed.
    pub(super) fn is_worth_another_attempt(self) -> bool {
        !matches!(
            self,
            Self::OtherKeyBytes(_)
                | Self::Refused(_)
                | Self::KeyBytes(KeyByteError::OtherProtocol(..))
                | Self::LineInUse
                | Self::Aborted
        )
    }
}

/// The reason why an answer was not received completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveFailure {
    /// The next byte did not arrive within P1.
    #[error("the next byte of the answer did not arrive in time (P1)")]
    Incomplete,
    /// The received bytes are not a message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// The reason why [`Endpoint::send`](super::Endpoint::send) did not accept a PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Another PDU is waiting or being sent, or many events have not been read.
    #[error("another PDU is being sent, or many events have not been read")]
    Busy,
    /// The PDU is empty, or too long for a message to this ECU.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The timers of an endpoint (ISO 14230-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// P3min or W5: the line is idle before a transmission.
    Idle,
    /// T_WUP: the high level of the fast initialisation ends.
    TWup,
    /// P1: the next byte of an answer is due.
    P1,
    /// P2: an answer is due.
    P2,
    /// P3max: an answer after response pending is due.
    P2Star,
    /// P4: the next byte of the request can be sent.
    P4,
    /// The echo of our own byte, or the end of our slow signal, is due.
    Echo,
    /// W1: the synchronisation byte is due.
    W1,
    /// W2: key byte 1 is due.
    W2,
    /// W3: key byte 2 is due.
    W3,
    /// W4: the complement of key byte 2 or of the address is due.
    W4,
}
