//! What an endpoint reports, what it waits for, and what can go wrong.

use std::time::Duration;

use super::key_bytes::{KeyByteError, KeyBytes};
use super::message::{MessageError, TooLong};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The link is set up.
    Up(KeyBytes),
    /// The link could not be set up, or is lost; the next PDU has it tried again.
    Down(Failure),
    /// The PDU given to `send` is on the line.
    Sent {
        /// From its first byte to the end of its last; setting the link up is not counted.
        elapsed: Duration,
    },
    /// The PDU given to `send` was not sent whole.
    SendFailed(Failure),
    /// The first byte of an answer came.
    ReceptionStarted,
    /// An ECU's message.
    Received {
        /// The sender's address.
        source: u8,
        /// Its data.
        pdu: Vec<u8>,
    },
    /// An answer did not come whole.
    ReceiveFailed(ReceiveFailure),
    /// No answer to the PDU came within P2.
    NoAnswer,
    /// The ECU was told to end the communication.
    Stopped,
}

/// Why the link could not be set up, was lost, or a PDU was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Our own bytes do not come back: the line has no supply, or no transceiver.
    #[error("our own bytes do not come back from the line")]
    NoEcho,
    /// Our own bytes come back as others: somebody else sends, or the line is disturbed.
    #[error("our own byte 0x{sent:02X} came back as 0x{received:02X}")]
    Collision {
        /// What we sent.
        sent: u8,
        /// What came back.
        received: u8,
    },
    /// The ECU did not answer the initialisation or TesterPresent.
    #[error("the ECU does not answer")]
    NoAnswer,
    /// The answer to the initialisation was broken.
    #[error("the ECU's answer is disturbed")]
    Disturbed,
    /// The synchronisation byte was not 0x55: most likely the bit rate is another.
    #[error("the synchronisation byte is 0x{0:02X} instead of 0x55")]
    Synchronisation(u8),
    /// The key bytes are none of ISO 14230.
    #[error(transparent)]
    KeyBytes(#[from] KeyByteError),
    /// The key bytes are not those that were expected.
    #[error("the ECU's key bytes are {0}, and not the expected ones")]
    OtherKeyBytes(KeyBytes),
    /// The ECU did not confirm its address.
    #[error("the ECU confirmed another address by 0x{0:02X}")]
    Address(u8),
    /// The ECU refused StartCommunication.
    #[error("the ECU refused StartCommunication with code 0x{0:02X}")]
    Refused(u8),
    /// The key bytes do not allow messages as long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// Others had the line for so long that the ECU has ended the communication (P3max).
    #[error("the line was not free for TesterPresent within P3max")]
    NotKeptAlive,
    /// It was taken back.
    #[error("it was taken back")]
    Aborted,
}

impl Failure {
    /// Whether trying the initialisation again can help.
    pub(super) fn is_worth_another_attempt(self) -> bool {
        !matches!(
            self,
            Self::OtherKeyBytes(_)
                | Self::Refused(_)
                | Self::KeyBytes(KeyByteError::OtherProtocol(..))
                | Self::Aborted
        )
    }
}

/// Why an answer did not come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveFailure {
    /// The next byte did not come within P1.
    #[error("the answer's next byte did not come (P1)")]
    Incomplete,
    /// What came is no message.
    #[error(transparent)]
    Message(#[from] MessageError),
}

/// Why [`Endpoint::send`](super::Endpoint::send) took nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Another PDU is on its way, or its answer is due.
    #[error("another PDU is under way")]
    Busy,
    /// No ECU takes so much, or so little.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// What an endpoint waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Timer {
    /// The line has to be idle for P3min or W5 before anything is sent.
    Idle,
    /// The high level of the fast initialisation.
    TWup,
    /// The next byte of an answer.
    P1,
    /// An answer.
    P2,
    /// An answer after response pending.
    P2Star,
    /// The next byte of the request.
    P4,
    /// Our own byte, or slow signal, to come back.
    Echo,
    /// The synchronisation byte.
    W1,
    /// Key byte 1.
    W2,
    /// Key byte 2.
    W3,
    /// The complement of key byte 2, and that of the address.
    W4,
}
