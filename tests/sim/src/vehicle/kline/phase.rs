//! The phase of an ECU's communication, and the initialisations of other ECUs on the line.

use std::time::Instant;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Asleep,
    /// Key byte 2 is sent; its complement is expected.
    AwaitsComplement {
        since: Instant,
    },
    Communicating,
}

/// The slow initialisation of another ECU, whose bytes are not a message. With a tolerance, the pauses
/// between these bytes are no longer than those within a request, so the ECU recognises the bytes by their
/// values.
#[derive(Debug)]
pub(super) struct Overheard {
    pub(super) address: u8,
    pub(super) bytes: Vec<u8>,
}

impl Overheard {
    /// Whether `byte` is the next byte of the initialisation.
    pub(super) fn accepts(&mut self, byte: u8) -> bool {
        let is_next = match self.bytes[..] {
            // the synchronisation byte: no message begins with it
            [] => byte >> 6 == 1,
            [_] | [_, _] => true,
            [_, _, second] => byte == !second,
            [_, _, _, _] => byte == !self.address,
            _ => false,
        };
        if is_next {
            self.bytes.push(byte);
        }
        is_next
    }
}
